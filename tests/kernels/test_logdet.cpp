/*
 * test_logdet.cpp: log-determinants of symmetric positive definite matrices.
 */
#include "fixtures.h"
#include "reference.h"

using namespace fixtures;

namespace {

template <class T> struct Result {
    std::vector<T> logdet, grad;
    std::vector<int32_t> info;
};

template <class T>
Result<T> logdet_of(const std::vector<T> &gram, int64_t k, const std::vector<T> &upstream,
                    const mover_exec *exec = nullptr) {
    const int64_t batch = static_cast<int64_t>(upstream.size());
    const mover_logdet_desc desc = {dtype_of<T>(), batch, k, MOVER_FACTORIZATION_AUTO};
    size_t bytes = 0;
    EXPECT_OK(mover_logdet_workspace_size(&desc, &bytes, nullptr));
    Workspace workspace(bytes);
    Result<T> out = {std::vector<T>(upstream.size(), not_a_number<T>()), std::vector<T>(gram.size(), not_a_number<T>()),
                     std::vector<int32_t>(upstream.size(), -1)};
    EXPECT_OK(
        mover_logdet_forward(&desc, gram.data(), out.logdet.data(), out.info.data(), workspace.data(), bytes, exec));
    EXPECT_OK(
        mover_logdet_backward(&desc, gram.data(), upstream.data(), out.grad.data(), workspace.data(), bytes, exec));
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

template <class T> class Logdet : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(Logdet, Types);

TYPED_TEST(Logdet, IsTheLogarithmOfTheDeterminant) {
    using T = TypeParam;
    for (int64_t k : {1, 2, 3, 4, 5, 6, 7, 8, 9, 33}) {
        const int64_t batch = 35;
        const auto gram = positive_matrices<T>(batch, k, 10);
        const std::vector<double> exact(gram.begin(), gram.end());
        const auto result = logdet_of(gram, k, std::vector<T>(batch, 1));
        for (int64_t b = 0; b < batch; b++) {
            const double expected = expected_logdet(exact.data() + b * k * k, k);
            EXPECT_EQ(result.info[static_cast<size_t>(b)], 0);
            EXPECT_NEAR(static_cast<double>(result.logdet[static_cast<size_t>(b)]), expected,
                        std::numeric_limits<T>::epsilon() * std::fabs(expected) + 1e-13)
                << "k = " << k;
        }
    }
}

TYPED_TEST(Logdet, BackwardIsTheInverse) {
    using T = TypeParam;
    for (int64_t k : {1, 2, 3, 8, 9, 33}) {
        const int64_t batch = 19;
        const auto gram = positive_matrices<T>(batch, k, 20);
        const auto upstream = random_values<T>(batch, 21);
        const auto grad = logdet_of(gram, k, upstream).grad;
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

TYPED_TEST(Logdet, ReadsTheLowerTriangleOnly) {
    using T = TypeParam;
    for (int64_t k : {3, 12}) {
        auto gram = positive_matrices<T>(1, k, 30);
        const auto before = logdet_of(gram, k, {1});
        for (int64_t i = 0; i < k; i++)
            for (int64_t j = i + 1; j < k; j++) gram[static_cast<size_t>(i * k + j)] = not_a_number<T>();
        const auto after = logdet_of(gram, k, {1});
        EXPECT_TRUE(same_bits(before.logdet, after.logdet));
        EXPECT_TRUE(same_bits(before.grad, after.grad));
    }
}

TYPED_TEST(Logdet, SingularAndIndefiniteMatricesGiveMinusInfinityAndNoGradient) {
    using T = TypeParam;
    for (int64_t k : {3, 11})
        for (int64_t order = 1; order <= 3; order++) {
            auto gram = positive_matrices<T>(3, k, 40);
            T *middle = gram.data() + k * k;
            for (int64_t q = 0; q < k * k; q++) middle[q] = q / k == q % k ? 1 : 0;
            middle[(order - 1) * k + order - 1] = order == 2 ? T(-1) : T(0);
            const auto result = logdet_of(gram, k, {1, 1, 1});
            EXPECT_EQ(result.info, (std::vector<int32_t>{0, static_cast<int32_t>(order), 0}));
            EXPECT_EQ(result.logdet[1], -infinity<T>());
            for (int64_t q = 0; q < k * k; q++) EXPECT_EQ(result.grad[static_cast<size_t>(k * k + q)], 0);
            EXPECT_TRUE(all_finite(std::vector<T>(result.grad.begin(), result.grad.begin() + k * k)));
        }
}

TYPED_TEST(Logdet, AMatrixThatIsNotFiniteHurtsItselfOnly) {
    using T = TypeParam;
    for (const T bad : {not_a_number<T>(), infinity<T>(), -infinity<T>()})
        for (int64_t k : {1, 3, 8, 10})
            for (int64_t place : {int64_t(0), k * k - k, k * k - 1}) {
                const int64_t batch = 37;
                const auto good = positive_matrices<T>(batch, k, 50);
                auto gram = good;
                gram[static_cast<size_t>(18 * k * k + place)] = bad;
                const std::vector<T> upstream(batch, 1);
                auto expected = logdet_of(good, k, upstream), result = logdet_of(gram, k, upstream);
                EXPECT_TRUE(std::isnan(result.logdet[18])) << result.logdet[18];
                EXPECT_EQ(result.info[18], 0);
                result.logdet[18] = expected.logdet[18];
                for (int64_t q = 0; q < k * k; q++) {
                    EXPECT_TRUE(std::isnan(result.grad[static_cast<size_t>(18 * k * k + q)]));
                    result.grad[static_cast<size_t>(18 * k * k + q)] =
                        expected.grad[static_cast<size_t>(18 * k * k + q)];
                }
                EXPECT_TRUE(same_bits(expected.logdet, result.logdet));
                EXPECT_TRUE(same_bits(expected.grad, result.grad));
            }
}

TYPED_TEST(Logdet, ABatchIsTheLoopOverItAndThreadsChangeNothing) {
    using T = TypeParam;
    for (int64_t k : {2, 7, 8, 9}) {
        const int64_t batch = 129;
        const auto gram = positive_matrices<T>(batch, k, 60);
        const auto upstream = random_values<T>(batch, 61);
        const auto all = logdet_of(gram, k, upstream);
        const mover_exec threads = three_threads();
        const auto threaded = logdet_of(gram, k, upstream, &threads);
        EXPECT_TRUE(same_bits(all.logdet, threaded.logdet));
        EXPECT_TRUE(same_bits(all.grad, threaded.grad));
        for (int64_t b = 0; b < batch; b++) {
            const std::vector<T> one(gram.begin() + b * k * k, gram.begin() + (b + 1) * k * k);
            const auto single = logdet_of(one, k, {upstream[static_cast<size_t>(b)]});
            EXPECT_TRUE(same_bits(single.logdet, {all.logdet[static_cast<size_t>(b)]}));
            EXPECT_TRUE(same_bits(single.grad,
                                  std::vector<T>(all.grad.begin() + b * k * k, all.grad.begin() + (b + 1) * k * k)));
        }
    }
}

TYPED_TEST(Logdet, KnownValues) {
    using T = TypeParam;
    for (int64_t k = 1; k <= 9; k++) {
        std::vector<T> identity(static_cast<size_t>(k * k), 0);
        for (int64_t i = 0; i < k; i++) identity[static_cast<size_t>(i * k + i)] = 1;
        EXPECT_EQ(logdet_of(identity, k, {1}).logdet[0], 0);
        std::vector<T> correlated(static_cast<size_t>(k * k), T(0.5));
        for (int64_t i = 0; i < k; i++) correlated[static_cast<size_t>(i * k + i)] = 1;
        const double dk = static_cast<double>(k);
        EXPECT_NEAR(static_cast<double>(logdet_of(correlated, k, {1}).logdet[0]),
                    -dk * std::log(2.0) + std::log(dk + 1), 4 * std::numeric_limits<T>::epsilon());
    }
    const double tiny = tolerance<T>(1e-42, 1e-300), huge = tolerance<T>(1e38, 1e300);
    for (double scale : {tiny, huge}) {
        std::vector<T> diagonal(9, 0);
        for (size_t i = 0; i < 3; i++) diagonal[4 * i] = static_cast<T>(scale);
        EXPECT_NEAR(static_cast<double>(logdet_of(diagonal, 3, {1}).logdet[0]),
                    3 * std::log(static_cast<double>(static_cast<T>(scale))), 2500 * std::numeric_limits<T>::epsilon());
    }
}

TEST(LogdetErrors, NameTheFunctionAndTheArgument) {
    float x = 0;
    int32_t info = 0;
    size_t bytes = 0;
    mover_logdet_desc desc = {MOVER_FLOAT32, 1, 1, MOVER_FACTORIZATION_CUSOLVER};
    EXPECT_FAILS(mover_logdet_forward(&desc, &x, &x, &info, nullptr, 0, nullptr), MOVER_ERROR_UNSUPPORTED, "cusolver");
    desc = {MOVER_FLOAT32, 1, 9, MOVER_FACTORIZATION_REGISTERS};
    EXPECT_FAILS(mover_logdet_workspace_size(&desc, &bytes, nullptr), MOVER_ERROR_ARGUMENT, "k <= 8, got 9");
    desc.factorization = MOVER_FACTORIZATION_AUTO;
    EXPECT_FAILS(mover_logdet_forward(&desc, &x, &x, &info, nullptr, 0, nullptr), MOVER_ERROR_WORKSPACE, "workspace");
    desc.k = 0;
    EXPECT_FAILS(mover_logdet_backward(&desc, &x, &x, &x, nullptr, 0, nullptr), MOVER_ERROR_ARGUMENT,
                 "mover_logdet_backward: k must be >= 1, got 0");
    desc = {MOVER_FLOAT32, 1, 2, MOVER_FACTORIZATION_AUTO};
    EXPECT_FAILS(mover_logdet_forward(&desc, &x, &x, nullptr, nullptr, 0, nullptr), MOVER_ERROR_ARGUMENT,
                 "info must not be NULL");
    desc.batch = 0;
    EXPECT_OK(mover_logdet_forward(&desc, nullptr, nullptr, nullptr, nullptr, 0, nullptr));
}

} // namespace
