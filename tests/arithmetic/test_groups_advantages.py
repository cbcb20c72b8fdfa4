"""Advantages: what rewards say within a group, and what missing or equal ones do not say."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.rewards.groups import advantages

NAN = math.nan
rewards = st.lists(
    st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4), min_size=2, max_size=4
)


def test_advantage_is_the_reward_in_standard_deviations_of_its_group() -> None:
    result = advantages(torch.tensor([[0.0, 1.0, 1.0, 0.0], [1.0, 2.0, 3.0, 4.0]]), ["a", "a"])
    assert result.values[0].tolist() == [-1, 1, 1, -1]
    expected = [(r - 2.5) / math.sqrt(1.25) for r in (1, 2, 3, 4)]
    assert result.values[1].tolist() == pytest.approx(expected)
    assert result.live.tolist() == [True, True]


@given(rewards, st.floats(0.5, 20), st.floats(-5, 5))
def test_scale_and_offset_of_a_reward_change_nothing(
    values: list[list[float]], scale: float, offset: float
) -> None:
    r = torch.tensor(values, dtype=torch.float64)
    names = ["a"] * len(r)
    for std in ("group", "batch"):
        one = advantages(r, names, std=std, dead_std=1e-3)
        two = advantages(scale * r + offset, names, std=std, dead_std=1e-3 * scale)
        same = one.live == two.live  # a group exactly at the limit may fall on either side
        torch.testing.assert_close(one.values[same], two.values[same], atol=1e-6, rtol=1e-6)


@given(rewards, st.permutations(range(4)))
def test_permuting_samples_permutes_their_advantages(
    values: list[list[float]], order: list[int]
) -> None:
    r = torch.tensor(values, dtype=torch.float64)
    names = ["a"] * len(r)
    one, two = advantages(r, names), advantages(r[:, order], names)
    torch.testing.assert_close(two.values, one.values[:, order])


def test_a_missing_reward_leaves_the_group_as_if_the_sample_were_not_there() -> None:
    masked = advantages(torch.tensor([[0.1, NAN, 0.5, 0.9]]), ["a"])
    without = advantages(torch.tensor([[0.1, 0.5, 0.9]]), ["a"])
    assert masked.values[0, 1] == 0
    assert not masked.valid[0, 1]
    torch.testing.assert_close(masked.values[0, [0, 2, 3]], without.values[0])


def test_equal_or_too_few_rewards_say_nothing() -> None:
    r = torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.5009, 0.5], [NAN, NAN, 1.0], [NAN, 0.0, 1.0]])
    result = advantages(r, ["a"] * 4, min_valid=2, dead_std=1e-3)
    assert result.live.tolist() == [False, False, False, True]
    assert result.values[:3].abs().max() == 0
    none = advantages(torch.full((1, 3), NAN), ["a"])
    assert none.values.abs().max() == 0
    assert not none.valid.any()


def test_batch_standard_deviation_pools_groups_of_the_same_reward_only() -> None:
    r = torch.tensor([[0.0, 1.0], [0.4, 0.6], [0.0, 100.0]], dtype=torch.float64)
    result = advantages(r, ["ocr", "ocr", "count"], std="batch")
    pooled = math.sqrt((2 * 0.25 + 2 * 0.01) / 4)
    assert result.values[0, 1].item() == pytest.approx(0.5 / pooled)
    assert result.values[1, 1].item() == pytest.approx(0.1 / pooled)
    assert result.values[2, 1].item() == pytest.approx(1.0)
