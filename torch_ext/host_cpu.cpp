// host_cpu.cpp: torch's thread pool and BLAS, lent to libmover.
#include "host.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <new>

#include <unistd.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <torch/csrc/stable/c/shim.h>

// The BLAS inside libtorch_cpu, column-major. aten::mm is not an alternative: under
// torch.set_float32_matmul_precision("medium") it multiplies in bfloat16. The symbols are weak: a torch without them
// lends no products. Sizes are passed through 64-bit variables that hold 32-bit values, which a little-endian BLAS
// reads right whether its integers are of 32 or of 64 bits.
extern "C" {
__attribute__((weak)) void sgemm_(const char *transpose_a, const char *transpose_b, const int64_t *m, const int64_t *n,
                                  const int64_t *k, const float *alpha, const float *a, const int64_t *lda,
                                  const float *b, const int64_t *ldb, const float *beta, float *c, const int64_t *ldc);
__attribute__((weak)) void dgemm_(const char *transpose_a, const char *transpose_b, const int64_t *m, const int64_t *n,
                                  const int64_t *k, const double *alpha, const double *a, const int64_t *lda,
                                  const double *b, const int64_t *ldb, const double *beta, double *c,
                                  const int64_t *ldc);
}

namespace mover_torch {
namespace {

constexpr int64_t blas_limit = std::numeric_limits<int32_t>::max();

bool blas_is_usable() {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return sgemm_ != nullptr && dgemm_ != nullptr;
#else
    return false;
#endif
}

int parallel_for(void * /*host*/, int64_t begin, int64_t end, int64_t grain, mover_body body, void *ctx) {
    return torch_parallel_for(begin, end, grain, body, ctx) == TORCH_SUCCESS ? 0 : 1;
}

// A matrix at an address that is a multiple of `boundary`: itself, or memory in its place. On some processors the last
// bits of a product depend on where its matrices begin, and a problem of a batch would differ from the same one alone.
template <class T> class Aligned {
  public:
    Aligned(T *matrix, int64_t rows, int64_t columns, int64_t leading)
        : data(matrix), lead(leading), matrix_(matrix), rows_(rows), columns_(columns), leading_(leading) {
        if (reinterpret_cast<uintptr_t>(matrix) % boundary == 0) return;
        constexpr int64_t step = boundary / sizeof(T);
        lead = columns + (leading - columns) % step; // where rows begin within a boundary stays
        place_.reset(new (std::align_val_t{boundary}, std::nothrow) T[static_cast<size_t>(rows * lead)]);
        data = place_.get();
    }

    T *data; // nullptr where there is no memory
    int64_t lead;

    void load() {
        for (int64_t row = 0; place_ && row < rows_; row++)
            std::copy_n(matrix_ + row * leading_, columns_, data + row * lead);
    }
    void store() {
        for (int64_t row = 0; place_ && row < rows_; row++)
            std::copy_n(data + row * lead, columns_, matrix_ + row * leading_);
    }

  private:
    static constexpr size_t boundary = 16;
    struct Delete {
        void operator()(T *place) const { ::operator delete[](place, std::align_val_t{boundary}); }
    };
    T *matrix_;
    int64_t rows_, columns_, leading_;
    std::unique_ptr<T[], Delete> place_;
};

// Row-major C = op(A) op(B) is column-major C^T = op(B)^T op(A)^T on the same memory.
template <class T, class Product>
int multiply(Product product, int transpose_a, int transpose_b, int64_t n, int64_t m, int64_t d, const void *a,
             int64_t lda, const void *b, int64_t ldb, void *c, int64_t ldc) {
    Aligned<T> left(static_cast<T *>(const_cast<void *>(a)), transpose_a ? d : n, transpose_a ? n : d, lda);
    Aligned<T> right(static_cast<T *>(const_cast<void *>(b)), transpose_b ? m : d, transpose_b ? d : m, ldb);
    Aligned<T> out(static_cast<T *>(c), n, m, ldc);
    if (!left.data || !right.data || !out.data) return 1;
    const T one = 1, zero = 0;
    left.load();
    right.load();
    product(transpose_b ? "T" : "N", transpose_a ? "T" : "N", &m, &n, &d, &one, right.data, &right.lead, left.data,
            &left.lead, &zero, out.data, &out.lead);
    out.store();
    return 0;
}

int gemm(void * /*host*/, mover_dtype dtype, int transpose_a, int transpose_b, int64_t n, int64_t m, int64_t d,
         const void *a, int64_t lda, const void *b, int64_t ldb, void *c, int64_t ldc) {
    if (std::max({n, m, d, lda, ldb, ldc}) > blas_limit) return 1;
    if (dtype == MOVER_FLOAT64)
        return multiply<double>(dgemm_, transpose_a, transpose_b, n, m, d, a, lda, b, ldb, c, ldc);
    return multiply<float>(sgemm_, transpose_a, transpose_b, n, m, d, a, lda, b, ldb, c, ldc);
}

} // namespace

double device_memory(const Tensor & /*like*/) {
    return static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
}

// Only a hint: a system without huge pages leaves the memory as it is.
void prepare_memory(void *memory, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr uintptr_t huge_page = uintptr_t{1} << 21;
    if (bytes < 4 * huge_page) return;
    const uintptr_t begin = reinterpret_cast<uintptr_t>(memory), first = (begin + huge_page - 1) & ~(huge_page - 1);
    const uintptr_t last = (begin + bytes) & ~(huge_page - 1);
    (void)madvise(reinterpret_cast<void *>(first), last - first, MADV_HUGEPAGE);
#else
    (void)memory;
    (void)bytes;
#endif
}

struct Host::Device {};

Host::Host(const Tensor & /*like*/, std::initializer_list<int64_t> products, bool /*factorizes*/) {
    exec_.backend = MOVER_CPU;
    exec_.parallel_for = parallel_for;
    if (products.size() && blas_is_usable() && std::max(products) <= blas_limit) exec_.gemm = gemm;
}

Host::~Host() = default;

} // namespace mover_torch
