// _native.h: one call of libmover on NumPy arrays: checks its inputs, makes its outputs, runs it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "mover/mover.h"

namespace mover_native {

namespace py = pybind11;

using Array = py::array;
using Input = py::object; // anything that NumPy takes for an array
using Sizes = std::vector<py::ssize_t>;

inline std::string shape_text(const Sizes &sizes) {
    std::string text = "(";
    for (size_t i = 0; i < sizes.size(); i++) text += (i == 0 ? "" : ", ") + std::to_string(sizes[i]);
    return text + (sizes.size() == 1 ? ",)" : ")"); // as NumPy writes it
}

// Shapes are written as names of sizes, "n d"; "... n d" has any number of batch sizes in front. A name stands for one
// size, and "..." for the same sizes, in all arrays of a call: the first array that has them decides. All inputs but
// those of in_of have the dtype of the first.
class Call {
  public:
    explicit Call(const char *function) : function_(function) {}

    // A ValueError: "cost: y must have ...".
    template <class... Parts> [[noreturn]] void fail(const Parts &...parts) const {
        std::ostringstream text;
        text << function_ << ": ";
        (text << ... << parts);
        throw py::value_error(text.str());
    }

    // The data of an input, dense: the array's own, or those of a copy that lives as long as the call.
    const void *in(const char *name, const Input &input, const std::string &shape) {
        const Array array = array_of(name, input);
        match(name, array, shape);
        return dense(array);
    }
    // The same for another type than the dtype.
    template <class T> const T *in_of(const char *name, const Input &input, const std::string &shape) {
        const Array array = numbers(name, input);
        if (!py::isinstance<py::array_t<T>>(array))
            fail(name, " must be ", std::string(py::str(py::dtype::of<T>())), ", got ", dtype_text(array));
        match(name, array, shape);
        return static_cast<const T *>(dense(array));
    }
    // NULL for None.
    const void *optional(const char *name, const Input &input, const std::string &shape) {
        return input.is_none() ? nullptr : in(name, input, shape);
    }
    // Flags, an array of bool; NULL for None.
    const uint8_t *flags(const char *name, const Input &input, const std::string &shape) {
        static_assert(sizeof(bool) == sizeof(uint8_t));
        return input.is_none() ? nullptr : reinterpret_cast<const uint8_t *>(in_of<bool>(name, input, shape));
    }
    // Masses (..., n), or (n) for all problems alike; NULL for None.
    const void *masses(const char *name, const Input &input, const std::string &n) {
        if (input.is_none()) return nullptr;
        const Array array = array_of(name, input);
        if (array.ndim() != 1 || leading_->empty()) return in(name, array, "... " + n);
        match(name, array, n);
        Array all = out("... " + n);
        all.attr("__setitem__")(py::ellipsis(), array);
        return dense(all);
    }

    // An output of sizes that the inputs have decided, of their dtype.
    Array out(const std::string &shape) const {
        return dtype() == MOVER_FLOAT32 ? Array(py::array_t<float>(sizes_of(shape)))
                                        : Array(py::array_t<double>(sizes_of(shape)));
    }
    template <class T> py::array_t<T> out_of(const std::string &shape) const { return py::array_t<T>(sizes_of(shape)); }
    // A size that no input has.
    void define(const std::string &name, int64_t size) { sizes_[name] = size; }

    mover_dtype dtype() const { return *dtype_; }
    int64_t size(const std::string &name) const { return sizes_.at(name); }
    int64_t batch() const {
        int64_t product = 1;
        for (const py::ssize_t size : *leading_) product *= size;
        return product;
    }

    // Calls the library without Python's lock; what it refuses becomes a ValueError with its sentence.
    template <class Desc, class Function, class... Pointers>
    void run(Function function, const Desc &desc, Pointers... pointers) const {
        mover_status status;
        {
            py::gil_scoped_release unlocked;
            status = function(&desc, pointers..., nullptr);
        }
        check(status);
    }
    // The same with a workspace of the size that `measure`, the function's _workspace_size, returns.
    template <class Desc, class Function, class... Pointers>
    void run_in_workspace(mover_status (*measure)(const Desc *, size_t *, const mover_exec *), Function function,
                          const Desc &desc, Pointers... pointers) const {
        size_t bytes = 0;
        check(measure(&desc, &bytes, nullptr));
        const auto workspace = std::make_unique_for_overwrite<std::byte[]>(bytes);
        run(function, desc, pointers..., static_cast<void *>(workspace.get()), bytes);
    }

  private:
    static void check(mover_status status) {
        if (status != MOVER_OK) throw py::value_error(mover_last_error());
    }

    static std::string dtype_text(const Array &array) { return py::str(array.dtype()); }

    Array numbers(const char *name, const Input &input) const {
        Array array = Array::ensure(input);
        if (!array) fail(name, " must be an array of numbers");
        return array;
    }

    // The input as an array of the dtype of the call.
    Array array_of(const char *name, const Input &input) {
        Array array = numbers(name, input);
        const bool is_float = py::isinstance<py::array_t<float>>(array);
        if (!is_float && !py::isinstance<py::array_t<double>>(array))
            fail(name, " must be float32 or float64, got ", dtype_text(array));
        const mover_dtype dtype = is_float ? MOVER_FLOAT32 : MOVER_FLOAT64;
        if (!dtype_) {
            dtype_ = dtype;
            first_ = name;
        }
        if (dtype != *dtype_)
            fail(name, " must have the dtype of ", first_, " (", is_float ? "float64" : "float32", "), got ",
                 dtype_text(array));
        return array;
    }

    static std::vector<std::string> names_of(const std::string &shape) {
        std::istringstream words(shape);
        return {std::istream_iterator<std::string>(words), {}};
    }

    void match(const char *name, const Array &array, const std::string &shape) {
        const Sizes actual(array.shape(), array.shape() + array.ndim());
        std::vector<std::string> names = names_of(shape);
        size_t batch_dims = 0;
        bool fits = true;
        if (!names.empty() && names[0] == "...") {
            names.erase(names.begin());
            fits = actual.size() >= names.size();
            batch_dims = fits ? actual.size() - names.size() : 0;
            const Sizes leading(actual.begin(), actual.begin() + static_cast<std::ptrdiff_t>(batch_dims));
            if (fits && !leading_) leading_ = leading;
            fits = fits && leading == *leading_;
        }
        fits = fits && actual.size() == batch_dims + names.size();
        std::string known;
        for (size_t i = 0; i < names.size(); i++) {
            const auto found = sizes_.find(names[i]);
            if (found != sizes_.end()) {
                known += (known.empty() ? " with " : ", ") + names[i] + " = " + std::to_string(found->second);
                fits = fits && actual[batch_dims + i] == found->second;
            } else if (fits) {
                sizes_[names[i]] = actual[batch_dims + i];
            }
        }
        if (!fits) fail(name, " must have the shape ", form(shape), known, ", got ", shape_text(actual));
    }

    // "... n d" as "(2, 3, n, d)", or "(..., n, d)" as long as no array has decided the batch sizes.
    std::string form(const std::string &shape) const {
        std::string text;
        for (const std::string &name : names_of(shape)) {
            const bool known = name == "..." && leading_;
            std::string part = known ? shape_text(*leading_) : name;
            if (known) part = part.substr(1, part.find_last_not_of(",)"));
            text += (text.empty() || part.empty() ? "" : ", ") + part;
        }
        return "(" + text + ")";
    }

    Sizes sizes_of(const std::string &shape) const {
        Sizes sizes;
        for (const std::string &name : names_of(shape)) {
            if (name == "...")
                sizes.insert(sizes.end(), leading_->begin(), leading_->end());
            else
                sizes.push_back(sizes_.at(name));
        }
        return sizes;
    }

    const void *dense(const Array &array) {
        constexpr int layout = int{Array::c_style} | int{py::detail::npy_api::NPY_ARRAY_ALIGNED_};
        const Array copy = Array::ensure(array, layout);
        if (!copy) throw std::bad_alloc();
        kept_.push_back(copy);
        return copy.data();
    }

    const char *function_;
    std::optional<mover_dtype> dtype_;
    const char *first_ = "";
    std::optional<Sizes> leading_;
    std::map<std::string, int64_t> sizes_;
    std::vector<Array> kept_;
};

} // namespace mover_native
