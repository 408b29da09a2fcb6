// Sizes at the end of the address space, and empty ones beside them: refused, or nothing to do. Found by tests/fuzz.
#include "fixtures.h"

using namespace fixtures;

namespace {

const int64_t huge = INT64_C(1) << 40;

TEST(Limits, SizesBesideAnEmptyOneMustFitTogether) {
    size_t bytes = 0;
    mover_cost_desc cost = {};
    cost.batch = huge, cost.n = huge;
    EXPECT_EQ(mover_cost_forward_workspace_size(&cost, &bytes, nullptr), MOVER_ERROR_OVERFLOW);
    mover_transport_desc transport = {};
    transport.batch = huge, transport.n = huge, transport.epsilon = 1, transport.max_iter = 1;
    EXPECT_EQ(mover_transport_forward_workspace_size(&transport, &bytes, nullptr), MOVER_ERROR_OVERFLOW);
}

TEST(Limits, NoWorkspaceIsLargerThanHalfTheAddressSpace) {
    mover_volume_scores_desc desc = {};
    desc.dtype = MOVER_FLOAT64, desc.n = 2, desc.k = 2, desc.d = 2, desc.score = MOVER_SCORE_COSINE;
    for (int shift = 50; shift < 63; shift++)
        for (int64_t more = -66; more <= 66; more++) {
            desc.m = (INT64_C(1) << shift) + more;
            size_t bytes = 0;
            if (mover_volume_rank_workspace_size(&desc, &bytes, nullptr) == MOVER_OK) {
                EXPECT_LE(bytes, SIZE_MAX / 2) << desc.m;
            }
        }
}

TEST(Limits, ManyEmptyProblemsAreNoWork) {
    mover_cost_desc desc = {};
    desc.batch = huge, desc.d = 8;
    size_t bytes = 0;
    EXPECT_OK(mover_cost_backward_workspace_size(&desc, &bytes, nullptr));
    EXPECT_OK(mover_cost_backward(&desc, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, 0, nullptr));
}

TEST(Limits, MaskedRowsWithoutAnElementMayBeNull) {
    mover_volume_scores_desc desc = {};
    desc.n = 1, desc.m = 2, desc.k = 3, desc.masked = 1;
    const std::vector<uint8_t> mask = {1, 0, 1, 1};
    size_t bytes = 0;
    EXPECT_OK(mover_volume_scores_forward_workspace_size(&desc, &bytes, nullptr));
    Workspace workspace(bytes);
    std::vector<float> scores(2);
    EXPECT_OK(mover_volume_scores_forward(&desc, nullptr, nullptr, mask.data(), scores.data(), nullptr,
                                          workspace.data(), bytes, nullptr));
    EXPECT_TRUE(all_finite(scores));
}

/* Seven columns that the kernel of one row does not reach in float: Newton has no direction there. */
TEST(Limits, PlansOfCostsFarBeyondEpsilonAreFinite) {
    std::vector<float> cost(18, 0);
    const std::vector<float> near = {1.859375f, 2.1875f, 2.1875f, 1.875f, 1.53125f, 1.859375f};
    std::copy(near.begin(), near.end(), cost.begin());
    mover_sinkhorn_desc desc = {};
    desc.batch = 1, desc.n = 2, desc.m = 9, desc.epsilon = 0.01, desc.tol = 1e-3, desc.max_iter = 100;
    size_t bytes = 0;
    EXPECT_OK(mover_sinkhorn_forward_workspace_size(&desc, &bytes, nullptr));
    Workspace workspace(bytes);
    std::vector<float> plan(18), f(2), g(9), error(1);
    int32_t n_iter = 0;
    EXPECT_OK(mover_sinkhorn_forward(&desc, cost.data(), nullptr, nullptr, plan.data(), f.data(), g.data(), &n_iter,
                                     error.data(), workspace.data(), bytes, nullptr));
    EXPECT_TRUE(all_finite(plan) && all_finite(f) && all_finite(g) && all_finite(error));
}

} // namespace
