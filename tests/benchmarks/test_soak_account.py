"""Promise: the account of an endurance run sees every item that was lost, doubled or made up."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from benchmarks.account import Server, settle
from benchmarks.ledger import Event

EVENTS: list[Event] = [
    {
        "event": "sending",
        "key": "k1",
        "reward": "ocr",
        "votes": 1,
        "items": [["item k1/0", 1.0], ["item k1/1", None]],
    },
    {"event": "accepted", "key": "k1", "job": "j1"},
    {"event": "accepted", "key": "k1", "job": "j1"},
    {"event": "answered", "key": "k1", "job": "j1", "rewards": [1.0, None]},
    {"event": "misused", "key": "k1", "status": 422},
    {
        "event": "sending",
        "key": "k2",
        "reward": "human",
        "votes": 2,
        "items": [["item k2/0", None], ["item k2/1", None]],
    },
    {"event": "accepted", "key": "k2", "job": "j2"},
    {
        "event": "clicking",
        "who": "ann",
        "rows": [["a1", "item k2/0", "like"], ["a2", "item k2/1", "skip"]],
    },
    {"event": "clicked", "who": "ann", "rows": [["a1", "counted"], ["a2", "counted"]]},
    {"event": "clicked", "who": "ann", "rows": [["a1", "replayed"], ["a2", "replayed"]]},
    {
        "event": "clicking",
        "who": "bob",
        "rows": [["b1", "item k2/0", "dislike"], ["b2", "item k2/1", "skip"]],
    },
    {"event": "clicked", "who": "bob", "rows": [["b1", "replayed"], ["b2", "counted"]]},
    {"event": "clicking", "who": "bob", "rows": [["b3", "item k2/0", "like"]]},
    {"event": "clicked", "who": "bob", "rows": [["b3", "refused"]]},
    {"event": "forged", "label_id": "a1", "outcome": "refused"},
    {"event": "answered", "key": "k2", "job": "j2", "rewards": [0.5, None]},
]


def item(reward: float | None, code: str = "", **votes: int) -> dict[str, Any]:
    """An item as the server shows it in the end."""
    error = None if reward is not None else {"code": code, "message": "why"}
    status = "ok" if reward is not None else "error"
    return {
        "status": status,
        "reward": reward,
        "detail": None,
        "error": error,
        "votes": {"like": 0, "dislike": 0, "skip": 0} | votes,
    }


def vote(who: str, prompt: str, label: str) -> dict[str, Any]:
    """A label as the server exports it."""
    return {"annotator": who, "prompt": prompt, "label": label, "counted": True}


def jobs() -> dict[str, Any]:
    """Two jobs that ended as they should."""
    ocr = [item(1.0), item(None, "image_unsupported")]
    human = [item(0.5, like=1, dislike=1), item(None, "too_few_votes", skip=2)]
    return {
        "j1": {"rewards": [1.0, None], "data": ocr},
        "j2": {"rewards": [0.5, None], "data": human},
    }


LABELS = [
    vote("ann", "item k2/0", "like"),
    vote("bob", "item k2/0", "dislike"),
    vote("ann", "item k2/1", "skip"),
    vote("bob", "item k2/1", "skip"),
]


def server(**changed: Any) -> Server:
    """A server that kept every promise, but for what is ``changed``."""
    return Server(**({"jobs": jobs(), "labels": LABELS, "requests": 2, "items": 4} | changed))


def broken(events: list[Event], said: Server) -> set[str]:
    """Names of the promises that were broken."""
    return {name for name, found in settle(events, said).violations.items() if found}


def test_a_run_without_fault_is_clean() -> None:
    account = settle(EVENTS, server())
    assert account.violations == {name: [] for name in account.violations}
    assert account.clean
    assert account.votes == 4
    ocr = account.tallies["ocr"]
    assert (ocr.sent, ocr.accepted, ocr.resent, ocr.answered, ocr.scored) == (2, 2, 2, 2, 1)
    assert account.tallies["human"].without == {"too_few_votes": 1}


@pytest.mark.parametrize(
    ("change", "promise"),
    [
        (lambda j: j["j1"].update(rewards=[0.5, None]), "changed"),
        (lambda j: j["j1"]["data"][0].update(reward=0.5), "fabricated"),
        (lambda j: j["j1"]["data"][1].update(reward=0.0, status="ok"), "fabricated"),
        (lambda j: j["j1"]["data"][0].update(item(None, "image_missing")), "unexplained"),
        (lambda j: j["j1"]["data"][0].update(status="pending"), "lost"),
        (lambda j: j["j1"]["data"].pop(), "lost"),
        (lambda j: j.pop("j2"), "lost"),
        (lambda j: j["j2"]["data"][0].update(reward=1.0), "fabricated"),
        (lambda j: j["j2"]["data"][0]["votes"].update(like=2), "doubled"),
        (lambda j: j["j2"]["data"][0]["votes"].update(dislike=0), "lost"),
        (lambda j: j["j2"]["data"][1].update(item(0.0, skip=2)), "fabricated"),
    ],
)
def test_a_wrong_answer_is_found(change: Any, promise: str) -> None:
    wrong = jobs()
    change(wrong)
    assert promise in broken(EVENTS, server(jobs=wrong))


def test_a_reward_whose_scorer_died_thrice_may_be_missing() -> None:
    crashed = jobs()
    crashed["j1"] = {
        "rewards": [None, None],
        "data": [item(None, "scorer_crashed"), item(None, "image_unsupported")],
    }
    events = deepcopy(EVENTS)
    events[3]["rewards"] = [None, None]
    assert broken(events, server(jobs=crashed)) == set()


@pytest.mark.parametrize(
    ("said", "promise"),
    [
        (server(labels=LABELS[1:]), "lost"),
        (server(labels=[*LABELS, LABELS[0]]), "doubled"),
        (server(requests=3, items=6), "doubled"),
        (server(requests=1, items=2), "lost"),
    ],
)
def test_a_wrong_total_is_found(said: Server, promise: str) -> None:
    assert broken(EVENTS, said) == {promise}


@pytest.mark.parametrize(
    ("at", "change", "promise"),
    [
        (2, {"job": "j3"}, "doubled"),
        (4, {"status": 202}, "doubled"),
        (9, {"rows": [["a1", "counted"]]}, "doubled"),
        (13, {"rows": [["b3", "counted"]]}, "doubled"),
        (14, {"outcome": "counted"}, "doubled"),
        (8, {"event": "noise"}, "lost"),
        (15, {"event": "noise"}, "lost"),
        (6, {"event": "noise"}, "refused"),
    ],
)
def test_a_wrong_step_is_found(at: int, change: Event, promise: str) -> None:
    events = deepcopy(EVENTS)
    events[at].update(change)
    if at == 8:
        del events[9]
    assert promise in broken(events, server())
