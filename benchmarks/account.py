"""Compares a client's ledger with what the server says in the end. Pure: no files, network, clock.

Every accepted item has to be answered; every reward has to be the one the client knows to be true:
from what it drew, or from the clicks it made itself.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.ledger import Event

CLOSE: Final = 1e-9
EXCUSED: Final = {"scorer_crashed"}
"""Why an item may end without its reward: the scorers were killed three times while it was read."""


@dataclass
class RewardCount:
    """Items of one reward. ``resent`` were sent again under a key that was accepted before."""

    sent: int = 0
    accepted: int = 0
    resent: int = 0
    answered: int = 0
    scored: int = 0
    without: dict[str, int] = field(default_factory=dict)


@dataclass
class Account:
    """The result; ``violations`` holds a sentence for every broken promise, by its name."""

    tallies: dict[str, RewardCount]
    violations: dict[str, list[str]]
    votes: int

    @property
    def clean(self) -> bool:
        """Whether every promise was kept."""
        return not any(self.violations.values())


PROMISES: Final = {
    "refused": "requests that were never accepted",
    "lost": "accepted items or votes without an answer",
    "doubled": "requests or votes that counted twice",
    "fabricated": "rewards that are not what the client knows to be true",
    "changed": "final rewards that changed afterwards",
    "unexplained": "missing rewards without an acceptable reason",
}


@dataclass(frozen=True)
class Server:
    """What the server says in the end: final jobs by id, exported labels, its count of the run."""

    jobs: Mapping[str, dict[str, Any]]
    labels: Sequence[dict[str, Any]]
    requests: int
    items: int


@dataclass
class _Book:
    """A ledger, indexed."""

    sent: dict[str, Event] = field(default_factory=dict)
    accepted: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    answered: dict[str, Event] = field(default_factory=dict)
    clicks: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    outcomes: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    others: list[Event] = field(default_factory=list)


def settle(events: Iterable[Event], server: Server) -> Account:
    """The account of one run."""
    book = _index(events)
    found: dict[str, list[str]] = {name: [] for name in PROMISES}
    tallies = {reward: RewardCount() for reward in ("ocr", "counting", "human")}
    votes = _votes(book, server, found)
    for key, sent in book.sent.items():
        _group(key, sent, book, server, votes, tallies[sent["reward"]], found)
    _totals(book, server, found)
    for event in book.others:
        if event["event"] == "refused":
            found["refused"].append(f"{event['key']}: {event['why']}")
        elif event["event"] == "misused" and event["status"] != 422:
            found["doubled"].append(f"{event['key']}: another body got {event['status']}")
        elif event["event"] == "forged" and event["outcome"] != "refused":
            found["doubled"].append(f"label {event['label_id']} changed: {event['outcome']}")
    return Account(tallies, found, sum(len(by_person) for by_person in votes.values()))


def _index(events: Iterable[Event]) -> _Book:
    book = _Book()
    for event in events:
        kind = event["event"]
        if kind == "sending":
            book.sent[event["key"]] = event
        elif kind == "accepted":
            book.accepted[event["key"]].append(event["job"])
        elif kind == "answered":
            book.answered[event["key"]] = event
        elif kind == "clicking":
            for label_id, prompt, label in event["rows"]:
                book.clicks[label_id] = (event["who"], prompt, label)
        elif kind == "clicked":
            for label_id, outcome in event["rows"]:
                book.outcomes[label_id].append(outcome)
        else:
            book.others.append(event)
    return book


Votes = defaultdict[str, dict[str, str]]
"""Labels that count, by prompt and annotator."""


def _votes(book: _Book, server: Server, found: dict[str, list[str]]) -> Votes:
    """The votes the client knows to count; the server's export has to hold the same ones."""
    votes: Votes = defaultdict(dict)
    for label_id, (who, prompt, label) in book.clicks.items():
        outcomes = book.outcomes[label_id]
        if outcomes.count("counted") > 1:
            found["doubled"].append(f"label {label_id} was counted twice")
        if not outcomes:
            found["lost"].append(f"label {label_id} of {who} was never answered")
        elif outcomes[-1] in ("counted", "replayed"):
            if who in votes[prompt]:
                found["doubled"].append(f"{who} has two votes on {prompt}")
            votes[prompt][who] = label
    exported = Counter(
        (row["prompt"], row["annotator"], row["label"]) for row in server.labels if row["counted"]
    )
    known = Counter((p, who, label) for p, by in votes.items() for who, label in by.items())
    found["doubled"] += [
        f"vote {vote} is counted, but not in the ledger" for vote in exported - known
    ]
    found["lost"] += [f"vote {vote} is in the ledger, but not counted" for vote in known - exported]
    return votes


def _group(
    key: str,
    sent: Event,
    book: _Book,
    server: Server,
    votes: Votes,
    tally: RewardCount,
    found: dict[str, list[str]],
) -> None:
    items = sent["items"]
    tally.sent += len(items)
    ids = book.accepted.get(key)
    if not ids:
        found["refused"].append(f"{key}: sent, but never accepted")
        return
    tally.accepted += len(items)
    tally.resent += len(items) * (len(ids) - 1)
    if len(set(ids)) > 1:
        found["doubled"].append(f"{key}: one key made the jobs {sorted(set(ids))}")
    job = server.jobs.get(ids[0])
    if job is None or len(job["data"]) != len(items):
        found["lost"] += [f"{prompt}: job {ids[0]} is gone" for prompt, _ in items]
        return
    if key not in book.answered:
        found["lost"].append(f"{key}: job {ids[0]} was never seen to end")
    elif book.answered[key]["rewards"] != job["rewards"]:
        found["changed"].append(f"{key}: {book.answered[key]['rewards']} -> {job['rewards']}")
    for (prompt, truth), item in zip(items, job["data"], strict=True):
        if item["status"] == "pending":
            found["lost"].append(f"{prompt}: pending")
            continue
        tally.answered += 1
        tally.scored += item["reward"] is not None
        if item["reward"] is None:
            why = item["error"]["code"]
            tally.without[why] = tally.without.get(why, 0) + 1
        if sent["reward"] == "human":
            _judged(prompt, item, list(votes[prompt].values()), sent["votes"], found)
        else:
            _scored(prompt, item, truth, found)


def _scored(
    prompt: str, item: dict[str, Any], truth: float | None, found: dict[str, list[str]]
) -> None:
    reward = item["reward"]
    if reward is None:
        if truth is not None and item["error"]["code"] not in EXCUSED:
            found["unexplained"].append(f"{prompt}: {item['error']}")
    elif truth is None or abs(reward - truth) > CLOSE:
        found["fabricated"].append(f"{prompt}: {reward}, the truth is {truth}; {item['detail']}")


def _judged(
    prompt: str, item: dict[str, Any], labels: list[str], need: int, found: dict[str, list[str]]
) -> None:
    clicked = {label: labels.count(label) for label in ("like", "dislike", "skip")}
    likes, dislikes = clicked["like"], clicked["dislike"]
    if item["votes"] != clicked:
        kind = "doubled" if sum(item["votes"].values()) > len(labels) else "lost"
        found[kind].append(f"{prompt}: votes {item['votes']}, clicked {clicked}")
    if likes + dislikes > need:
        found["doubled"].append(f"{prompt}: {likes + dislikes} votes, {need} were asked for")
    if likes + dislikes < need and clicked["skip"] < need:
        found["unexplained"].append(f"{prompt}: closed with {clicked}, {need} were asked for")
    truth = likes / (likes + dislikes) if likes + dislikes else None
    reward = item["reward"]
    if (reward is None) != (truth is None) or abs((reward or 0.0) - (truth or 0.0)) > CLOSE:
        found["fabricated"].append(f"{prompt}: {reward}, the clicks say {truth}")


def _totals(book: _Book, server: Server, found: dict[str, list[str]]) -> None:
    """The server's own count of what it accepted, against the ledger's."""
    requests = len(book.accepted)
    items = sum(len(book.sent[key]["items"]) for key in book.accepted)
    if (server.requests, server.items) != (requests, items):
        text = f"{server.requests} requests with {server.items} items, not {requests} with {items}"
        more = server.requests > requests or server.items > items
        found["doubled" if more else "lost"].append(f"the server counts {text}")
