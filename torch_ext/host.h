// host.h: what torch lends to libmover, and how one call is made.
//
// The bodies in ops/ are the same for every backend; a backend is an implementation of this header (host_cpu.cpp,
// host_cuda.cpp) and a shared object that registers them for its devices (register.cpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "mover/mover.h"
#include "ops/arguments.h"

namespace mover_torch {

// What torch lends for one call on the device of `like`, whose matrices have the given sizes: on the CPU its threads
// and matrix products; on CUDA its current stream and cuBLAS handle, and the device of `like` is the present one for as
// long as this lives.
class Host {
  public:
    explicit Host(const Tensor &like, std::initializer_list<int64_t> products = {}, bool factorizes = false);
    ~Host();
    Host(const Host &) = delete;
    Host &operator=(const Host &) = delete;

    const mover_exec *exec() const { return &exec_; }

  private:
    struct Device;
    mover_exec exec_{};
    std::unique_ptr<Device> device_;
};

// Raises "mover::<op>: <what the library said>" unless the status is MOVER_OK.
inline void check_status(const char *op, mover_status status) {
    if (status != MOVER_OK) fail(op, mover_last_error(), " (", mover_status_string(status), ")");
}

// Memory of the device of `like`, in bytes, used or not.
double device_memory(const Tensor &like);

// Advice about memory that is about to be written. On the CPU a large block is asked for in huge pages: the first touch
// of a page costs as much as computing what goes there.
void prepare_memory(void *memory, size_t bytes);

// A tensor that grows with the product of batch sizes, of the type of `like` unless another is given. Raises
// "mover::<op>: … needs 640.0 GB …" where the device cannot have it.
Tensor new_large(const char *op, const Tensor &like, const Sizes &sizes,
                 std::optional<torch::headeronly::ScalarType> dtype = std::nullopt);

// Scratch memory; none where a call needs none.
struct Workspace {
    std::optional<Tensor> storage;
    size_t bytes;

    void *data() const { return storage.has_value() ? storage->mutable_data_ptr() : nullptr; }
};

// The workspace of a call: `measure` is its _workspace_size function.
template <class Desc>
Workspace workspace_for(const char *op, const Tensor &like,
                        mover_status (*measure)(const Desc *, size_t *, const mover_exec *), const Desc &desc,
                        const Host &host) {
    size_t bytes = 0;
    check_status(op, measure(&desc, &bytes, host.exec()));
    if (bytes == 0) return {std::nullopt, 0};
    return {new_large(op, like, Sizes{static_cast<int64_t>(bytes)}, torch::headeronly::ScalarType::Byte), bytes};
}

} // namespace mover_torch
