/*
 * device_array.h: arrays on the device, for the emulator's own tests.
 */
#ifndef CUDA_ON_CPU_DEVICE_ARRAY_H
#define CUDA_ON_CPU_DEVICE_ARRAY_H

#include <cuda_on_cpu.h>

#include <utility>
#include <vector>

namespace emulated {

template <class T> class device_array {
  public:
    explicit device_array(size_t count) : count_(count) { (void)cudaMalloc(&data_, count * sizeof(T)); }
    device_array(const std::vector<T> &values) : device_array(values.size()) {
        (void)cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice);
    }
    device_array(const device_array &) = delete;
    device_array &operator=(const device_array &) = delete;
    ~device_array() { (void)cudaFree(data_); }

    T *data() const { return data_; }
    std::vector<T> values() const {
        std::vector<T> out(count_);
        (void)cudaDeviceSynchronize();
        (void)cudaMemcpy(out.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost);
        return out;
    }

  private:
    T *data_ = nullptr;
    size_t count_;
};

/* Numbers in (-1, 1), the same for the same seed. */
inline std::vector<float> random_floats(size_t count, unsigned seed) {
    std::vector<float> values(count);
    unsigned state = seed * 2654435761u + 1;
    for (float &value : values) {
        state = state * 1664525u + 1013904223u;
        value = static_cast<float>(state >> 8) / 8388608.f - 1.f;
    }
    return values;
}

} // namespace emulated

#endif
