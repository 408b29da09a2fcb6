/*
 * score_calls.h: calls of the scores stage on the device, as tests/kernels/score_calls.h makes them on the host:
 * workspaces of exactly the size asked for, outputs that start as NaN.
 */
#ifndef MOVER_TESTS_CUDA_SCORE_CALLS_H
#define MOVER_TESTS_CUDA_SCORE_CALLS_H

#include "../kernels/score_calls.h"
#include "device.h"

namespace fixtures {

/* Anchors (n, d) and groups (m, k-1, d), and how to place them. */
template <class T> struct Groups {
    int64_t n, m, k, d;
    std::vector<T> anchor, others;
    ScoreOptions options; /* its exec is not used */
    mover_precision precision = MOVER_PRECISION_FLOAT32;
    size_t shift = 0; /* of all arrays */

    mover_volume_scores_desc desc(int64_t topk = 0) const {
        auto out = scores_desc<T>(n, m, k, d, options);
        out.precision = precision;
        out.topk = topk;
        return out;
    }
};

template <class T> Groups<T> random_groups(int64_t n, int64_t m, int64_t k, int64_t d, unsigned seed) {
    return {n, m, k, d, random_rows<T>(n, d, seed), random_rows<T>(m * (k - 1), d, seed + 1), {}};
}

/* Every choice of members in turn, m groups. */
inline std::vector<uint8_t> every_mask(int64_t m, int64_t members) {
    std::vector<uint8_t> out;
    for (int64_t j = 0; j < m; j++)
        for (int64_t r = 0; r < members; r++) out.push_back(static_cast<uint8_t>(j >> r & 1 ? 0 : 7));
    return out;
}

/* A call's inputs on the device. */
template <class T> struct DeviceGroups {
    explicit DeviceGroups(const Groups<T> &in)
        : anchor(in.anchor, in.shift), others(in.others, in.shift), mask(in.options.mask, in.shift) {}
    DeviceArray<T> anchor, others;
    DeviceArray<uint8_t> mask;
};

template <class T>
Scored<T> scores_on_device(const Groups<T> &in, const mover_exec *exec, bool keep = true, bool again = false) {
    const auto desc = in.desc();
    size_t bytes = 0;
    EXPECT_OK(mover_volume_scores_forward_workspace_size(&desc, &bytes, exec));
    DeviceGroups<T> from(in);
    DeviceArray<unsigned char> workspace(bytes, in.shift);
    DeviceArray<T> scores(static_cast<size_t>(in.n * in.m), in.shift),
        alphas(keep ? static_cast<size_t>(in.n * in.m * (in.k - 1)) : 0, in.shift);
    for (int call = 0; call < (again ? 2 : 1); call++)
        EXPECT_OK(mover_volume_scores_forward(&desc, from.anchor.data(), from.others.data(), from.mask.data(),
                                              scores.data(), alphas.data(), workspace.data(), bytes, exec));
    return {scores.fetch(), alphas.fetch()};
}

/* wanted: 1 for the anchor's, 2 for the others', 3 for both. */
template <class T>
ScoreGradients<T> gradients_on_device(const Groups<T> &in, const std::vector<T> &upstream, const mover_exec *exec,
                                      int wanted = 3) {
    const auto desc = in.desc();
    size_t bytes = 0;
    EXPECT_OK(mover_volume_scores_backward_workspace_size(&desc, &bytes, exec));
    DeviceGroups<T> from(in);
    DeviceArray<unsigned char> workspace(bytes, in.shift);
    DeviceArray<T> alphas(scores_on_device(in, exec).alphas, in.shift), grad(upstream, in.shift),
        anchor(wanted & 1 ? in.anchor.size() : 0, in.shift), others(wanted & 2 ? in.others.size() : 0, in.shift);
    EXPECT_OK(mover_volume_scores_backward(&desc, from.anchor.data(), from.others.data(), from.mask.data(),
                                           alphas.data(), grad.data(), anchor.data(), others.data(), workspace.data(),
                                           bytes, exec));
    return {anchor.fetch(), others.fetch()};
}

/* The same on the host. */
template <class T> std::vector<T> scores_on_host(const Groups<T> &in) {
    return scores_of(in.anchor, in.others, in.n, in.m, in.k, in.d, in.options);
}

template <class T> ScoreGradients<T> gradients_on_host(const Groups<T> &in, const std::vector<T> &upstream) {
    return gradients_of(in.anchor, in.others, upstream, in.n, in.m, in.k, in.d, in.options);
}

} // namespace fixtures

#endif
