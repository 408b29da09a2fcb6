/*
 * fuzz_arguments.cpp: descriptors of any content. A call either refuses them with a sentence or says how much memory it
 * needs; with no memory at all it refuses, too, or has nothing to do. Nothing overflows, nothing is read or written.
 */
#include "input.h"

using fuzz::expect;
using fuzz::Input;

namespace {

Input *input;

/* Options are numbers here: one that is no enumerator must not pass through a variable of the type. */
template <class Field> void set(Field &field, int32_t value) {
    static_assert(sizeof field == sizeof value);
    std::memcpy(&field, &value, sizeof value);
}

int32_t option() { return static_cast<int32_t>(input->below(3)); }

int32_t iterations() { return static_cast<int32_t>(input->hostile_size()); }

/* A refusal has a sentence. */
bool accepted(mover_status status) {
    expect(status >= MOVER_OK && status <= MOVER_ERROR_CUDA, "an unknown status");
    expect(status == MOVER_OK || std::strlen(mover_last_error()) > 10, "a refusal without a sentence");
    return status == MOVER_OK;
}

template <class Desc, class Size, class Call> void try_call(const Desc &desc, Size size, Call call) {
    size_t bytes = 0;
    if (!accepted(size(&desc, &bytes, nullptr))) return;
    expect(bytes <= SIZE_MAX / 2, "a workspace that no one can have");
    accepted(call(&desc));
}

mover_status no_size(const void *, size_t *, const mover_exec *) { return MOVER_OK; }

void cost() {
    mover_cost_desc desc = {};
    set(desc.dtype, option());
    desc.batch = input->hostile_size(), desc.n = input->hostile_size(), desc.m = input->hostile_size();
    desc.d = input->hostile_size(), set(desc.precision, option());
    try_call(desc, mover_cost_forward_workspace_size,
             [](const auto *d) { return mover_cost_forward(d, nullptr, nullptr, nullptr, nullptr, 0, nullptr); });
    try_call(desc, mover_cost_backward_workspace_size, [](const auto *d) {
        return mover_cost_backward(d, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, 0, nullptr);
    });
}

void sinkhorn() {
    mover_sinkhorn_desc desc = {};
    set(desc.dtype, option());
    desc.batch = input->hostile_size(), desc.n = input->hostile_size(), desc.m = input->hostile_size();
    desc.epsilon = input->number<double>(false), desc.tol = input->number<double>(false);
    desc.max_iter = iterations(), set(desc.solver, option());
    try_call(desc, mover_sinkhorn_forward_workspace_size, [](const auto *d) {
        return mover_sinkhorn_forward(d, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
                                      nullptr, 0, nullptr);
    });
    try_call(desc, mover_sinkhorn_backward_workspace_size, [](const auto *d) {
        return mover_sinkhorn_backward(d, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, 0, nullptr);
    });
}

void transport() {
    mover_transport_desc desc = {};
    set(desc.dtype, option());
    desc.batch = input->hostile_size(), desc.n = input->hostile_size(), desc.m = input->hostile_size();
    desc.d = input->hostile_size(), set(desc.precision, option());
    desc.epsilon = input->number<double>(false), desc.tol = input->number<double>(false);
    desc.max_iter = iterations(), set(desc.solver, option());
    try_call(desc, mover_transport_forward_workspace_size, [](const auto *d) {
        return mover_transport_forward(d, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
                                       nullptr, nullptr, nullptr, 0, nullptr);
    });
    try_call(desc, mover_transport_backward_workspace_size, [](const auto *d) {
        return mover_transport_backward(d, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
                                        nullptr, nullptr, 0, nullptr);
    });
    try_call(desc, mover_transport_value_forward_workspace_size, [](const auto *d) {
        return mover_transport_value_forward(d, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
                                             0, nullptr);
    });
    try_call(desc, mover_transport_value_backward_workspace_size, [](const auto *d) {
        return mover_transport_value_backward(d, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
                                              nullptr, nullptr, nullptr, nullptr, 0, nullptr);
    });
}

void gram() {
    const int32_t dtype = option();
    mover_gram_desc desc = {};
    set(desc.dtype, dtype);
    desc.batch = input->hostile_size(), desc.k = input->hostile_size(), desc.d = input->hostile_size();
    try_call(desc, no_size, [](const auto *d) { return mover_gram_forward(d, nullptr, nullptr, nullptr); });
    try_call(desc, no_size, [](const auto *d) { return mover_gram_backward(d, nullptr, nullptr, nullptr, nullptr); });
    mover_logdet_desc logdet = {};
    set(logdet.dtype, dtype), logdet.batch = desc.batch, logdet.k = desc.k;
    set(logdet.factorization, option());
    try_call(logdet, mover_logdet_workspace_size,
             [](const auto *d) { return mover_logdet_forward(d, nullptr, nullptr, nullptr, nullptr, 0, nullptr); });
    try_call(logdet, mover_logdet_workspace_size,
             [](const auto *d) { return mover_logdet_backward(d, nullptr, nullptr, nullptr, nullptr, 0, nullptr); });
}

void volume() {
    const int32_t dtype = option();
    mover_volume_desc desc = {};
    set(desc.dtype, dtype);
    desc.batch = input->hostile_size(), desc.k = input->hostile_size(), desc.d = input->hostile_size();
    desc.eps = input->number<double>(false);
    try_call(desc, no_size, [](const auto *d) { return mover_volume_forward(d, nullptr, nullptr, nullptr); });
    try_call(desc, no_size, [](const auto *d) { return mover_volume_backward(d, nullptr, nullptr, nullptr, nullptr); });
    mover_group_volume_desc group = {};
    set(group.dtype, dtype), group.n = desc.batch, group.k = desc.k, group.count = input->hostile_size();
    try_call(group, no_size,
             [](const auto *d) { return mover_group_volume_forward(d, nullptr, nullptr, nullptr, nullptr); });
    try_call(group, mover_group_volume_backward_workspace_size, [](const auto *d) {
        return mover_group_volume_backward(d, nullptr, nullptr, nullptr, nullptr, nullptr, 0, nullptr);
    });
    mover_expected_volume_desc triples = {};
    set(triples.dtype, dtype), triples.n1 = desc.batch, triples.n2 = desc.k, triples.n3 = desc.d;
    try_call(triples, mover_expected_volume_forward_workspace_size, [](const auto *d) {
        return mover_expected_volume_forward(d, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
                                             0, nullptr);
    });
    try_call(triples, mover_expected_volume_backward_workspace_size, [](const auto *d) {
        return mover_expected_volume_backward(d, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
                                              nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, 0,
                                              nullptr);
    });
}

void scores() {
    mover_volume_scores_desc desc = {};
    set(desc.dtype, option());
    desc.n = input->hostile_size(), desc.m = input->hostile_size(), desc.k = input->hostile_size();
    desc.d = input->hostile_size(), desc.topk = input->hostile_size();
    set(desc.score, option()), set(desc.precision, option()), set(desc.masked, option());
    try_call(desc, mover_volume_scores_forward_workspace_size, [](const auto *d) {
        return mover_volume_scores_forward(d, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, 0, nullptr);
    });
    try_call(desc, mover_volume_scores_backward_workspace_size, [](const auto *d) {
        return mover_volume_scores_backward(d, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
                                            0, nullptr);
    });
    try_call(desc, mover_volume_topk_workspace_size, [](const auto *d) {
        return mover_volume_topk(d, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, 0, nullptr);
    });
    try_call(desc, mover_volume_rank_workspace_size, [](const auto *d) {
        return mover_volume_rank(d, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, 0, nullptr);
    });
}

void contrast() {
    mover_contrast_desc desc = {};
    set(desc.dtype, option());
    desc.batch = input->hostile_size(), desc.n = input->hostile_size();
    desc.label_smoothing = input->number<double>(false), set(desc.denominator, option());
    try_call(desc, mover_contrast_forward_workspace_size, [](const auto *d) {
        return mover_contrast_forward(d, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, 0, nullptr);
    });
    try_call(desc, mover_contrast_backward_workspace_size, [](const auto *d) {
        return mover_contrast_backward(d, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, 0,
                                       nullptr);
    });
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static void (*const stages[])() = {cost, sinkhorn, transport, gram, volume, scores, contrast};
    Input bytes(data, size);
    input = &bytes;
    stages[input->below(6)]();
    return 0;
}
