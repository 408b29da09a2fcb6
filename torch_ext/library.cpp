// library.cpp: every operator of torch.ops.mover, in pipeline order.
//
// Batch dimensions come first ("..."), options last. All operators are functional. An `X_backward` operator returns
// the gradients that its `needs` asks for; the others come back with the shape (0). Shapes, meanings and units are in
// python/mover/ops, beside the autograd, fake and autocast rules of each operator.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(mover, m) {
    // cost: squared Euclidean distances
    m.def("cost(Tensor x, Tensor y, str precision=\"float32\") -> Tensor");
    m.def("cost_backward(Tensor grad_cost, Tensor x, Tensor y, str precision, bool[] needs)"
          " -> (Tensor grad_x, Tensor grad_y)");

    // sinkhorn: entropic optimal transport, for given costs and for given rows
    m.def("sinkhorn(Tensor cost, Tensor? a, Tensor? b, float epsilon, int max_iter, float tol, str solver=\"auto\")"
          " -> (Tensor plan, Tensor f, Tensor g, Tensor n_iter, Tensor marginal_error)");
    m.def("sinkhorn_backward(Tensor grad_plan, Tensor plan, float epsilon, bool[] needs)"
          " -> (Tensor grad_cost, Tensor grad_a, Tensor grad_b)");
    m.def("transport(Tensor x, Tensor y, Tensor? a, Tensor? b, float epsilon, int max_iter, float tol,"
          " str solver=\"auto\", str precision=\"float32\")"
          " -> (Tensor plan, Tensor cost, Tensor f, Tensor g, Tensor n_iter, Tensor marginal_error)");
    m.def("transport_backward(Tensor? grad_plan, Tensor? grad_cost, Tensor x, Tensor y, Tensor plan, float epsilon,"
          " str precision, bool[] needs) -> (Tensor grad_x, Tensor grad_y, Tensor grad_a, Tensor grad_b)");
    m.def("transport_value(Tensor x, Tensor y, Tensor? a, Tensor? b, float epsilon, int max_iter, float tol,"
          " str solver=\"auto\", str precision=\"float32\") -> (Tensor value, Tensor f, Tensor g)");
    m.def("transport_value_backward(Tensor grad_value, Tensor x, Tensor y, Tensor? a, Tensor? b, Tensor f, Tensor g,"
          " float epsilon, str precision, bool[] needs)"
          " -> (Tensor grad_x, Tensor grad_y, Tensor grad_a, Tensor grad_b)");

    // gram: Gram matrices and their log-determinants
    m.def("gram(Tensor v) -> Tensor");
    m.def("gram_backward(Tensor grad_gram, Tensor v) -> Tensor");
    m.def("logdet(Tensor g, str backend=\"auto\") -> (Tensor logdet, Tensor info)");
    m.def("logdet_backward(Tensor grad_logdet, Tensor g, str backend) -> Tensor");

    // volume: of groups of vectors, of listed groups of unit rows, and summed over all triples of three sets, where one
    // pass makes the sum and its gradients: expected_volume runs it where a gradient is wanted
    m.def("volume(Tensor v, float eps=0.0) -> Tensor");
    m.def("volume_backward(Tensor grad_volume, Tensor v, float eps) -> Tensor");
    m.def("group_volume(Tensor costs, Tensor groups) -> Tensor");
    m.def("group_volume_backward(Tensor grad_volume, Tensor costs, Tensor groups) -> Tensor");
    m.def("expected_volume(Tensor c12, Tensor c13, Tensor c23, Tensor? p12=None, Tensor? p13=None, Tensor? p23=None)"
          " -> Tensor");
    m.def("expected_volume_with_gradients(Tensor c12, Tensor c13, Tensor c23, Tensor? p12, Tensor? p13, Tensor? p23,"
          " bool[] needs) -> (Tensor value, Tensor grad_c12, Tensor grad_c13, Tensor grad_c23, Tensor grad_p12,"
          " Tensor grad_p13, Tensor grad_p23)");

    // scores: every anchor against every group, retrieval by them, and their cross entropy; volume_scores_with_alphas
    // is what volume_scores runs where a gradient is wanted: its alphas are for the backward
    m.def("volume_scores(Tensor anchor, Tensor others, Tensor? mask=None, str score=\"volume\","
          " str precision=\"float32\") -> Tensor");
    m.def("volume_scores_with_alphas(Tensor anchor, Tensor others, Tensor? mask=None, str score=\"volume\","
          " str precision=\"float32\") -> (Tensor scores, Tensor alphas)");
    m.def("volume_scores_backward(Tensor grad_scores, Tensor anchor, Tensor others, Tensor? mask, Tensor alphas,"
          " str score, str precision, bool[] needs) -> (Tensor grad_anchor, Tensor grad_others)");
    m.def("volume_topk(Tensor anchor, Tensor others, int topk, Tensor? mask=None, str score=\"volume\")"
          " -> (Tensor values, Tensor indices)");
    m.def("volume_rank(Tensor anchor, Tensor others, Tensor target, Tensor? mask=None, str score=\"volume\")"
          " -> (Tensor better, Tensor tied)");
    m.def("contrast(Tensor scores, Tensor? scale=None, float label_smoothing=0.0, str denominator=\"all\")"
          " -> (Tensor loss, Tensor rows, Tensor columns)");
    m.def("contrast_backward(Tensor grad_loss, Tensor scores, Tensor? scale, Tensor rows, Tensor columns,"
          " float label_smoothing, str denominator, bool[] needs) -> (Tensor grad_scores, Tensor grad_scale)");
}
