/*
 * launch.h: launches of kernels. Arguments are converted and copied at the launch, as CUDA does.
 */
#ifndef CUEMU_LAUNCH_H
#define CUEMU_LAUNCH_H

#include "host.h"

#include <tuple>
#include <type_traits>

namespace cuemu {

/* A launch without the types of its arguments; who gets it frees `arguments` by `release`. */
struct launch_request {
    const char *name;
    const void *kernel;
    dim3 grid, block;
    size_t dynamic_bytes;
    cudaStream_t stream;
    bool cooperative;
    void *arguments;
    size_t argument_bytes;
    void (*run)(const void *arguments); /* the kernel, by one thread */
    void (*release)(void *arguments);
};
cudaError_t submit(const launch_request &request);

/* A pointer that is handed to a kernel must point to device memory. */
void check_argument(const char *kernel, int index, const void *pointer);

template <class T> void check_argument_of(const char *kernel, int index, const T &value) {
    if constexpr (std::is_pointer<T>::value)
        check_argument(kernel, index, static_cast<const void *>(value));
    else
        static_assert(std::is_trivially_copyable<T>::value, "kernels take arguments that can be copied as bytes");
}

template <class... P> struct bound_kernel {
    void (*kernel)(P...);
    std::tuple<P...> arguments;

    static void run(const void *self) {
        const bound_kernel *bound = static_cast<const bound_kernel *>(self);
        std::apply(bound->kernel, bound->arguments);
    }
    static void release(void *self) { delete static_cast<bound_kernel *>(self); }
};

template <class... P>
cudaError_t launch_bound(bool cooperative, const char *name, void (*kernel)(P...), dim3 grid, dim3 block,
                         size_t dynamic_bytes, cudaStream_t stream, P... arguments) {
    int index = 0;
    (check_argument_of(name, index++, arguments), ...);
    typedef bound_kernel<P...> bound;
    return submit(launch_request{name, reinterpret_cast<const void *>(kernel), grid, block, dynamic_bytes, stream,
                                 cooperative, new bound{kernel, {arguments...}}, sizeof(bound), &bound::run,
                                 &bound::release});
}

template <class... P>
cudaError_t launch(const char *name, void (*kernel)(P...), dim3 grid, dim3 block, size_t dynamic_bytes,
                   cudaStream_t stream, typename same<P>::type... arguments) {
    return launch_bound<P...>(false, name, kernel, grid, block, dynamic_bytes, stream, arguments...);
}

/* All blocks run at the same time and may meet in grid_barrier(); more than fit the device are refused. */
template <class... P>
cudaError_t launch_cooperative(const char *name, void (*kernel)(P...), dim3 grid, dim3 block, size_t dynamic_bytes,
                               cudaStream_t stream, typename same<P>::type... arguments) {
    return launch_bound<P...>(true, name, kernel, grid, block, dynamic_bytes, stream, arguments...);
}

} // namespace cuemu

#endif
