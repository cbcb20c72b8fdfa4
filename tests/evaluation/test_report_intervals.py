"""Every number the report shows carries an interval that means what it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.evaluation.intervals import Estimate, mean, mean_of, paired_difference, wilson


def test_wilson_equals_the_published_example() -> None:
    # Newcombe (1998), Statistics in Medicine 17, table I: 81 of 263, method 3.
    estimate = wilson(81, 263)
    assert (round(estimate.low, 4), round(estimate.high, 4)) == (0.2553, 0.3662)


@given(n=st.integers(1, 500), data=st.data())
def test_wilson_contains_its_estimate_and_stays_a_share(n: int, data: st.DataObject) -> None:
    estimate = wilson(data.draw(st.integers(0, n)), n)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.high - estimate.low > 0


def test_paired_intervals_cover_the_truth_95_percent_of_the_time() -> None:
    rng, covered = np.random.default_rng(0), 0
    truth, trials = 0.1, 400
    for _ in range(trials):
        base = rng.random((80, 3))
        shift = rng.normal(0, 0.15, (80, 1))  # images of one prompt go up or down together
        before = (base < 0.5).astype(float).ravel()
        after = (base < 0.5 + truth + np.clip(shift, -0.3, 0.3)).astype(float).ravel()
        estimate = paired_difference(
            after.tolist(), before.tolist(), np.repeat(range(80), 3).tolist()
        )
        covered += estimate.low <= truth <= estimate.high
    assert 0.92 <= covered / trials <= 0.985


def test_pairing_is_what_makes_a_small_gain_visible() -> None:
    before = [0.0] * 70 + [1.0] * 130
    after = [0.0] * 50 + [1.0] * 150  # the same images, twenty of them mended
    gain = paired_difference(after, before, range(200))
    apart = wilson(150, 200), wilson(130, 200)
    assert gain.low > 0
    assert apart[0].low < apart[1].high


def test_equal_pairs_do_not_claim_certainty() -> None:
    estimate = paired_difference([1.0] * 10, [1.0] * 10, range(10))
    assert estimate.value == 0
    assert estimate.low < -0.1 and estimate.high > 0.1


def test_images_of_one_prompt_count_as_one_opinion() -> None:
    values = [0.9] * 50 + [0.1] * 50
    alone = mean(values, range(100))
    clustered = mean(values, [0] * 50 + [1] * 50)
    assert clustered.high - clustered.low > 3 * (alone.high - alone.low)


def test_the_overall_score_is_the_mean_of_the_tags_with_a_narrower_interval() -> None:
    tags = {"counting": wilson(40, 100), "colors": wilson(80, 100)}
    overall = mean_of(tags)
    assert overall.value == pytest.approx(0.6)
    assert overall.n == 200
    assert overall.high - overall.low < tags["counting"].high - tags["counting"].low


def test_single_parts_keep_their_own_interval() -> None:
    part = Estimate(0.3, 0.2, 0.5, 40)
    whole = mean_of({"one": part})
    assert (whole.value, whole.low, whole.high) == pytest.approx((0.3, 0.2, 0.5))


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="successes"):
        wilson(successes, n)


def test_missing_rewards_are_refused_rather_than_averaged() -> None:
    with pytest.raises(ValueError, match="missing reward"):
        mean([0.5, float("nan")], [0, 1])
    with pytest.raises(ValueError, match="equal lengths"):
        paired_difference([1.0], [1.0, 0.0], [0, 1])
    with pytest.raises(ValueError, match="no estimates"):
        mean_of({})
