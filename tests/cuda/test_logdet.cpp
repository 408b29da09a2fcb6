/*
 * test_logdet.cpp: log-determinants on CUDA, in registers and by cuSOLVER.
 */
#include "../kernels/reference.h"
#include "device.h"

using namespace fixtures;

namespace {

template <class T> struct Result {
    std::vector<T> logdet, grad;
    std::vector<int32_t> info;
};

template <class T>
Result<T> logdet_on(const mover_exec *exec, const std::vector<T> &gram, int64_t k, const std::vector<T> &upstream,
                    mover_factorization factorization, size_t shift = 0) {
    const mover_logdet_desc desc = {dtype_of<T>(), static_cast<int64_t>(upstream.size()), k, factorization};
    size_t bytes = 0;
    EXPECT_OK(mover_logdet_workspace_size(&desc, &bytes, exec));
    DeviceArray<T> there(gram, shift), grad_there(upstream, shift), logdet(upstream.size(), shift);
    DeviceArray<T> grad(gram.size(), shift);
    DeviceArray<int32_t> info(upstream.size(), shift);
    DeviceArray<unsigned char> workspace(bytes, shift);
    EXPECT_OK(mover_logdet_forward(&desc, there.data(), logdet.data(), info.data(), workspace.data(), bytes, exec));
    EXPECT_OK(
        mover_logdet_backward(&desc, there.data(), grad_there.data(), grad.data(), workspace.data(), bytes, exec));
    return {logdet.fetch(), grad.fetch(), info.fetch()};
}

template <class T> Result<T> logdet_on_cpu(const std::vector<T> &gram, int64_t k, const std::vector<T> &upstream) {
    const mover_logdet_desc desc = {dtype_of<T>(), static_cast<int64_t>(upstream.size()), k, MOVER_FACTORIZATION_AUTO};
    size_t bytes = 0;
    EXPECT_OK(mover_logdet_workspace_size(&desc, &bytes, nullptr));
    Workspace workspace(bytes);
    Result<T> out = {std::vector<T>(upstream.size()), std::vector<T>(gram.size()),
                     std::vector<int32_t>(upstream.size())};
    EXPECT_OK(
        mover_logdet_forward(&desc, gram.data(), out.logdet.data(), out.info.data(), workspace.data(), bytes, nullptr));
    EXPECT_OK(
        mover_logdet_backward(&desc, gram.data(), upstream.data(), out.grad.data(), workspace.data(), bytes, nullptr));
    return out;
}

/* W W^T + I/10 for random W. */
template <class T> std::vector<T> positive_matrices(int64_t batch, int64_t k, unsigned seed) {
    std::vector<T> out;
    for (int64_t b = 0; b < batch; b++) {
        const auto w = random_rows<double>(k, k + 2, seed + static_cast<unsigned>(b));
        auto gram = reference::gram(w.data(), k, k + 2);
        for (int64_t i = 0; i < k; i++) gram[static_cast<size_t>(i * k + i)] += 0.1;
        for (auto entry : gram) out.push_back(static_cast<T>(entry));
    }
    return out;
}

double expected_logdet(const double *gram, int64_t k) {
    std::vector<reference::quad> a(gram, gram + k * k);
    return static_cast<double>(logl(static_cast<long double>(reference::determinant(a, k))));
}

/* The ways to factorise a matrix of order k. */
std::vector<mover_factorization> ways(int64_t k) {
    if (k > MOVER_MAX_K) return {MOVER_FACTORIZATION_AUTO, MOVER_FACTORIZATION_CUSOLVER};
    return {MOVER_FACTORIZATION_AUTO, MOVER_FACTORIZATION_REGISTERS, MOVER_FACTORIZATION_CUSOLVER};
}

template <class T> class CudaLogdet : public OnDevice {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(CudaLogdet, Types);

TYPED_TEST(CudaLogdet, IsTheLogarithmOfTheDeterminant) {
    using T = TypeParam;
    for (int64_t k : {1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 33})
        for (const mover_factorization way : ways(k)) {
            const int64_t batch = k < 9 ? 67 : 3;
            const auto gram = positive_matrices<T>(batch, k, 10);
            const std::vector<double> exact(gram.begin(), gram.end());
            const auto result = logdet_on(this->exec(), gram, k, std::vector<T>(static_cast<size_t>(batch), 1), way);
            for (int64_t b = 0; b < batch; b++) {
                const double expected = expected_logdet(exact.data() + b * k * k, k);
                EXPECT_EQ(result.info[static_cast<size_t>(b)], 0);
                EXPECT_NEAR(static_cast<double>(result.logdet[static_cast<size_t>(b)]), expected,
                            std::numeric_limits<T>::epsilon() * std::fabs(expected) + 1e-13)
                    << "k = " << k;
            }
        }
}

TYPED_TEST(CudaLogdet, BackwardIsTheInverse) {
    using T = TypeParam;
    for (int64_t k : {1, 2, 3, 4, 5, 6, 7, 8, 9, 33})
        for (const mover_factorization way : ways(k)) {
            const int64_t batch = 3;
            const auto gram = positive_matrices<T>(batch, k, 20);
            const auto upstream = random_values<T>(batch, 21);
            const auto grad = logdet_on(this->exec(), gram, k, upstream, way).grad;
            for (int64_t b = 0; b < batch; b++)
                for (int64_t i = 0; i < k; i++)
                    for (int64_t j = 0; j < k; j++) {
                        double product = 0;
                        for (int64_t p = 0; p < k; p++)
                            product += static_cast<double>(grad[static_cast<size_t>((b * k + i) * k + p)]) *
                                       static_cast<double>(gram[static_cast<size_t>((b * k + p) * k + j)]);
                        const double up = static_cast<double>(upstream[static_cast<size_t>(b)]);
                        EXPECT_NEAR(product, i == j ? up : 0,
                                    static_cast<double>(40 * k) * std::numeric_limits<T>::epsilon() * std::fabs(up));
                        EXPECT_EQ(grad[static_cast<size_t>((b * k + i) * k + j)],
                                  grad[static_cast<size_t>((b * k + j) * k + i)]);
                    }
        }
}

TYPED_TEST(CudaLogdet, EveryWayAgreesWithTheCpu) {
    using T = TypeParam;
    for (int64_t k : {1, 2, 3, 4, 5, 6, 7, 8, 17, 70})
        for (const mover_factorization way : ways(k)) {
            const int64_t batch = k < 70 ? 5 : 2;
            const auto gram = positive_matrices<T>(batch, k, 30);
            const auto upstream = random_values<T>(batch, 31);
            const auto ours = logdet_on(this->exec(), gram, k, upstream, way), cpu = logdet_on_cpu(gram, k, upstream);
            EXPECT_EQ(ours.info, cpu.info);
            EXPECT_LE(distance(ours.logdet, cpu.logdet),
                      std::numeric_limits<T>::epsilon() * largest(cpu.logdet) + 1e-12);
            EXPECT_LE(distance(ours.grad, cpu.grad), 2 * std::numeric_limits<T>::epsilon() * largest(cpu.grad) + 1e-12);
        }
}

TYPED_TEST(CudaLogdet, UsesTheLowerTriangleOnly) {
    using T = TypeParam;
    for (int64_t k : {3, 12})
        for (const mover_factorization way : ways(k)) {
            auto gram = positive_matrices<T>(1, k, 40);
            const auto before = logdet_on(this->exec(), gram, k, {1}, way);
            for (int64_t i = 0; i < k; i++)
                for (int64_t j = i + 1; j < k; j++) gram[static_cast<size_t>(i * k + j)] = not_a_number<T>();
            const auto after = logdet_on(this->exec(), gram, k, {1}, way);
            EXPECT_TRUE(same_bits(before.logdet, after.logdet));
            EXPECT_TRUE(same_bits(before.grad, after.grad));
        }
}

TYPED_TEST(CudaLogdet, SingularAndIndefiniteMatricesGiveMinusInfinityAndNoGradient) {
    using T = TypeParam;
    for (int64_t k : {3, 11})
        for (const mover_factorization way : ways(k))
            for (int64_t order = 1; order <= 3; order++) {
                auto gram = positive_matrices<T>(3, k, 50);
                T *middle = gram.data() + k * k;
                for (int64_t q = 0; q < k * k; q++) middle[q] = q / k == q % k ? 1 : 0;
                /* The last is 0 in float, and in double positive but too small for a pivot. */
                const double pivots[] = {0, -1, 1e-310};
                middle[(order - 1) * (k + 1)] = static_cast<T>(pivots[order - 1]);
                const auto result = logdet_on(this->exec(), gram, k, {1, 1, 1}, way);
                EXPECT_EQ(result.info, (std::vector<int32_t>{0, static_cast<int32_t>(order), 0}));
                EXPECT_EQ(result.logdet[1], -infinity<T>());
                for (int64_t q = 0; q < k * k; q++) EXPECT_EQ(result.grad[static_cast<size_t>(k * k + q)], 0);
                EXPECT_TRUE(all_finite(std::vector<T>(result.grad.begin(), result.grad.begin() + k * k)));
            }
}

TYPED_TEST(CudaLogdet, AMatrixThatIsNotFiniteHurtsItselfOnly) {
    using T = TypeParam;
    for (const T bad : {not_a_number<T>(), infinity<T>(), -infinity<T>()})
        for (int64_t k : {1, 3, 8, 10})
            for (const mover_factorization way : ways(k))
                for (int64_t place : {int64_t(0), k * k - k, k * k - 1}) {
                    const int64_t batch = 5;
                    const auto good = positive_matrices<T>(batch, k, 60);
                    auto gram = good;
                    gram[static_cast<size_t>(3 * k * k + place)] = bad;
                    const std::vector<T> upstream(batch, 1);
                    auto expected = logdet_on(this->exec(), good, k, upstream, way);
                    auto result = logdet_on(this->exec(), gram, k, upstream, way);
                    EXPECT_TRUE(std::isnan(result.logdet[3])) << result.logdet[3];
                    EXPECT_EQ(result.info[3], 0);
                    result.logdet[3] = expected.logdet[3];
                    for (int64_t q = 3 * k * k; q < 4 * k * k; q++) {
                        EXPECT_TRUE(std::isnan(result.grad[static_cast<size_t>(q)]));
                        result.grad[static_cast<size_t>(q)] = expected.grad[static_cast<size_t>(q)];
                    }
                    EXPECT_TRUE(same_bits(expected.logdet, result.logdet));
                    EXPECT_TRUE(same_bits(expected.grad, result.grad));
                }
}

TYPED_TEST(CudaLogdet, ABatchIsTheLoopOverItAndAlignmentChangesNothing) {
    using T = TypeParam;
    for (int64_t k : {2, 7, 8, 9}) {
        for (const mover_factorization way : ways(k)) {
            const int64_t batch = 65;
            const auto gram = positive_matrices<T>(batch, k, 70);
            const auto upstream = random_values<T>(batch, 71);
            const auto all = logdet_on(this->exec(), gram, k, upstream, way);
            const auto shifted = logdet_on(this->exec(), gram, k, upstream, way, 1);
            EXPECT_TRUE(same_bits(all.logdet, shifted.logdet));
            EXPECT_TRUE(same_bits(all.grad, shifted.grad));
            for (int64_t b : {int64_t(0), batch - 1}) {
                const std::vector<T> one(gram.begin() + b * k * k, gram.begin() + (b + 1) * k * k);
                const auto single = logdet_on(this->exec(), one, k, {upstream[static_cast<size_t>(b)]}, way);
                EXPECT_TRUE(same_bits(single.logdet, {all.logdet[static_cast<size_t>(b)]}));
                EXPECT_TRUE(same_bits(
                    single.grad, std::vector<T>(all.grad.begin() + b * k * k, all.grad.begin() + (b + 1) * k * k)));
            }
        }
    }
}

TYPED_TEST(CudaLogdet, KnownValues) {
    using T = TypeParam;
    for (int64_t k : {1, 2, 5, 8, 9})
        for (const mover_factorization way : ways(k)) {
            std::vector<T> identity(static_cast<size_t>(k * k), 0);
            for (int64_t i = 0; i < k; i++) identity[static_cast<size_t>(i * k + i)] = 1;
            EXPECT_NEAR(static_cast<double>(logdet_on(this->exec(), identity, k, {1}, way).logdet[0]), 0,
                        2 * std::numeric_limits<double>::epsilon()); /* of the logarithm of a half, and of two */
            std::vector<T> correlated(static_cast<size_t>(k * k), T(0.5));
            for (int64_t i = 0; i < k; i++) correlated[static_cast<size_t>(i * k + i)] = 1;
            const double dk = static_cast<double>(k);
            EXPECT_NEAR(static_cast<double>(logdet_on(this->exec(), correlated, k, {1}, way).logdet[0]),
                        -dk * std::log(2.0) + std::log(dk + 1), 4 * std::numeric_limits<T>::epsilon());
        }
    for (const mover_factorization way : ways(3))
        for (double scale : {tolerance<T>(1e-42, 1e-300), tolerance<T>(1e38, 1e300)}) {
            std::vector<T> diagonal(9, 0);
            for (size_t i = 0; i < 3; i++) diagonal[4 * i] = static_cast<T>(scale);
            EXPECT_NEAR(static_cast<double>(logdet_on(this->exec(), diagonal, 3, {1}, way).logdet[0]),
                        3 * std::log(static_cast<double>(static_cast<T>(scale))),
                        2500 * std::numeric_limits<T>::epsilon());
        }
}

TEST_F(OnDevice, LogdetInRegistersNeedsNoWorkspace) {
    for (const int64_t k : {1, 8, 9}) {
        mover_logdet_desc desc = {MOVER_FLOAT64, 5, k, MOVER_FACTORIZATION_AUTO};
        size_t bytes = 1;
        EXPECT_OK(mover_logdet_workspace_size(&desc, &bytes, exec()));
        EXPECT_EQ(bytes == 0, k <= 8) << "k = " << k;
        desc.factorization = MOVER_FACTORIZATION_CUSOLVER;
        EXPECT_OK(mover_logdet_workspace_size(&desc, &bytes, exec()));
        EXPECT_GT(bytes, 0u) << "k = " << k;
    }
}

TEST_F(OnDevice, LogdetOfMoreMatricesThanCusolverTakesAtATime) {
    const size_t batch = 65537;
    const mover_logdet_desc desc = {MOVER_FLOAT32, static_cast<int64_t>(batch), 1, MOVER_FACTORIZATION_CUSOLVER};
    std::vector<float> values(batch);
    for (size_t b = 0; b < batch; b++) values[b] = static_cast<float>(1 + b % 7);
    size_t bytes = 0;
    EXPECT_OK(mover_logdet_workspace_size(&desc, &bytes, exec()));
    DeviceArray<float> gram(values), logdet(batch);
    DeviceArray<int32_t> info(batch);
    DeviceArray<unsigned char> workspace(bytes);
    EXPECT_OK(mover_logdet_forward(&desc, gram.data(), logdet.data(), info.data(), workspace.data(), bytes, exec()));
    const auto out = logdet.fetch();
    for (size_t b = 0; b < batch; b++) EXPECT_NEAR(out[b], std::log(values[b]), 1e-6);
    EXPECT_EQ(info.fetch(), std::vector<int32_t>(batch, 0));
}

TEST_F(OnDevice, LogdetKeepsTheStreamOfTheSolver) {
    cudaStream_t other = nullptr, now = nullptr;
    EXPECT_CUDA(cudaStreamCreate(&other));
    const cusolverDnHandle_t solver = static_cast<cusolverDnHandle_t>(exec()->solver);
    EXPECT_EQ(cusolverDnSetStream(solver, other), CUSOLVER_STATUS_SUCCESS);
    const auto result = logdet_on<double>(exec(), {4}, 1, {1}, MOVER_FACTORIZATION_CUSOLVER);
    EXPECT_NEAR(result.logdet[0], std::log(4.0), 1e-15);
    EXPECT_EQ(cusolverDnGetStream(solver, &now), CUSOLVER_STATUS_SUCCESS);
    EXPECT_EQ(now, other);
    EXPECT_CUDA(cudaStreamDestroy(other));
}

TEST_F(OnDevice, LogdetBySolverNeedsAHandle) {
    mover_exec bare = *exec();
    bare.solver = nullptr;
    const mover_logdet_desc desc = {MOVER_FLOAT32, 1, 9, MOVER_FACTORIZATION_AUTO};
    size_t bytes = 0;
    EXPECT_OK(mover_logdet_workspace_size(&desc, &bytes, &bare));
    DeviceArray<float> gram(81), logdet(1);
    DeviceArray<int32_t> info(1);
    DeviceArray<unsigned char> workspace(bytes);
    EXPECT_FAILS(mover_logdet_forward(&desc, gram.data(), logdet.data(), info.data(), workspace.data(), bytes, &bare),
                 MOVER_ERROR_ARGUMENT, "mover_logdet_forward: exec.solver must be a cusolverDnHandle_t, got NULL");
}

} // namespace
