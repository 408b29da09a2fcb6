/*
 * cuda_runtime.h: stands in for CUDA's.
 */
#include "cuda_on_cpu.h"
