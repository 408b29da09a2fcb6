/*
 * score_calls.h: calls of the scores stage as the tests make them: workspaces of exactly the size asked for, outputs
 * that start as NaN.
 */
#ifndef MOVER_TESTS_SCORE_CALLS_H
#define MOVER_TESTS_SCORE_CALLS_H

#include "fixtures.h"

namespace fixtures {

struct ScoreOptions {
    mover_score score = MOVER_SCORE_VOLUME;
    std::vector<uint8_t> mask = {}; /* (m, k-1); empty: all members are present */
    const mover_exec *exec = nullptr;

    const uint8_t *mask_data() const { return mask.empty() ? nullptr : mask.data(); }
};

template <class T>
mover_volume_scores_desc scores_desc(int64_t n, int64_t m, int64_t k, int64_t d, const ScoreOptions &options) {
    mover_volume_scores_desc desc = {};
    desc.dtype = dtype_of<T>();
    desc.n = n, desc.m = m, desc.k = k, desc.d = d;
    desc.score = options.score;
    desc.masked = !options.mask.empty();
    return desc;
}

template <class T> struct Scored { std::vector<T> scores, alphas; };

template <class T>
Scored<T> scores_and_alphas(const std::vector<T> &anchor, const std::vector<T> &others, int64_t n, int64_t m, int64_t k,
                            int64_t d, const ScoreOptions &options = {}, bool keep = true) {
    const auto desc = scores_desc<T>(n, m, k, d, options);
    size_t bytes = 0;
    EXPECT_OK(mover_volume_scores_forward_workspace_size(&desc, &bytes, options.exec));
    Workspace workspace(bytes);
    Scored<T> out;
    out.scores.assign(static_cast<size_t>(n * m), not_a_number<T>());
    if (keep) out.alphas.assign(static_cast<size_t>(n * m * (k - 1)), not_a_number<T>());
    EXPECT_OK(mover_volume_scores_forward(&desc, anchor.data(), others.data(), options.mask_data(), out.scores.data(),
                                          keep ? out.alphas.data() : nullptr, workspace.data(), bytes, options.exec));
    return out;
}

template <class T>
std::vector<T> scores_of(const std::vector<T> &anchor, const std::vector<T> &others, int64_t n, int64_t m, int64_t k,
                         int64_t d, const ScoreOptions &options = {}) {
    return scores_and_alphas(anchor, others, n, m, k, d, options, false).scores;
}

template <class T> struct ScoreGradients { std::vector<T> anchor, others; };

/* wanted: 1 for the anchor's, 2 for the others', 3 for both. */
template <class T>
ScoreGradients<T> gradients_of(const std::vector<T> &anchor, const std::vector<T> &others,
                               const std::vector<T> &upstream, int64_t n, int64_t m, int64_t k, int64_t d,
                               const ScoreOptions &options = {}, int wanted = 3) {
    const auto desc = scores_desc<T>(n, m, k, d, options);
    const auto alphas = scores_and_alphas(anchor, others, n, m, k, d, options).alphas;
    size_t bytes = 0;
    EXPECT_OK(mover_volume_scores_backward_workspace_size(&desc, &bytes, options.exec));
    Workspace workspace(bytes);
    ScoreGradients<T> out;
    if (wanted & 1) out.anchor.assign(anchor.size(), not_a_number<T>());
    if (wanted & 2) out.others.assign(others.size(), not_a_number<T>());
    EXPECT_OK(mover_volume_scores_backward(&desc, anchor.data(), others.data(), options.mask_data(), alphas.data(),
                                           upstream.data(), wanted & 1 ? out.anchor.data() : nullptr,
                                           wanted & 2 ? out.others.data() : nullptr, workspace.data(), bytes,
                                           options.exec));
    return out;
}

} // namespace fixtures

#endif
