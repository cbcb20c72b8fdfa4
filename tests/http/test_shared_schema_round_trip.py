"""Promise: what the wire types accept survives the wire unchanged, and a missing reward is null."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.schema import Counts, ImageRef, ItemResult, Job, ScoreItem, ScoreRequest

letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
names = st.text(letters, min_size=1, max_size=20)
rewards = st.floats(0, 1, allow_nan=False)
hashes = st.text("0123456789abcdef", min_size=64, max_size=64)
images = st.one_of(
    st.builds(ImageRef, b64=st.text(max_size=40)),
    st.builds(ImageRef, sha256=hashes),
    st.builds(ImageRef, part=names),
)
jsons = st.dictionaries(names, st.one_of(st.text(), st.integers(-9, 9), st.booleans(), st.none()))
score_items = st.builds(
    ScoreItem,
    id=st.none() | names,
    prompt=st.text(letters, max_size=50),
    image=images,
    target=st.none() | jsons,
)
requests = st.builds(
    ScoreRequest,
    reward=st.none() | names,
    items=st.lists(score_items, min_size=1, max_size=4),
    run_id=st.none() | names,
    step=st.none() | st.integers(0, 10**6),
    deadline_s=st.none() | st.floats(0.1, 1e6),
    options=st.none() | jsons,
    votes=st.integers(3, 9),
    min_votes=st.integers(1, 3),
)


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    given_rewards = draw(st.lists(st.none() | rewards, min_size=1, max_size=6))
    data = [
        ItemResult(index=i, status="error" if r is None else "ok", reward=r)
        for i, r in enumerate(given_rewards)
    ]
    ok = sum(r is not None for r in given_rewards)
    return Job(
        id=draw(names),
        reward="ocr",
        status="partial",
        rev=draw(st.integers(1, 99)),
        rewards=given_rewards,
        valid=[r is not None for r in given_rewards],
        data=data,
        counts=Counts(ok=ok, pending=0, error=len(data) - ok),
        model="m",
        created_at=0.0,
    )


@settings(max_examples=60, deadline=None)
@given(requests)
def test_requests_round_trip(request: ScoreRequest) -> None:
    text = request.model_dump_json(exclude_defaults=True)
    assert ScoreRequest.model_validate_json(text) == request


@settings(max_examples=60, deadline=None)
@given(jobs())
def test_jobs_round_trip(job: Job) -> None:
    again = Job.model_validate_json(job.model_dump_json())
    assert again == job
    assert [r is not None for r in again.rewards] == again.valid


@pytest.mark.parametrize("status", ["pending", "error", "incomplete", "skipped"])
def test_only_scored_items_carry_a_number(status: str) -> None:
    with pytest.raises(ValidationError):
        ItemResult.model_validate({"index": 0, "status": status, "reward": 0.0})


def test_a_scored_item_carries_a_number() -> None:
    with pytest.raises(ValidationError):
        ItemResult(index=0, status="ok", reward=None)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_rewards_are_finite(number: float) -> None:
    with pytest.raises(ValidationError):
        ItemResult(index=0, status="ok", reward=number)


@pytest.mark.parametrize(
    "body",
    [
        '{"items": []}',
        '{"items": [{"prompt": "a", "image": {}}]}',
        '{"items": [{"prompt": "a", "image": {"b64": "", "part": "x"}}]}',
        '{"items": [{"prompt": "a", "image": {"b64": ""}}], "votes": "3"}',
        '{"items": [{"prompt": "a", "image": {"b64": ""}}], "vote": 3}',
        '{"items": [{"prompt": "a", "image": {"b64": ""}}], "votes": 2, "min_votes": 3}',
        '{"items": [{"prompt": "a", "image": {"sha256": "../../etc/passwd"}}]}',
    ],
)
def test_requests_are_strict(body: str) -> None:
    with pytest.raises(ValidationError):
        ScoreRequest.model_validate_json(body)
