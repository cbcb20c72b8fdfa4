"""Annotators over the labeling API: most do their work; some walk off, come late or click twice."""

from __future__ import annotations

import itertools
import random
import time
from typing import Any, Final

import httpx

from benchmarks.world import World

Rows = list[dict[str, Any]]

CLAIM: Final = 16
ABANDON_SHARE: Final = 0.02
"""Batches that are claimed and never looked at again."""
LATE_SHARE: Final = 0.02
"""Batches that are handed in after their lease has run out."""
TWICE_SHARE: Final = 0.08
"""Batches for each of the three ways to send a label twice."""
HANG_UP_SHARE: Final = 0.04
"""Submits whose answer is not waited for before they are sent again."""
SETTLED_IN: Final = 100
"""Labels after which the server leases for as long as this annotator needs, not for minutes."""
MOST_PARKED: Final = 4


class Annotator:
    """One person with a session of their own, on whichever server answers."""

    def __init__(self, world: World, number: int, seed: int) -> None:
        self._world = world
        self._who = f"annotator-{number}"
        self._rng = random.Random(f"{seed}/people/{number}")
        self._ids = itertools.count()
        self._clicks = 0
        self._parked: list[tuple[float, Rows]] = []
        self._http = world.http()

    def run(self) -> None:
        """Label until the run is over."""
        self._ask("/label/session", {"name": self._who})
        while not self._world.over:
            self._hand_in_late()
            n = self._rng.randint(1, CLAIM)
            leases = (self._ask("/label/claim", {"n": n}) or {}).get("items", [])
            if leases:
                self._work(leases)
            else:
                self._world.pause(0.2)
        self._http.close()

    def _work(self, leases: Rows) -> None:
        dice = self._rng.random()
        settled = self._clicks >= SETTLED_IN and self._world.share < 0.9
        if settled and dice < ABANDON_SHARE:
            self._world.trick("leases abandoned")
        elif settled and dice < ABANDON_SHARE + LATE_SHARE and len(self._parked) < MOST_PARKED:
            self._world.trick("labels handed in late")
            due = time.monotonic() + max(lease["lease_s"] for lease in leases) + 1.0
            self._parked.append((due, leases))
        else:
            self._judge(leases)

    def _hand_in_late(self) -> None:
        now = time.monotonic()
        due = [leases for at, leases in self._parked if at <= now]
        self._parked = [(at, leases) for at, leases in self._parked if at > now]
        for leases in due:
            self._judge(leases)

    def _judge(self, leases: Rows) -> None:
        rows = [self._row(lease, self._label()) for lease in leases]
        self._submit(leases, rows)
        if self._rng.random() < TWICE_SHARE:
            self._world.trick("labels sent twice")
            self._submit(leases, rows)
        if self._rng.random() < TWICE_SHARE:
            self._world.trick("second label for a lease")
            self._submit(leases[:1], [self._row(leases[0], self._other(rows[0]["label"]))])
        if self._rng.random() < TWICE_SHARE:
            self._world.trick("label changed under its id")
            self._forge(rows[0] | {"label": self._other(rows[0]["label"])})

    def _label(self) -> str:
        return self._rng.choices(("like", "dislike", "skip"), (55, 43, 2))[0]

    def _other(self, label: str) -> str:
        return "dislike" if label == "like" else "like"

    def _row(self, lease: dict[str, Any], label: str) -> dict[str, Any]:
        return {
            "assignment": lease["assignment"],
            "token": lease["token"],
            "label": label,
            "client_label_id": f"{self._who}/{next(self._ids)}",
            "rt_ms": self._rng.randint(200, 400),
        }

    def _submit(self, leases: Rows, rows: Rows) -> None:
        known = [
            [row["client_label_id"], lease["prompt"], row["label"]]
            for row, lease in zip(rows, leases, strict=True)
        ]
        self._world.ledger.write("clicking", who=self._who, rows=known)
        if self._rng.random() < HANG_UP_SHARE:
            self._hang_up(rows)
        answer = self._ask("/label/submit", rows, to_the_end=True)
        if answer is None:
            return
        outcomes = [[one["client_label_id"], one["outcome"]] for one in answer["results"]]
        self._world.ledger.write("clicked", who=self._who, rows=outcomes)
        self._clicks += len(rows)

    def _hang_up(self, rows: Rows) -> None:
        """The labels may be counted, but nobody is told."""
        self._world.trick("labels sent, answer not awaited")
        try:
            url = self._rng.choice(self._world.urls)
            self._http.post(f"{url}/label/submit", json=rows, timeout=0.01)
        except httpx.TransportError:
            pass

    def _forge(self, row: dict[str, Any]) -> None:
        answer = self._ask("/label/submit", [row])
        if answer is not None:
            (result,) = answer["results"]
            label_id, outcome = row["client_label_id"], result["outcome"]
            self._world.ledger.write("forged", label_id=label_id, outcome=outcome)

    def _ask(self, path: str, body: Any, *, to_the_end: bool = False) -> Any:
        """The answer of whichever server gives one; None once the run is over.

        ``to_the_end``: what was clicked is sent even then.
        """
        until = time.monotonic() + 60.0
        while not self._world.over or (to_the_end and time.monotonic() < until):
            try:
                answer = self._http.post(self._rng.choice(self._world.urls) + path, json=body)
            except httpx.TransportError:
                time.sleep(0.1)
                continue
            if answer.is_success:
                return answer.json()
            if answer.status_code < 500 and answer.status_code != 429:
                raise RuntimeError(f"{path}: {answer.status_code} {answer.text[:500]}")
            time.sleep(0.2)
        return None
