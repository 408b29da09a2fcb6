// memory.cpp: tensors that may be too large for the device.
#include "host.h"

#include <exception>
#include <sstream>
#include <string>

namespace mover_torch {
namespace {

// "640.0 GB"
std::string gigabytes(double bytes) {
    std::ostringstream text;
    text.precision(1);
    text << std::fixed << bytes / 1e9 << " GB";
    return text.str();
}

// What an allocator says, without where in its sources it says so.
std::string first_sentence(const std::string &text) {
    const std::string line = text.substr(0, text.find('\n'));
    return line.substr(0, line.find(" (originally from"));
}

constexpr double small = 1e9; // bytes, for which no device need be asked

} // namespace

Tensor new_large(const char *op, const Tensor &like, const Sizes &sizes,
                 std::optional<torch::headeronly::ScalarType> dtype) {
    const bool scratch = dtype == torch::headeronly::ScalarType::Byte;
    double bytes = scratch ? 1 : static_cast<double>(like.element_size());
    for (const int64_t size : sizes) bytes *= static_cast<double>(size);
    const std::string needed = (scratch ? std::string("scratch memory") : "a result of shape " + shape_text(sizes)) +
                               " needs " + gigabytes(bytes);
    const char *remedy = "; make the batch smaller, or use an operator that never forms the matrix";
    if (bytes > small && bytes > device_memory(like))
        fail(op, needed, ", and the device has ", gigabytes(device_memory(like)), remedy);
    try {
        Tensor tensor = torch::stable::new_empty(like, sizes, dtype);
        prepare_memory(tensor.mutable_data_ptr(), static_cast<size_t>(bytes));
        return tensor;
    } catch (const std::exception &error) {
        fail(op, needed, ", which cannot be had: ", first_sentence(error.what()), remedy);
    }
}

} // namespace mover_torch
