/*
 * mover.h: optimal transport and volumes for multimodal learning, in C.
 *
 * THE LIBRARY IN ONE PICTURE
 *
 *     cost  ->  sinkhorn  ->  gram  ->  volume  ->  scores
 *
 *   cost      squared Euclidean distances between two sets of rows
 *   sinkhorn  entropic optimal transport for given costs; `transport` is cost and sinkhorn in one call
 *   gram      Gram matrices and their log-determinants
 *   volume    volume of the parallelotope spanned by k vectors, of listed groups, and summed over all triples
 *   scores    volume or span of every (anchor, group of others): the contrastive matrix, its cross entropy, and
 *             retrieval without the matrix
 *
 * A FIRST CALL
 *
 * The plan between 64 rows x and 48 rows y, of width 512 and type float:
 *
 *     mover_transport_desc desc = {.batch = 1, .n = 64, .m = 48, .d = 512};
 *     desc.epsilon = 0.1, desc.tol = 1e-3, desc.max_iter = 100;
 *     size_t bytes = 0;
 *     void *workspace = NULL;
 *     mover_status status = mover_transport_forward_workspace_size(&desc, &bytes, NULL);
 *     if (status == MOVER_OK) {
 *         workspace = malloc(bytes);
 *         status = mover_transport_forward(&desc, x, y, NULL, NULL, plan, cost, f, g, &n_iter, &error,
 *                                          workspace, bytes, NULL);
 *     }
 *     if (status != MOVER_OK) fprintf(stderr, "%s\n", mover_last_error());
 *     free(workspace);
 *
 * LINKING
 *
 *   CMake         find_package(mover 0.1 REQUIRED), then target_link_libraries(program PRIVATE mover::mover)
 *   pkg-config    cc program.c $(pkg-config --static --cflags --libs mover), without --static for a shared libmover
 *
 *   The library itself needs libc and libm, no more. It is serial, with matrix products that an optimised BLAS may beat
 *   and the reference BLAS does not; a program that has threads and such a BLAS lends them through mover_exec below.
 *   kernels/examples/retrieve.c in the sources does, with OpenMP and OpenBLAS. Before version 1.0 this interface may
 *   change with the minor version: compile against the header of the library that is linked.
 *
 * RULES THAT HOLD FOR EVERY FUNCTION
 *
 *   Order       descriptor, inputs (const), outputs, workspace, its size in bytes, execution context.
 *   Types       `desc->dtype` says what the void pointers point to: float (the default) or double.
 *   Layout      arrays are dense, row-major, the last index fastest. "x (batch, n, d)" means that element
 *               (b, i, t) is x[(b*n + i)*d + t]. No alignment beyond that of the element type is needed.
 *   Zero        a descriptor or context filled with zeros is valid wherever 0 is: each field says what 0 means.
 *               Initialise descriptors with {0} or designated initialisers, so that new fields stay at 0.
 *   NULL        an optional input that is NULL takes its default; an optional output that is NULL is not
 *               computed. Which pointers may be NULL is said at each function.
 *   Overlap     outputs and workspace must not overlap inputs or each other. Inputs may.
 *   Memory      pointers to numbers are in the memory of the backend that the context names: of the host, or of the
 *               present CUDA device. Descriptors, contexts and the sizes that are returned are the host's.
 *   Workspace   scratch memory of at least the size that the `_workspace_size` function of the call returned for the
 *               same descriptor and context, in the memory of the backend, of any alignment; may be NULL where that
 *               size is 0. Its contents mean nothing before or after the call. Functions without workspace arguments
 *               need none.
 *   Values      numbers never cause an error. NaN or Inf in one problem of a batch makes the outputs of that
 *               problem NaN and leaves the others bit-identical. Row numbers must lie in their range: on the CPU
 *               others are an error, on CUDA each function says what they give.
 *   Repetition  on one machine the same inputs give the same bits, however many threads are lent and however loops
 *               are split among them, as long as a lent product repeats its own; a batch gives the bits of its
 *               problems solved one by one.
 *   Threads     functions are reentrant; they start no threads and keep no state but the text of the last error
 *               of the calling thread. They never allocate, print, exit or synchronise.
 *   Errors      a mover_status other than MOVER_OK means that nothing useful was written. mover_last_error()
 *               returns a sentence for the last failed call of this thread.
 *
 * GRADIENTS
 *
 *   `_backward` functions take the gradient of a scalar loss with respect to the outputs ("grad_" + output) and
 *   return it with respect to the inputs ("grad_" + input). They overwrite their outputs. They take the descriptor of
 *   the forward call; its tol, max_iter and solver have to be valid, but no gradient depends on them. The derivation of
 *   each is in kernels/README.md.
 */
#ifndef MOVER_MOVER_H
#define MOVER_MOVER_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define MOVER_API __attribute__((visibility("default")))
#else
#define MOVER_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------------------------------------------------------
 * Status
 */

typedef enum mover_status {
    MOVER_OK = 0,
    MOVER_ERROR_ARGUMENT = 1,    /* a size, option or pointer is not acceptable */
    MOVER_ERROR_OVERFLOW = 2,    /* a size does not fit the address space */
    MOVER_ERROR_WORKSPACE = 3,   /* the workspace is smaller than the call needs */
    MOVER_ERROR_UNSUPPORTED = 4, /* an option, or a backend, that this build does not offer */
    MOVER_ERROR_HOST = 5,        /* a function lent through mover_exec reported a failure */
    MOVER_ERROR_CUDA = 6         /* CUDA, cuBLAS or cuSOLVER reported an error, which mover_last_error() names */
} mover_status;

/* A constant, short description of a status. Never NULL. */
MOVER_API const char *mover_status_string(mover_status status);

/* What went wrong in the last call of this thread that failed; "" if none did. Valid until the next failing call of
 * the thread. */
MOVER_API const char *mover_last_error(void);

/* The version of the library, "major.minor.patch". */
MOVER_API const char *mover_version(void);

/* ---------------------------------------------------------------------------------------------------------------
 * Options
 */

typedef enum mover_dtype { MOVER_FLOAT32 = 0, MOVER_FLOAT64 = 1 } mover_dtype;

typedef enum mover_backend { MOVER_CPU = 0, MOVER_CUDA = 1 } mover_backend;

/* Arithmetic of products. MOVER_PRECISION_TF32 rounds their factors to 10 bits of mantissa; CUDA only. */
typedef enum mover_precision { MOVER_PRECISION_FLOAT32 = 0, MOVER_PRECISION_TF32 = 1 } mover_precision;

/* How entropic transport is solved. All find the same plan; the default is AUTO.
 *   SINKHORN   alternating updates of the rows and the columns
 *   NEWTON     five of them, then Newton steps with conjugate gradients on the dual
 *   AUTO       over-relaxed alternating updates, and Newton steps where many more of them would be needed */
typedef enum mover_solver { MOVER_SOLVER_AUTO = 0, MOVER_SOLVER_SINKHORN = 1, MOVER_SOLVER_NEWTON = 2 } mover_solver;

/* How log-determinants are factorised. REGISTERS: k <= 8; CUSOLVER: its batched Cholesky, CUDA only, with the handle of
 * the context; AUTO: in registers where k allows, else on CUDA cuSOLVER, on the CPU the library's own loops. */
typedef enum mover_factorization {
    MOVER_FACTORIZATION_AUTO = 0,
    MOVER_FACTORIZATION_REGISTERS = 1,
    MOVER_FACTORIZATION_CUSOLVER = 2
} mover_factorization;

/* The score of an anchor and a group, see "scores" below. COSINE: mover_volume_topk and mover_volume_rank only. */
typedef enum mover_score { MOVER_SCORE_VOLUME = 0, MOVER_SCORE_SPAN = 1, MOVER_SCORE_COSINE = 2 } mover_score;

/* ---------------------------------------------------------------------------------------------------------------
 * Execution context: what the host lends
 *
 * Everything is optional. A NULL context, or one filled with zeros, runs on the CPU, serially, with plain loops for
 * matrix products.
 */

/* A piece of work: iterations [begin, end) of a loop over `ctx`. */
typedef void (*mover_body)(int64_t begin, int64_t end, void *ctx);

/* Runs body over [begin, end), split in any way into disjoint ranges of at least `grain` iterations (the last may be
 * shorter), on any threads; returns 0 when all have ended, else a failure. Called from the thread that called the
 * library, with end > begin and grain >= 1; calls do not nest. */
typedef int (*mover_parallel_for)(void *host, int64_t begin, int64_t end, int64_t grain, mover_body body, void *ctx);

/* C (n x m) = op(A) (n x d) * op(B) (d x m), all row-major with leading dimensions lda, ldb, ldc; op is the transpose
 * where the flag is not 0. C is overwritten and may hold anything, NaN included. Must accumulate at least in the
 * precision of `dtype`. Returns 0, else a failure. Called from the thread that called the library, never inside
 * parallel_for, with n, m, d >= 1. */
typedef int (*mover_gemm)(void *host, mover_dtype dtype, int transpose_a, int transpose_b, int64_t n, int64_t m,
                          int64_t d, const void *a, int64_t lda, const void *b, int64_t ldb, void *c, int64_t ldc);

/* The library keeps no pointer to it after a call. Threads that call the library at the same time with one context lend
 * the same functions: these must then be safe to call from several threads. */
typedef struct mover_exec {
    mover_backend backend;           /* 0: CPU */
    mover_parallel_for parallel_for; /* NULL: the calling thread does everything */
    mover_gemm gemm;                 /* NULL: the library's own loops */
    void *host;                      /* handed to both functions as it is; may be NULL */
    void *stream;                    /* CUDA only: cudaStream_t */
    void *blas;                      /* CUDA only: cublasHandle_t */
    void *solver;                    /* CUDA only: cusolverDnHandle_t */
} mover_exec;

/* ---------------------------------------------------------------------------------------------------------------
 * cost: squared Euclidean distances
 *
 *     cost[b,i,j] = sum_t (x[b,i,t] - y[b,j,t])^2
 *
 * Relative error at most 1e-5 (float) or 1e-10 (double) however close the rows are; 0 exactly for equal rows.
 */

typedef struct mover_cost_desc {
    mover_dtype dtype;
    int64_t batch, n, m, d; /* >= 0 */
    mover_precision precision;
} mover_cost_desc;

MOVER_API mover_status mover_cost_forward_workspace_size(const mover_cost_desc *desc, size_t *bytes,
                                                         const mover_exec *exec);
MOVER_API mover_status mover_cost_backward_workspace_size(const mover_cost_desc *desc, size_t *bytes,
                                                          const mover_exec *exec);

/* x (batch, n, d), y (batch, m, d) -> cost (batch, n, m) */
MOVER_API mover_status mover_cost_forward(const mover_cost_desc *desc, const void *x, const void *y, void *cost,
                                          void *workspace, size_t bytes, const mover_exec *exec);

/* grad_cost (batch, n, m) -> grad_x (batch, n, d), grad_y (batch, m, d); either may be NULL. */
MOVER_API mover_status mover_cost_backward(const mover_cost_desc *desc, const void *x, const void *y,
                                           const void *grad_cost, void *grad_x, void *grad_y, void *workspace,
                                           size_t bytes, const mover_exec *exec);

/* ---------------------------------------------------------------------------------------------------------------
 * sinkhorn: entropic optimal transport
 *
 *     plan = argmin_P  <P, cost> + epsilon KL(P | a b^T)   over P >= 0 with P 1 = a and P^T 1 = b
 *     plan[i,j] = a_i b_j exp((f_i + g_j - cost[i,j]) / epsilon),   <f, a> = <g, b>
 *
 * a (batch, n) and b (batch, m) are masses >= 0 with equal sums; NULL means uniform, 1/n and 1/m. A row of mass 0 has
 * a plan of 0 and, as its potential, its soft c-transform. Different sizes in one batch: pad with mass 0.
 *
 * n_iter (batch) int32     iterations and Newton steps applied; either updates both potentials. The products with the
 *                          plan inside a Newton step are not counted.
 * marginal_error (batch)   |P 1 - a|_1 + |P^T 1 - b|_1 of the plan that is returned.
 * Iterations end once the error is at most tol, at the latest after max_iter. `tol` is raised to what the type reaches:
 * max(2e-6, 4e-8/epsilon) for float, 1e-13 + 1e-16/epsilon for double.
 */

typedef struct mover_sinkhorn_desc {
    mover_dtype dtype;
    int64_t batch, n, m; /* batch >= 0; n, m >= 1 unless the batch is empty */
    double epsilon;      /* > 0 */
    double tol;          /* >= 0 */
    int32_t max_iter;    /* >= 1 */
    mover_solver solver;
} mover_sinkhorn_desc;

MOVER_API mover_status mover_sinkhorn_forward_workspace_size(const mover_sinkhorn_desc *desc, size_t *bytes,
                                                             const mover_exec *exec);
MOVER_API mover_status mover_sinkhorn_backward_workspace_size(const mover_sinkhorn_desc *desc, size_t *bytes,
                                                              const mover_exec *exec);

/* cost (batch, n, m), a, b -> plan (batch, n, m), f (batch, n), g (batch, m), n_iter, marginal_error. All outputs are
 * wanted. */
MOVER_API mover_status mover_sinkhorn_forward(const mover_sinkhorn_desc *desc, const void *cost, const void *a,
                                              const void *b, void *plan, void *f, void *g, int32_t *n_iter,
                                              void *marginal_error, void *workspace, size_t bytes,
                                              const mover_exec *exec);

/* The exact gradient of the converged plan, by conjugate gradients on the linear system of the optimality
 * conditions; nothing but the plan is needed.
 * plan (batch, n, m), grad_plan (batch, n, m) -> grad_cost (batch, n, m), grad_a (batch, n), grad_b (batch, m).
 * grad_a and grad_b are defined up to a constant each and returned with <grad_a, P 1> = <grad_b, P^T 1> = 0; both may
 * be NULL. */
MOVER_API mover_status mover_sinkhorn_backward(const mover_sinkhorn_desc *desc, const void *plan, const void *grad_plan,
                                               void *grad_cost, void *grad_a, void *grad_b, void *workspace,
                                               size_t bytes, const mover_exec *exec);

/* ---------------------------------------------------------------------------------------------------------------
 * transport: cost and sinkhorn in one call, for many pairs of point sets at once
 */

typedef struct mover_transport_desc {
    mover_dtype dtype;
    int64_t batch, n, m, d; /* batch, d >= 0; n, m >= 1 unless the batch is empty */
    double epsilon;         /* > 0 */
    double tol;             /* >= 0 */
    int32_t max_iter;       /* >= 1 */
    mover_solver solver;
    mover_precision precision;
} mover_transport_desc;

MOVER_API mover_status mover_transport_forward_workspace_size(const mover_transport_desc *desc, size_t *bytes,
                                                              const mover_exec *exec);
MOVER_API mover_status mover_transport_backward_workspace_size(const mover_transport_desc *desc, size_t *bytes,
                                                               const mover_exec *exec);

/* x (batch, n, d), y (batch, m, d), masses a and b as in sinkhorn -> plan, cost (batch, n, m), f (batch, n),
 * g (batch, m), n_iter, marginal_error. All outputs are wanted. */
MOVER_API mover_status mover_transport_forward(const mover_transport_desc *desc, const void *x, const void *y,
                                               const void *a, const void *b, void *plan, void *cost, void *f, void *g,
                                               int32_t *n_iter, void *marginal_error, void *workspace, size_t bytes,
                                               const mover_exec *exec);

/* grad_plan and grad_cost (batch, n, m), either may be NULL (not both) -> grad_x (batch, n, d), grad_y (batch, m, d),
 * grad_a (batch, n), grad_b (batch, m); each may be NULL. */
MOVER_API mover_status mover_transport_backward(const mover_transport_desc *desc, const void *x, const void *y,
                                                const void *plan, const void *grad_plan, const void *grad_cost,
                                                void *grad_x, void *grad_y, void *grad_a, void *grad_b, void *workspace,
                                                size_t bytes, const mover_exec *exec);

/* The optimal value, <P, cost> + epsilon KL(P | a b^T) = <f, a> + <g, b>, without returning the plan. */

MOVER_API mover_status mover_transport_value_forward_workspace_size(const mover_transport_desc *desc, size_t *bytes,
                                                                    const mover_exec *exec);
MOVER_API mover_status mover_transport_value_backward_workspace_size(const mover_transport_desc *desc, size_t *bytes,
                                                                     const mover_exec *exec);

/* x, y, a, b as in transport -> value (batch), f (batch, n), g (batch, m). All outputs are wanted. */
MOVER_API mover_status mover_transport_value_forward(const mover_transport_desc *desc, const void *x, const void *y,
                                                     const void *a, const void *b, void *value, void *f, void *g,
                                                     void *workspace, size_t bytes, const mover_exec *exec);

/* By the envelope theorem: no linear solve. f and g are those of the forward call.
 * grad_value (batch) -> grad_x, grad_y, grad_a, grad_b; each may be NULL. grad_a and grad_b are returned with
 * <grad_a, a> = <grad_b, b> = 0. */
MOVER_API mover_status mover_transport_value_backward(const mover_transport_desc *desc, const void *x, const void *y,
                                                      const void *a, const void *b, const void *f, const void *g,
                                                      const void *grad_value, void *grad_x, void *grad_y, void *grad_a,
                                                      void *grad_b, void *workspace, size_t bytes,
                                                      const mover_exec *exec);

/* ---------------------------------------------------------------------------------------------------------------
 * gram: Gram matrices and their log-determinants
 */

typedef struct mover_gram_desc {
    mover_dtype dtype;
    int64_t batch, k, d; /* batch, d >= 0, k >= 1 */
} mover_gram_desc;

/* v (batch, k, d) -> gram (batch, k, k), gram[b,r,s] = sum_t v[b,r,t] v[b,s,t], accumulated in double. */
MOVER_API mover_status mover_gram_forward(const mover_gram_desc *desc, const void *v, void *gram,
                                          const mover_exec *exec);

/* grad_gram (batch, k, k), not necessarily symmetric -> grad_v (batch, k, d) */
MOVER_API mover_status mover_gram_backward(const mover_gram_desc *desc, const void *v, const void *grad_gram,
                                           void *grad_v, const mover_exec *exec);

typedef struct mover_logdet_desc {
    mover_dtype dtype;
    int64_t batch, k; /* batch >= 0, k >= 1 */
    mover_factorization factorization;
} mover_logdet_desc;

/* One size for both directions. */
MOVER_API mover_status mover_logdet_workspace_size(const mover_logdet_desc *desc, size_t *bytes,
                                                   const mover_exec *exec);

/* The log-determinant of symmetric positive definite matrices by Cholesky, in double; only the lower triangle is read.
 * gram (batch, k, k) -> logdet (batch), info (batch) int32: 0, or the 1-based order of the first leading minor that is
 * not positive; logdet is -inf there. */
MOVER_API mover_status mover_logdet_forward(const mover_logdet_desc *desc, const void *gram, void *logdet,
                                            int32_t *info, void *workspace, size_t bytes, const mover_exec *exec);

/* grad_logdet (batch) -> grad_gram (batch, k, k) = grad_logdet gram^-1, symmetric; 0 where info > 0. */
MOVER_API mover_status mover_logdet_backward(const mover_logdet_desc *desc, const void *gram, const void *grad_logdet,
                                             void *grad_gram, void *workspace, size_t bytes, const mover_exec *exec);

/* ---------------------------------------------------------------------------------------------------------------
 * volume: the volume of a parallelotope
 *
 *     volume[b] = sqrt(det(V V^T) + eps^2),   V = v[b] (k, d), any vectors
 *
 * Computed in double from differences of the rows: nearly parallel rows keep their digits. A group whose rows are
 * linearly dependent to working precision has volume eps and gradient 0.
 */

enum { MOVER_MAX_K = 8 }; /* the largest group of volume and scores */

typedef struct mover_volume_desc {
    mover_dtype dtype;
    int64_t batch, k, d; /* batch, d >= 0, 1 <= k <= MOVER_MAX_K */
    double eps;          /* >= 0 */
} mover_volume_desc;

/* v (batch, k, d) -> volume (batch) */
MOVER_API mover_status mover_volume_forward(const mover_volume_desc *desc, const void *v, void *volume,
                                            const mover_exec *exec);

/* grad_volume (batch) -> grad_v (batch, k, d) */
MOVER_API mover_status mover_volume_backward(const mover_volume_desc *desc, const void *v, const void *grad_volume,
                                             void *grad_v, const mover_exec *exec);

/* The volumes of listed groups of unit rows, from their squared distances alone:
 *
 *     volume[t] = Vol(row groups[t,0] of set 0, row groups[t,1] of set 1, ..., row groups[t,k-1] of set k-1)
 *
 * costs (k(k-1)/2, n, n) holds the squared distances of each pair of sets, in the order (0,1), (0,2), ..., (0,k-1),
 * (1,2), ..., (k-2,k-1): costs[p,i,j] is that of row i of the first set of pair p and row j of its second.
 * groups (count, k) are row numbers from 0 to n-1. On the CPU another number is MOVER_ERROR_ARGUMENT, with a sentence
 * that names the group, and nothing is written; on CUDA such a group has volume NaN and adds nothing to the gradients.
 * A group may be listed more than once. Groups whose rows are linearly
 * dependent to working precision have volume 0 and gradient 0. */

typedef struct mover_group_volume_desc {
    mover_dtype dtype;
    int64_t n, k, count; /* n, count >= 0, 2 <= k <= MOVER_MAX_K */
} mover_group_volume_desc;

MOVER_API mover_status mover_group_volume_backward_workspace_size(const mover_group_volume_desc *desc, size_t *bytes,
                                                                  const mover_exec *exec);

/* costs, groups -> volume (count) */
MOVER_API mover_status mover_group_volume_forward(const mover_group_volume_desc *desc, const void *costs,
                                                  const int64_t *groups, void *volume, const mover_exec *exec);

/* grad_volume (count) -> grad_costs (k(k-1)/2, n, n): 0 for pairs of rows that no group lists. */
MOVER_API mover_status mover_group_volume_backward(const mover_group_volume_desc *desc, const void *costs,
                                                   const int64_t *groups, const void *grad_volume, void *grad_costs,
                                                   void *workspace, size_t bytes, const mover_exec *exec);

/* The sum over all triples of three sets of unit rows, from their squared distances alone:
 *
 *     value = sum_{i,j,l} p12[i,j] p13[i,l] p23[j,l] Vol(i, j, l)
 *
 * Vol is the volume spanned by row i of set 1, row j of set 2 and row l of set 3; c12 (n1, n2), c13 (n1, n3) and
 * c23 (n2, n3) are the squared distances between them. Memory grows with the squares of the sizes only. */

typedef struct mover_expected_volume_desc {
    mover_dtype dtype;
    int64_t n1, n2, n3; /* >= 0 */
} mover_expected_volume_desc;

MOVER_API mover_status mover_expected_volume_forward_workspace_size(const mover_expected_volume_desc *desc,
                                                                    size_t *bytes, const mover_exec *exec);
MOVER_API mover_status mover_expected_volume_backward_workspace_size(const mover_expected_volume_desc *desc,
                                                                     size_t *bytes, const mover_exec *exec);

/* p12, p13, p23: weights of the shapes of c12, c13, c23; each may be NULL: ones. -> value (1) */
MOVER_API mover_status mover_expected_volume_forward(const mover_expected_volume_desc *desc, const void *c12,
                                                     const void *c13, const void *c23, const void *p12, const void *p13,
                                                     const void *p23, void *value, void *workspace, size_t bytes,
                                                     const mover_exec *exec);

/* grad_value (1), NULL: 1 -> the six gradients; each may be NULL. Where value (1) is not NULL it is made in the same
 * pass over the triples: training calls this with grad_value = NULL instead of the forward, and scales the gradients
 * later. */
MOVER_API mover_status mover_expected_volume_backward(const mover_expected_volume_desc *desc, const void *c12,
                                                      const void *c13, const void *c23, const void *p12,
                                                      const void *p13, const void *p23, const void *grad_value,
                                                      void *value, void *grad_c12, void *grad_c13, void *grad_c23,
                                                      void *grad_p12, void *grad_p13, void *grad_p23, void *workspace,
                                                      size_t bytes, const mover_exec *exec);

/* ---------------------------------------------------------------------------------------------------------------
 * scores: every anchor against every group
 *
 * A group j has the k - 1 members others[j,0], ..., others[j,k-2]; a mask says which of them are present. The score of
 * anchor i with group j is
 *
 *     VOLUME   Vol(anchor[i], members present)                                        0 best, 1 worst
 *     SPAN     |anchor[i] less its projection on the span of the members present|     0 best, 1 worst
 *     COSINE   sum over the members present of <anchor[i], member>                    large is good
 *
 * Rows are unit vectors. With alpha(p, q) = |p - q|^2 / 2, which is 1 - cos for unit rows, VOLUME and SPAN are
 * functions of the alphas alone; their gradients are those of these functions. Members that depend linearly on others
 * of their group, to working precision, make the volume 0 and add nothing to the span. A score of 0 has gradient 0.
 * Volumes of groups with different numbers of members are not comparable; spans are, and for one member they are equal.
 *
 * mask (m, k-1) uint8: not 0 = present. Rows of missing members are not read and get gradient 0. A group without
 * members has the score NaN and gradient 0.
 */

typedef struct mover_volume_scores_desc {
    mover_dtype dtype;
    int64_t n, m, k, d; /* n, m, d >= 0, 2 <= k <= MOVER_MAX_K; k counts the anchor */
    mover_score score;
    mover_precision precision;
    int32_t masked; /* 0: mask is NULL, all members are present; else it is not NULL */
    int64_t topk;   /* mover_volume_topk: 1 to m; the others do not read it */
} mover_volume_scores_desc;

MOVER_API mover_status mover_volume_scores_forward_workspace_size(const mover_volume_scores_desc *desc, size_t *bytes,
                                                                  const mover_exec *exec);
MOVER_API mover_status mover_volume_scores_backward_workspace_size(const mover_volume_scores_desc *desc, size_t *bytes,
                                                                   const mover_exec *exec);

/* anchor (n, d), others (m, k-1, d), mask -> scores (n, m), alphas (n, m, k-1). alphas may be NULL; it is what the
 * backward needs and means nothing else: alpha of the anchor and every member, in an order of the library's own where
 * there is a mask, and on CUDA. */
MOVER_API mover_status mover_volume_scores_forward(const mover_volume_scores_desc *desc, const void *anchor,
                                                   const void *others, const uint8_t *mask, void *scores, void *alphas,
                                                   void *workspace, size_t bytes, const mover_exec *exec);

/* alphas of the forward call with the same inputs, grad_scores (n, m) -> grad_anchor (n, d), grad_others (m, k-1, d);
 * either may be NULL. */
MOVER_API mover_status mover_volume_scores_backward(const mover_volume_scores_desc *desc, const void *anchor,
                                                    const void *others, const uint8_t *mask, const void *alphas,
                                                    const void *grad_scores, void *grad_anchor, void *grad_others,
                                                    void *workspace, size_t bytes, const mover_exec *exec);

/* Retrieval without the (n, m) matrix of scores; the workspace grows with n + m. Scores are compared in the very bits
 * that mover_volume_scores_forward returns for the same n, m, k, d, inputs and context. "Better" is smaller for VOLUME
 * and SPAN and larger for COSINE; NaN is worse than every number. */

MOVER_API mover_status mover_volume_topk_workspace_size(const mover_volume_scores_desc *desc, size_t *bytes,
                                                        const mover_exec *exec);
MOVER_API mover_status mover_volume_rank_workspace_size(const mover_volume_scores_desc *desc, size_t *bytes,
                                                        const mover_exec *exec);

/* The topk best groups of every anchor, best first, equal scores in the order of their indices:
 * values (n, topk), indices (n, topk) int64. */
MOVER_API mover_status mover_volume_topk(const mover_volume_scores_desc *desc, const void *anchor, const void *others,
                                         const uint8_t *mask, void *values, int64_t *indices, void *workspace,
                                         size_t bytes, const mover_exec *exec);

/* target (n) int64, the group that belongs to each anchor -> better (n) int64, how many groups score better than it,
 * and tied (n) int64, how many others score exactly as it does. Its rank is between better + 1 and better + tied + 1. A
 * target that scores NaN has better = m - 1, tied = 0; other groups that do are never better or tied. On the CPU a
 * target outside [0, m) is MOVER_ERROR_ARGUMENT, with a sentence that names its row, and nothing is written; on CUDA
 * its row has better = tied = -1. */
MOVER_API mover_status mover_volume_rank(const mover_volume_scores_desc *desc, const void *anchor, const void *others,
                                         const int64_t *target, const uint8_t *mask, int64_t *better, int64_t *tied,
                                         void *workspace, size_t bytes, const mover_exec *exec);

/* The cross entropy of a square matrix of scores whose positives lie on the diagonal, in both directions:
 *
 *     L = scale * scores,   R_i = log sum_j exp L_ij,   C_j = log sum_i exp L_ij
 *     loss = (mean_i R_i + mean_j C_j) / 2 - (1 - label_smoothing) mean_i L_ii - label_smoothing mean_ij L_ij
 *
 * MOVER_DENOMINATOR_NEGATIVES leaves the diagonal out of the sums of R and C. What is not finite makes the loss of its
 * problem NaN. */

typedef enum mover_denominator { MOVER_DENOMINATOR_ALL = 0, MOVER_DENOMINATOR_NEGATIVES = 1 } mover_denominator;

typedef struct mover_contrast_desc {
    mover_dtype dtype;
    int64_t batch, n;       /* batch >= 0, n >= 1 unless the batch is empty */
    double label_smoothing; /* 0 to 1 */
    mover_denominator denominator;
} mover_contrast_desc;

MOVER_API mover_status mover_contrast_forward_workspace_size(const mover_contrast_desc *desc, size_t *bytes,
                                                             const mover_exec *exec);
MOVER_API mover_status mover_contrast_backward_workspace_size(const mover_contrast_desc *desc, size_t *bytes,
                                                              const mover_exec *exec);

/* scores (batch, n, n), scale (1) or NULL: 1 -> loss (batch), rows (batch, n) and columns (batch, n): R and C. All
 * outputs are wanted. */
MOVER_API mover_status mover_contrast_forward(const mover_contrast_desc *desc, const void *scores, const void *scale,
                                              void *loss, void *rows, void *columns, void *workspace, size_t bytes,
                                              const mover_exec *exec);

/* rows and columns of the forward call, grad_loss (batch) -> grad_scores (batch, n, n), grad_scale (1) or NULL. */
MOVER_API mover_status mover_contrast_backward(const mover_contrast_desc *desc, const void *scores, const void *scale,
                                               const void *rows, const void *columns, const void *grad_loss,
                                               void *grad_scores, void *grad_scale, void *workspace, size_t bytes,
                                               const mover_exec *exec);

#ifdef __cplusplus
}
#endif

#endif
