/*
 * test_gram.cpp: Gram matrices.
 */
#include "fixtures.h"
#include "reference.h"

using namespace fixtures;

namespace {

template <class T>
std::vector<T> gram_of(const std::vector<T> &v, int64_t batch, int64_t k, int64_t d, const mover_exec *exec = nullptr) {
    const mover_gram_desc desc = {dtype_of<T>(), batch, k, d};
    std::vector<T> gram(static_cast<size_t>(batch * k * k), not_a_number<T>());
    EXPECT_OK(mover_gram_forward(&desc, v.data(), gram.data(), exec));
    return gram;
}

template <class T>
std::vector<T> gradient_of(const std::vector<T> &v, const std::vector<T> &grad, int64_t batch, int64_t k, int64_t d,
                           const mover_exec *exec = nullptr) {
    const mover_gram_desc desc = {dtype_of<T>(), batch, k, d};
    std::vector<T> grad_v(static_cast<size_t>(batch * k * d), not_a_number<T>());
    EXPECT_OK(mover_gram_backward(&desc, v.data(), grad.data(), grad_v.data(), exec));
    return grad_v;
}

template <class T> class Gram : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(Gram, Types);

TYPED_TEST(Gram, IsTheMatrixOfInnerProducts) {
    using T = TypeParam;
    for (int64_t k : {1, 2, 3, 8, 33})
        for (int64_t d : {1, 3, 31, 129, 512}) {
            const auto v = random_values<T>(2 * k * d, static_cast<unsigned>(k * 1000 + d));
            const auto gram = gram_of(v, 2, k, d);
            for (int64_t b = 0; b < 2; b++) {
                const auto expected = reference::gram(v.data() + b * k * d, k, d);
                for (int64_t q = 0; q < k * k; q++) {
                    const double value = static_cast<double>(expected[static_cast<size_t>(q)]);
                    EXPECT_NEAR(static_cast<double>(gram[static_cast<size_t>(b * k * k + q)]), value,
                                std::numeric_limits<T>::epsilon() * (std::fabs(value) + 1e-8 * static_cast<double>(d)) +
                                    4e-15 * static_cast<double>(d));
                }
            }
        }
}

TYPED_TEST(Gram, BackwardIsTheGradientForAsymmetricUpstream) {
    using T = TypeParam;
    const int64_t batch = 2, k = 5, d = 7;
    const auto v = random_values<T>(batch * k * d, 1), upstream = random_values<T>(batch * k * k, 2);
    const auto grad = gradient_of(v, upstream, batch, k, d);
    const auto loss = [&](const std::vector<double> &x) {
        reference::quad sum = 0;
        for (int64_t b = 0; b < batch; b++) {
            const auto gram = reference::gram(x.data() + b * k * d, k, d);
            for (int64_t q = 0; q < k * k; q++)
                sum += gram[static_cast<size_t>(q)] * static_cast<double>(upstream[static_cast<size_t>(b * k * k + q)]);
        }
        return static_cast<double>(sum);
    };
    const auto expected = central_differences(std::vector<double>(v.begin(), v.end()), 1e-3, loss);
    EXPECT_LE(distance(grad, expected), 4 * std::numeric_limits<T>::epsilon() * largest(expected) + 1e-11);
}

TYPED_TEST(Gram, ABatchIsTheLoopOverItAndThreadsChangeNothing) {
    using T = TypeParam;
    const int64_t batch = 33, k = 3, d = 127;
    const auto v = random_values<T>(batch * k * d, 3), upstream = random_values<T>(batch * k * k, 4);
    const auto gram = gram_of(v, batch, k, d), grad = gradient_of(v, upstream, batch, k, d);
    const mover_exec threads = three_threads();
    EXPECT_TRUE(same_bits(gram, gram_of(v, batch, k, d, &threads)));
    EXPECT_TRUE(same_bits(grad, gradient_of(v, upstream, batch, k, d, &threads)));
    for (int64_t b = 0; b < batch; b++) {
        const std::vector<T> one(v.begin() + b * k * d, v.begin() + (b + 1) * k * d);
        const std::vector<T> up(upstream.begin() + b * k * k, upstream.begin() + (b + 1) * k * k);
        EXPECT_TRUE(
            same_bits(gram_of(one, 1, k, d), std::vector<T>(gram.begin() + b * k * k, gram.begin() + (b + 1) * k * k)));
        EXPECT_TRUE(same_bits(gradient_of(one, up, 1, k, d),
                              std::vector<T>(grad.begin() + b * k * d, grad.begin() + (b + 1) * k * d)));
    }
}

TYPED_TEST(Gram, EmptyShapes) {
    using T = TypeParam;
    EXPECT_TRUE(gram_of(std::vector<T>(), 0, 3, 4).empty());
    EXPECT_EQ(gram_of(std::vector<T>(), 1, 2, 0), std::vector<T>(4, 0));
    EXPECT_TRUE(gradient_of(std::vector<T>(), std::vector<T>(4, 1), 1, 2, 0).empty());
}

TEST(GramErrors, NameTheFunctionAndTheArgument) {
    float x = 0;
    mover_gram_desc desc = {MOVER_FLOAT32, 1, 0, 1};
    EXPECT_FAILS(mover_gram_forward(&desc, &x, &x, nullptr), MOVER_ERROR_ARGUMENT,
                 "mover_gram_forward: k must be >= 1, got 0");
    desc.k = 1;
    desc.batch = -1;
    EXPECT_FAILS(mover_gram_backward(&desc, &x, &x, &x, nullptr), MOVER_ERROR_ARGUMENT, "batch must be >= 0, got -1");
    desc.batch = 1;
    EXPECT_FAILS(mover_gram_forward(&desc, nullptr, &x, nullptr), MOVER_ERROR_ARGUMENT, "v must not be NULL");
    EXPECT_FAILS(mover_gram_forward(nullptr, &x, &x, nullptr), MOVER_ERROR_ARGUMENT, "desc must not be NULL");
    desc.batch = INT64_MAX / 2;
    EXPECT_FAILS(mover_gram_forward(&desc, &x, &x, nullptr), MOVER_ERROR_OVERFLOW, "does not fit");
    desc = {static_cast<mover_dtype>(7), 1, 1, 1};
    EXPECT_FAILS(mover_gram_forward(&desc, &x, &x, nullptr), MOVER_ERROR_ARGUMENT, "dtype");
}

} // namespace
