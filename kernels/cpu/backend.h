/*
 * backend.h: the CPU backend, as the entry points of kernels/src call it.
 *
 * Arguments are checked already; pointers, shapes and NULL rules are those of mover.h.
 */
#ifndef MOVER_CPU_BACKEND_H
#define MOVER_CPU_BACKEND_H

#include "../src/internal.h"

#define MOVER_CPU_DECLARE(real, S)                                                                                     \
    void mover_cpu_cost_layout_##S(const mover_cost_desc *desc, mover_arena *arena);                                   \
    mover_status mover_cpu_cost_forward_##S(const mover_cost_desc *desc, const real *x, const real *y, real *cost,     \
                                            void *workspace, const mover_exec *exec);                                  \
    void mover_cpu_cost_backward_layout_##S(const mover_cost_desc *desc, mover_arena *arena);                          \
    mover_status mover_cpu_cost_backward_##S(const mover_cost_desc *desc, const real *x, const real *y,                \
                                             const real *grad_cost, real *grad_x, real *grad_y, void *workspace,       \
                                             const mover_exec *exec);                                                  \
    void mover_cpu_sinkhorn_layout_##S(const mover_sinkhorn_desc *desc, mover_arena *arena);                           \
    mover_status mover_cpu_sinkhorn_forward_##S(const mover_sinkhorn_desc *desc, const real *cost, const real *a,      \
                                                const real *b, real *plan, real *f, real *g, int32_t *n_iter,          \
                                                real *marginal_error, void *workspace, const mover_exec *exec);        \
    void mover_cpu_sinkhorn_backward_layout_##S(const mover_sinkhorn_desc *desc, mover_arena *arena);                  \
    mover_status mover_cpu_sinkhorn_backward_##S(const mover_sinkhorn_desc *desc, const real *plan,                    \
                                                 const real *grad_plan, real *grad_cost, real *grad_a, real *grad_b,   \
                                                 void *workspace, const mover_exec *exec);                             \
    void mover_cpu_transport_layout_##S(const mover_transport_desc *desc, mover_arena *arena);                         \
    mover_status mover_cpu_transport_forward_##S(                                                                      \
        const mover_transport_desc *desc, const real *x, const real *y, const real *a, const real *b, real *plan,      \
        real *cost, real *f, real *g, int32_t *n_iter, real *marginal_error, void *workspace, const mover_exec *exec); \
    void mover_cpu_transport_backward_layout_##S(const mover_transport_desc *desc, mover_arena *arena);                \
    mover_status mover_cpu_transport_backward_##S(const mover_transport_desc *desc, const real *x, const real *y,      \
                                                  const real *plan, const real *grad_plan, const real *grad_cost,      \
                                                  real *grad_x, real *grad_y, real *grad_a, real *grad_b,              \
                                                  void *workspace, const mover_exec *exec);                            \
    void mover_cpu_transport_value_layout_##S(const mover_transport_desc *desc, mover_arena *arena);                   \
    mover_status mover_cpu_transport_value_forward_##S(const mover_transport_desc *desc, const real *x, const real *y, \
                                                       const real *a, const real *b, real *value, real *f, real *g,    \
                                                       void *workspace, const mover_exec *exec);                       \
    void mover_cpu_transport_value_backward_layout_##S(const mover_transport_desc *desc, mover_arena *arena);          \
    mover_status mover_cpu_transport_value_backward_##S(                                                               \
        const mover_transport_desc *desc, const real *x, const real *y, const real *a, const real *b, const real *f,   \
        const real *g, const real *grad_value, real *grad_x, real *grad_y, real *grad_a, real *grad_b,                 \
        void *workspace, const mover_exec *exec);                                                                      \
    mover_status mover_cpu_gram_forward_##S(const mover_gram_desc *desc, const real *v, real *gram,                    \
                                            const mover_exec *exec);                                                   \
    mover_status mover_cpu_gram_backward_##S(const mover_gram_desc *desc, const real *v, const real *grad_gram,        \
                                             real *grad_v, const mover_exec *exec);                                    \
    void mover_cpu_logdet_layout_##S(const mover_logdet_desc *desc, mover_arena *arena);                               \
    mover_status mover_cpu_logdet_forward_##S(const mover_logdet_desc *desc, const real *gram, real *logdet,           \
                                              int32_t *info, void *workspace, const mover_exec *exec);                 \
    mover_status mover_cpu_logdet_backward_##S(const mover_logdet_desc *desc, const real *gram,                        \
                                               const real *grad_logdet, real *grad_gram, void *workspace,              \
                                               const mover_exec *exec);                                                \
    mover_status mover_cpu_volume_forward_##S(const mover_volume_desc *desc, const real *v, real *volume,              \
                                              const mover_exec *exec);                                                 \
    mover_status mover_cpu_volume_backward_##S(const mover_volume_desc *desc, const real *v, const real *grad_volume,  \
                                               real *grad_v, const mover_exec *exec);                                  \
    mover_status mover_cpu_group_volume_forward_##S(const mover_group_volume_desc *desc, const real *costs,            \
                                                    const int64_t *groups, real *volume, const mover_exec *exec);      \
    void mover_cpu_group_volume_backward_layout_##S(const mover_group_volume_desc *desc, mover_arena *arena);          \
    mover_status mover_cpu_group_volume_backward_##S(const mover_group_volume_desc *desc, const real *costs,           \
                                                     const int64_t *groups, const real *grad_volume, real *grad_costs, \
                                                     void *workspace, const mover_exec *exec);                         \
    void mover_cpu_expected_volume_layout_##S(const mover_expected_volume_desc *desc, mover_arena *arena);             \
    mover_status mover_cpu_expected_volume_forward_##S(                                                                \
        const mover_expected_volume_desc *desc, const real *c12, const real *c13, const real *c23, const real *p12,    \
        const real *p13, const real *p23, real *value, void *workspace, const mover_exec *exec);                       \
    void mover_cpu_expected_volume_backward_layout_##S(const mover_expected_volume_desc *desc, mover_arena *arena);    \
    mover_status mover_cpu_expected_volume_backward_##S(                                                               \
        const mover_expected_volume_desc *desc, const real *c12, const real *c13, const real *c23, const real *p12,    \
        const real *p13, const real *p23, const real *grad_value, real *value, real *grad_c12, real *grad_c13,         \
        real *grad_c23, real *grad_p12, real *grad_p13, real *grad_p23, void *workspace, const mover_exec *exec);      \
    void mover_cpu_volume_scores_layout_##S(const mover_volume_scores_desc *desc, mover_arena *arena);                 \
    mover_status mover_cpu_volume_scores_forward_##S(const mover_volume_scores_desc *desc, const real *anchor,         \
                                                     const real *others, const uint8_t *mask, real *scores,            \
                                                     real *alphas, void *workspace, const mover_exec *exec);           \
    void mover_cpu_volume_scores_backward_layout_##S(const mover_volume_scores_desc *desc, mover_arena *arena);        \
    mover_status mover_cpu_volume_scores_backward_##S(const mover_volume_scores_desc *desc, const real *anchor,        \
                                                      const real *others, const uint8_t *mask, const real *alphas,     \
                                                      const real *grad_scores, real *grad_anchor, real *grad_others,   \
                                                      void *workspace, const mover_exec *exec);                        \
    void mover_cpu_ranking_layout_##S(const mover_volume_scores_desc *desc, mover_arena *arena);                       \
    mover_status mover_cpu_volume_topk_##S(const mover_volume_scores_desc *desc, const real *anchor,                   \
                                           const real *others, const uint8_t *mask, real *values, int64_t *indices,    \
                                           void *workspace, const mover_exec *exec);                                   \
    mover_status mover_cpu_volume_rank_##S(const mover_volume_scores_desc *desc, const real *anchor,                   \
                                           const real *others, const int64_t *target, const uint8_t *mask,             \
                                           int64_t *better, int64_t *tied, void *workspace, const mover_exec *exec);   \
    void mover_cpu_contrast_layout_##S(const mover_contrast_desc *desc, mover_arena *arena);                           \
    mover_status mover_cpu_contrast_forward_##S(const mover_contrast_desc *desc, const real *scores,                   \
                                                const real *scale, real *loss, real *rows, real *columns,              \
                                                void *workspace, const mover_exec *exec);                              \
    void mover_cpu_contrast_backward_layout_##S(const mover_contrast_desc *desc, mover_arena *arena);                  \
    mover_status mover_cpu_contrast_backward_##S(                                                                      \
        const mover_contrast_desc *desc, const real *scores, const real *scale, const real *rows, const real *columns, \
        const real *grad_loss, real *grad_scores, real *grad_scale, void *workspace, const mover_exec *exec);

MOVER_CPU_DECLARE(float, f32)
MOVER_CPU_DECLARE(double, f64)

#endif
