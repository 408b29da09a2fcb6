/*
 * backend.h: what a backend is: the functions that the entry points of kernels/src call, for each scalar type.
 *
 * Arguments are checked already; pointers, shapes and NULL rules are those of mover.h, pointers to numbers being in the
 * memory of the backend. Layout functions take the arrays of a call from an arena, see internal.h.
 */
#ifndef MOVER_BACKEND_H
#define MOVER_BACKEND_H

#include "internal.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MOVER_BACKEND_DECLARE(backend, real, S)                                                                        \
    void mover_##backend##_cost_layout_##S(const mover_cost_desc *desc, mover_arena *arena);                           \
    mover_status mover_##backend##_cost_forward_##S(const mover_cost_desc *desc, const real *x, const real *y,         \
                                                    real *cost, void *workspace, const mover_exec *exec);              \
    void mover_##backend##_cost_backward_layout_##S(const mover_cost_desc *desc, mover_arena *arena);                  \
    mover_status mover_##backend##_cost_backward_##S(const mover_cost_desc *desc, const real *x, const real *y,        \
                                                     const real *grad_cost, real *grad_x, real *grad_y,                \
                                                     void *workspace, const mover_exec *exec);                         \
    void mover_##backend##_sinkhorn_layout_##S(const mover_sinkhorn_desc *desc, mover_arena *arena);                   \
    mover_status mover_##backend##_sinkhorn_forward_##S(                                                               \
        const mover_sinkhorn_desc *desc, const real *cost, const real *a, const real *b, real *plan, real *f, real *g, \
        int32_t *n_iter, real *marginal_error, void *workspace, const mover_exec *exec);                               \
    void mover_##backend##_sinkhorn_backward_layout_##S(const mover_sinkhorn_desc *desc, mover_arena *arena);          \
    mover_status mover_##backend##_sinkhorn_backward_##S(const mover_sinkhorn_desc *desc, const real *plan,            \
                                                         const real *grad_plan, real *grad_cost, real *grad_a,         \
                                                         real *grad_b, void *workspace, const mover_exec *exec);       \
    void mover_##backend##_transport_layout_##S(const mover_transport_desc *desc, mover_arena *arena);                 \
    mover_status mover_##backend##_transport_forward_##S(                                                              \
        const mover_transport_desc *desc, const real *x, const real *y, const real *a, const real *b, real *plan,      \
        real *cost, real *f, real *g, int32_t *n_iter, real *marginal_error, void *workspace, const mover_exec *exec); \
    void mover_##backend##_transport_backward_layout_##S(const mover_transport_desc *desc, mover_arena *arena);        \
    mover_status mover_##backend##_transport_backward_##S(                                                             \
        const mover_transport_desc *desc, const real *x, const real *y, const real *plan, const real *grad_plan,       \
        const real *grad_cost, real *grad_x, real *grad_y, real *grad_a, real *grad_b, void *workspace,                \
        const mover_exec *exec);                                                                                       \
    void mover_##backend##_transport_value_layout_##S(const mover_transport_desc *desc, mover_arena *arena);           \
    mover_status mover_##backend##_transport_value_forward_##S(                                                        \
        const mover_transport_desc *desc, const real *x, const real *y, const real *a, const real *b, real *value,     \
        real *f, real *g, void *workspace, const mover_exec *exec);                                                    \
    void mover_##backend##_transport_value_backward_layout_##S(const mover_transport_desc *desc, mover_arena *arena);  \
    mover_status mover_##backend##_transport_value_backward_##S(                                                       \
        const mover_transport_desc *desc, const real *x, const real *y, const real *a, const real *b, const real *f,   \
        const real *g, const real *grad_value, real *grad_x, real *grad_y, real *grad_a, real *grad_b,                 \
        void *workspace, const mover_exec *exec);                                                                      \
    mover_status mover_##backend##_gram_forward_##S(const mover_gram_desc *desc, const real *v, real *gram,            \
                                                    const mover_exec *exec);                                           \
    mover_status mover_##backend##_gram_backward_##S(const mover_gram_desc *desc, const real *v,                       \
                                                     const real *grad_gram, real *grad_v, const mover_exec *exec);     \
    void mover_##backend##_logdet_layout_##S(const mover_logdet_desc *desc, mover_arena *arena);                       \
    mover_status mover_##backend##_logdet_forward_##S(const mover_logdet_desc *desc, const real *gram, real *logdet,   \
                                                      int32_t *info, void *workspace, const mover_exec *exec);         \
    mover_status mover_##backend##_logdet_backward_##S(const mover_logdet_desc *desc, const real *gram,                \
                                                       const real *grad_logdet, real *grad_gram, void *workspace,      \
                                                       const mover_exec *exec);                                        \
    mover_status mover_##backend##_volume_forward_##S(const mover_volume_desc *desc, const real *v, real *volume,      \
                                                      const mover_exec *exec);                                         \
    mover_status mover_##backend##_volume_backward_##S(const mover_volume_desc *desc, const real *v,                   \
                                                       const real *grad_volume, real *grad_v, const mover_exec *exec); \
    mover_status mover_##backend##_group_volume_forward_##S(const mover_group_volume_desc *desc, const real *costs,    \
                                                            const int64_t *groups, real *volume,                       \
                                                            const mover_exec *exec);                                   \
    void mover_##backend##_group_volume_backward_layout_##S(const mover_group_volume_desc *desc, mover_arena *arena);  \
    mover_status mover_##backend##_group_volume_backward_##S(                                                          \
        const mover_group_volume_desc *desc, const real *costs, const int64_t *groups, const real *grad_volume,        \
        real *grad_costs, void *workspace, const mover_exec *exec);                                                    \
    void mover_##backend##_expected_volume_layout_##S(const mover_expected_volume_desc *desc, mover_arena *arena);     \
    mover_status mover_##backend##_expected_volume_forward_##S(                                                        \
        const mover_expected_volume_desc *desc, const real *c12, const real *c13, const real *c23, const real *p12,    \
        const real *p13, const real *p23, real *value, void *workspace, const mover_exec *exec);                       \
    void mover_##backend##_expected_volume_backward_layout_##S(const mover_expected_volume_desc *desc,                 \
                                                               mover_arena *arena);                                    \
    mover_status mover_##backend##_expected_volume_backward_##S(                                                       \
        const mover_expected_volume_desc *desc, const real *c12, const real *c13, const real *c23, const real *p12,    \
        const real *p13, const real *p23, const real *grad_value, real *value, real *grad_c12, real *grad_c13,         \
        real *grad_c23, real *grad_p12, real *grad_p13, real *grad_p23, void *workspace, const mover_exec *exec);      \
    void mover_##backend##_volume_scores_layout_##S(const mover_volume_scores_desc *desc, mover_arena *arena);         \
    mover_status mover_##backend##_volume_scores_forward_##S(const mover_volume_scores_desc *desc, const real *anchor, \
                                                             const real *others, const uint8_t *mask, real *scores,    \
                                                             real *alphas, void *workspace, const mover_exec *exec);   \
    void mover_##backend##_volume_scores_backward_layout_##S(const mover_volume_scores_desc *desc,                     \
                                                             mover_arena *arena);                                      \
    mover_status mover_##backend##_volume_scores_backward_##S(                                                         \
        const mover_volume_scores_desc *desc, const real *anchor, const real *others, const uint8_t *mask,             \
        const real *alphas, const real *grad_scores, real *grad_anchor, real *grad_others, void *workspace,            \
        const mover_exec *exec);                                                                                       \
    void mover_##backend##_ranking_layout_##S(const mover_volume_scores_desc *desc, mover_arena *arena);               \
    mover_status mover_##backend##_volume_topk_##S(const mover_volume_scores_desc *desc, const real *anchor,           \
                                                   const real *others, const uint8_t *mask, real *values,              \
                                                   int64_t *indices, void *workspace, const mover_exec *exec);         \
    mover_status mover_##backend##_volume_rank_##S(                                                                    \
        const mover_volume_scores_desc *desc, const real *anchor, const real *others, const int64_t *target,           \
        const uint8_t *mask, int64_t *better, int64_t *tied, void *workspace, const mover_exec *exec);                 \
    void mover_##backend##_contrast_layout_##S(const mover_contrast_desc *desc, mover_arena *arena);                   \
    mover_status mover_##backend##_contrast_forward_##S(const mover_contrast_desc *desc, const real *scores,           \
                                                        const real *scale, real *loss, real *rows, real *columns,      \
                                                        void *workspace, const mover_exec *exec);                      \
    void mover_##backend##_contrast_backward_layout_##S(const mover_contrast_desc *desc, mover_arena *arena);          \
    mover_status mover_##backend##_contrast_backward_##S(                                                              \
        const mover_contrast_desc *desc, const real *scores, const real *scale, const real *rows, const real *columns, \
        const real *grad_loss, real *grad_scores, real *grad_scale, void *workspace, const mover_exec *exec);

MOVER_BACKEND_DECLARE(cpu, float, f32)
MOVER_BACKEND_DECLARE(cpu, double, f64)
MOVER_BACKEND_DECLARE(cuda, float, f32)
MOVER_BACKEND_DECLARE(cuda, double, f64)

/* CALL(exec, dtype, cost_forward, ...) is mover_cpu_cost_forward_f32(...) or another of the four. A build without CUDA
 * has refused that backend before (mover_check_exec). */
#define MOVER_CALL_ON(backend, dtype, name, ...)                                                                       \
    ((dtype) == MOVER_FLOAT32 ? mover_##backend##_##name##_f32(__VA_ARGS__)                                            \
                              : mover_##backend##_##name##_f64(__VA_ARGS__))
#if defined(MOVER_WITH_CUDA)
#define MOVER_CALL(exec, dtype, name, ...)                                                                             \
    (mover_on_cuda(exec) ? MOVER_CALL_ON(cuda, dtype, name, __VA_ARGS__) : MOVER_CALL_ON(cpu, dtype, name, __VA_ARGS__))
#else
#define MOVER_CALL(exec, dtype, name, ...) MOVER_CALL_ON(cpu, dtype, name, __VA_ARGS__)
#endif

#ifdef __cplusplus
}
#endif

#endif
