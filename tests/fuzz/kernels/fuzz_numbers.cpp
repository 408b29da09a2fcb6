/*
 * fuzz_numbers.cpp: calls of small shapes with any numbers, in buffers of exactly the sizes the header names. Whatever
 * the numbers, valid calls succeed and stay within their buffers, and from tame numbers nothing comes that is not
 * finite.
 */
#include "input.h"

#include <initializer_list>

using fuzz::all_finite;
using fuzz::expect;
using fuzz::Input;
using fuzz::room;
using fuzz::Workspace;

namespace {

/* The calls of one input on numbers of the type T. */
template <class T> class Calls {
  public:
    explicit Calls(Input &input) : input_(input), tame_(input.below(1) == 0) {
        lent_.parallel_for = fuzz::backwards;
        exec_ = input.below(1) ? &lent_ : nullptr;
    }

    void cost() {
        const int64_t batch = input_.below(3), n = input_.below(9), m = input_.below(9), d = input_.below(19);
        mover_cost_desc desc = {};
        desc.dtype = fuzz::dtype_of<T>(), desc.batch = batch, desc.n = n, desc.m = m, desc.d = d;
        const auto x = numbers(batch * n * d), y = numbers(batch * m * d), grad = numbers(batch * n * m);
        auto cost = room<T>(batch * n * m), grad_x = room<T>(batch * n * d), grad_y = room<T>(batch * m * d);
        call(mover_cost_forward_workspace_size, desc, [&](void *work, size_t bytes) {
            return mover_cost_forward(&desc, x.data(), y.data(), cost.data(), work, bytes, exec_);
        });
        call(mover_cost_backward_workspace_size, desc, [&](void *work, size_t bytes) {
            return mover_cost_backward(&desc, x.data(), y.data(), grad.data(), grad_x.data(), grad_y.data(), work,
                                       bytes, exec_);
        });
        finite({&cost, &grad_x, &grad_y});
    }

    void sinkhorn() {
        const int64_t batch = input_.below(2), n = 1 + input_.below(9), m = 1 + input_.below(9);
        mover_sinkhorn_desc desc = {};
        desc.dtype = fuzz::dtype_of<T>(), desc.batch = batch, desc.n = n, desc.m = m;
        options(desc);
        const auto cost = numbers(batch * n * m), grad_plan = numbers(batch * n * m);
        const auto a = input_.masses<T>(batch, n), b = input_.masses<T>(batch, m);
        const bool uniform = input_.below(1) == 0;
        auto plan = room<T>(batch * n * m), f = room<T>(batch * n), g = room<T>(batch * m), error = room<T>(batch);
        auto n_iter = room<int32_t>(batch);
        call(mover_sinkhorn_forward_workspace_size, desc, [&](void *work, size_t bytes) {
            return mover_sinkhorn_forward(&desc, cost.data(), uniform ? nullptr : a.data(),
                                          uniform ? nullptr : b.data(), plan.data(), f.data(), g.data(), n_iter.data(),
                                          error.data(), work, bytes, exec_);
        });
        plans(plan, desc.epsilon);
        for (int32_t count : n_iter) expect(count >= 0 && count <= desc.max_iter, "n_iter out of range");
        auto grad_cost = room<T>(batch * n * m), grad_a = room<T>(batch * n), grad_b = room<T>(batch * m);
        call(mover_sinkhorn_backward_workspace_size, desc, [&](void *work, size_t bytes) {
            return mover_sinkhorn_backward(&desc, plan.data(), grad_plan.data(), grad_cost.data(), grad_a.data(),
                                           grad_b.data(), work, bytes, exec_);
        });
        if (desc.epsilon >= 0.01) finite({&f, &g, &grad_cost, &grad_a, &grad_b});
    }

    void transport() {
        const int64_t batch = input_.below(2), n = 1 + input_.below(9), m = 1 + input_.below(9), d = input_.below(11);
        mover_transport_desc desc = {};
        desc.dtype = fuzz::dtype_of<T>(), desc.batch = batch, desc.n = n, desc.m = m, desc.d = d;
        options(desc);
        const auto x = numbers(batch * n * d), y = numbers(batch * m * d);
        const auto a = input_.masses<T>(batch, n), b = input_.masses<T>(batch, m);
        const auto grad_plan = numbers(batch * n * m), grad_value = numbers(batch);
        auto plan = room<T>(batch * n * m), cost = room<T>(batch * n * m), error = room<T>(batch);
        auto f = room<T>(batch * n), g = room<T>(batch * m), value = room<T>(batch);
        auto n_iter = room<int32_t>(batch);
        call(mover_transport_forward_workspace_size, desc, [&](void *work, size_t bytes) {
            return mover_transport_forward(&desc, x.data(), y.data(), a.data(), b.data(), plan.data(), cost.data(),
                                           f.data(), g.data(), n_iter.data(), error.data(), work, bytes, exec_);
        });
        plans(plan, desc.epsilon);
        auto grad_x = room<T>(batch * n * d), grad_y = room<T>(batch * m * d), grad_a = room<T>(batch * n),
             grad_b = room<T>(batch * m);
        call(mover_transport_backward_workspace_size, desc, [&](void *work, size_t bytes) {
            return mover_transport_backward(&desc, x.data(), y.data(), plan.data(), grad_plan.data(), nullptr,
                                            grad_x.data(), grad_y.data(), grad_a.data(), grad_b.data(), work, bytes,
                                            exec_);
        });
        call(mover_transport_value_forward_workspace_size, desc, [&](void *work, size_t bytes) {
            return mover_transport_value_forward(&desc, x.data(), y.data(), a.data(), b.data(), value.data(), f.data(),
                                                 g.data(), work, bytes, exec_);
        });
        if (desc.epsilon >= 0.01) finite({&value, &grad_x, &grad_y, &grad_a, &grad_b});
        call(mover_transport_value_backward_workspace_size, desc, [&](void *work, size_t bytes) {
            return mover_transport_value_backward(&desc, x.data(), y.data(), a.data(), b.data(), f.data(), g.data(),
                                                  grad_value.data(), grad_x.data(), grad_y.data(), grad_a.data(),
                                                  grad_b.data(), work, bytes, exec_);
        });
        if (desc.epsilon >= 0.01) finite({&grad_x, &grad_y, &grad_a, &grad_b});
    }

    void gram() {
        const int64_t batch = input_.below(5), k = 1 + input_.below(10), d = input_.below(12);
        mover_gram_desc desc = {};
        desc.dtype = fuzz::dtype_of<T>(), desc.batch = batch, desc.k = k, desc.d = d;
        const auto v = numbers(batch * k * d), grad_gram = numbers(batch * k * k), grad_logdet = numbers(batch);
        auto gram = room<T>(batch * k * k), grad_v = room<T>(batch * k * d), logdet = room<T>(batch);
        succeed(mover_gram_forward(&desc, v.data(), gram.data(), exec_));
        succeed(mover_gram_backward(&desc, v.data(), grad_gram.data(), grad_v.data(), exec_));
        finite({&gram, &grad_v});
        mover_logdet_desc log = {};
        log.dtype = desc.dtype, log.batch = batch, log.k = k;
        auto info = room<int32_t>(batch);
        const auto &matrices = input_.below(1) ? gram : grad_gram;
        call(mover_logdet_workspace_size, log, [&](void *work, size_t bytes) {
            return mover_logdet_forward(&log, matrices.data(), logdet.data(), info.data(), work, bytes, exec_);
        });
        for (int32_t order : info) expect(order >= 0 && order <= k, "info out of range");
        auto grad = room<T>(batch * k * k);
        call(mover_logdet_workspace_size, log, [&](void *work, size_t bytes) {
            return mover_logdet_backward(&log, matrices.data(), grad_logdet.data(), grad.data(), work, bytes, exec_);
        });
    }

    void volume() {
        const int64_t batch = input_.below(5), k = 1 + input_.below(MOVER_MAX_K - 1), d = input_.below(12);
        mover_volume_desc desc = {};
        desc.dtype = fuzz::dtype_of<T>(), desc.batch = batch, desc.k = k, desc.d = d;
        desc.eps = input_.below(1) ? 1e-6 : 0;
        const auto v = numbers(batch * k * d), grad = numbers(batch);
        auto volume = room<T>(batch), grad_v = room<T>(batch * k * d);
        succeed(mover_volume_forward(&desc, v.data(), volume.data(), exec_));
        succeed(mover_volume_backward(&desc, v.data(), grad.data(), grad_v.data(), exec_));
        finite({&volume, &grad_v});
    }

    void groups() {
        const int64_t n = 1 + input_.below(6), k = 2 + input_.below(MOVER_MAX_K - 2), count = input_.below(9);
        mover_group_volume_desc desc = {};
        desc.dtype = fuzz::dtype_of<T>(), desc.n = n, desc.k = k, desc.count = count;
        const int64_t pairs = k * (k - 1) / 2;
        const auto costs = numbers(pairs * n * n), grad = numbers(count);
        auto volume = room<T>(count), grad_costs = room<T>(pairs * n * n);
        std::vector<int64_t> groups(static_cast<size_t>(count * k));
        for (int64_t &row : groups) row = input_.below(n - 1);
        const bool outside = input_.below(7) == 0 && count > 0;
        if (outside) groups[static_cast<size_t>(input_.below(count * k - 1))] = input_.below(1) ? n : -1;
        const mover_status status =
            mover_group_volume_forward(&desc, costs.data(), groups.data(), volume.data(), exec_);
        expect((status == MOVER_OK) == !outside, "a group outside of the rows must be refused, and no other");
        if (outside) return;
        call(mover_group_volume_backward_workspace_size, desc, [&](void *work, size_t bytes) {
            return mover_group_volume_backward(&desc, costs.data(), groups.data(), grad.data(), grad_costs.data(), work,
                                               bytes, exec_);
        });
    }

    void triples() {
        const int64_t n1 = input_.below(9), n2 = input_.below(9), n3 = input_.below(9);
        mover_expected_volume_desc desc = {};
        desc.dtype = fuzz::dtype_of<T>(), desc.n1 = n1, desc.n2 = n2, desc.n3 = n3;
        const auto c12 = numbers(n1 * n2), c13 = numbers(n1 * n3), c23 = numbers(n2 * n3);
        const auto p12 = numbers(n1 * n2), p13 = numbers(n1 * n3), p23 = numbers(n2 * n3), upstream = numbers(1);
        auto value = room<T>(1), g12 = room<T>(n1 * n2), g13 = room<T>(n1 * n3), g23 = room<T>(n2 * n3);
        auto q12 = room<T>(n1 * n2), q13 = room<T>(n1 * n3), q23 = room<T>(n2 * n3);
        call(mover_expected_volume_forward_workspace_size, desc, [&](void *work, size_t bytes) {
            return mover_expected_volume_forward(&desc, c12.data(), c13.data(), c23.data(), p12.data(), p13.data(),
                                                 p23.data(), value.data(), work, bytes, exec_);
        });
        call(mover_expected_volume_backward_workspace_size, desc, [&](void *work, size_t bytes) {
            return mover_expected_volume_backward(&desc, c12.data(), c13.data(), c23.data(), p12.data(), p13.data(),
                                                  p23.data(), upstream.data(), value.data(), g12.data(), g13.data(),
                                                  g23.data(), q12.data(), q13.data(), q23.data(), work, bytes, exec_);
        });
    }

    void scores() {
        const int64_t n = input_.below(7), m = input_.below(9), k = 2 + input_.below(MOVER_MAX_K - 2),
                      d = input_.below(12);
        mover_volume_scores_desc desc = {};
        desc.dtype = fuzz::dtype_of<T>(), desc.n = n, desc.m = m, desc.k = k, desc.d = d;
        desc.score = static_cast<mover_score>(input_.below(1)), desc.masked = static_cast<int32_t>(input_.below(1));
        const auto anchor = numbers(n * d), others = numbers(m * (k - 1) * d), grad = numbers(n * m);
        std::vector<uint8_t> mask(static_cast<size_t>(m * (k - 1)));
        for (uint8_t &present : mask) present = input_.take<uint8_t>() % 3 > 0;
        const uint8_t *masked = desc.masked ? mask.data() : nullptr;
        auto scores = room<T>(n * m), alphas = room<T>(n * m * (k - 1));
        call(mover_volume_scores_forward_workspace_size, desc, [&](void *work, size_t bytes) {
            return mover_volume_scores_forward(&desc, anchor.data(), others.data(), masked, scores.data(),
                                               alphas.data(), work, bytes, exec_);
        });
        auto grad_anchor = room<T>(n * d), grad_others = room<T>(m * (k - 1) * d);
        call(mover_volume_scores_backward_workspace_size, desc, [&](void *work, size_t bytes) {
            return mover_volume_scores_backward(&desc, anchor.data(), others.data(), masked, alphas.data(), grad.data(),
                                                grad_anchor.data(), grad_others.data(), work, bytes, exec_);
        });
        if (!desc.masked) finite({&scores, &grad_anchor, &grad_others});
        if (m == 0) return;
        desc.score = static_cast<mover_score>(input_.below(2)), desc.topk = 1 + input_.below(m - 1);
        auto values = room<T>(n * desc.topk);
        auto indices = room<int64_t>(n * desc.topk), better = room<int64_t>(n), tied = room<int64_t>(n);
        call(mover_volume_topk_workspace_size, desc, [&](void *work, size_t bytes) {
            return mover_volume_topk(&desc, anchor.data(), others.data(), masked, values.data(), indices.data(), work,
                                     bytes, exec_);
        });
        for (int64_t index : indices) expect(index >= 0 && index < m, "an index of topk out of range");
        std::vector<int64_t> target(static_cast<size_t>(n));
        for (int64_t &group : target) group = input_.below(m - 1);
        call(mover_volume_rank_workspace_size, desc, [&](void *work, size_t bytes) {
            return mover_volume_rank(&desc, anchor.data(), others.data(), target.data(), masked, better.data(),
                                     tied.data(), work, bytes, exec_);
        });
        for (size_t i = 0; i < better.size(); i++)
            expect(better[i] >= 0 && tied[i] >= 0 && better[i] + tied[i] < m, "a rank out of range");
    }

    void contrast() {
        const int64_t batch = input_.below(3), n = 1 + input_.below(9);
        mover_contrast_desc desc = {};
        desc.dtype = fuzz::dtype_of<T>(), desc.batch = batch, desc.n = n;
        desc.label_smoothing = static_cast<double>(input_.below(8)) / 8;
        desc.denominator = static_cast<mover_denominator>(input_.below(1));
        const auto scores = numbers(batch * n * n), scale = numbers(1), grad = numbers(batch);
        auto loss = room<T>(batch), rows = room<T>(batch * n), columns = room<T>(batch * n);
        call(mover_contrast_forward_workspace_size, desc, [&](void *work, size_t bytes) {
            return mover_contrast_forward(&desc, scores.data(), scale.data(), loss.data(), rows.data(), columns.data(),
                                          work, bytes, exec_);
        });
        auto grad_scores = room<T>(batch * n * n), grad_scale = room<T>(1);
        call(mover_contrast_backward_workspace_size, desc, [&](void *work, size_t bytes) {
            return mover_contrast_backward(&desc, scores.data(), scale.data(), rows.data(), columns.data(), grad.data(),
                                           grad_scores.data(), grad_scale.data(), work, bytes, exec_);
        });
        if (n > 1 || desc.denominator == MOVER_DENOMINATOR_ALL)
            finite({&loss, &rows, &columns, &grad_scores, &grad_scale});
    }

  private:
    std::vector<T> numbers(int64_t count) { return input_.numbers<T>(count, tame_); }

    template <class Desc> void options(Desc &desc) {
        desc.solver = static_cast<mover_solver>(input_.below(2));
        desc.max_iter = 1 + static_cast<int32_t>(input_.below(30));
        desc.tol = input_.below(1) ? 1e-3 : 0;
        desc.epsilon =
            tame_ ? 0.01 + static_cast<double>(input_.below(100)) / 50 : std::fabs(input_.number<double>(false));
        if (!(desc.epsilon > 0 && desc.epsilon <= 1e300)) desc.epsilon = 1e-300;
    }

    static void succeed(mover_status status) { expect(status == MOVER_OK, "a valid call failed"); }

    template <class Size, class Desc, class Call> void call(Size size, const Desc &desc, Call run) {
        size_t bytes = 0;
        succeed(size(&desc, &bytes, exec_));
        Workspace workspace(bytes);
        succeed(run(workspace.data(), bytes));
    }

    /* Plans of tame numbers are finite and at least 0. */
    void plans(const std::vector<T> &plan, double epsilon) {
        if (!tame_ || epsilon < 0.01) return;
        for (const T mass : plan) expect(mass >= 0 && std::isfinite(mass), "a plan that is negative or not finite");
    }

    void finite(std::initializer_list<const std::vector<T> *> outputs) {
        if (!tame_) return;
        for (const auto *output : outputs) expect(all_finite(*output), "tame numbers gave a result that is not finite");
    }

    Input &input_;
    bool tame_;
    mover_exec lent_ = {};
    const mover_exec *exec_ = nullptr;
};

template <class T> void run(Input &input) {
    using Call = void (Calls<T>::*)();
    static const Call calls[] = {&Calls<T>::cost,    &Calls<T>::sinkhorn, &Calls<T>::transport,
                                 &Calls<T>::gram,    &Calls<T>::volume,   &Calls<T>::groups,
                                 &Calls<T>::triples, &Calls<T>::scores,   &Calls<T>::contrast};
    const Call chosen = calls[input.below(8)];
    Calls<T> stage(input);
    (stage.*chosen)();
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Input input(data, size);
    if (input.below(1))
        run<float>(input);
    else
        run<double>(input);
    return 0;
}
