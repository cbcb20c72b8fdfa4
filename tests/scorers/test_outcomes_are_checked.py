"""Whatever a scorer returns, the item alone suffers: it fails with its reason, and every listing of
the job stays readable.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from reward_server.domain.outcomes import Failed, Outcome, Scored, checked
from reward_server.scorers import ScorerItem
from shared.client import build_request
from shared.images import encode_png
from tests.support.server_setup import running

DEEP: dict[str, Any] = {}
for _ in range(40):
    DEEP = {"in": DEEP}

ODD: list[tuple[object, str]] = [
    (0.5, "a float (0.5), not Scored or Failed"),
    (None, "a NoneType (None), not Scored or Failed"),
    (Scored(math.nan), "a float (nan), which is no reward"),
    (Scored(math.inf), "a float (inf), which is no reward"),
    (Scored(1e308), "a float (1e+308), which is no reward"),
    (Scored("0.5"), "a str ('0.5'), which is no reward"),  # type: ignore[arg-type]
    (Scored(b"1"), "which is no reward"),  # type: ignore[arg-type]
    (Scored(1.0, {"x": MappingProxyType({"y": 1})}), "no JSON"),  # type: ignore[dict-item]
    (Failed(10**5000), "cannot be read: ValueError"),  # type: ignore[arg-type]
    (Scored(10**400), "which is no reward"),
    (Scored("high"), "a str ('high'), which is no reward"),  # type: ignore[arg-type]
    (Scored(None), "which is no reward"),  # type: ignore[arg-type]
    (Scored(1.0, {"x": math.nan}), "detail.x is nan"),
    (Scored(1.0, {"x": [1, {"y": -math.inf}]}), "detail.x[1].y is -inf"),
    (Scored(1.0, {"x": "a\x00b"}), "detail.x holds NUL or half a character"),
    (Scored(1.0, {"x": "\ud800"}), "detail.x holds NUL or half a character"),
    (Scored(1.0, {"a\x00": 1}), "detail has the key"),
    (Scored(1.0, {1: 1}), "detail has the key a int (1)"),  # type: ignore[dict-item]
    (Scored(1.0, {"x": 10**400}), "detail.x is an integer beyond 64 bits"),
    (Scored(1.0, {"x": np.float32(1)}), "detail.x is a float32"),  # type: ignore[dict-item]
    (Scored(1.0, {"x": {1, 2}}), "which is no JSON"),  # type: ignore[dict-item]
    (Scored(1.0, "why"), "detail is a str"),  # type: ignore[arg-type]
    (Scored(1.0, DEEP), "deep"),
    (Scored(1.0, {"x": "y" * 70_000}), "detail is longer than"),
    (Failed("no\x00 \ud800 way"), "no\ufffd ? way"),
    (Failed("no", "made_up"), "no (unknown code a str ('made_up'))"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("outcome", "reason"), ODD, ids=[str(i) for i in range(len(ODD))])
def test_what_is_no_outcome_is_a_failure_with_its_reason(outcome: object, reason: str) -> None:
    found = checked(outcome)
    assert isinstance(found, Failed)
    assert reason in found.message and found.code == "scorer_failed"
    assert found.message.encode() and "\x00" not in found.message


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.floats(), st.dictionaries(st.text(), JSON, max_size=3))
def test_what_is_let_through_is_json_for_everybody(reward: float, detail: dict[str, Any]) -> None:
    found = checked(Scored(reward, detail))
    if isinstance(found, Scored):
        text = json.dumps([found.reward, found.detail], allow_nan=False)
        assert json.loads(text.encode()) == [found.reward, found.detail]


def test_numbers_of_other_libraries_are_rewards() -> None:
    assert checked(Scored(np.float32(0.5))) == Scored(0.5)  # type: ignore[arg-type]
    assert checked(Scored(1)) == Scored(1.0)


class Nothing(BaseModel):
    """No target, no options."""


class Odd:
    """Returns one odd outcome per item, then one that is well."""

    name: ClassVar[str] = "odd"
    model: ClassVar[str] = "odd/1"
    target = Nothing
    options = Nothing

    def score(self, batch: list[ScorerItem[Nothing, Nothing]]) -> list[Outcome]:
        """By the number that the prompt is."""
        if batch[0].prompt == "all":
            return 0.5  # type: ignore[return-value]
        outcomes: list[Any] = [one for one, _ in ODD]
        return [[*outcomes, Scored(0.25)][int(item.prompt)] for item in batch]


def test_listings_stay_readable_and_the_scorer_lives(tmp_path: Path) -> None:
    scorer = f"odd={__name__}:Odd"
    with running(tmp_path / "data", "--settle", "0", "--scorer", scorer) as server:
        pixels = encode_png(np.full((8, 8, 3), 9, np.uint8))
        with server.client() as client:
            prompts = [str(i) for i in range(len(ODD) + 1)]
            job = client.score(build_request("odd", prompts, [pixels] * len(prompts)))
            assert job.rewards == [None] * len(ODD) + [0.25]
            for item, (_, reason) in zip(job.data, ODD, strict=False):
                assert item.error is not None and reason in item.error.message
            whole = client.score(build_request("odd", ["all"], [pixels]))
            assert whole.data[0].error is not None
            assert "score() returned a float, not a list" in whole.data[0].error.message
            assert client.job(job.id).rewards == job.rewards
