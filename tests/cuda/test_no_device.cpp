/*
 * test_no_device.cpp: what a machine without a GPU is told. The library loads there, and calls fail by name.
 */
#include "device.h"

using namespace fixtures;

TEST(NoDevice, IsReportedByTheNameOfTheError) {
    int count = 0;
    if (cudaGetDeviceCount(&count) == cudaSuccess && count > 0) GTEST_SKIP() << "there is a device";
    float x[6] = {1, 0, 0, 0, 1, 0}, gram[4];
    mover_exec exec = {};
    exec.backend = MOVER_CUDA;
    const mover_gram_desc desc = {MOVER_FLOAT32, 1, 2, 3};
    EXPECT_FAILS(mover_gram_forward(&desc, x, gram, &exec), MOVER_ERROR_CUDA, "mover_gram_forward: CUDA reported cuda");
    EXPECT_OK(mover_gram_forward(&desc, x, gram, nullptr)); /* the CPU is as usable as before */
    EXPECT_EQ(gram[0], 1);
}
