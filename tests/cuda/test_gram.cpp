/*
 * test_gram.cpp: Gram matrices on CUDA.
 */
#include "../kernels/reference.h"
#include "device.h"

using namespace fixtures;

namespace {

template <class T>
std::vector<T> gram_on(const mover_exec *exec, const std::vector<T> &v, int64_t batch, int64_t k, int64_t d,
                       size_t shift = 0) {
    const mover_gram_desc desc = {dtype_of<T>(), batch, k, d};
    DeviceArray<T> there(v, shift), gram(static_cast<size_t>(batch * k * k), shift);
    EXPECT_OK(mover_gram_forward(&desc, there.data(), gram.data(), exec));
    return gram.fetch();
}

template <class T>
std::vector<T> gradient_on(const mover_exec *exec, const std::vector<T> &v, const std::vector<T> &grad, int64_t batch,
                           int64_t k, int64_t d, size_t shift = 0) {
    const mover_gram_desc desc = {dtype_of<T>(), batch, k, d};
    DeviceArray<T> there(v, shift), grad_there(grad, shift), grad_v(v.size(), shift);
    EXPECT_OK(mover_gram_backward(&desc, there.data(), grad_there.data(), grad_v.data(), exec));
    return grad_v.fetch();
}

template <class T> class CudaGram : public OnDevice {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(CudaGram, Types);

TYPED_TEST(CudaGram, IsTheMatrixOfInnerProducts) {
    using T = TypeParam;
    for (int64_t k : {1, 2, 3, 4, 5, 6, 7, 8, 9, 32, 33, 65})
        for (int64_t d : {1, 31, 65}) {
            const auto v = random_values<T>(2 * k * d, static_cast<unsigned>(k * 1000 + d));
            const auto gram = gram_on(this->exec(), v, 2, k, d);
            for (int64_t b = 0; b < 2; b++) {
                const auto expected = reference::gram(v.data() + b * k * d, k, d);
                for (int64_t q = 0; q < k * k; q++) {
                    const T entry = gram[static_cast<size_t>(b * k * k + q)];
                    const double value = static_cast<double>(expected[static_cast<size_t>(q)]);
                    EXPECT_NEAR(static_cast<double>(entry), value,
                                std::numeric_limits<T>::epsilon() * std::fabs(value) + 4e-15 * static_cast<double>(d));
                    EXPECT_EQ(entry, gram[static_cast<size_t>(b * k * k + q % k * k + q / k)]);
                }
            }
        }
}

TYPED_TEST(CudaGram, BackwardMatchesItsFormulaForAsymmetricUpstream) {
    using T = TypeParam;
    for (int64_t k : {1, 2, 3, 4, 5, 6, 7, 8, 9, 40})
        for (int64_t d : {1, 33, 70}) {
            const auto v = random_values<T>(2 * k * d, 1), grad = random_values<T>(2 * k * k, 2);
            const auto grad_v = gradient_on(this->exec(), v, grad, 2, k, d);
            std::vector<double> expected(v.size(), 0);
            for (int64_t row = 0; row < 2 * k; row++)
                for (int64_t s = 0; s < k; s++)
                    for (int64_t t = 0; t < d; t++)
                        expected[static_cast<size_t>(row * d + t)] +=
                            (static_cast<double>(grad[static_cast<size_t>(row * k + s)]) +
                             static_cast<double>(grad[static_cast<size_t>((row / k * k + s) * k + row % k)])) *
                            static_cast<double>(v[static_cast<size_t>((row / k * k + s) * d + t)]);
            EXPECT_LE(distance(grad_v, expected), std::numeric_limits<T>::epsilon() * largest(expected) + 1e-13);
        }
}

TYPED_TEST(CudaGram, AgreesWithTheCpu) {
    using T = TypeParam;
    for (int64_t k : {3, 20}) {
        const int64_t batch = 5, d = 50;
        const mover_gram_desc desc = {dtype_of<T>(), batch, k, d};
        const auto v = random_values<T>(batch * k * d, 3), grad = random_values<T>(batch * k * k, 4);
        std::vector<T> gram(grad.size()), grad_v(v.size());
        EXPECT_OK(mover_gram_forward(&desc, v.data(), gram.data(), nullptr));
        EXPECT_OK(mover_gram_backward(&desc, v.data(), grad.data(), grad_v.data(), nullptr));
        const double close = 2 * std::numeric_limits<T>::epsilon();
        EXPECT_LE(distance(gram_on(this->exec(), v, batch, k, d), gram), close * largest(gram));
        EXPECT_LE(distance(gradient_on(this->exec(), v, grad, batch, k, d), grad_v), close * largest(grad_v));
    }
}

TYPED_TEST(CudaGram, ABatchIsTheLoopOverItAndAlignmentChangesNothing) {
    using T = TypeParam;
    for (int64_t k : {3, 8, 10}) {
        const int64_t batch = 9, d = 37;
        const auto v = random_values<T>(batch * k * d, 5), up = random_values<T>(batch * k * k, 6);
        const auto gram = gram_on(this->exec(), v, batch, k, d), grad = gradient_on(this->exec(), v, up, batch, k, d);
        EXPECT_TRUE(same_bits(gram, gram_on(this->exec(), v, batch, k, d, 1)));
        EXPECT_TRUE(same_bits(grad, gradient_on(this->exec(), v, up, batch, k, d, 1)));
        for (int64_t b : {int64_t(0), batch - 1}) {
            const std::vector<T> one(v.begin() + b * k * d, v.begin() + (b + 1) * k * d);
            const std::vector<T> up_one(up.begin() + b * k * k, up.begin() + (b + 1) * k * k);
            EXPECT_TRUE(same_bits(gram_on(this->exec(), one, 1, k, d),
                                  std::vector<T>(gram.begin() + b * k * k, gram.begin() + (b + 1) * k * k)));
            EXPECT_TRUE(same_bits(gradient_on(this->exec(), one, up_one, 1, k, d),
                                  std::vector<T>(grad.begin() + b * k * d, grad.begin() + (b + 1) * k * d)));
        }
    }
}

TYPED_TEST(CudaGram, WhatIsNotFiniteStaysInItsGroup) {
    using T = TypeParam;
    for (int64_t k : {2, 9}) {
        const int64_t batch = 4, d = 20;
        auto v = random_values<T>(batch * k * d, 7);
        const auto up = random_values<T>(batch * k * k, 8);
        const auto gram = gram_on(this->exec(), v, batch, k, d), grad = gradient_on(this->exec(), v, up, batch, k, d);
        v[static_cast<size_t>(k * d + 3)] = not_a_number<T>();
        const auto bad_gram = gram_on(this->exec(), v, batch, k, d);
        const auto bad_grad = gradient_on(this->exec(), v, up, batch, k, d);
        EXPECT_TRUE(std::isnan(bad_gram[static_cast<size_t>(k * k)]));
        EXPECT_TRUE(std::isnan(bad_grad[static_cast<size_t>(k * d + 3)]));
        for (int64_t q = 0; q < batch * k * k; q++)
            if (q / (k * k) != 1) {
                EXPECT_EQ(gram[static_cast<size_t>(q)], bad_gram[static_cast<size_t>(q)]);
            }
        for (int64_t q = 0; q < batch * k * d; q++)
            if (q / (k * d) != 1) {
                EXPECT_EQ(grad[static_cast<size_t>(q)], bad_grad[static_cast<size_t>(q)]);
            }
    }
}

TYPED_TEST(CudaGram, EmptyShapes) {
    using T = TypeParam;
    EXPECT_TRUE(gram_on(this->exec(), std::vector<T>(), 0, 3, 4).empty());
    for (int64_t k : {2, 9}) {
        EXPECT_EQ(gram_on(this->exec(), std::vector<T>(), 1, k, 0), std::vector<T>(static_cast<size_t>(k * k), 0));
        EXPECT_TRUE(gradient_on(this->exec(), std::vector<T>(), std::vector<T>(static_cast<size_t>(k * k), 1), 1, k, 0)
                        .empty());
    }
}

} // namespace
