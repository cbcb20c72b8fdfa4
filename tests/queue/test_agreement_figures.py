"""Promise: figures of agreement are the textbooks', and where one is not defined it says why.

Worked examples: Krippendorff (2011), "Computing Krippendorff's
Alpha-Reliability", sections A (0.095), and C with missing data (0.743, nominal);
Newcombe (1998), Statistics in Medicine 17:857, table I, method 3 (score intervals).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from statsmodels.stats.inter_rater import fleiss_kappa
from statsmodels.stats.proportion import proportion_confint

from reward_server.domain.agreement import (
    Measure,
    Vote,
    krippendorff_alpha,
    raw_agreement,
    wilson,
    with_others,
)
from reward_server.domain.votes import agreement

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


TABLES = st.integers(2, 6).flatmap(
    lambda n: st.lists(st.integers(0, n).map(lambda k: [k, n - k]), min_size=1, max_size=30)
)
VOTES = st.lists(
    st.tuples(st.integers(0, 8), st.integers(0, 5), st.booleans()),
    max_size=60,
    unique_by=lambda vote: vote[:2],
).map(lambda rows: [Vote(*row) for row in rows])


def test_worked_examples_come_out() -> None:
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


@given(TABLES)
def test_with_equal_overlap_alpha_is_fleiss_corrected_for_few_votes(
    counts: list[list[int]],
) -> None:
    """1 - alpha = (1 - kappa) (N - 1) / N for N votes in all, by the two definitions."""
    alpha = krippendorff_alpha(votes_of_counts(counts)).value
    assume(alpha is not None)
    kappa, n = float(fleiss_kappa(np.array(counts))), sum(map(sum, counts))
    assert 1 - alpha == pytest.approx((1 - kappa) * (n - 1) / n, abs=1e-9)


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
        (krippendorff_alpha([Vote(1, "a", True)]), "no item has two votes"),
        (krippendorff_alpha(votes_of(["11", "11"])), "chance explains it all"),
    ],
)
def test_what_is_not_defined_is_none_with_a_reason(figure: Measure, reason: str) -> None:
    assert figure.value is None
    assert figure.why is not None and reason in figure.why


def test_no_vote_has_no_interval_and_impossible_counts_are_refused() -> None:
    assert wilson(0, 0) is None
    with pytest.raises(ValueError, match="3 likes of 2 votes"):
        wilson(3, 2)


@given(st.integers(1, 400), st.data())
def test_the_interval_holds_the_share_and_narrows(votes: int, data: st.DataObject) -> None:
    likes = data.draw(st.integers(0, votes))
    narrow, wide = wilson(4 * likes, 4 * votes), wilson(likes, votes)
    assert narrow is not None and wide is not None
    assert 0 <= wide[0] <= likes / votes <= wide[1] <= 1
    assert narrow[1] - narrow[0] < wide[1] - wide[0]
