/*
 * scaling.cuh: the rows and columns of one iteration of entropic transport.
 *
 *     plan_ij = K_ij U_i V_j,   K_ij = 2^(u_i + v_j - C_ij log2(e) / epsilon)
 *
 * u and v are logarithms to base 2; the kernel K stands where the plan will, and an iteration is two multiply-adds an
 * element: U_i = a_i / sum_j K_ij V_j, c_j = sum_i K_ij U_i, V_j = b_j / c_j. The first iteration, and any one that
 * begins with a V_j beyond e^{+-20}, makes K again: U and V are taken into u and v. So nothing overflows at any
 * epsilon, and exponentials that were cut off stay below the rounding of the sums they belong to.
 *
 * V is over-relaxed by a factor that is known only once the error of all columns is: the owner of a column leaves
 * V = plain (1 + over excess) as the two numbers, and whoever reads V makes it.
 */
#ifndef MOVER_CUDA_SCALING_CUH
#define MOVER_CUDA_SCALING_CUH

#include "control.cuh"
#include "schur.cuh"

static constexpr real NO_MASS = (real)-1e30;                               /* the logarithm of a mass of 0 */
static constexpr real OUTSIDE = -(REAL_MAX / 4);                           /* that of a column beyond the last */
static constexpr real UNDERFLOWS = (real)1e-30;                            /* column sums below are taken again */
static constexpr real STRETCH = (real)5e8;                                 /* e^20 */
static constexpr real FARTHEST = 2;                                        /* bound on the factor that is relaxed */
static constexpr real CUT = MOVER_REAL_BITS == 32 ? -92.5f : (real)-115.5; /* exponents below give 0 */
static constexpr double LOG2_E = 1.4426950408889634074, LN_2 = 0.69314718055994530942;

/* One problem. Arrays of a phase's numbers are those of schur_system. */
typedef struct sinkhorn_problem {
    schur_system system; /* n, m, the division; its plan is the kernel */
    const real *cost;    /* (n, m) */
    const real *a, *b;   /* (n), (m), or NULL: uniform */
    real uniform_a, uniform_b;
    real *kernel;             /* (n, m) */
    real *u, *row_scale;      /* (n) */
    real *v, *plain, *excess; /* (m) */
    real *plan;               /* (n, m) or NULL */
    real *f, *g;              /* (n), (m) */
    real inverse;             /* log2(e) / epsilon */
    double epsilon;
} sinkhorn_problem;

static __device__ __forceinline__ real mass_a(const sinkhorn_problem &q, int64_t i) {
    return q.a ? q.a[i] : q.uniform_a;
}
static __device__ __forceinline__ real mass_b(const sinkhorn_problem &q, int64_t j) {
    return q.b ? q.b[j] : q.uniform_b;
}

static __device__ __forceinline__ float log_2(float x) { return log2f(x); }
static __device__ __forceinline__ double log_2(double x) { return log2(x); }

static __device__ __forceinline__ real exponential(real exponent) { return exponent > CUT ? mover_exp2(exponent) : 0; }

/* plain (before -> plain)^over to first order is plain (1 + over excess). */
static __device__ __forceinline__ real excess_of(real plain, real before) {
    real ratio = plain / before;
    ratio = ratio < FARTHEST ? ratio : FARTHEST;
    ratio = ratio > 1 / FARTHEST ? ratio : 1 / FARTHEST;
    return ratio - 1;
}

static __device__ __forceinline__ real scale_of(const sinkhorn_problem &q, real over, int64_t j) {
    return q.plain[j] * (1 + over * q.excess[j]);
}

/* Whether a V is out of bounds. Threads of a block take the columns in turn: the block must gather their answers. */
static __device__ __forceinline__ int is_stretched(const sinkhorn_problem &q, real over) {
    int stretched = 0;
    for (int64_t first = threadIdx.x; first < q.system.m; first += AT_ONCE * THREADS) {
        real scale[AT_ONCE];
        MOVER_UNROLL
        for (int e = 0; e < AT_ONCE; e++)
            scale[e] = first + e * THREADS < q.system.m ? scale_of(q, over, first + e * THREADS) : 1;
        MOVER_UNROLL
        for (int e = 0; e < AT_ONCE; e++) stretched |= !(scale[e] < STRETCH && scale[e] > 1 / STRETCH);
    }
    return stretched;
}

/* The V of a thread's columns. */
template <class S>
static __device__ __forceinline__ void load_scales(real (&v)[S::columns], const sinkhorn_problem &q, real over,
                                                   typename S::index tile) {
    MOVER_UNROLL
    for (int c = 0; c < S::columns; c++) {
        const typename S::index j = column_of<S>(tile, c);
        v[c] = j < (typename S::index)q.system.m ? scale_of(q, over, j) : 0;
    }
}

/* Their v with V taken in: log b in the first iteration. */
template <class S>
static __device__ __forceinline__ void load_logs(real (&v)[S::columns], const sinkhorn_problem &q, const control &s,
                                                 typename S::index tile) {
    const int begins = s.mode == FIRST;
    MOVER_UNROLL
    for (int c = 0; c < S::columns; c++) {
        const typename S::index j = column_of<S>(tile, c);
        v[c] = OUTSIDE;
        if (j >= (typename S::index)q.system.m) continue;
        const real mass = mass_b(q, j);
        v[c] = NO_MASS;
        if (mass > 0) v[c] = begins ? log_2(mass) : q.v[j] + log_2(scale_of(q, (real)s.over, j));
    }
}

/* ---- rows: the kernel made again -------------------------------------------------------------------------------- */

/* The largest exponents of rows i ...; adds the costs that are out of bounds to *bad. */
template <class S>
static __device__ __forceinline__ void largest_exponents(const sinkhorn_problem &q, real (&x)[S::rows][S::columns],
                                                         const real (&v)[S::columns], real (&largest)[S::rows],
                                                         double *bad) {
    const real bound = LARGEST * (real)fmin(1.0, q.epsilon);
    int count = 0;
    MOVER_UNROLL
    for (int r = 0; r < S::rows; r++) {
        MOVER_UNROLL
        for (int c = 0; c < S::columns; c++) {
            const real exponent = v[c] - x[r][c] * q.inverse;
            largest[r] = exponent > largest[r] ? exponent : largest[r];
            count += !(fabs(x[r][c]) <= bound);
        }
    }
    *bad += count;
}

/* The kernel of a chunk of rows, every row scaled to its mass: from the costs, or from itself and V. One read and one
 * write an element (the wide shape reads and writes it again). Row numbers: costs out of bounds and the sum of a in the
 * first iteration, else 0 and <a, u>. */
template <class S, bool from_cost>
static __device__ void make_rows(const sinkhorn_problem &q, const control &s, int64_t chunk, team_scratch &scratch,
                                 int &turn) {
    const schur_system &y = q.system;
    const int64_t first = chunk * y.chunk_rows, last = first + y.chunk_rows < y.n ? first + y.chunk_rows : y.n;
    const typename S::index tiles = S::wide ? ((typename S::index)y.m + S::tile - 1) / S::tile : 1;
    const int begins = from_cost && s.mode == FIRST;
    const real *source = from_cost ? q.cost : q.kernel;
    real v[S::columns], sums[S::columns];
    double number[ROW_NUMBERS] = {};
    clear_columns<S>(sums);
    for (int64_t i = first + team_group<S>() * S::rows; i < last; i += S::groups * S::rows) {
        real x[S::rows][S::columns], mass[S::rows], u[S::rows], sum[S::rows];
        MOVER_UNROLL
        for (int r = 0; r < S::rows; r++) {
            mass[r] = i + r < last ? mass_a(q, i + r) : 0;
            u[r] = -REAL_MAX;
            sum[r] = 0;
        }
        if (!S::wide) load_rows<S>(x, source, y.m, i, last, 0);
        if (begins) {
            for (typename S::index tile = 0; tile < tiles; tile++) {
                load_logs<S>(v, q, s, tile);
                if (S::wide) load_rows<S>(x, source, y.m, i, last, tile);
                largest_exponents<S>(q, x, v, u, &number[0]);
            }
            reduce_rows<S, true>(u, scratch, turn);
        }
        MOVER_UNROLL
        for (int r = 0; r < S::rows; r++) {
            if (begins)
                u[r] = -u[r];
            else if (i + r < last)
                u[r] = q.u[i + r] + (from_cost ? log_2(q.row_scale[i + r]) : 0);
            if (!(mass[r] > 0)) u[r] = NO_MASS;
        }
        for (typename S::index tile = 0; tile < tiles; tile++) {
            if (from_cost)
                load_logs<S>(v, q, s, tile);
            else
                load_scales<S>(v, q, (real)s.over, tile);
            if (S::wide) load_rows<S>(x, source, y.m, i, last, tile);
            MOVER_UNROLL
            for (int r = 0; r < S::rows; r++) {
                MOVER_UNROLL
                for (int c = 0; c < S::columns; c++) {
                    x[r][c] = from_cost ? exponential((v[c] + u[r]) - x[r][c] * q.inverse) : x[r][c] * v[c];
                    sum[r] += x[r][c];
                }
                if (S::wide && i + r < last) store_columns<S>(x[r], q.kernel + (i + r) * y.m, y.m, tile);
            }
        }
        reduce_rows<S, false>(sum, scratch, turn);
        for (typename S::index tile = 0; tile < tiles; tile++) {
            if (S::wide) {
                clear_columns<S>(sums);
                load_rows<S>(x, q.kernel, y.m, i, last, tile);
            }
            MOVER_UNROLL
            for (int r = 0; r < S::rows; r++) {
                const real factor = mass[r] > 0 ? mass[r] / sum[r] : 0;
                MOVER_UNROLL
                for (int c = 0; c < S::columns; c++) {
                    x[r][c] *= factor;
                    sums[c] += x[r][c];
                }
                if (i + r < last) store_columns<S>(x[r], q.kernel + (i + r) * y.m, y.m, tile);
            }
            if (S::wide) add_sums<S>(sums, y.partial + chunk * y.m, y.m, tile, i > first);
        }
        MOVER_UNROLL
        for (int r = 0; r < S::rows; r++) {
            if (team_place<S>() != 0 || i + r >= last) continue;
            if (mass[r] > 0) u[r] += log_2(mass[r] / sum[r]);
            q.u[i + r] = u[r];
            q.row_scale[i + r] = 1;
            if (begins)
                number[1] += mass[r] >= 0 && mass[r] <= LARGEST ? (double)mass[r] : (double)NAN;
            else if (mass[r] > 0)
                number[1] += (double)mass[r] * (double)u[r];
        }
    }
    store_sums<S>(sums, y.partial + chunk * y.m, y.m, y.rows);
    store_numbers(number, y.row_part, y.chunks, chunk, scratch, false);
}

/* The diagonal of Newton's system, sum_i K_ij (a_i - K_ij) / a_i, of a chunk of rows that are exact. One read an
 * element. */
template <class S> static __device__ void diagonal_rows(const sinkhorn_problem &q, int64_t chunk) {
    const schur_system &y = q.system;
    const int64_t first = chunk * y.chunk_rows, last = first + y.chunk_rows < y.n ? first + y.chunk_rows : y.n;
    const typename S::index tiles = S::wide ? ((typename S::index)y.m + S::tile - 1) / S::tile : 1;
    real sums[S::columns];
    clear_columns<S>(sums);
    for (int64_t i = first + team_group<S>() * S::rows; i < last; i += S::groups * S::rows) {
        for (typename S::index tile = 0; tile < tiles; tile++) {
            real k[S::rows][S::columns];
            if (S::wide) clear_columns<S>(sums);
            load_rows<S>(k, q.kernel, y.m, i, last, tile);
            MOVER_UNROLL
            for (int r = 0; r < S::rows; r++) {
                const real mass = i + r < last ? mass_a(q, i + r) : 0, share = mass > 0 ? 1 / mass : 0;
                MOVER_UNROLL
                for (int c = 0; c < S::columns; c++) sums[c] += k[r][c] * ((mass - k[r][c]) * share);
            }
            if (S::wide) add_sums<S>(sums, y.partial + chunk * y.m, y.m, tile, i > first);
        }
    }
    store_sums<S>(sums, y.partial + chunk * y.m, y.m, y.rows);
}

/* ---- rows: multiply-adds ---------------------------------------------------------------------------------------- */

/* U of a chunk of rows from sums of K V, and their part of the column sums. One read an element. Row number: the error
 * that is left in the rows. A row without mass has U = 0. */
template <class S>
static __device__ void scale_rows(const sinkhorn_problem &q, const control &s, int64_t chunk, team_scratch &scratch,
                                  int &turn) {
    const schur_system &y = q.system;
    const int64_t first = chunk * y.chunk_rows, last = first + y.chunk_rows < y.n ? first + y.chunk_rows : y.n;
    const typename S::index tiles = S::wide ? ((typename S::index)y.m + S::tile - 1) / S::tile : 1;
    const real over = (real)s.over;
    real v[S::columns], sums[S::columns];
    double number[ROW_NUMBERS] = {};
    clear_columns<S>(sums);
    if (!S::wide) load_scales<S>(v, q, over, 0);
    const int64_t step = S::groups * S::rows;
    int64_t i = first + team_group<S>() * S::rows;
    real k[S::rows][S::columns];
    if (S::ahead) load_rows<S>(k, q.kernel, y.m, i, last, 0);
    for (; i < last; i += step) {
        real next[S::rows][S::columns], sum[S::rows], before[S::rows];
        MOVER_UNROLL
        for (int r = 0; r < S::rows; r++) {
            sum[r] = 0;
            before[r] = i + r < last ? q.row_scale[i + r] : 1;
        }
        for (typename S::index tile = 0; tile < tiles; tile++) {
            if (S::wide) load_scales<S>(v, q, over, tile);
            if (!S::ahead) load_rows<S>(k, q.kernel, y.m, i, last, tile);
            MOVER_UNROLL
            for (int r = 0; r < S::rows; r++) {
                MOVER_UNROLL
                for (int c = 0; c < S::columns; c++) sum[r] += k[r][c] * v[c];
            }
        }
        if (S::ahead) load_rows<S>(next, q.kernel, y.m, i + step, last, 0);
        reduce_rows<S, false>(sum, scratch, turn);
        MOVER_UNROLL
        for (int r = 0; r < S::rows; r++) {
            const real mass = i + r < last ? mass_a(q, i + r) : 0;
            real scale = 0;
            if (mass > 0) {
                scale = mass / sum[r];
                if (over != 0) {
                    scale *= 1 + over * excess_of(scale, before[r]);
                    if (team_place<S>() == 0) number[0] += (double)fabs(scale * sum[r] - mass);
                }
            }
            sum[r] = scale;
            if (team_place<S>() == 0 && i + r < last) q.row_scale[i + r] = scale;
        }
        for (typename S::index tile = 0; tile < tiles; tile++) {
            if (S::wide) {
                clear_columns<S>(sums);
                load_rows<S>(k, q.kernel, y.m, i, last, tile);
            }
            MOVER_UNROLL
            for (int r = 0; r < S::rows; r++) {
                MOVER_UNROLL
                for (int c = 0; c < S::columns; c++) sums[c] += k[r][c] * sum[r];
            }
            if (S::wide) add_sums<S>(sums, y.partial + chunk * y.m, y.m, tile, i > first);
        }
        if (S::ahead) copy_rows<S>(k, next);
    }
    store_sums<S>(sums, y.partial + chunk * y.m, y.m, y.rows);
    store_numbers(number, y.row_part, y.chunks, chunk, scratch, false);
}

#endif
