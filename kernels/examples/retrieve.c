/*
 * retrieve.c: libmover in a C program, with threads and matrix products lent to it.
 *
 *     retrieve [items [width]]
 *
 * Makes rows of three modalities, matches the modalities by optimal transport, ranks the (video, audio) pairs for every
 * text by the volume they span with it, and takes a gradient step on the contrastive loss of these scores. All of it
 * is done twice: by the library alone, then with OpenMP threads and a BLAS lent to it through mover_exec.
 *
 * CMakeLists.txt beside this file builds it. By hand, with OpenBLAS (or without -fopenmp, HAVE_CBLAS and openblas):
 *
 *     cc -std=c11 -O2 -fopenmp -DHAVE_CBLAS retrieve.c -o retrieve \
 *         $(pkg-config --static --cflags --libs mover) $(pkg-config --cflags --libs openblas) -lm
 *
 * Two pools of threads, of OpenMP and of a BLAS, compete for the cores while they wait for work.
 * OMP_WAIT_POLICY=passive in the environment, or one thread for the BLAS (OPENBLAS_NUM_THREADS=1), ends that.
 */
#include <mover/mover.h>

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#ifdef HAVE_CBLAS
#include <cblas.h>
#ifdef BLAS_SYMBOL_PREFIX /* builds of OpenBLAS that rename their functions define it in their compile flags */
#define PASTE(prefix, name) prefix##name
#define PREFIXED(prefix, name) PASTE(prefix, name)
#define cblas_sgemm PREFIXED(BLAS_SYMBOL_PREFIX, cblas_sgemm)
#define cblas_dgemm PREFIXED(BLAS_SYMBOL_PREFIX, cblas_dgemm)
#endif
#endif
#ifdef _OPENMP
#include <omp.h>
#endif

/* ---- what is lent ----------------------------------------------------------------------------------------------- */

#ifdef _OPENMP
/* body over [begin, end), in ranges of at least `grain`: four for each thread, to balance the load. */
static int parallel_for(void *host, int64_t begin, int64_t end, int64_t grain, mover_body body, void *ctx) {
    (void)host;
    const int64_t count = end - begin, most = 4 * (int64_t)omp_get_max_threads();
    const int64_t fitting = count / grain, ranges = fitting < 1 ? 1 : fitting < most ? fitting : most;
#pragma omp parallel for schedule(dynamic)
    for (int64_t r = 0; r < ranges; r++) body(begin + count * r / ranges, begin + count * (r + 1) / ranges, ctx);
    return 0;
}
#endif

#ifdef HAVE_CBLAS
/* C = op(A) op(B). Never called inside parallel_for, so the BLAS may use threads of its own. It counts in int: larger
 * sizes are refused, and the library's caller gets MOVER_ERROR_HOST. */
static int gemm(void *host, mover_dtype dtype, int transpose_a, int transpose_b, int64_t n, int64_t m, int64_t d,
                const void *a, int64_t lda, const void *b, int64_t ldb, void *c, int64_t ldc) {
    (void)host;
    if (n > INT_MAX || m > INT_MAX || d > INT_MAX || lda > INT_MAX || ldb > INT_MAX || ldc > INT_MAX) return 1;
    const CBLAS_TRANSPOSE op_a = transpose_a ? CblasTrans : CblasNoTrans;
    const CBLAS_TRANSPOSE op_b = transpose_b ? CblasTrans : CblasNoTrans;
    const int rows = (int)n, columns = (int)m, inner = (int)d, sa = (int)lda, sb = (int)ldb, sc = (int)ldc;
    if (dtype == MOVER_FLOAT32)
        cblas_sgemm(CblasRowMajor, op_a, op_b, rows, columns, inner, 1, a, sa, b, sb, 0, c, sc);
    else
        cblas_dgemm(CblasRowMajor, op_a, op_b, rows, columns, inner, 1, a, sa, b, sb, 0, c, sc);
    return 0;
}
#endif

/* Fields that are left at 0 mean: the library does it by itself. */
static mover_exec lend(void) {
    mover_exec exec = {.backend = MOVER_CPU};
#ifdef _OPENMP
    exec.parallel_for = parallel_for;
    printf("threads          %d, of OpenMP\n", omp_get_max_threads());
#else
    printf("threads          1 (built without OpenMP)\n");
#endif
#ifdef HAVE_CBLAS
    exec.gemm = gemm;
    printf("products         of the BLAS\n");
#else
    printf("products         the library's own loops (built without a BLAS)\n");
#endif
    return exec;
}

/* ---- rows and results ------------------------------------------------------------------------------------------- */

/* Items of three modalities, and what one run makes of them. */
typedef struct items {
    int64_t n, d;
    float *rows;                 /* (3, n, d): text, video, audio */
    float *pairs;                /* (n, 2, d): video and audio of an item, side by side */
    float *plan, *cost;          /* (2, n, n): text with video, video with audio */
    float *f, *g;                /* (2, n) */
    float *scores, *grad_scores; /* (n, n) */
    float *alphas;               /* (n, n, 2): kept for the gradient of the scores */
    float *grad_text;            /* (n, d) */
    float marginal_error[2];
    int32_t n_iter[2];
} items;

/* Data never make a call fail: a status other than MOVER_OK is a mistake of this program, or of what it lent. */
static void check(mover_status status) {
    if (status == MOVER_OK) return;
    fprintf(stderr, "retrieve: %s (%s)\n", mover_last_error(), mover_status_string(status));
    exit(EXIT_FAILURE);
}

static void *allocate(size_t count, size_t size) {
    void *memory = count == 0 ? NULL : calloc(count, size);
    if (count == 0 || memory) return memory;
    fprintf(stderr, "retrieve: out of memory\n");
    exit(EXIT_FAILURE);
}

static float *floats(int64_t count) { return allocate((size_t)count, sizeof(float)); }

/* Uniform in [-0.5, 0.5). */
static double uniform(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(*state >> 11) / 9007199254740992.0 - 0.5;
}

static void normalise(float *rows, int64_t n, int64_t d) {
    for (float *row = rows; row < rows + n * d; row += d) {
        double square = 0;
        for (int64_t t = 0; t < d; t++) square += (double)row[t] * row[t];
        for (int64_t t = 0; t < d; t++) row[t] = (float)(row[t] / sqrt(square));
    }
}

/* Each modality of an item is the item's own direction and as much noise again. */
static items make_items(int64_t n, int64_t d) {
    items all = {.n = n, .d = d, .rows = floats(3 * n * d), .pairs = floats(n * 2 * d)};
    uint64_t state = 1;
    for (int64_t q = 0; q < n * d; q++) {
        const double own = uniform(&state);
        for (int64_t modality = 0; modality < 3; modality++)
            all.rows[modality * n * d + q] = (float)(own + 1.5 * uniform(&state));
    }
    normalise(all.rows, 3 * n, d);
    for (int64_t i = 0; i < n; i++)
        for (int64_t t = 0; t < 2 * d; t++) all.pairs[i * 2 * d + t] = all.rows[((1 + t / d) * n + i) * d + t % d];
    all.plan = floats(2 * n * n), all.cost = floats(2 * n * n), all.f = floats(2 * n), all.g = floats(2 * n);
    all.scores = floats(n * n), all.grad_scores = floats(n * n), all.grad_text = floats(n * d);
    all.alphas = floats(2 * n * n);
    return all;
}

static void free_items(items *all) {
    float *arrays[] = {all->rows, all->pairs,  all->plan,        all->cost,      all->f,
                       all->g,    all->scores, all->grad_scores, all->grad_text, all->alphas};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) free(arrays[i]);
}

/* ---- three calls: descriptor, size of the workspace, the call itself --------------------------------------------- */

/* The plans of two pairs of modalities at once: x is (text, video), y is (video, audio). */
static void match(items *all, const mover_exec *exec) {
    const mover_transport_desc desc = {
        .batch = 2, .n = all->n, .m = all->n, .d = all->d, .epsilon = 0.1, .tol = 1e-3, .max_iter = 100};
    size_t bytes;
    check(mover_transport_forward_workspace_size(&desc, &bytes, exec));
    void *workspace = allocate(bytes, 1);
    check(mover_transport_forward(&desc, all->rows, all->rows + all->n * all->d, NULL, NULL, all->plan, all->cost,
                                  all->f, all->g, all->n_iter, all->marginal_error, workspace, bytes, exec));
    free(workspace);
}

/* Every text against every (video, audio): the smaller the volume, the better they fit. k counts the text. */
static void score(items *all, const mover_exec *exec) {
    const mover_volume_scores_desc desc = {.n = all->n, .m = all->n, .k = 3, .d = all->d};
    size_t bytes;
    check(mover_volume_scores_forward_workspace_size(&desc, &bytes, exec));
    void *workspace = allocate(bytes, 1);
    check(mover_volume_scores_forward(&desc, all->rows, all->pairs, NULL, all->scores, all->alphas, workspace, bytes,
                                      exec));
    free(workspace);
}

/* From grad_scores to the gradient of the texts; that of the pairs is not wanted: NULL. */
static void differentiate(items *all, const mover_exec *exec) {
    const mover_volume_scores_desc desc = {.n = all->n, .m = all->n, .k = 3, .d = all->d};
    size_t bytes;
    check(mover_volume_scores_backward_workspace_size(&desc, &bytes, exec));
    void *workspace = allocate(bytes, 1);
    check(mover_volume_scores_backward(&desc, all->rows, all->pairs, NULL, all->alphas, all->grad_scores,
                                       all->grad_text, NULL, workspace, bytes, exec));
    free(workspace);
}

/* ---- what is made of them --------------------------------------------------------------------------------------- */

/* The share of texts whose own pair has the smallest volume. */
static double recall_at_1(const items *all) {
    int64_t found = 0;
    for (int64_t i = 0; i < all->n; i++) {
        const float *row = all->scores + i * all->n;
        int64_t best = 0;
        for (int64_t j = 1; j < all->n; j++)
            if (row[j] < row[best]) best = j;
        found += best == i;
    }
    return (double)found / (double)all->n;
}

/* Cross entropy of softmax(-scores / 0.07) with the own pair as the target; fills grad_scores. */
static double contrast(items *all) {
    const int64_t n = all->n;
    double loss = 0;
    for (int64_t i = 0; i < n; i++) {
        const float *row = all->scores + i * n;
        double sum = 0;
        for (int64_t j = 0; j < n; j++) sum += exp((row[i] - row[j]) / 0.07);
        for (int64_t j = 0; j < n; j++) {
            const double probability = exp((row[i] - row[j]) / 0.07) / sum;
            all->grad_scores[i * n + j] = (float)(((i == j) - probability) / (0.07 * (double)n));
        }
        loss += log(sum) / (double)n;
    }
    return loss;
}

static double largest_difference(const float *a, const float *b, int64_t count) {
    double largest = 0;
    for (int64_t q = 0; q < count; q++) largest = fmax(largest, fabs((double)a[q] - b[q]));
    return largest;
}

static double seconds(void) {
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* The three calls; returns the seconds they take, the fastest of three times. */
static double run(items *all, const mover_exec *exec) {
    double fastest = INFINITY;
    for (int repeat = 0; repeat < 3; repeat++) {
        const double start = seconds();
        match(all, exec);
        score(all, exec);
        const double middle = seconds();
        contrast(all);
        const double resumed = seconds();
        differentiate(all, exec);
        fastest = fmin(fastest, middle - start + seconds() - resumed);
    }
    return fastest;
}

int main(int argc, char **argv) {
    const int64_t n = argc > 1 ? atoll(argv[1]) : 1000, d = argc > 2 ? atoll(argv[2]) : 512;
    if (n < 1 || d < 1 || n > 1000000 || d > 1000000) {
        fprintf(stderr, "usage: retrieve [items [width]]\n");
        return EXIT_FAILURE;
    }
    printf("libmover         %s, %lld items of width %lld\n", mover_version(), (long long)n, (long long)d);
    items alone = make_items(n, d), lent = make_items(n, d);
    const mover_exec exec = lend();
    const double seconds_alone = run(&alone, NULL), seconds_lent = run(&lent, &exec);

    for (int pair = 0; pair < 2; pair++)
        printf("%s  %d iterations, marginal error %.1e\n", pair == 0 ? "text to video  " : "video to audio ",
               (int)lent.n_iter[pair], lent.marginal_error[pair]);
    printf("Recall@1         %.3f\n", recall_at_1(&lent));
    printf("seconds          %.3f alone, %.3f with what is lent\n", seconds_alone, seconds_lent);
    printf("differences      plan %.1e, scores %.1e, gradient %.1e\n",
           largest_difference(alone.plan, lent.plan, 2 * n * n), largest_difference(alone.scores, lent.scores, n * n),
           largest_difference(alone.grad_text, lent.grad_text, n * d));

    const double loss = contrast(&lent);
    for (int64_t q = 0; q < n * d; q++) lent.rows[q] -= (float)n * 0.01f * lent.grad_text[q];
    normalise(lent.rows, n, d);
    score(&lent, &exec);
    printf("loss             %.4f, after a gradient step %.4f\n", loss, contrast(&lent));
    free_items(&alone), free_items(&lent);
    return EXIT_SUCCESS;
}
