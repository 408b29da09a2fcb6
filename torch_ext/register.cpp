// register.cpp: the kernel of every operator, for the dispatch key that the shared object is built for.
#include <torch/csrc/stable/library.h>

#include "ops/contrast.h"
#include "ops/cost.h"
#include "ops/gram.h"
#include "ops/scores.h"
#include "ops/sinkhorn.h"
#include "ops/volume.h"

// The macro joins its key to other names: it has to get the key itself.
#define IMPLEMENT(key) STABLE_TORCH_LIBRARY_IMPL(mover, key, m)

IMPLEMENT(MOVER_DISPATCH_KEY) {
    m.impl("cost", TORCH_BOX(&mover_torch::cost));
    m.impl("cost_backward", TORCH_BOX(&mover_torch::cost_backward));
    m.impl("sinkhorn", TORCH_BOX(&mover_torch::sinkhorn));
    m.impl("sinkhorn_backward", TORCH_BOX(&mover_torch::sinkhorn_backward));
    m.impl("transport", TORCH_BOX(&mover_torch::transport));
    m.impl("transport_backward", TORCH_BOX(&mover_torch::transport_backward));
    m.impl("transport_value", TORCH_BOX(&mover_torch::transport_value));
    m.impl("transport_value_backward", TORCH_BOX(&mover_torch::transport_value_backward));
    m.impl("gram", TORCH_BOX(&mover_torch::gram));
    m.impl("gram_backward", TORCH_BOX(&mover_torch::gram_backward));
    m.impl("logdet", TORCH_BOX(&mover_torch::logdet));
    m.impl("logdet_backward", TORCH_BOX(&mover_torch::logdet_backward));
    m.impl("volume", TORCH_BOX(&mover_torch::volume));
    m.impl("volume_backward", TORCH_BOX(&mover_torch::volume_backward));
    m.impl("group_volume", TORCH_BOX(&mover_torch::group_volume));
    m.impl("group_volume_backward", TORCH_BOX(&mover_torch::group_volume_backward));
    m.impl("expected_volume", TORCH_BOX(&mover_torch::expected_volume));
    m.impl("expected_volume_with_gradients", TORCH_BOX(&mover_torch::expected_volume_with_gradients));
    m.impl("volume_scores", TORCH_BOX(&mover_torch::volume_scores));
    m.impl("volume_scores_with_alphas", TORCH_BOX(&mover_torch::volume_scores_with_alphas));
    m.impl("volume_scores_backward", TORCH_BOX(&mover_torch::volume_scores_backward));
    m.impl("volume_topk", TORCH_BOX(&mover_torch::volume_topk));
    m.impl("volume_rank", TORCH_BOX(&mover_torch::volume_rank));
    m.impl("contrast", TORCH_BOX(&mover_torch::contrast));
    m.impl("contrast_backward", TORCH_BOX(&mover_torch::contrast_backward));
}
