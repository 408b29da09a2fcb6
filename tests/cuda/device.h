/*
 * device.h: device memory and an execution context, for tests of the CUDA backend. The same tests run on a GPU and,
 * compiled with tests/cuda_on_cpu, on a CPU.
 */
#ifndef MOVER_TESTS_DEVICE_H
#define MOVER_TESTS_DEVICE_H

#include "../kernels/fixtures.h"

#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <cusolverDn.h>
#include <memory>

namespace fixtures {

#define EXPECT_CUDA(call) EXPECT_EQ(call, cudaSuccess)

/* Device memory of exactly `count` elements, at an address `shift` elements past an aligned one. It starts as what a
 * careless kernel would trip over, or as a copy of `values`. (The emulator fills fresh memory itself, and knows that
 * nobody has written it.) */
template <class T> class DeviceArray {
  public:
    explicit DeviceArray(size_t count, size_t shift = 0) : count_(count), shift_(shift) {
        if (count == 0) return;
        EXPECT_CUDA(cudaMalloc(reinterpret_cast<void **>(&memory_), (count + shift) * sizeof(T)));
#if !defined(CUDA_ON_CPU_H)
        EXPECT_CUDA(cudaMemset(memory_, 0xff, (count + shift) * sizeof(T)));
#endif
    }
    explicit DeviceArray(const std::vector<T> &values, size_t shift = 0) : DeviceArray(values.size(), shift) {
        if (count_ == 0) return;
        EXPECT_CUDA(cudaMemcpy(data(), values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice));
    }
    DeviceArray(const DeviceArray &) = delete;
    DeviceArray &operator=(const DeviceArray &) = delete;
    ~DeviceArray() { EXPECT_CUDA(cudaFree(memory_)); /* which may be NULL */ }

    T *data() { return memory_ ? memory_ + shift_ : nullptr; }
    size_t size() const { return count_; }

    /* Waits for the device. */
    std::vector<T> fetch() const {
        std::vector<T> values(count_);
        EXPECT_CUDA(cudaDeviceSynchronize());
        if (count_ == 0) return values;
        EXPECT_CUDA(cudaMemcpy(values.data(), memory_ + shift_, count_ * sizeof(T), cudaMemcpyDeviceToHost));
        return values;
    }

  private:
    T *memory_ = nullptr;
    size_t count_, shift_;
};

/* A stream, cuBLAS and cuSOLVER, lent through mover_exec. */
class Device {
  public:
    Device() {
        EXPECT_CUDA(cudaStreamCreate(&stream_));
        EXPECT_EQ(cublasCreate(&blas_), CUBLAS_STATUS_SUCCESS);
        EXPECT_EQ(cusolverDnCreate(&solver_), CUSOLVER_STATUS_SUCCESS);
        EXPECT_EQ(cusolverDnSetStream(solver_, stream_), CUSOLVER_STATUS_SUCCESS);
        exec_.backend = MOVER_CUDA;
        exec_.stream = stream_;
        exec_.blas = blas_;
        exec_.solver = solver_;
    }
    Device(const Device &) = delete;
    Device &operator=(const Device &) = delete;
    ~Device() {
        EXPECT_EQ(cusolverDnDestroy(solver_), CUSOLVER_STATUS_SUCCESS);
        EXPECT_EQ(cublasDestroy(blas_), CUBLAS_STATUS_SUCCESS);
        EXPECT_CUDA(cudaStreamDestroy(stream_));
    }

    const mover_exec *exec() const { return &exec_; }

  private:
    cudaStream_t stream_ = nullptr;
    cublasHandle_t blas_ = nullptr;
    cusolverDnHandle_t solver_ = nullptr;
    mover_exec exec_ = {};
};

/* Tests derive from it: skipped where there is no device. */
class OnDevice : public ::testing::Test {
  protected:
    void SetUp() override {
        int count = 0;
        if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) GTEST_SKIP() << "no CUDA device";
        device_ = std::make_unique<Device>();
    }
    void TearDown() override { device_.reset(); }
    const mover_exec *exec() const { return device_->exec(); }

  private:
    std::unique_ptr<Device> device_;
};

} // namespace fixtures

#endif
