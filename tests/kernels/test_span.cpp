/*
 * test_span.cpp: the distance of an anchor from the span of the others, and members that are missing.
 */
#include "reference.h"
#include "score_calls.h"

using namespace fixtures;

namespace {

/* Every choice of members in turn, m groups. */
std::vector<uint8_t> masks(int64_t m, int64_t members) {
    std::vector<uint8_t> out;
    for (int64_t j = 0; j < m; j++)
        for (int64_t r = 0; r < members; r++) out.push_back(static_cast<uint8_t>(j >> r & 1 ? 0 : 7));
    return out;
}

/* Volumes and spans of the members present, by determinants in quadruple precision; NaN where there are none. */
template <class T>
std::vector<double> expected(const std::vector<T> &anchor, const std::vector<T> &others, int64_t n, int64_t m,
                             int64_t k, int64_t d, const ScoreOptions &options) {
    std::vector<double> out;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++) {
            std::vector<const T *> rows;
            for (int64_t r = 0; r < k - 1; r++)
                if (options.mask.empty() || options.mask[static_cast<size_t>(j * (k - 1) + r)])
                    rows.push_back(others.data() + (j * (k - 1) + r) * d);
            const int64_t present = static_cast<int64_t>(rows.size());
            if (present == 0) {
                out.push_back(not_a_number<double>());
                continue;
            }
            const double below = reference::volume_of_alphas(reference::alphas(rows, d), present);
            rows.push_back(anchor.data() + i * d);
            const double volume = reference::volume_of_alphas(reference::alphas(rows, d), present + 1);
            out.push_back(options.score == MOVER_SCORE_SPAN ? volume / below : volume);
        }
    return out;
}

/* Largest difference where both are numbers; NaN must stand in the same places. */
template <class T> double difference(const std::vector<T> &scores, const std::vector<double> &exact) {
    double out = 0;
    for (size_t q = 0; q < exact.size(); q++) {
        EXPECT_EQ(std::isnan(scores[q]), std::isnan(exact[q])) << q;
        if (!std::isnan(exact[q])) out = std::max(out, std::fabs(static_cast<double>(scores[q]) - exact[q]));
    }
    return out;
}

template <class T> class Span : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(Span, Types);

TYPED_TEST(Span, IsTheDistanceFromTheMembersPresent) {
    using T = TypeParam;
    const int64_t n = 5, m = 70, d = 19;
    for (int64_t k = 2; k <= 8; k++)
        for (const mover_score score : {MOVER_SCORE_VOLUME, MOVER_SCORE_SPAN})
            for (const bool masked : {false, true}) {
                ScoreOptions options;
                options.score = score;
                if (masked) options.mask = masks(m, k - 1);
                const auto anchor = random_rows<T>(n, d, 1), others = random_rows<T>(m * (k - 1), d, 2);
                EXPECT_LE(difference(scores_of(anchor, others, n, m, k, d, options),
                                     expected(anchor, others, n, m, k, d, options)),
                          tolerance<T>(6e-6, 1e-14))
                    << "k = " << k << ", score " << score << ", masked " << masked;
            }
}

TYPED_TEST(Span, BackwardIsTheGradient) {
    using T = TypeParam;
    const int64_t n = 2, m = 4, d = 9;
    for (int64_t k = 2; k <= 8; k++)
        for (const mover_score score : {MOVER_SCORE_VOLUME, MOVER_SCORE_SPAN}) {
            ScoreOptions options;
            options.score = score;
            options.mask = masks(m, k - 1);
            for (int64_t r = 0; r < k - 1; r++) options.mask[static_cast<size_t>((m - 1) * (k - 1) + r)] = r + 2 == k;
            const auto anchor = random_rows<T>(n, d, 11), others = random_rows<T>(m * (k - 1), d, 12),
                       upstream = random_values<T>(n * m, 13);
            const auto grads = gradients_of(anchor, others, upstream, n, m, k, d, options);
            const std::vector<double> x(anchor.begin(), anchor.end()), y(others.begin(), others.end());
            const auto loss = [&](const std::vector<double> &a, const std::vector<double> &o) {
                const auto scores = expected(a, o, n, m, k, d, options);
                double sum = 0;
                for (size_t q = 0; q < scores.size(); q++)
                    if (!std::isnan(scores[q])) sum += scores[q] * static_cast<double>(upstream[q]);
                return sum;
            };
            const auto of_anchor =
                central_differences(x, 1e-6, [&](const std::vector<double> &a) { return loss(a, y); });
            const auto of_others =
                central_differences(y, 1e-6, [&](const std::vector<double> &o) { return loss(x, o); });
            const double allowed = tolerance<T>(5e-5, 1e-7);
            EXPECT_LE(distance(grads.anchor, of_anchor), allowed * largest(of_anchor)) << k << " " << score;
            EXPECT_LE(distance(grads.others, of_others), allowed * largest(of_others)) << k << " " << score;
        }
}

TYPED_TEST(Span, OneMemberIsBitForBitTheVolume) {
    using T = TypeParam;
    const int64_t n = 9, m = 50, d = 30;
    ScoreOptions span;
    span.score = MOVER_SCORE_SPAN;
    const auto anchor = random_rows<T>(n, d, 21), others = random_rows<T>(m, d, 22),
               upstream = random_rows<T>(n, m, 23);
    EXPECT_TRUE(same_bits(scores_of(anchor, others, n, m, 2, d), scores_of(anchor, others, n, m, 2, d, span)));
    const auto one = gradients_of(anchor, others, upstream, n, m, 2, d),
               other = gradients_of(anchor, others, upstream, n, m, 2, d, span);
    EXPECT_TRUE(same_bits(one.anchor, other.anchor) && same_bits(one.others, other.others));
}

/* What stands in missing rows changes no bit and gets gradient 0, also where it is not finite. */
TYPED_TEST(Span, MissingRowsAreNotRead) {
    using T = TypeParam;
    const int64_t n = 7, m = 40, d = 12;
    for (int64_t k : {2, 3, 4, 7})
        for (const mover_score score : {MOVER_SCORE_VOLUME, MOVER_SCORE_SPAN}) {
            ScoreOptions options;
            options.score = score;
            options.mask = masks(m, k - 1);
            const auto anchor = random_rows<T>(n, d, 31), others = random_rows<T>(m * (k - 1), d, 32),
                       upstream = random_values<T>(n * m, 33);
            const auto scores = scores_of(anchor, others, n, m, k, d, options);
            const auto grads = gradients_of(anchor, others, upstream, n, m, k, d, options);
            for (const T foreign : {not_a_number<T>(), infinity<T>(), T(0)}) {
                auto spoilt = others;
                for (size_t q = 0; q < spoilt.size(); q++)
                    if (!options.mask[q / static_cast<size_t>(d)]) {
                        spoilt[q] = foreign;
                        EXPECT_EQ(grads.others[q], 0);
                    }
                EXPECT_TRUE(same_bits(scores, scores_of(anchor, spoilt, n, m, k, d, options)));
                auto arriving = upstream; /* also for groups without members, whose scores are NaN */
                for (size_t q = 0; q < scores.size(); q++)
                    if (std::isnan(scores[q])) arriving[q] = foreign;
                const auto again = gradients_of(anchor, spoilt, arriving, n, m, k, d, options);
                EXPECT_TRUE(same_bits(grads.anchor, again.anchor) && same_bits(grads.others, again.others));
            }
        }
}

TYPED_TEST(Span, ThreadsChangeNothing) {
    using T = TypeParam;
    const int64_t n = 530, m = 1100, d = 5;
    const mover_exec exec = three_threads();
    for (int64_t k : {3, 4}) {
        ScoreOptions serial;
        serial.score = MOVER_SCORE_SPAN;
        serial.mask = masks(m, k - 1);
        ScoreOptions threaded = serial;
        threaded.exec = &exec;
        const auto anchor = random_rows<T>(n, d, 41), others = random_rows<T>(m * (k - 1), d, 42),
                   upstream = random_values<T>(n * m, 43);
        EXPECT_TRUE(
            same_bits(scores_of(anchor, others, n, m, k, d, serial), scores_of(anchor, others, n, m, k, d, threaded)));
        const auto one = gradients_of(anchor, others, upstream, n, m, k, d, serial),
                   other = gradients_of(anchor, others, upstream, n, m, k, d, threaded);
        EXPECT_TRUE(same_bits(one.anchor, other.anchor) && same_bits(one.others, other.others));
    }
}

} // namespace
