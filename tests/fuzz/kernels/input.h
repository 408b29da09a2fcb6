/*
 * input.h: what a fuzz target reads from its bytes: sizes, options, numbers. Bytes that are not there read as 0.
 */
#ifndef MOVER_TESTS_FUZZ_INPUT_H
#define MOVER_TESTS_FUZZ_INPUT_H

#include "mover/mover.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

namespace fuzz {

/* Ends the run with a sentence, as a crash that the engine keeps. */
[[noreturn]] inline void fail(const char *what) {
    std::fprintf(stderr, "fuzz: %s; last error: \"%s\"\n", what, mover_last_error());
    std::abort();
}

inline void expect(bool holds, const char *what) {
    if (!holds) fail(what);
}

class Input {
  public:
    Input(const uint8_t *data, size_t size) : data_(data), left_(size) {}

    template <class T> T take() {
        T value = {};
        const size_t there = left_ < sizeof value ? left_ : sizeof value;
        if (there) std::memcpy(&value, data_, there);
        data_ += there, left_ -= there;
        return value;
    }

    /* 0 to most. */
    int64_t below(int64_t most) { return take<uint8_t>() % (most + 1); }

    /* Mostly small, else near a power of two or whatever eight bytes say. */
    int64_t hostile_size() {
        const uint8_t kind = take<uint8_t>();
        if (kind < 160) return kind % 10;
        if (kind < 224) return (INT64_C(1) << (kind % 63)) + take<int8_t>() % 3;
        return take<int64_t>();
    }

    /* Values as optimisers meet them where `tame`: multiples of 1/64 up to 2; else anything a type can hold. */
    template <class T> T number(bool tame) {
        if (tame) return static_cast<T>(take<int8_t>()) / 64;
        const uint8_t kind = take<uint8_t>();
        switch (kind % 16) {
        case 0:
            return std::numeric_limits<T>::quiet_NaN();
        case 1:
            return std::numeric_limits<T>::infinity();
        case 2:
            return -std::numeric_limits<T>::infinity();
        case 3:
            return std::numeric_limits<T>::max();
        case 4:
            return std::numeric_limits<T>::denorm_min();
        case 5:
            return static_cast<T>(-0.0);
        case 6:
            return take<T>();
        default:
            return static_cast<T>(static_cast<int8_t>(kind)) / 32;
        }
    }

    template <class T> std::vector<T> numbers(int64_t count, bool tame) {
        std::vector<T> out(static_cast<size_t>(count));
        for (T &value : out) value = number<T>(tame);
        return out;
    }

    /* Masses that sum to 1, some of them 0. */
    template <class T> std::vector<T> masses(int64_t batch, int64_t n) {
        std::vector<T> out(static_cast<size_t>(batch * n));
        for (int64_t b = 0; b < batch; b++) {
            double sum = 0;
            T *row = out.data() + b * n;
            for (int64_t i = 0; i < n; i++) row[i] = static_cast<T>(take<uint8_t>() % 16);
            row[0] += 1;
            for (int64_t i = 0; i < n; i++) sum += static_cast<double>(row[i]);
            for (int64_t i = 0; i < n; i++) row[i] = static_cast<T>(static_cast<double>(row[i]) / sum);
        }
        return out;
    }

  private:
    const uint8_t *data_;
    size_t left_;
};

template <class T> constexpr mover_dtype dtype_of() { return std::is_same_v<T, float> ? MOVER_FLOAT32 : MOVER_FLOAT64; }

template <class T> bool all_finite(const std::vector<T> &values) {
    for (const T value : values)
        if (!std::isfinite(value)) return false;
    return true;
}

/* A buffer of exactly so many elements that no reader takes for results; NULL where there are none. */
template <class T> std::vector<T> room(int64_t count) {
    return std::vector<T>(static_cast<size_t>(count), static_cast<T>(-77));
}

/* A workspace of exactly the size asked for, full of NaN. */
class Workspace {
  public:
    explicit Workspace(size_t bytes) : memory_(bytes, 0xff) {}
    void *data() { return memory_.empty() ? nullptr : memory_.data(); }
    size_t size() const { return memory_.size(); }

  private:
    std::vector<unsigned char> memory_;
};

/* A lent loop that hands out ranges from the last to the first. */
inline int backwards(void *, int64_t begin, int64_t end, int64_t grain, mover_body body, void *ctx) {
    for (int64_t last = (end - begin - 1) / grain; last >= 0; last--) {
        const int64_t first = begin + last * grain;
        body(first, first + grain < end ? first + grain : end, ctx);
    }
    return 0;
}

} // namespace fuzz

#endif
