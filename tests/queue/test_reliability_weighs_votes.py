"""Promise: who is right how often is found out without being told what is right, and only a
requester who asks for it has votes weighed by it.
"""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_server.domain.agreement import Vote
from reward_server.domain.reliability import dawid_skene, weight
from reward_server.domain.votes import mean_reward, weighted_reward

VOTES = st.lists(
    st.tuples(st.integers(0, 8), st.integers(0, 5), st.booleans()),
    min_size=1,
    max_size=60,
    unique_by=lambda vote: vote[:2],
).map(lambda rows: [Vote(*row) for row in rows])


def crowd(accuracy: dict[str, float], items: int, seed: int) -> tuple[list[Vote], list[bool]]:
    """Everybody judges everything, being right as often as said."""
    luck = random.Random(seed)
    truth = [luck.random() < 0.4 for _ in range(items)]
    votes = [
        Vote(item, rater, liked if luck.random() < p else not liked)
        for item, liked in enumerate(truth)
        for rater, p in accuracy.items()
    ]
    return votes, truth


def test_accuracies_and_truth_are_recovered() -> None:
    accuracy = {"sharp": 0.95, "good": 0.85, "fair": 0.7, "coin": 0.5}
    votes, truth = crowd(accuracy, 2000, seed=1)
    found = dawid_skene(votes)
    assert found is not None
    for rater, p in accuracy.items():
        assert found.accuracy[rater] == pytest.approx(p, abs=0.03)
    assert found.prior == pytest.approx(0.4, abs=0.03)
    right = sum((found.liked[i] > 0.5) == liked for i, liked in enumerate(truth))
    majority = sum(
        (sum(bool(v.label) for v in votes[4 * i : 4 * i + 4]) > 2) == liked
        for i, liked in enumerate(truth)
    )
    assert right > majority + 60  # of 2,000: what weighing is for


def test_one_step_by_hand() -> None:
    """Two items, maximum likelihood, by hand from the definition.

    Votes: item 1 like by a, b, c; item 2 like by a, dislike by b, c. Majority start: 1 and 1/3.
    M-step: prior 2/3; a is right (1 + 1/3)/2 = 2/3; b and c (1 + 2/3)/2 = 5/6.
    E-step: item 1: 2/3 * 2/3 * 25/36 = 100/324 against 1/3 * 1/3 * 1/36 = 1/324: 100/101;
    item 2: 2/3 * 2/3 * 1/36 = 4/324 against 1/3 * 1/3 * 25/36 = 25/324: 4/29.
    Log likelihood of both: log(101/324) + log(29/324).
    """
    rows = [(1, "a", True), (1, "b", True), (1, "c", True)]
    rows += [(2, "a", True), (2, "b", False), (2, "c", False)]
    found = dawid_skene([Vote(*row) for row in rows], strength=0.0)
    assert found is not None
    assert found.objective[0] == pytest.approx(math.log(101 / 324) + math.log(29 / 324))
    assert found.liked[1] == pytest.approx(1.0, abs=1e-3) and found.liked[2] < 4 / 29
    assert found.accuracy["b"] == found.accuracy["c"] > 5 / 6
    assert found.accuracy["a"] == pytest.approx(0.5, abs=0.01)  # right about one of the two


@given(VOTES, st.floats(0, 20))
def test_every_step_explains_the_votes_at_least_as_well(votes: list[Vote], strength: float) -> None:
    found = dawid_skene(votes, strength=strength)
    assert found is not None
    steps = found.objective
    assert all(b >= a - 1e-6 for a, b in itertools.pairwise(steps))
    assert all(0 <= p <= 1 for p in (*found.liked.values(), *found.accuracy.values()))


@given(VOTES)
def test_likes_and_dislikes_are_treated_alike(votes: list[Vote]) -> None:
    found = dawid_skene(votes)
    mirrored = dawid_skene([Vote(v.item, v.rater, not v.label) for v in votes])
    assert found is not None and mirrored is not None
    for item, liked in found.liked.items():
        assert mirrored.liked[item] == pytest.approx(1 - liked, abs=1e-4)


def test_gold_overrules_a_wrong_majority() -> None:
    votes = [Vote(i, rater, rater != "right") for i in range(20) for rater in ("x", "y", "right")]
    blind = dawid_skene(votes)
    told = dawid_skene(votes, dict.fromkeys(range(15), False))
    assert blind is not None and told is not None
    assert blind.accuracy["right"] < 0.5 < told.accuracy["right"]
    assert told.liked[19] < 0.5 < blind.liked[19]
    assert told.liked[0] == 0.0


def test_a_newcomer_is_taken_for_typical() -> None:
    found = dawid_skene([Vote(1, "new", True)])
    assert found is not None and found.accuracy["new"] == pytest.approx(0.75, abs=0.03)
    assert dawid_skene([]) is None


@pytest.mark.parametrize("wrong", [{"typical": 1.0}, {"typical": 0.0}, {"strength": -1.0}])
def test_impossible_assumptions_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="typical="):
        dawid_skene([Vote(1, "a", True)], **wrong)


def test_a_coin_flipper_weighs_nothing_and_the_sure_weigh_most() -> None:
    assert weight(0.5) == weight(0.3) == 0.0
    assert weight(0.75) == pytest.approx(math.log(3))
    assert weight(0.95) > weight(0.75)
    assert math.isfinite(weight(1.0))


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 5)), max_size=20))
def test_weighed_rewards_stay_rewards(votes: list[tuple[bool, float]]) -> None:
    reward = weighted_reward(votes)
    if not votes:
        assert reward is None
        return
    assert reward is not None and 0.0 <= reward <= 1.0
    likes = sum(liked for liked, _ in votes)
    alike = weighted_reward([(liked, 1.0) for liked, _ in votes])
    assert alike == pytest.approx(mean_reward(likes, len(votes) - likes))
    if sum(w for _, w in votes) == 0:
        assert reward == alike
