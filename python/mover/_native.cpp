// _native.cpp: mover._native, the functions of mover.h on NumPy arrays, without torch.
//
// Names, meanings and the order of arguments are those of mover.h; docstrings give the shapes. Nothing is lent: every
// call runs in the thread that makes it, and lets other Python threads run meanwhile.
#include "_native.h"

#include <limits>

namespace mover_native {
namespace {

// ---- cost ----------------------------------------------------------------------------------------------------------

mover_cost_desc describe_rows(const Call &call) {
    mover_cost_desc desc{};
    desc.dtype = call.dtype();
    desc.batch = call.batch(), desc.n = call.size("n"), desc.m = call.size("m"), desc.d = call.size("d");
    return desc;
}

Array cost(const Input &x_, const Input &y_) {
    Call call("cost");
    const void *x = call.in("x", x_, "... n d"), *y = call.in("y", y_, "... m d");
    Array cost = call.out("... n m");
    call.run_in_workspace(mover_cost_forward_workspace_size, mover_cost_forward, describe_rows(call), x, y,
                          cost.mutable_data());
    return cost;
}

py::tuple cost_backward(const Input &x_, const Input &y_, const Input &grad_cost_) {
    Call call("cost_backward");
    const void *x = call.in("x", x_, "... n d"), *y = call.in("y", y_, "... m d");
    const void *grad_cost = call.in("grad_cost", grad_cost_, "... n m");
    Array grad_x = call.out("... n d"), grad_y = call.out("... m d");
    call.run_in_workspace(mover_cost_backward_workspace_size, mover_cost_backward, describe_rows(call), x, y, grad_cost,
                          grad_x.mutable_data(), grad_y.mutable_data());
    return py::make_tuple(grad_x, grad_y);
}

// ---- sinkhorn ------------------------------------------------------------------------------------------------------

// What the forward functions are told; a gradient takes epsilon only.
struct Solve {
    double epsilon;
    int64_t max_iter = 1;
    double tol = 0;
    std::string solver = "auto";
};

mover_solver parse_solver(const Call &call, const std::string &solver) {
    if (solver == "auto") return MOVER_SOLVER_AUTO;
    if (solver == "sinkhorn") return MOVER_SOLVER_SINKHORN;
    if (solver == "newton") return MOVER_SOLVER_NEWTON;
    call.fail("solver must be 'auto', 'sinkhorn' or 'newton', got '", solver, "'");
}

template <class Desc> Desc describe_problem(const Call &call, const Solve &solve) {
    constexpr int64_t most = std::numeric_limits<int32_t>::max();
    if (solve.max_iter > most) call.fail("max_iter must be at most ", most, ", got ", solve.max_iter);
    Desc desc{};
    desc.dtype = call.dtype();
    desc.batch = call.batch(), desc.n = call.size("n"), desc.m = call.size("m");
    desc.epsilon = solve.epsilon, desc.tol = solve.tol;
    desc.max_iter = static_cast<int32_t>(solve.max_iter);
    desc.solver = parse_solver(call, solve.solver);
    return desc;
}

mover_transport_desc describe_pairs(const Call &call, const Solve &solve) {
    auto desc = describe_problem<mover_transport_desc>(call, solve);
    desc.d = call.size("d");
    return desc;
}

py::tuple sinkhorn(const Input &cost_, const Input &a, const Input &b, double epsilon, int64_t max_iter, double tol,
                   const std::string &solver) {
    Call call("sinkhorn");
    const void *cost = call.in("cost", cost_, "... n m");
    const auto desc = describe_problem<mover_sinkhorn_desc>(call, {epsilon, max_iter, tol, solver});
    Array plan = call.out("... n m"), f = call.out("... n"), g = call.out("... m"), error = call.out("...");
    auto n_iter = call.out_of<int32_t>("...");
    call.run_in_workspace(mover_sinkhorn_forward_workspace_size, mover_sinkhorn_forward, desc, cost,
                          call.masses("a", a, "n"), call.masses("b", b, "m"), plan.mutable_data(), f.mutable_data(),
                          g.mutable_data(), n_iter.mutable_data(), error.mutable_data());
    return py::make_tuple(plan, f, g, n_iter, error);
}

py::tuple sinkhorn_backward(const Input &plan_, const Input &grad_plan_, double epsilon) {
    Call call("sinkhorn_backward");
    const void *plan = call.in("plan", plan_, "... n m"), *grad_plan = call.in("grad_plan", grad_plan_, "... n m");
    const auto desc = describe_problem<mover_sinkhorn_desc>(call, {epsilon});
    Array grad_cost = call.out("... n m"), grad_a = call.out("... n"), grad_b = call.out("... m");
    call.run_in_workspace(mover_sinkhorn_backward_workspace_size, mover_sinkhorn_backward, desc, plan, grad_plan,
                          grad_cost.mutable_data(), grad_a.mutable_data(), grad_b.mutable_data());
    return py::make_tuple(grad_cost, grad_a, grad_b);
}

py::tuple transport(const Input &x_, const Input &y_, const Input &a, const Input &b, double epsilon, int64_t max_iter,
                    double tol, const std::string &solver) {
    Call call("transport");
    const void *x = call.in("x", x_, "... n d"), *y = call.in("y", y_, "... m d");
    const auto desc = describe_pairs(call, {epsilon, max_iter, tol, solver});
    Array plan = call.out("... n m"), cost = call.out("... n m"), f = call.out("... n"), g = call.out("... m");
    Array error = call.out("...");
    auto n_iter = call.out_of<int32_t>("...");
    call.run_in_workspace(mover_transport_forward_workspace_size, mover_transport_forward, desc, x, y,
                          call.masses("a", a, "n"), call.masses("b", b, "m"), plan.mutable_data(), cost.mutable_data(),
                          f.mutable_data(), g.mutable_data(), n_iter.mutable_data(), error.mutable_data());
    return py::make_tuple(plan, cost, f, g, n_iter, error);
}

py::tuple transport_backward(const Input &x_, const Input &y_, const Input &plan_, const Input &grad_plan,
                             const Input &grad_cost, double epsilon) {
    Call call("transport_backward");
    const void *x = call.in("x", x_, "... n d"), *y = call.in("y", y_, "... m d");
    const void *plan = call.in("plan", plan_, "... n m");
    const auto desc = describe_pairs(call, {epsilon});
    Array grad_x = call.out("... n d"), grad_y = call.out("... m d"), grad_a = call.out("... n"),
          grad_b = call.out("... m");
    call.run_in_workspace(mover_transport_backward_workspace_size, mover_transport_backward, desc, x, y, plan,
                          call.optional("grad_plan", grad_plan, "... n m"),
                          call.optional("grad_cost", grad_cost, "... n m"), grad_x.mutable_data(),
                          grad_y.mutable_data(), grad_a.mutable_data(), grad_b.mutable_data());
    return py::make_tuple(grad_x, grad_y, grad_a, grad_b);
}

py::tuple transport_value(const Input &x_, const Input &y_, const Input &a, const Input &b, double epsilon,
                          int64_t max_iter, double tol, const std::string &solver) {
    Call call("transport_value");
    const void *x = call.in("x", x_, "... n d"), *y = call.in("y", y_, "... m d");
    const auto desc = describe_pairs(call, {epsilon, max_iter, tol, solver});
    Array value = call.out("..."), f = call.out("... n"), g = call.out("... m");
    call.run_in_workspace(mover_transport_value_forward_workspace_size, mover_transport_value_forward, desc, x, y,
                          call.masses("a", a, "n"), call.masses("b", b, "m"), value.mutable_data(), f.mutable_data(),
                          g.mutable_data());
    return py::make_tuple(value, f, g);
}

py::tuple transport_value_backward(const Input &x_, const Input &y_, const Input &a, const Input &b, const Input &f_,
                                   const Input &g_, const Input &grad_value_, double epsilon) {
    Call call("transport_value_backward");
    const void *x = call.in("x", x_, "... n d"), *y = call.in("y", y_, "... m d");
    const void *f = call.in("f", f_, "... n"), *g = call.in("g", g_, "... m");
    const void *grad_value = call.in("grad_value", grad_value_, "...");
    const auto desc = describe_pairs(call, {epsilon});
    Array grad_x = call.out("... n d"), grad_y = call.out("... m d"), grad_a = call.out("... n"),
          grad_b = call.out("... m");
    call.run_in_workspace(mover_transport_value_backward_workspace_size, mover_transport_value_backward, desc, x, y,
                          call.masses("a", a, "n"), call.masses("b", b, "m"), f, g, grad_value, grad_x.mutable_data(),
                          grad_y.mutable_data(), grad_a.mutable_data(), grad_b.mutable_data());
    return py::make_tuple(grad_x, grad_y, grad_a, grad_b);
}

// ---- gram ----------------------------------------------------------------------------------------------------------

Array gram(const Input &v_) {
    Call call("gram");
    const void *v = call.in("v", v_, "... k d");
    Array gram = call.out("... k k");
    const mover_gram_desc desc{call.dtype(), call.batch(), call.size("k"), call.size("d")};
    call.run(mover_gram_forward, desc, v, gram.mutable_data());
    return gram;
}

Array gram_backward(const Input &v_, const Input &grad_gram_) {
    Call call("gram_backward");
    const void *v = call.in("v", v_, "... k d"), *grad_gram = call.in("grad_gram", grad_gram_, "... k k");
    Array grad_v = call.out("... k d");
    const mover_gram_desc desc{call.dtype(), call.batch(), call.size("k"), call.size("d")};
    call.run(mover_gram_backward, desc, v, grad_gram, grad_v.mutable_data());
    return grad_v;
}

py::tuple logdet(const Input &gram_) {
    Call call("logdet");
    const void *gram = call.in("gram", gram_, "... k k");
    Array logdet = call.out("...");
    auto info = call.out_of<int32_t>("...");
    const mover_logdet_desc desc{call.dtype(), call.batch(), call.size("k"), MOVER_FACTORIZATION_AUTO};
    call.run_in_workspace(mover_logdet_workspace_size, mover_logdet_forward, desc, gram, logdet.mutable_data(),
                          info.mutable_data());
    return py::make_tuple(logdet, info);
}

Array logdet_backward(const Input &gram_, const Input &grad_logdet_) {
    Call call("logdet_backward");
    const void *gram = call.in("gram", gram_, "... k k"), *grad_logdet = call.in("grad_logdet", grad_logdet_, "...");
    Array grad_gram = call.out("... k k");
    const mover_logdet_desc desc{call.dtype(), call.batch(), call.size("k"), MOVER_FACTORIZATION_AUTO};
    call.run_in_workspace(mover_logdet_workspace_size, mover_logdet_backward, desc, gram, grad_logdet,
                          grad_gram.mutable_data());
    return grad_gram;
}

// ---- volume --------------------------------------------------------------------------------------------------------

Array volume(const Input &v_, double eps) {
    Call call("volume");
    const void *v = call.in("v", v_, "... k d");
    Array volume = call.out("...");
    const mover_volume_desc desc{call.dtype(), call.batch(), call.size("k"), call.size("d"), eps};
    call.run(mover_volume_forward, desc, v, volume.mutable_data());
    return volume;
}

Array volume_backward(const Input &v_, const Input &grad_volume_, double eps) {
    Call call("volume_backward");
    const void *v = call.in("v", v_, "... k d"), *grad_volume = call.in("grad_volume", grad_volume_, "...");
    Array grad_v = call.out("... k d");
    const mover_volume_desc desc{call.dtype(), call.batch(), call.size("k"), call.size("d"), eps};
    call.run(mover_volume_backward, desc, v, grad_volume, grad_v.mutable_data());
    return grad_v;
}

mover_group_volume_desc describe_listed(const Call &call) {
    const int64_t k = call.size("k"), pairs = call.size("pairs");
    const bool k_fits = k >= 2 && k <= MOVER_MAX_K; // else the library says so
    if (k_fits && pairs != k * (k - 1) / 2)
        call.fail("costs must have the shape (", k * (k - 1) / 2, ", n, n) for the pairs of k = ", k,
                  " sets, got pairs = ", pairs);
    return {call.dtype(), call.size("n"), k, call.size("count")};
}

Array group_volume(const Input &costs_, const Input &groups_) {
    Call call("group_volume");
    const void *costs = call.in("costs", costs_, "pairs n n");
    const int64_t *groups = call.in_of<int64_t>("groups", groups_, "count k");
    Array volume = call.out("count");
    call.run(mover_group_volume_forward, describe_listed(call), costs, groups, volume.mutable_data());
    return volume;
}

Array group_volume_backward(const Input &costs_, const Input &groups_, const Input &grad_volume_) {
    Call call("group_volume_backward");
    const void *costs = call.in("costs", costs_, "pairs n n");
    const int64_t *groups = call.in_of<int64_t>("groups", groups_, "count k");
    const void *grad_volume = call.in("grad_volume", grad_volume_, "count");
    Array grad_costs = call.out("pairs n n");
    call.run_in_workspace(mover_group_volume_backward_workspace_size, mover_group_volume_backward,
                          describe_listed(call), costs, groups, grad_volume, grad_costs.mutable_data());
    return grad_costs;
}

Array expected_volume(const Input &c12_, const Input &c13_, const Input &c23_, const Input &p12, const Input &p13,
                      const Input &p23) {
    Call call("expected_volume");
    const void *c12 = call.in("c12", c12_, "n1 n2"), *c13 = call.in("c13", c13_, "n1 n3"),
               *c23 = call.in("c23", c23_, "n2 n3");
    Array value = call.out("");
    const mover_expected_volume_desc desc{call.dtype(), call.size("n1"), call.size("n2"), call.size("n3")};
    call.run_in_workspace(mover_expected_volume_forward_workspace_size, mover_expected_volume_forward, desc, c12, c13,
                          c23, call.optional("p12", p12, "n1 n2"), call.optional("p13", p13, "n1 n3"),
                          call.optional("p23", p23, "n2 n3"), value.mutable_data());
    return value;
}

py::tuple expected_volume_backward(const Input &c12_, const Input &c13_, const Input &c23_, const Input &p12,
                                   const Input &p13, const Input &p23, const Input &grad_value_) {
    Call call("expected_volume_backward");
    const void *c12 = call.in("c12", c12_, "n1 n2"), *c13 = call.in("c13", c13_, "n1 n3"),
               *c23 = call.in("c23", c23_, "n2 n3"), *grad_value = call.in("grad_value", grad_value_, "");
    Array grad_c12 = call.out("n1 n2"), grad_c13 = call.out("n1 n3"), grad_c23 = call.out("n2 n3");
    Array grad_p12 = call.out("n1 n2"), grad_p13 = call.out("n1 n3"), grad_p23 = call.out("n2 n3");
    const mover_expected_volume_desc desc{call.dtype(), call.size("n1"), call.size("n2"), call.size("n3")};
    call.run_in_workspace(mover_expected_volume_backward_workspace_size, mover_expected_volume_backward, desc, c12, c13,
                          c23, call.optional("p12", p12, "n1 n2"), call.optional("p13", p13, "n1 n3"),
                          call.optional("p23", p23, "n2 n3"), grad_value, nullptr, grad_c12.mutable_data(),
                          grad_c13.mutable_data(), grad_c23.mutable_data(), grad_p12.mutable_data(),
                          grad_p13.mutable_data(), grad_p23.mutable_data());
    return py::make_tuple(grad_c12, grad_c13, grad_c23, grad_p12, grad_p13, grad_p23);
}

// ---- scores --------------------------------------------------------------------------------------------------------

mover_score parse_score(const Call &call, const std::string &score) {
    if (score == "volume") return MOVER_SCORE_VOLUME;
    if (score == "span") return MOVER_SCORE_SPAN;
    if (score == "cosine") return MOVER_SCORE_COSINE;
    call.fail("score must be 'volume', 'span' or 'cosine', got '", score, "'");
}

// The inputs that all functions of the stage share.
struct Groups {
    const void *anchor, *others;
    const uint8_t *mask;
    mover_volume_scores_desc desc;

    Groups(Call &call, const Input &anchor_, const Input &others_, const Input &mask_, const std::string &score)
        : anchor(call.in("anchor", anchor_, "n d")), others(call.in("others", others_, "m k-1 d")),
          mask(call.flags("mask", mask_, "m k-1")), desc{} {
        desc.dtype = call.dtype();
        desc.n = call.size("n"), desc.m = call.size("m"), desc.k = call.size("k-1") + 1, desc.d = call.size("d");
        desc.score = parse_score(call, score);
        desc.masked = !mask_.is_none();
    }
};

Array volume_scores(const Input &anchor, const Input &others, const Input &mask, const std::string &score) {
    Call call("volume_scores");
    const Groups groups(call, anchor, others, mask, score);
    Array scores = call.out("n m");
    call.run_in_workspace(mover_volume_scores_forward_workspace_size, mover_volume_scores_forward, groups.desc,
                          groups.anchor, groups.others, groups.mask, scores.mutable_data(), nullptr);
    return scores;
}

py::tuple volume_scores_with_alphas(const Input &anchor, const Input &others, const Input &mask,
                                    const std::string &score) {
    Call call("volume_scores_with_alphas");
    const Groups groups(call, anchor, others, mask, score);
    Array scores = call.out("n m"), alphas = call.out("n m k-1");
    call.run_in_workspace(mover_volume_scores_forward_workspace_size, mover_volume_scores_forward, groups.desc,
                          groups.anchor, groups.others, groups.mask, scores.mutable_data(), alphas.mutable_data());
    return py::make_tuple(scores, alphas);
}

py::tuple volume_scores_backward(const Input &anchor, const Input &others, const Input &mask, const Input &alphas_,
                                 const Input &grad_scores_, const std::string &score) {
    Call call("volume_scores_backward");
    const Groups groups(call, anchor, others, mask, score);
    const void *alphas = call.in("alphas", alphas_, "n m k-1");
    const void *grad_scores = call.in("grad_scores", grad_scores_, "n m");
    Array grad_anchor = call.out("n d"), grad_others = call.out("m k-1 d");
    call.run_in_workspace(mover_volume_scores_backward_workspace_size, mover_volume_scores_backward, groups.desc,
                          groups.anchor, groups.others, groups.mask, alphas, grad_scores, grad_anchor.mutable_data(),
                          grad_others.mutable_data());
    return py::make_tuple(grad_anchor, grad_others);
}

mover_contrast_desc contrast_desc(const Call &call, double label_smoothing, const std::string &denominator) {
    if (denominator != "all" && denominator != "negatives")
        call.fail("denominator must be 'all' or 'negatives', got '", denominator, "'");
    mover_contrast_desc desc{};
    desc.dtype = call.dtype();
    desc.batch = call.batch(), desc.n = call.size("B");
    desc.label_smoothing = label_smoothing;
    desc.denominator = denominator == "all" ? MOVER_DENOMINATOR_ALL : MOVER_DENOMINATOR_NEGATIVES;
    return desc;
}

py::tuple contrast(const Input &scores_, const Input &scale, double label_smoothing, const std::string &denominator) {
    Call call("contrast");
    const void *scores = call.in("scores", scores_, "... B B"), *factor = call.optional("scale", scale, "");
    Array loss = call.out("..."), rows = call.out("... B"), columns = call.out("... B");
    call.run_in_workspace(mover_contrast_forward_workspace_size, mover_contrast_forward,
                          contrast_desc(call, label_smoothing, denominator), scores, factor, loss.mutable_data(),
                          rows.mutable_data(), columns.mutable_data());
    return py::make_tuple(loss, rows, columns);
}

py::tuple contrast_backward(const Input &scores_, const Input &scale, const Input &rows_, const Input &columns_,
                            const Input &grad_loss_, double label_smoothing, const std::string &denominator) {
    Call call("contrast_backward");
    const void *scores = call.in("scores", scores_, "... B B"), *factor = call.optional("scale", scale, "");
    const void *rows = call.in("rows", rows_, "... B"), *columns = call.in("columns", columns_, "... B");
    const void *grad_loss = call.in("grad_loss", grad_loss_, "...");
    Array grad_scores = call.out("... B B"), grad_scale = call.out("");
    call.run_in_workspace(mover_contrast_backward_workspace_size, mover_contrast_backward,
                          contrast_desc(call, label_smoothing, denominator), scores, factor, rows, columns, grad_loss,
                          grad_scores.mutable_data(), grad_scale.mutable_data());
    return py::make_tuple(grad_scores, grad_scale);
}

py::tuple volume_topk(const Input &anchor, const Input &others, int64_t topk, const Input &mask,
                      const std::string &score) {
    Call call("volume_topk");
    Groups groups(call, anchor, others, mask, score);
    if (topk < 1 || topk > groups.desc.m) call.fail("topk must be from 1 to m = ", groups.desc.m, ", got ", topk);
    groups.desc.topk = topk;
    call.define("topk", topk);
    Array values = call.out("n topk");
    auto indices = call.out_of<int64_t>("n topk");
    call.run_in_workspace(mover_volume_topk_workspace_size, mover_volume_topk, groups.desc, groups.anchor,
                          groups.others, groups.mask, values.mutable_data(), indices.mutable_data());
    return py::make_tuple(values, indices);
}

py::tuple volume_rank(const Input &anchor, const Input &others, const Input &target_, const Input &mask,
                      const std::string &score) {
    Call call("volume_rank");
    const Groups groups(call, anchor, others, mask, score);
    const int64_t *target = call.in_of<int64_t>("target", target_, "n");
    auto better = call.out_of<int64_t>("n"), tied = call.out_of<int64_t>("n");
    call.run_in_workspace(mover_volume_rank_workspace_size, mover_volume_rank, groups.desc, groups.anchor,
                          groups.others, target, groups.mask, better.mutable_data(), tied.mutable_data());
    return py::make_tuple(better, tied);
}

} // namespace

// ---- the module ----------------------------------------------------------------------------------------------------

PYBIND11_MODULE(_native, module, py::mod_gil_not_used()) {
    module.doc() =
        "libmover on NumPy arrays, without torch.\n\n"
        "The functions of mover.h without their prefix: arrays are float32 or float64, all of one dtype, of any "
        "layout;\n"
        "results are new arrays. `...` stands for any number of batch sizes. `_backward` functions take the gradient\n"
        "of a loss with respect to outputs and return those with respect to inputs. What does not fit raises\n"
        "ValueError. Calls run in one thread and let other Python threads run meanwhile.";
    module.attr("__version__") = mover_version();

    const py::arg x("x"), y("y"), v("v"), plan("plan"), gram_matrix("gram"), epsilon("epsilon");
    const auto a = py::arg("a") = py::none(), b = py::arg("b") = py::none();
    const auto default_epsilon = py::arg("epsilon") = 0.1, max_iter = py::arg("max_iter") = 100,
               tol = py::arg("tol") = 1e-3, solver = py::arg("solver") = "auto", eps = py::arg("eps") = 0.0;
    const py::kw_only options;

    module.def("cost", cost, x, y, "x (..., n, d), y (..., m, d) -> squared Euclidean distances (..., n, m).");
    module.def("cost_backward", cost_backward, x, y, py::arg("grad_cost"),
               "grad_cost (..., n, m) -> (grad_x (..., n, d), grad_y (..., m, d)).");

    module.def("sinkhorn", sinkhorn, py::arg("cost"), a, b, options, default_epsilon, max_iter, tol, solver,
               "cost (..., n, m), masses a (n) or (..., n) and b (m) or (..., m), None: uniform -> (plan (..., n, m),\n"
               "f (..., n), g (..., m), n_iter (...) int32, marginal_error (...)): entropic optimal transport.");
    module.def("sinkhorn_backward", sinkhorn_backward, plan, py::arg("grad_plan"), options, epsilon,
               "The exact gradient of a converged plan. plan, grad_plan (..., n, m) -> (grad_cost (..., n, m),\n"
               "grad_a (..., n), grad_b (..., m)), the last two centred.");
    module.def(
        "transport", transport, x, y, a, b, options, default_epsilon, max_iter, tol, solver,
        "`cost` and `sinkhorn` in one call. x (..., n, d), y (..., m, d), masses a, b -> (plan, cost (..., n, m),\n"
        "f (..., n), g (..., m), n_iter (...) int32, marginal_error (...)).");
    module.def("transport_backward", transport_backward, x, y, plan, py::arg("grad_plan"), py::arg("grad_cost"),
               options, epsilon,
               "grad_plan, grad_cost (..., n, m), one of them may be None -> (grad_x (..., n, d), grad_y (..., m, d),\n"
               "grad_a (..., n), grad_b (..., m)).");
    module.def("transport_value", transport_value, x, y, a, b, options, default_epsilon, max_iter, tol, solver,
               "As `transport` -> (value (...), f (..., n), g (..., m)): <P, cost> + epsilon KL(P | a b^T).");
    module.def("transport_value_backward", transport_value_backward, x, y, py::arg("a"), py::arg("b"), py::arg("f"),
               py::arg("g"), py::arg("grad_value"), options, epsilon,
               "By the envelope theorem. f, g of `transport_value`, grad_value (...) -> (grad_x (..., n, d),\n"
               "grad_y (..., m, d), grad_a (..., n), grad_b (..., m)), the last two centred.");

    module.def("gram", gram, v, "v (..., k, d) -> V V^T (..., k, k), accumulated in double.");
    module.def("gram_backward", gram_backward, v, py::arg("grad_gram"),
               "grad_gram (..., k, k), not necessarily symmetric -> grad_v (..., k, d).");
    module.def("logdet", logdet, gram_matrix,
               "gram (..., k, k), symmetric positive definite -> (logdet (...), info (...) int32): info is 0, or the\n"
               "order, from 1, of the first leading minor that is not positive; logdet is -inf there.");
    module.def("logdet_backward", logdet_backward, gram_matrix, py::arg("grad_logdet"),
               "grad_logdet (...) -> grad_gram (..., k, k).");

    module.def("volume", volume, v, options, eps,
               "v (..., k, d), k = 1 to 8 -> sqrt(det(V V^T) + eps^2) (...): the volume that k vectors span.");
    module.def("volume_backward", volume_backward, v, py::arg("grad_volume"), options, eps,
               "grad_volume (...) -> grad_v (..., k, d).");
    module.def(
        "group_volume", group_volume, py::arg("costs"), py::arg("groups"),
        "costs (k(k-1)/2, n, n): squared distances of the pairs of k sets of unit rows; groups (count, k) int64:\n"
        "a row number of each set -> the volumes of these groups (count).");
    module.def("group_volume_backward", group_volume_backward, py::arg("costs"), py::arg("groups"),
               py::arg("grad_volume"), "grad_volume (count) -> grad_costs (k(k-1)/2, n, n).");
    const auto p12 = py::arg("p12") = py::none(), p13 = py::arg("p13") = py::none(), p23 = py::arg("p23") = py::none();
    const py::arg c12("c12"), c13("c13"), c23("c23");
    module.def("expected_volume", expected_volume, c12, c13, c23, p12, p13, p23,
               "c12 (n1, n2), c13 (n1, n3), c23 (n2, n3): squared distances between three sets of unit rows; weights\n"
               "of the same shapes, None: ones -> sum_ijl p12_ij p13_il p23_jl Vol(i, j, l) ().");
    module.def("expected_volume_backward", expected_volume_backward, c12, c13, c23, py::arg("p12"), py::arg("p13"),
               py::arg("p23"), py::arg("grad_value"),
               "grad_value () -> (grad_c12, grad_c13, grad_c23, grad_p12, grad_p13, grad_p23).");

    const py::arg anchor("anchor"), others("others");
    const auto mask = py::arg("mask") = py::none(), score = py::arg("score") = "volume";
    module.def("volume_scores", volume_scores, anchor, others, mask, options, score,
               "anchor (n, d), others (m, k-1, d), unit rows, k = 2 to 8; mask (m, k-1) bool, the members present,\n"
               "None: all; score 'volume' or 'span' -> scores (n, m), 0 best.");
    module.def("volume_scores_with_alphas", volume_scores_with_alphas, anchor, others, mask, options, score,
               "As `volume_scores` -> (scores (n, m), alphas (n, m, k-1)): the alphas are for the backward.");
    module.def("volume_scores_backward", volume_scores_backward, anchor, others, py::arg("mask"), py::arg("alphas"),
               py::arg("grad_scores"), options, score,
               "alphas of `volume_scores_with_alphas`, grad_scores (n, m) -> (grad_anchor (n, d),\n"
               "grad_others (m, k-1, d)).");
    const auto label_smoothing = py::arg("label_smoothing") = 0.0, denominator = py::arg("denominator") = "all";
    module.def(
        "contrast", contrast, py::arg("scores"), py::arg("scale") = py::none(), options, label_smoothing, denominator,
        "scores (..., B, B), positives on the diagonal; scale (), None: 1 -> (loss (...), the mean of the cross\n"
        "entropies of rows and columns of scale * scores, rows (..., B), columns (..., B): log-sum-exps).");
    module.def("contrast_backward", contrast_backward, py::arg("scores"), py::arg("scale"), py::arg("rows"),
               py::arg("columns"), py::arg("grad_loss"), options, label_smoothing, denominator,
               "rows and columns of `contrast`, grad_loss (...) -> (grad_scores (..., B, B), grad_scale ()).");
    module.def("volume_topk", volume_topk, anchor, others, py::arg("topk"), mask, options, score,
               "The best groups of every anchor, by 'volume', 'span' or 'cosine' -> (values (n, topk),\n"
               "indices (n, topk) int64), best first.");
    module.def(
        "volume_rank", volume_rank, anchor, others, py::arg("target"), mask, options, score,
        "target (n) int64, the group of each anchor -> (better (n) int64, tied (n) int64): how many groups score\n"
        "better than it, and how many others the same.");
}

} // namespace mover_native
