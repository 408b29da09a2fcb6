/*
 * finish.cuh: columns of the ticks of entropic transport, and what the iterations end in.
 *
 * A block has column_width columns of a problem: its threads add up their chunks slice by slice, and the owner of a
 * column, one thread, goes on with it.
 */
#ifndef MOVER_CUDA_FINISH_CUH
#define MOVER_CUDA_FINISH_CUH

#include "scaling.cuh"

/* ---- columns of an iteration ------------------------------------------------------------------------------------ */

/* log2 sum_i 2^(u_i - C_ij inverse) over the rows with mass, about its largest exponent, with the row scales in u, for
 * the owner of column j. All threads of the block. */
static __device__ double column_log_sum(const sinkhorn_problem &q, const column_place &at, team_scratch &scratch) {
    const int64_t n = q.system.n, m = q.system.m, each = (n + at.slices - 1) / at.slices;
    const int64_t first = at.slice * each, last = first + each < n ? first + each : n;
    double largest = (double)NO_MASS, sum = 0;
    for (int pass = 0; pass < 2; pass++) {
        double mine = pass ? 0 : (double)NO_MASS;
        for (int64_t i = first; at.j < m && i < last; i++) {
            if (!(mass_a(q, i) > 0)) continue;
            const double exponent =
                (double)q.u[i] + (double)log_2(q.row_scale[i]) - (double)q.cost[i * m + at.j] * (LOG2_E / q.epsilon);
            mine = pass ? mine + mover_exp2(exponent - largest) : fmax(mine, exponent);
        }
        scratch.slices[threadIdx.x] = mine;
        __syncthreads();
        mine = scratch.slices[threadIdx.x % at.width];
        for (int s = 1; s < at.slices; s++) {
            const double other = scratch.slices[s * at.width + threadIdx.x % at.width];
            mine = pass ? mine + other : fmax(mine, other);
        }
        if (pass)
            sum = mine;
        else
            largest = mine;
        __syncthreads();
    }
    return largest + log2(sum);
}

/* V of a column from its sum, as what makes it; a column without mass keeps V = 1. Columns whose sums vanished are
 * taken again into v. Returns 1 for those. All threads of the block. */
static __device__ int scale_column(const sinkhorn_problem &q, const column_place &at, real before, real sum,
                                   team_scratch &scratch) {
    const real mass = at.owner ? mass_b(q, at.j) : 0;
    const int vanished = at.owner && mass > 0 && sum < UNDERFLOWS;
    if (at.owner) {
        const real plain = mass > 0 && !vanished ? mass / sum : 1;
        q.plain[at.j] = plain;
        q.excess[at.j] = mass > 0 && !vanished ? excess_of(plain, before) : 0;
    }
    const int any = __syncthreads_or(vanished);
    if (any) {
        const double log_sum = column_log_sum(q, at, scratch);
        if (vanished) q.v[at.j] = (real)((double)log_2(mass) - log_sum);
    }
    return vanished;
}

/* v of a column with its V taken in, where the rows have made the kernel of it; the V that is left. */
static __device__ __forceinline__ real absorb_column(const sinkhorn_problem &q, const control &s, int64_t j) {
    if (s.mode == FIRST) {
        const real mass = mass_b(q, j);
        q.v[j] = mass > 0 ? log_2(mass) : NO_MASS;
        return 1;
    }
    const real scale = scale_of(q, (real)s.over, j);
    if (s.mode == ITERATE && !s.from_cost) return scale;
    if (mass_b(q, j) > 0) q.v[j] += log_2(scale);
    return 1;
}

/* Numbers: the error of the columns before they are scaled, how many vanished, and the sum of b in the first one. */
static __device__ void iterate_columns(const sinkhorn_problem &q, const control &s, int64_t item,
                                       team_scratch &scratch) {
    const schur_system &y = q.system;
    const column_place at = place_of(item, y.column_width, y.m);
    const real sum = sum_chunks(y.partial, y.chunks, y.m, at, scratch.sums[0]);
    double number[COLUMN_NUMBERS] = {};
    real before = 1;
    if (at.owner) {
        const real mass = mass_b(q, at.j);
        before = absorb_column(q, s, at.j);
        y.column_sum[at.j] = sum;
        number[0] = (double)fabs(before * sum - mass);
        if (s.mode == FIRST) number[2] = mass >= 0 && mass <= LARGEST ? (double)mass : (double)NAN;
    }
    number[1] = scale_column(q, at, before, sum, scratch);
    store_numbers(number, y.column_part, y.column_items, item, scratch, false);
}

/* ---- columns of Newton ------------------------------------------------------------------------------------------ */

/* After rows were made exact: c, and the right-hand side of a direction. */
static __device__ void newton_columns(const sinkhorn_problem &q, const control &s, int64_t item,
                                      team_scratch &scratch) {
    const schur_system &y = q.system;
    const column_place at = place_of(item, y.column_width, y.m);
    const real sum = sum_chunks(y.partial, y.chunks, y.m, at, scratch.sums[0]);
    double number[COLUMN_NUMBERS] = {};
    if (at.owner) {
        const int64_t j = at.j;
        const real mass = mass_b(q, j), residual = mass > 0 ? mass - sum : 0;
        (void)absorb_column(q, s, j);
        q.plain[j] = 1;
        q.excess[j] = 0;
        y.column_sum[j] = sum;
        number[ERROR_SUM] = (double)fabs(sum - mass);
        number[SQUARE_SUM] = (double)residual * (double)residual;
        number[DUAL_SUM] = mass > 0 ? (double)mass * (double)q.v[j] : 0;
        number[RESIDUAL_SUM] = sum != 0 ? (double)residual : 0;
        number[MASS_COUNT] = sum != 0;
    }
    store_numbers(number, y.column_part, y.column_items, item, scratch, false);
}

static __device__ void prepare_columns(const sinkhorn_problem &q, const control &s, int64_t item,
                                       team_scratch &scratch) {
    const schur_system &y = q.system;
    const column_place at = place_of(item, y.column_width, y.m);
    const real diagonal = sum_chunks(y.partial, y.chunks, y.m, at, scratch.sums[0]);
    double number[COLUMN_NUMBERS] = {};
    if (at.owner) {
        const real mass = mass_b(q, at.j), right = mass > 0 ? mass - y.column_sum[at.j] : 0;
        y.diagonal[at.j] = diagonal;
        schur_start(y, at.j, right, (real)s.mean, number);
    }
    store_numbers(number, y.column_part, y.column_items, item, scratch, false);
}

static __device__ void move_columns(const sinkhorn_problem &q, const control &s, int64_t item) {
    const column_place at = place_of(item, q.system.column_width, q.system.m);
    if (!at.owner) return;
    q.plain[at.j] = s.to == s.at ? (real)1 : (real)exp((s.to - s.at) * (double)q.system.solution[at.j]);
    q.excess[at.j] = 0;
}

static __device__ void leave_columns(const sinkhorn_problem &q, int64_t item, team_scratch &scratch) {
    const schur_system &y = q.system;
    const column_place at = place_of(item, y.column_width, y.m);
    double number[COLUMN_NUMBERS] = {};
    number[1] = scale_column(q, at, 1, at.owner ? y.column_sum[at.j] : 0, scratch);
    store_numbers(number, y.column_part, y.column_items, item, scratch, false);
}

/* ---- the plan and the potentials -------------------------------------------------------------------------------- */

/* plan = U K V for a chunk of rows, with its column sums; returns the error of the rows, spread over the threads. One
 * read and one write an element. */
template <class S>
static __device__ double plan_rows(const sinkhorn_problem &q, int64_t chunk, team_scratch &scratch, int &turn) {
    const schur_system &y = q.system;
    const int64_t first = chunk * y.chunk_rows, last = first + y.chunk_rows < y.n ? first + y.chunk_rows : y.n;
    const typename S::index tiles = S::wide ? ((typename S::index)y.m + S::tile - 1) / S::tile : 1;
    double error = 0;
    real v[S::columns], sums[S::columns];
    clear_columns<S>(sums);
    if (!S::wide) load_scales<S>(v, q, 0, 0);
    for (int64_t i = first + team_group<S>() * S::rows; i < last; i += S::groups * S::rows) {
        real p[S::rows][S::columns], sum[S::rows];
        MOVER_UNROLL
        for (int r = 0; r < S::rows; r++) sum[r] = 0;
        for (typename S::index tile = 0; tile < tiles; tile++) {
            if (S::wide) {
                clear_columns<S>(sums);
                load_scales<S>(v, q, 0, tile);
            }
            load_rows<S>(p, q.kernel, y.m, i, last, tile);
            MOVER_UNROLL
            for (int r = 0; r < S::rows; r++) {
                const real scale = i + r < last ? q.row_scale[i + r] : 0;
                MOVER_UNROLL
                for (int c = 0; c < S::columns; c++) {
                    p[r][c] = p[r][c] * scale * v[c];
                    sum[r] += p[r][c];
                    sums[c] += p[r][c];
                }
                if (i + r < last) store_columns<S>(p[r], q.plan + (i + r) * y.m, y.m, tile);
            }
            if (S::wide) add_sums<S>(sums, y.partial + chunk * y.m, y.m, tile, i > first);
        }
        reduce_rows<S, false>(sum, scratch, turn);
        MOVER_UNROLL
        for (int r = 0; r < S::rows; r++)
            if (team_place<S>() == 0 && i + r < last) error += (double)fabs(sum[r] - mass_a(q, i + r));
    }
    store_sums<S>(sums, y.partial + chunk * y.m, y.m, y.rows);
    return error;
}

/* -epsilon log sum_j b_j exp((g_j - C_ij) / epsilon), the soft c-transform of a row, by a warp. */
static __device__ double soft_row(const sinkhorn_problem &q, int64_t i) {
    const int64_t m = q.system.m;
    double largest = (double)NO_MASS, sum = 0;
    for (int pass = 0; pass < 2; pass++) {
        double mine = pass ? 0 : (double)NO_MASS;
        for (int64_t j = threadIdx.x % WARP; j < m; j += WARP) {
            if (!(mass_b(q, j) > 0)) continue;
            const double exponent =
                (double)q.v[j] + (double)log_2(scale_of(q, 0, j)) - (double)q.cost[i * m + j] * (LOG2_E / q.epsilon);
            mine = pass ? mine + mover_exp2(exponent - largest) : fmax(mine, exponent);
        }
        if (pass)
            sum = mover_warp_sum(mine);
        else
            largest = mover_warp_max(mine);
    }
    return -q.epsilon * LN_2 * (largest + log2(sum));
}

/* f = epsilon (u - log a) of a chunk of rows, a warp a row, not in its gauge yet; returns <f, a>, spread over the
 * threads. */
static __device__ double potential_rows(const sinkhorn_problem &q, int64_t chunk) {
    const schur_system &y = q.system;
    const int64_t first = chunk * y.chunk_rows, last = first + y.chunk_rows < y.n ? first + y.chunk_rows : y.n;
    double with = 0;
    for (int64_t i = first + threadIdx.x; i < last; i += THREADS) {
        const real mass = mass_a(q, i);
        if (!(mass > 0)) continue;
        const double u = (double)q.u[i] + (double)log_2(q.row_scale[i]);
        q.f[i] = (real)(q.epsilon * (u * LN_2 - log((double)mass)));
        with += (double)q.f[i] * (double)mass;
    }
    for (int64_t i = first + threadIdx.x / WARP; i < last; i += WARPS) {
        if (mass_a(q, i) > 0) continue;
        const double f = soft_row(q, i);
        if (threadIdx.x % WARP == 0) q.f[i] = (real)f;
    }
    return with;
}

/* Row numbers: the error of the rows of the plan, and <f, a>. */
template <class S>
static __device__ void write_rows(const sinkhorn_problem &q, int64_t chunk, team_scratch &scratch, int &turn) {
    double number[ROW_NUMBERS] = {};
    if (q.plan) number[0] = plan_rows<S>(q, chunk, scratch, turn);
    number[1] = potential_rows(q, chunk);
    store_numbers(number, q.system.row_part, q.system.chunks, chunk, scratch, false);
}

/* g, likewise. Column numbers: the error of the columns of the plan, and <g, b>. */
static __device__ void write_columns(const sinkhorn_problem &q, int64_t item, team_scratch &scratch) {
    const schur_system &y = q.system;
    const column_place at = place_of(item, y.column_width, y.m);
    const real sum = q.plan ? sum_chunks(y.partial, y.chunks, y.m, at, scratch.sums[0]) : 0;
    double number[COLUMN_NUMBERS] = {}, log_sum = 0;
    const real mass = at.owner ? mass_b(q, at.j) : 1;
    const int any = __syncthreads_or(!(mass > 0));
    if (any) log_sum = column_log_sum(q, at, scratch);
    if (at.owner) {
        const int64_t j = at.j;
        if (mass > 0) {
            const double v = (double)q.v[j] + (double)log_2(scale_of(q, 0, j));
            q.g[j] = (real)(q.epsilon * (v * LN_2 - log((double)mass)));
            number[1] = (double)q.g[j] * (double)mass;
        } else {
            q.g[j] = (real)(-q.epsilon * LN_2 * log_sum);
        }
        if (q.plan) number[0] = (double)fabs(sum - mass);
    }
    store_numbers(number, y.column_part, y.column_items, item, scratch, false);
}

/* f + shift and g - shift, the former of a chunk, the latter with the first chunk; or NaN where the problem is not
 * finite, in the plan too. */
static __device__ void shift_rows(const sinkhorn_problem &q, const control &s, int64_t chunk) {
    const schur_system &y = q.system;
    const int64_t first = chunk * y.chunk_rows, last = first + y.chunk_rows < y.n ? first + y.chunk_rows : y.n;
    const bool poison = s.mode == POISON;
    for (int64_t i = first + threadIdx.x; i < last; i += THREADS)
        q.f[i] = poison ? (real)NAN : (real)((double)q.f[i] + s.shift);
    for (int64_t j = threadIdx.x; chunk == 0 && j < y.m; j += THREADS)
        q.g[j] = poison ? (real)NAN : (real)((double)q.g[j] - s.shift);
    for (int64_t e = first * y.m + threadIdx.x; poison && q.plan && e < last * y.m; e += THREADS) q.plan[e] = (real)NAN;
}

#endif
