/*
 * gemm.c: the library's own matrix product, for hosts that lend none.
 *
 *     C (n x m) = op(A) (n x d) op(B) (d x m), row-major
 *
 * A panel of PANEL columns of op(B) is packed, PACK rows at a time, so that the inner loop runs over adjacent columns;
 * ROWS rows of C at a time stay in registers. Work is divided by panels: each element of C is summed by one thread, in
 * one order.
 */
#include "../src/internal.h"
#include "real.h"

enum { ROWS = 6, PANEL = 128 / sizeof(real), PACK = 256 };

typedef struct product {
    int transpose_a, transpose_b;
    int64_t n, m, d, lda, ldb, ldc;
    const real *a, *b;
    real *c;
} product;

/* c[r][0..width) (+)= sum_l a[r][l] packed[l][0..width) for `rows` <= ROWS rows. */
MOVER_INLINE void rows_by_panel(int64_t rows, int64_t depth, const real *a, int64_t row_step, int64_t depth_step,
                                const real *restrict packed, int64_t width, int add, real *restrict c, int64_t ldc) {
    real sum[ROWS][PANEL] = {{0}};
    if (rows == ROWS) {
        for (int64_t l = 0; l < depth; l++)
            for (int r = 0; r < ROWS; r++) {
                const real factor = a[r * row_step + l * depth_step];
                MOVER_SIMD
                for (int j = 0; j < (int)PANEL; j++) sum[r][j] += factor * packed[l * (int64_t)PANEL + j];
            }
    } else {
        for (int64_t l = 0; l < depth; l++)
            for (int64_t r = 0; r < rows; r++) {
                const real factor = a[r * row_step + l * depth_step];
                MOVER_SIMD
                for (int j = 0; j < (int)PANEL; j++) sum[r][j] += factor * packed[l * (int64_t)PANEL + j];
            }
    }
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < width; j++) c[r * ldc + j] = add ? c[r * ldc + j] + sum[r][j] : sum[r][j];
}

MOVER_HOT static void multiply_panels(const product *p, int64_t begin, int64_t end) {
    real packed[PACK * PANEL];
    const int64_t row_step = p->transpose_a ? 1 : p->lda, depth_step = p->transpose_a ? p->lda : 1;
    const int64_t from_step = p->transpose_b ? 1 : p->ldb, to_step = p->transpose_b ? p->ldb : 1;
    for (int64_t panel = begin; panel < end; panel++) {
        const int64_t j0 = panel * (int64_t)PANEL, width = mover_min((int64_t)PANEL, p->m - j0);
        for (int64_t l0 = 0; l0 < p->d; l0 += PACK) {
            const int64_t depth = mover_min(PACK, p->d - l0);
            for (int64_t l = 0; l < depth; l++) {
                const real *from = p->b + (l0 + l) * from_step + j0 * to_step;
                for (int64_t j = 0; j < (int64_t)PANEL; j++)
                    packed[l * (int64_t)PANEL + j] = j < width ? from[j * to_step] : 0;
            }
            for (int64_t i = 0; i < p->n; i += ROWS)
                rows_by_panel(mover_min(ROWS, p->n - i), depth, p->a + i * row_step + l0 * depth_step, row_step,
                              depth_step, packed, width, l0 > 0, p->c + i * p->ldc + j0, p->ldc);
        }
    }
}

static void body(int64_t begin, int64_t end, void *ctx) { multiply_panels(ctx, begin, end); }

mover_status R(mover_gemm)(const mover_exec *exec, int transpose_a, int transpose_b, int64_t n, int64_t m, int64_t d,
                           const real *a, int64_t lda, const real *b, int64_t ldb, real *c, int64_t ldc) {
    product p = {transpose_a, transpose_b, n, m, d, lda, ldb, ldc, a, b, c};
    return mover_run(exec, 0, mover_ceil_div(m, (int64_t)PANEL), mover_grain(n * d * (int64_t)PANEL), body, &p);
}
