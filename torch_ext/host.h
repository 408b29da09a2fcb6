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

// An output of the size of a cost matrix, from torch's allocator. On the CPU the memory of a large one is asked for in
// huge pages: the first touch of a page costs as much as computing what goes there.
Tensor new_matrix(const Tensor &like, const Sizes &sizes);

// Scratch memory from torch's allocator; none where a call needs none.
struct Workspace {
    std::optional<Tensor> storage;
    size_t bytes;

    void *data() const { return storage.has_value() ? storage->mutable_data_ptr() : nullptr; }
};

Workspace allocate(const Tensor &like, size_t bytes);

// The workspace of a call: `measure` is its _workspace_size function.
template <class Desc>
Workspace workspace_for(const char *op, const Tensor &like,
                        mover_status (*measure)(const Desc *, size_t *, const mover_exec *), const Desc &desc,
                        const Host &host) {
    size_t bytes = 0;
    check_status(op, measure(&desc, &bytes, host.exec()));
    return allocate(like, bytes);
}

} // namespace mover_torch
