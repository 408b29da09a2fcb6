/*
 * ranking.cu: the best groups of every anchor, and the rank of one, without the matrix of scores.
 *
 * Tiles are scored by score_tile.cu, as volume_scores scores them, one after the other; each row of a tile is then
 * searched for the topk best, kept in order in the output itself, or for what is better than its target. The score of
 * a target is known once the tiles of its strip have been made: where they are few their scores are all kept, else they
 * are made twice.
 */
#include "../src/backend.h"

#include "score_tile.h"

#include "device.h"
#include "reduce.cuh"

/* Threads for a row: FEW where it has at most so many scores as they sort together, else MANY. */
enum { FEW = WARP, MANY = 256, EACH = 4 /* scores of a thread that are sorted together */ };

static const int NOWHERE = 0x7fffffff;

namespace {

typedef struct ranking_call {
    score_call groups;
    int64_t topk;
    int64_t kept; /* tiles of a strip whose scores are kept together */
    real *alphas; /* of a tile: (rows, groups, members); NULL for the cosine */
    real *scores; /* (kept, rows, groups) */
    real *own;    /* (rows): the score of the target */
    const int64_t *target;
    real *values;
    int64_t *indices, *better, *tied;
} ranking_call;

/* The tile at work. */
typedef struct searched {
    int64_t rows, groups, first_row, first; /* first: group */
    const real *scores;                     /* (rows, groups) */
    int sign;                               /* that makes smaller better */
    int begins, ends;                       /* the first, the last tile of its strip */
} searched;

} // namespace

/* ---- topk ---------------------------------------------------------------------------------------------------------
 */

/* Keys are scores with their sign. A key of NaN is after every number, equal keys are in the order of their numbers. */
template <class I> static __device__ __forceinline__ bool before(real a, I i, real b, I j) {
    if (a != a || b != b) return b != b && (a == a || i < j);
    return a < b || (a == b && i < j);
}

/* How many of the elements of a sorted list of `count` are before (score, index). */
template <class I>
static __device__ __forceinline__ int64_t rank_in(const real *scores, const I *indices, int64_t count, real sign,
                                                  real score, I index) {
    int64_t low = 0, high = count;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (before<I>(sign * scores[middle], indices[middle], sign * score, index))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Puts `count` candidates in order, by bitonic sort. The whole block; what it wrote is seen. */
template <int threads>
static __device__ __forceinline__ void sort_candidates(real *score, int *offset, int count, real sign) {
    int size = 1;
    while (size < count) size *= 2;
    for (int q = count + (int)threadIdx.x; q < size; q += threads) {
        score[q] = (real)NAN;
        offset[q] = NOWHERE;
    }
    __syncthreads();
    for (int run = 2; run <= size; run *= 2)
        for (int distance = run / 2; distance >= 1; distance /= 2) {
            for (int q = threadIdx.x; q < size / 2; q += threads) {
                const int low = 2 * q - (q & (distance - 1)), high = low + distance;
                const real a = score[low], b = score[high];
                const int i = offset[low], j = offset[high];
                if (before(sign * b, j, sign * a, i) == ((low & run) == 0)) {
                    score[low] = b;
                    score[high] = a;
                    offset[low] = j;
                    offset[high] = i;
                }
            }
            __syncthreads();
        }
}

/* The topk best of the groups so far. A block owns a row: of span = threads * EACH scores at a time those that are
 * before the last of a full list are gathered, sorted, and merged with the list, whose elements move up from the last
 * on. Shared memory for span candidates. Reads each score once; of the list what moves. */
template <int threads> static __global__ void __launch_bounds__(threads) merge_topk(ranking_call call, searched tile) {
    constexpr int span = threads * EACH;
    MOVER_SHARED(real, score, [span]);
    MOVER_SHARED(int, offset, [span]);
    MOVER_SHARED(int, found, [threads / WARP]);
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int64_t topk = call.topk;
    const real sign = (real)tile.sign;
    for (int64_t row = blockIdx.x; row < tile.rows; row += gridDim.x) {
        const real *scores = tile.scores + row * tile.groups;
        real *values = call.values + (tile.first_row + row) * topk;
        int64_t *indices = call.indices + (tile.first_row + row) * topk;
        int64_t filled = tile.first < topk ? tile.first : topk;
        for (int64_t from = 0; from < tile.groups; from += span) {
            const bool full = filled == topk;
            const real bound = full ? sign * values[topk - 1] : 0;
            const int64_t last = full ? indices[topk - 1] : 0;
            real mine[EACH];
            bool wanted[EACH];
            int place[EACH], before_lane = 0;
            MOVER_UNROLL
            for (int e = 0; e < EACH; e++) {
                const int64_t j = from + e * threads + threadIdx.x;
                mine[e] = j < tile.groups ? scores[j] : 0;
                wanted[e] = j < tile.groups && (!full || before<int64_t>(sign * mine[e], tile.first + j, bound, last));
                const unsigned lanes = __ballot_sync(0xffffffffu, wanted[e]);
                place[e] = before_lane + __popc(lanes & ((1u << lane) - 1));
                before_lane += __popc(lanes);
            }
            if (lane == 0) found[warp] = before_lane;
            __syncthreads();
            int count = 0, before_warp = 0;
            MOVER_UNROLL
            for (int w = 0; w < threads / WARP; w++) {
                before_warp += w < warp ? found[w] : 0;
                count += found[w];
            }
            MOVER_UNROLL
            for (int e = 0; e < EACH; e++)
                if (wanted[e]) {
                    score[before_warp + place[e]] = mine[e];
                    offset[before_warp + place[e]] = (int)(from + e * threads + threadIdx.x);
                }
            __syncthreads();
            if (count == 0) continue; /* the same for all threads */

            sort_candidates<threads>(score, offset, count, sign);
            const int64_t grown = filled + count < topk ? filled + count : topk;
            int64_t to[EACH];
            MOVER_UNROLL
            for (int e = 0; e < EACH; e++) {
                const int q = e * threads + threadIdx.x;
                to[e] = topk;
                if (q < count)
                    to[e] = q + rank_in<int64_t>(values, indices, filled, sign, score[q], tile.first + offset[q]);
            }
            const int64_t unmoved = rank_in<int64_t>(values, indices, filled, sign, score[0], tile.first + offset[0]);
            __syncthreads();
            for (int64_t end = filled; end > unmoved; end -= threads) {
                const int64_t p = end - 1 - threadIdx.x;
                const bool moves = p >= unmoved;
                const real value = moves ? values[p] : 0;
                const int64_t index = moves ? indices[p] : 0;
                const int place_in_tile = index < tile.first ? -1 : (int)(index - tile.first);
                const int64_t up = moves ? p + rank_in<int>(score, offset, count, sign, value, place_in_tile) : topk;
                __syncthreads();
                if (up < topk) {
                    values[up] = value;
                    indices[up] = index;
                }
                __syncthreads();
            }
            MOVER_UNROLL
            for (int e = 0; e < EACH; e++)
                if (to[e] < topk) {
                    values[to[e]] = score[e * threads + threadIdx.x];
                    indices[to[e]] = tile.first + offset[e * threads + threadIdx.x];
                }
            filled = grown;
            __syncthreads();
        }
    }
}

/* ---- rank ---------------------------------------------------------------------------------------------------------
 */

static __device__ __forceinline__ bool is_group(const ranking_call &call, int64_t target) {
    return target >= 0 && target < call.groups.m;
}

/* The scores of the targets that lie in the tile, by a thread for each anchor. */
static __global__ void __launch_bounds__(MANY) pick_targets(ranking_call call, searched tile) {
    for (int64_t row = blockIdx.x * (int64_t)MANY + threadIdx.x; row < tile.rows; row += gridDim.x * (int64_t)MANY) {
        const int64_t j = call.target[tile.first_row + row] - tile.first;
        if (j >= 0 && j < tile.groups) call.own[row] = tile.scores[row * tile.groups + j];
    }
}

/* How many groups of the tile are better than the target, and how many are its equal, added to what earlier tiles gave.
 * A block owns a row. Reads each score once. */
template <int threads>
static __global__ void __launch_bounds__(threads) count_better(ranking_call call, searched tile) {
    MOVER_SHARED(int, shares, [threads / WARP]);
    const real sign = (real)tile.sign;
    for (int64_t row = blockIdx.x; row < tile.rows; row += gridDim.x) {
        const int64_t i = tile.first_row + row;
        const bool valid = is_group(call, call.target[i]);
        const real own = valid ? sign * call.own[row] : 0;
        const real *scores = tile.scores + row * tile.groups;
        int better = 0, equal = 0;
        for (int64_t j = threadIdx.x; j < tile.groups; j += threads) {
            const real other = sign * scores[j];
            better += other < own;
            equal += other == own;
        }
        better = mover_block_sum<threads>(better, shares);
        equal = mover_block_sum<threads>(equal, shares);
        if (threadIdx.x == 0) {
            int64_t all_better = better + (tile.begins ? 0 : call.better[i]);
            int64_t all_equal = equal + (tile.begins ? 0 : call.tied[i]);
            if (tile.ends) {
                all_better = !valid ? -1 : own != own ? call.groups.m - 1 : all_better;
                all_equal = !valid ? -1 : own != own ? 0 : all_equal - 1;
            }
            call.better[i] = all_better;
            call.tied[i] = all_equal;
        }
    }
}

/* ---------------------------------------------------------------------------------------------------------------------
 */

static ranking_call take_ranking(const char *function, const mover_volume_scores_desc *desc, mover_arena *arena) {
    ranking_call call = {};
    call.groups = R(mover_cuda_score_take)(function, desc, arena);
    call.topk = desc->topk;
    const score_plan *plan = &call.groups.plan;
    call.kept = plan->across <= SCORE_KEPT ? mover_max(1, plan->across) : 1;
    call.scores = (real *)mover_take(arena, call.kept * plan->rows, plan->groups, sizeof(real));
    call.own = (real *)mover_take(arena, plan->rows, 1, sizeof(real));
    if (desc->score != MOVER_SCORE_COSINE)
        call.alphas = (real *)mover_take(arena, plan->rows, plan->groups * call.groups.members, sizeof(real));
    return call;
}

void R(mover_cuda_ranking_layout)(const mover_volume_scores_desc *desc, mover_arena *arena) {
    (void)take_ranking("", desc, arena);
}

/* Describes tile (strip, across), whose scores stand in place `across` where they are kept, and makes them. */
static mover_status make_tile(const ranking_call *call, int64_t strip, int64_t across, bool make, searched *tile,
                              const mover_exec *exec) {
    const score_call *groups = &call->groups;
    real *scores = call->scores + (across < call->kept ? across : 0) * groups->plan.rows * groups->plan.groups;
    tile->rows = score_rows_of(groups, strip);
    tile->groups = score_groups_of(groups, across);
    tile->first_row = strip * groups->plan.rows;
    tile->first = across * groups->plan.groups;
    tile->scores = scores;
    tile->sign = groups->score == MOVER_SCORE_COSINE ? -1 : 1;
    tile->begins = across == 0;
    tile->ends = across + 1 >= groups->plan.across;
    if (!make) return MOVER_OK;
    return R(mover_cuda_score_tile)(groups, strip, across, call->alphas, scores, tile->groups, exec);
}

mover_status R(mover_cuda_volume_topk)(const mover_volume_scores_desc *desc, const real *anchor, const real *others,
                                       const uint8_t *mask, real *values, int64_t *indices, void *workspace,
                                       const mover_exec *exec) {
    mover_arena arena = mover_arena_over(workspace);
    ranking_call call = take_ranking("mover_volume_topk", desc, &arena);
    const score_plan plan = call.groups.plan;
    call.values = values;
    call.indices = indices;
    MOVER_TRY(R(mover_cuda_score_groups)(&call.groups, anchor, others, mask, exec));
    MOVER_TRY(R(mover_cuda_score_norms)(&call.groups, exec));
    for (int64_t strip = 0; strip < plan.strips; strip++)
        for (int64_t across = 0; across < plan.across; across++) {
            searched tile;
            MOVER_TRY(make_tile(&call, strip, across, true, &tile, exec));
            const unsigned blocks = mover_blocks(tile.rows, MOVER_MOST_BLOCKS);
            if (tile.groups <= FEW * EACH)
                MOVER_CUDA_TRY(call.groups.function,
                               MOVER_LAUNCH(merge_topk<FEW>, blocks, FEW, 0, mover_stream(exec), call, tile));
            else
                MOVER_CUDA_TRY(call.groups.function,
                               MOVER_LAUNCH(merge_topk<MANY>, blocks, MANY, 0, mover_stream(exec), call, tile));
        }
    return MOVER_OK;
}

mover_status R(mover_cuda_volume_rank)(const mover_volume_scores_desc *desc, const real *anchor, const real *others,
                                       const int64_t *target, const uint8_t *mask, int64_t *better, int64_t *tied,
                                       void *workspace, const mover_exec *exec) {
    mover_arena arena = mover_arena_over(workspace);
    ranking_call call = take_ranking("mover_volume_rank", desc, &arena);
    const score_plan plan = call.groups.plan;
    const int64_t tiles = mover_max(1, plan.across); /* without groups, one without scores */
    const bool all_kept = plan.across <= call.kept;
    call.target = target;
    call.better = better;
    call.tied = tied;
    MOVER_TRY(R(mover_cuda_score_groups)(&call.groups, anchor, others, mask, exec));
    MOVER_TRY(R(mover_cuda_score_norms)(&call.groups, exec));
    for (int64_t strip = 0; strip < plan.strips; strip++) {
        searched tile;
        for (int64_t across = 0; across < tiles; across++) {
            MOVER_TRY(make_tile(&call, strip, across, true, &tile, exec));
            const unsigned blocks = mover_blocks(mover_ceil_div(tile.rows, MANY), MOVER_MOST_BLOCKS);
            MOVER_CUDA_TRY(call.groups.function,
                           MOVER_LAUNCH(pick_targets, blocks, MANY, 0, mover_stream(exec), call, tile));
        }
        for (int64_t across = 0; across < tiles; across++) {
            MOVER_TRY(make_tile(&call, strip, across, !all_kept, &tile, exec));
            const unsigned blocks = mover_blocks(tile.rows, MOVER_MOST_BLOCKS);
            if (tile.groups <= FEW * EACH)
                MOVER_CUDA_TRY(call.groups.function,
                               MOVER_LAUNCH(count_better<FEW>, blocks, FEW, 0, mover_stream(exec), call, tile));
            else
                MOVER_CUDA_TRY(call.groups.function,
                               MOVER_LAUNCH(count_better<MANY>, blocks, MANY, 0, mover_stream(exec), call, tile));
        }
    }
    return MOVER_OK;
}
