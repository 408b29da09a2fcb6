/*
 * cuda_on_cpu.h: CUDA C++ for a plain C++ compiler, to test kernels on a CPU.
 *
 * A CUDA source that keeps to the rules of kernels/cuda/portable.h compiles as C++17 against this header. Its kernels
 * run on the emulator in ../runtime: a thread of the device is a fiber, blocks run one after the other, those of a
 * cooperative launch together. What a GPU would leave undefined is reported.
 */
#ifndef CUDA_ON_CPU_H
#define CUDA_ON_CPU_H

#ifdef __CUDACC__
#error "cuda_on_cpu.h stands in for CUDA; nvcc has the real one"
#endif

#include "cuemu/arithmetic.h"
#include "cuemu/atomic.h"
#include "cuemu/block.h"
#include "cuemu/control.h"
#include "cuemu/host.h"
#include "cuemu/language.h"
#include "cuemu/launch.h"
#include "cuemu/tensor.h"
#include "cuemu/warp.h"

#endif
