"""Promise: figures of agreement are the textbooks', and where one is not defined it says why.

Worked examples: Fleiss (1971) as tabulated in Wikipedia, "Fleiss' kappa" (10 subjects, 14 raters,
0.210); Cohen's kappa, Wikipedia's grant proposals (0.4); Krippendorff (2011), "Computing
Krippendorff's Alpha-Reliability", sections A (0.095), and C with missing data (0.743, nominal);
Newcombe (1998), Statistics in Medicine 17:857, table I, method 3 (score intervals).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.inter_rater import fleiss_kappa as statsmodels_fleiss
from statsmodels.stats.proportion import proportion_confint

from reward_server.domain.agreement import (
    Measure,
    Vote,
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
    raw_agreement,
    wilson,
    with_others,
)
from reward_server.domain.votes import agreement

FLEISS_1971 = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]
KRIPPENDORFF_A = ("0100000010", "1110010000")
KRIPPENDORFF_C = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")


def votes_of(raters: Sequence[str]) -> list[Vote]:
    """One string per rater, one character per item; a dot is no vote."""
    return [
        Vote(item, rater, label)
        for rater, labels in enumerate(raters)
        for item, label in enumerate(labels)
        if label != "."
    ]


def votes_of_counts(counts: Sequence[Sequence[int]]) -> list[Vote]:
    labels = [[j for j, n in enumerate(row) for _ in range(n)] for row in counts]
    return [
        Vote(item, rater, label)
        for item, row in enumerate(labels)
        for rater, label in enumerate(row)
    ]


BINARY = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)
TABLES = st.integers(2, 6).flatmap(
    lambda n: st.lists(st.integers(0, n).map(lambda k: [k, n - k]), min_size=1, max_size=30)
)
VOTES = st.lists(
    st.tuples(st.integers(0, 8), st.integers(0, 5), st.booleans()),
    max_size=60,
    unique_by=lambda vote: vote[:2],
).map(lambda rows: [Vote(*row) for row in rows])


def test_worked_examples_come_out() -> None:
    fleiss = fleiss_kappa(FLEISS_1971).value
    assert fleiss == pytest.approx(0.2099, abs=5e-5)
    first, second = "Y" * 25 + "N" * 25, "Y" * 20 + "N" * 5 + "Y" * 10 + "N" * 15
    assert cohen_kappa(first, second).value == pytest.approx(0.4)
    assert krippendorff_alpha(votes_of(KRIPPENDORFF_A)).value == pytest.approx(0.095, abs=5e-4)
    missing = krippendorff_alpha(votes_of(KRIPPENDORFF_C))
    assert missing.value == pytest.approx(0.743, abs=5e-4)
    assert missing.items == 11  # the twelfth was judged once


@pytest.mark.parametrize(
    ("likes", "votes", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_newcombes(likes: int, votes: int, low: float, high: float) -> None:
    assert wilson(likes, votes) == pytest.approx((low, high), abs=5e-5)


@given(BINARY)
def test_cohen_is_what_scikit_learn_and_statsmodels_say(pairs: list[tuple[bool, bool]]) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    ours = cohen_kappa(first, second).value
    assume(ours is not None)
    assert ours == pytest.approx(cohen_kappa_score(first, second), abs=1e-12)
    table = [[pairs.count((a, b)) for b in (False, True)] for a in (False, True)]
    assert ours == pytest.approx(cohens_kappa(np.array(table), return_results=False), abs=1e-12)


@given(TABLES)
def test_fleiss_is_what_statsmodels_says(counts: list[list[int]]) -> None:
    ours = fleiss_kappa(counts).value
    assume(ours is not None)
    assert ours == pytest.approx(statsmodels_fleiss(np.array(counts)), abs=1e-9)


@given(TABLES)
def test_with_equal_overlap_alpha_is_fleiss_corrected_for_few_votes(
    counts: list[list[int]],
) -> None:
    """1 - alpha = (1 - kappa) (N - 1) / N for N votes in all, by the two definitions."""
    kappa, alpha = fleiss_kappa(counts).value, krippendorff_alpha(votes_of_counts(counts)).value
    assert (kappa is None) == (alpha is None)
    if kappa is not None and alpha is not None:
        n = sum(map(sum, counts))
        assert 1 - alpha == pytest.approx((1 - kappa) * (n - 1) / n, abs=1e-12)


@given(st.integers(0, 300), st.integers(1, 300))
def test_the_interval_is_what_statsmodels_says(likes: int, votes: int) -> None:
    assume(likes <= votes)
    low, high = proportion_confint(likes, votes, method="wilson")
    assert wilson(likes, votes) == pytest.approx((max(low, 0.0), min(high, 1.0)), abs=1e-12)


@given(VOTES, st.randoms())
def test_names_and_order_of_raters_and_items_do_not_matter(votes: list[Vote], luck: object) -> None:
    renamed = [Vote(f"item {v.item}", -int(str(v.rater)), not v.label) for v in votes]
    luck.shuffle(renamed)  # type: ignore[attr-defined]
    for figure in (raw_agreement, krippendorff_alpha):
        ours, theirs = figure(votes), figure(renamed)
        assert theirs.items == ours.items
        assert (theirs.value is None) == (ours.value is None)
        assert ours.value is None or theirs.value == pytest.approx(ours.value, abs=1e-12)


@given(VOTES)
def test_raw_agreement_is_the_share_of_agreeing_pairs(votes: list[Vote]) -> None:
    shares, agreeing_votes, pairs = [], 0, 0
    for item in range(9):
        labels = [v.label for v in votes if v.item == item]
        both = list(itertools.combinations(labels, 2))
        if both:
            shares.append(sum(a == b for a, b in both) / len(both))
            assert shares[-1] == agreement(labels.count(True), labels.count(False))
            agreeing_votes += 2 * sum(a == b for a, b in both)
            pairs += 2 * len(both)
    told = raw_agreement(votes)
    assert told.value == (pytest.approx(sum(shares) / len(shares)) if shares else None)
    by_rater = with_others(votes).values()
    assert sum(a for a, _ in by_rater) == agreeing_votes
    assert sum(n for _, n in by_rater) == pairs


@given(VOTES)
def test_everybody_agreeing_is_one_and_no_figure_exceeds_it(votes: list[Vote]) -> None:
    alpha = krippendorff_alpha(votes)
    assert alpha.value is None or -1.0 <= alpha.value <= 1.0
    agreed = [Vote(v.item, v.rater, int(str(v.item)) % 2) for v in votes]
    perfect = krippendorff_alpha(agreed).value
    assert perfect is None or perfect == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("figure", "reason"),
    [
        (raw_agreement([]), "no item has two votes"),
        (raw_agreement([Vote(1, "a", True), Vote(2, "b", True)]), "no item has two votes"),
        (cohen_kappa([], []), "no item in common"),
        (cohen_kappa([True, True], [True, True]), "chance explains it all"),
        (fleiss_kappa([]), "there are no items"),
        (fleiss_kappa([[1, 0], [0, 1]]), "1 votes an item"),
        (fleiss_kappa([[3, 0], [0, 2]]), "differ in their number of votes"),
        (fleiss_kappa([[3, 0], [3, 0]]), "chance explains it all"),
        (krippendorff_alpha([Vote(1, "a", True)]), "no item has two votes"),
        (krippendorff_alpha(votes_of(["11", "11"])), "chance explains it all"),
    ],
)
def test_what_is_not_defined_is_none_with_a_reason(figure: Measure, reason: str) -> None:
    assert figure.value is None
    assert figure.why is not None and reason in figure.why


def test_opposite_constant_raters_are_defined() -> None:
    """p_e = 0: they never agree, and chance does not expect them to."""
    assert cohen_kappa(["y", "y"], ["n", "n"]).value == 0.0


def test_no_vote_has_no_interval_and_impossible_counts_are_refused() -> None:
    assert wilson(0, 0) is None
    with pytest.raises(ValueError, match="3 likes of 2 votes"):
        wilson(3, 2)
    with pytest.raises(ValueError, match="pair them by item"):
        cohen_kappa([True], [])


@given(st.integers(1, 400), st.data())
def test_the_interval_holds_the_share_and_narrows(votes: int, data: st.DataObject) -> None:
    likes = data.draw(st.integers(0, votes))
    narrow, wide = wilson(4 * likes, 4 * votes), wilson(likes, votes)
    assert narrow is not None and wide is not None
    assert 0 <= wide[0] <= likes / votes <= wide[1] <= 1
    assert narrow[1] - narrow[0] < wide[1] - wide[0]
