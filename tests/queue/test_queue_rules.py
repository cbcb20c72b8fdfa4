"""Promise: the queue's rules are what they are said to be, whatever the database."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_server.domain.jobs import (
    IllegalMove,
    Rules,
    Tally,
    accepts_label,
    advance,
    decide_item,
    decide_job,
    lease_seconds,
)
from reward_server.domain.votes import agreement, mean_reward
from shared.schema import TERMINAL, Label

tallies = st.builds(Tally, *[st.integers(0, 6)] * 3)
rules = st.builds(
    Rules,
    votes=st.integers(2, 6),
    min_votes=st.integers(1, 2),
    quorum=st.none() | st.integers(1, 2),
    max_skips=st.integers(1, 6),
)


@pytest.mark.parametrize(
    ("likes", "dislikes", "reward"), [(1, 0, 1.0), (0, 1, 0.0), (1, 3, 0.25), (0, 0, None)]
)
def test_a_reward_is_the_mean_of_the_votes(likes: int, dislikes: int, reward: float | None) -> None:
    assert mean_reward(likes, dislikes) == reward


@pytest.mark.parametrize(
    ("likes", "dislikes", "share"), [(3, 0, 1.0), (2, 1, 1 / 3), (1, 1, 0.0), (1, 0, None)]
)
def test_agreement_is_the_share_of_agreeing_pairs(
    likes: int, dislikes: int, share: float | None
) -> None:
    assert agreement(likes, dislikes) == share


@given(rules, tallies, st.booleans())
def test_an_item_is_scored_only_with_enough_votes(
    rules: Rules, tally: Tally, deadline_passed: bool
) -> None:
    end = decide_item(rules, tally, deadline_passed=deadline_passed)
    votes = tally.likes + tally.dislikes
    if end is None:
        assert not deadline_passed
        assert votes < rules.votes
        assert tally.skips < rules.max_skips
    elif end.status == "ok":
        assert votes >= rules.min_votes
        assert end.reward == mean_reward(tally.likes, tally.dislikes)
    else:
        assert (end.status, end.reward) == ("incomplete", None)
        assert votes < rules.min_votes


@given(tallies)
def test_a_skip_is_no_dislike(tally: Tally) -> None:
    skipped = tally.add("skip")
    assert mean_reward(skipped.likes, skipped.dislikes) == mean_reward(tally.likes, tally.dislikes)


@given(tallies, st.sampled_from(["like", "dislike", "skip", "flag"]))
def test_undo_takes_back_exactly_one_label(tally: Tally, label: Label) -> None:
    assert tally.add(label).add(label, -1) == tally


@pytest.mark.parametrize(
    ("counts", "status"),
    [
        ({"ok": 3}, "succeeded"),
        ({"ok": 2, "error": 1}, "partial"),
        ({"error": 2, "incomplete": 1}, "failed"),
        ({"ok": 2, "pending": 1}, "running"),
    ],
)
def test_a_job_ends_as_its_items_do(counts: dict, status: str) -> None:
    assert decide_job("running", counts, started=True, settles_at=None, now=0.0) == status


def test_a_job_answered_by_people_settles_first() -> None:
    for now, status in ((4.9, "running"), (5.0, "succeeded")):
        got = decide_job("running", {"ok": 1}, started=True, settles_at=5.0, now=now)
        assert got == status


@pytest.mark.parametrize("old", sorted(TERMINAL))
@pytest.mark.parametrize("new", ["queued", "running", "cancelled", "succeeded"])
def test_what_is_over_stays_over(old: str, new: str) -> None:
    if old == new:
        assert advance(old, new) == new
    else:
        with pytest.raises(IllegalMove):
            advance(old, new)


@pytest.mark.parametrize(
    ("p95", "n", "seconds"), [(0.1, 1, 30.0), (2.0, 16, 96.0), (10.0, 32, 600.0)]
)
def test_leases_follow_the_pace_within_bounds(p95: float, n: int, seconds: float) -> None:
    assert lease_seconds(p95, n) == seconds


@pytest.mark.parametrize(
    ("state", "label", "free", "rival", "pending", "counts"),
    [
        ("leased", "like", 0, False, True, True),
        ("leased", "like", 0, False, False, False),
        ("expired", "like", 1, False, True, True),
        ("expired", "like", 0, False, True, False),
        ("expired", "skip", 0, False, True, True),
        ("expired", "like", 1, True, True, False),
        ("revoked", "like", 1, False, True, True),
        ("done", "like", 1, False, True, False),
    ],
)
def test_a_late_label_counts_only_while_its_slot_is_free(
    state: str, label: str, free: int, rival: bool, pending: bool, counts: bool
) -> None:
    assert accepts_label(state, label, pending=pending, free=free, rival=rival) is counts
