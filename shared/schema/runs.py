"""Wire types of runs as their requester watches them: rewards over steps, samples, what is awaited.

All of it comes from the requests of a run; ``RUN.heldout`` is taken for the probes of ``RUN``.
"""

from __future__ import annotations

from typing import Literal

from shared.schema import ItemStatus, Wire


class RunSummary(Wire):
    """One run that has asked for scores."""

    run_id: str
    rewards: list[str]
    items: int
    last_at: float


class RunList(Wire):
    """Answer of ``GET /runs``, the latest first; probes are part of their run."""

    runs: list[RunSummary]


class Point(Wire):
    """Mean reward of the ``n`` scored items between two points of the axis.

    ``low``, ``high``: 95 % interval by groups; None below three groups.
    """

    x: float
    mean: float
    low: float | None
    high: float | None
    n: int


class Curve(Wire):
    """One reward of a run over time; ``probe``: on the same prompts again and again."""

    reward: str
    human: bool
    probe: bool
    points: list[Point]


class Awaited(Wire):
    """What a run waits for, by the jobs that are not over.

    ``by``: ``people``, ``scorers``, ``settling`` (the last click may still be undone), ``trainer``
    (everything is answered, it has asked within five minutes), ``nothing`` (longer ago).
    """

    by: Literal["people", "scorers", "settling", "trainer", "nothing"]
    groups: int
    items: int
    since_s: float | None


class RunView(Wire):
    """A run so far; ``axis`` says what ``x`` is: the step, or seconds since the first request."""

    run_id: str
    axis: Literal["step", "seconds"]
    curves: list[Curve]
    awaited: Awaited
    items: int
    groups: int
    last_s: float | None


class Shot(Wire):
    """One picture made at a step, and what became of it."""

    x: float
    sha256: str
    human: bool
    status: ItemStatus
    reward: float | None


class Strip(Wire):
    """Pictures of one prompt, the oldest first."""

    prompt: str
    shots: list[Shot]


class RunSamples(Wire):
    """Samples over time.

    ``source``: ``probe`` (the same prompts at every step), ``training`` (prompts that came again),
    ``latest`` (no prompt came twice: the newest groups, several pictures each).
    """

    run_id: str
    source: Literal["probe", "training", "latest"]
    axis: Literal["step", "seconds"]
    strips: list[Strip]
