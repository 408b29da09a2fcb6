/*
 * fixtures.h: what the tests feed to the library: random rows, workspaces, lent threads; and how they compare.
 */
#ifndef MOVER_TESTS_FIXTURES_H
#define MOVER_TESTS_FIXTURES_H

#include "mover/mover.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <gtest/gtest.h>
#include <limits>
#include <random>
#include <thread>
#include <type_traits>
#include <vector>

namespace fixtures {

template <class T> constexpr mover_dtype dtype_of() { return std::is_same_v<T, float> ? MOVER_FLOAT32 : MOVER_FLOAT64; }

template <class T> constexpr double tolerance(double in_float, double in_double) {
    return std::is_same_v<T, float> ? in_float : in_double;
}

template <class T> constexpr T not_a_number() { return std::numeric_limits<T>::quiet_NaN(); }
template <class T> constexpr T infinity() { return std::numeric_limits<T>::infinity(); }

/* Independent normal entries. */
template <class T> std::vector<T> random_values(int64_t count, unsigned seed) {
    std::mt19937_64 generator(seed);
    std::normal_distribution<double> normal;
    std::vector<T> out(static_cast<size_t>(count));
    for (T &value : out) value = static_cast<T>(normal(generator));
    return out;
}

/* Independent entries in (0, 1). */
template <class T> std::vector<T> random_weights(int64_t count, unsigned seed) {
    std::mt19937_64 generator(seed);
    std::uniform_real_distribution<double> uniform(0.05, 1);
    std::vector<T> out(static_cast<size_t>(count));
    for (T &value : out) value = static_cast<T>(uniform(generator));
    return out;
}

template <class T> void normalise(std::vector<T> &rows, int64_t d) {
    for (size_t first = 0; first < rows.size(); first += static_cast<size_t>(d)) {
        double sum = 0;
        for (size_t t = first; t < first + static_cast<size_t>(d); t++)
            sum += static_cast<double>(rows[t]) * static_cast<double>(rows[t]);
        for (size_t t = first; t < first + static_cast<size_t>(d); t++)
            rows[t] = static_cast<T>(static_cast<double>(rows[t]) / std::sqrt(sum));
    }
}

/* Random unit rows. */
template <class T> std::vector<T> random_rows(int64_t count, int64_t d, unsigned seed) {
    std::vector<double> rows = random_values<double>(count * d, seed);
    normalise(rows, d);
    return std::vector<T>(rows.begin(), rows.end());
}

/* Workspace of exactly `bytes`, filled with what a careless kernel would trip over. */
class Workspace {
  public:
    explicit Workspace(size_t bytes) : memory_(bytes, 0xff) {}
    void *data() { return memory_.empty() ? nullptr : memory_.data(); }
    size_t size() const { return memory_.size(); }

  private:
    std::vector<unsigned char> memory_;
};

/* Three threads lent through mover_exec: ranges of `grain` dealt to them in turn. */
inline int parallel_for(void *, int64_t begin, int64_t end, int64_t grain, mover_body body, void *ctx) {
    std::vector<std::thread> threads;
    for (int64_t thread = 0; thread < 3; thread++)
        threads.emplace_back([=] {
            for (int64_t first = begin + thread * grain; first < end; first += 3 * grain)
                body(first, std::min(end, first + grain), ctx);
        });
    for (std::thread &thread : threads) thread.join();
    return 0;
}

inline mover_exec three_threads() {
    mover_exec exec = {};
    exec.parallel_for = parallel_for;
    return exec;
}

template <class T> bool same_bits(const std::vector<T> &a, const std::vector<T> &b) {
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

template <class T> bool all_finite(const std::vector<T> &values) {
    return std::all_of(values.begin(), values.end(), [](T value) { return std::isfinite(value); });
}

template <class T> double largest(const std::vector<T> &values) {
    double out = 0;
    for (T value : values) out = std::max(out, std::fabs(static_cast<double>(value)));
    return out;
}

/* max |a - b| over the tensor, NaN where either has one. */
template <class A, class B> double distance(const std::vector<A> &a, const std::vector<B> &b) {
    EXPECT_EQ(a.size(), b.size());
    double out = 0;
    for (size_t q = 0; q < a.size(); q++) {
        const double difference = std::fabs(static_cast<double>(a[q]) - static_cast<double>(b[q]));
        if (!(difference <= out)) out = difference;
    }
    return out;
}

/* Central differences of `value` over every entry of x, steps of h. */
template <class Function>
std::vector<double> central_differences(std::vector<double> x, double h, const Function &value) {
    std::vector<double> out;
    for (double &entry : x) {
        const double here = entry;
        entry = here + h;
        const double above = value(x);
        entry = here - h;
        const double below = value(x);
        entry = here;
        out.push_back((above - below) / (2 * h));
    }
    return out;
}

#define EXPECT_OK(call) EXPECT_EQ(call, MOVER_OK) << mover_last_error()

/* The call fails with `status` and the sentence contains `words`. */
#define EXPECT_FAILS(call, status, words)                                                                              \
    do {                                                                                                               \
        EXPECT_EQ(call, status);                                                                                       \
        EXPECT_NE(std::string(mover_last_error()).find(words), std::string::npos) << mover_last_error();               \
    } while (0)

} // namespace fixtures

#endif
