"""Judges detected objects against GenEval's metadata: what was asked, what was found, what failed.

Pure: no pixels, no files, no clock. The metadata is GenEval's own (Ghosh et al. 2023,
arXiv:2310.11513), so a line of a metadata file can be sent as a target unchanged. The judge refuses
to guess: an object no detector could name counts as an object that nobody asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from reward_server.scorers.metadata import Clause, GenEvalTarget, Relation

Match = Literal["scene", "classes", "geneval"]

UNKNOWN = "unknown"
"""Class of an object, or colour, that the detector saw but would not name."""

DIRECTIONS: dict[str, tuple[int, int]] = {
    "left of": (-1, 0),
    "right of": (1, 0),
    "above": (0, -1),
    "below": (0, 1),
}
POSITION_THRESHOLD = 0.1  # GenEval: an offset counts beyond this share of both objects' sizes
DIRECTION_THRESHOLD = 0.5  # GenEval: share of the offset that must point in the asked direction
NEAR_MISS = 0.95  # most credit for a position that fails


@dataclass(frozen=True, slots=True)
class DetectedObject:
    """One object in a picture; ``box`` is (x0, y0, x1, y1) in pixels, y pointing down."""

    name: str
    color: str | None
    box: tuple[float, float, float, float]
    confidence: float = 1.0


@dataclass(frozen=True, slots=True)
class Failure:
    """A clause that was not met; ``clause`` is its path, e.g. ``include[0].color``."""

    clause: str
    reason: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """``passed``: every clause is met. ``soft``: partial credit in [0, 1], 1 iff ``passed``."""

    passed: bool
    soft: float
    failures: tuple[Failure, ...]


@dataclass(slots=True)
class _Found:
    """Objects assigned to one clause: right class and colour, or right class only."""

    right: list[DetectedObject] = field(default_factory=list)
    wrong_color: list[DetectedObject] = field(default_factory=list)

    @property
    def all(self) -> list[DetectedObject]:
        return self.right + self.wrong_color


def judge(
    target: GenEvalTarget, objects: Sequence[DetectedObject], match: Match = "scene"
) -> Judgement:
    """Judge the objects found in one picture.

    ``match`` says what "as asked" means. ``scene``: exactly the asked objects and nothing else,
    unknown objects included. ``classes``: exact counts of the asked classes, other classes are
    ignored. ``geneval``: the official rule, at least ``count`` of each class; surplus is failed by
    ``exclude`` alone, and colours and positions are read off the most confident objects.

    The soft score is ``T / 2 + C (1 + P) / 4``: T compares the number of objects with the number
    asked, C is the mean credit of the clauses (half class, half class and colour) times that of
    the exclusions, P the mean credit of the positions. A count of m for n earns
    ``max(0, 1 - |m - n| / n)``.
    """
    if match == "geneval":
        found = [_most_confident(clause, objects) for clause in target.include]
    else:
        found = _assign(target, objects)
    strays = _without(objects, [o for f in found for o in f.all]) if match == "scene" else []
    failures = _clause_failures(target, found, match) + _exclusion_failures(target, objects)
    if strays:
        listing = ", ".join(sorted(_describe(o) for o in strays))
        failures.append(Failure("scene", f"found {len(strays)} not asked for: {listing}"))
    positions = [
        _position_credit(clause.position[0], found[i], clause, found[j], target.include[j])
        for i, clause in enumerate(target.include)
        if clause.position
        for j in (clause.position[1],)
    ]
    credit = _mean([_clause_credit(c, f) for c, f in zip(target.include, found, strict=True)])
    credit *= _mean(_exclusion_credits(target, objects, match))
    soft = 0.5 * _total_credit(target, objects, found, match)
    soft += 0.5 * credit * (0.5 + 0.5 * _mean(positions))
    return Judgement(not failures, soft, tuple(failures))


def relations(a: DetectedObject, b: DetectedObject) -> frozenset[str]:
    """GenEval's relations of ``a`` to ``b``; none when the objects (nearly) share a centre."""
    return frozenset(r for r in DIRECTIONS if _alignment(r, a, b) > DIRECTION_THRESHOLD)


def _alignment(relation: str, a: DetectedObject, b: DetectedObject) -> float:
    """Share of the offset from b to a that points along ``relation``, in [-1, 1]."""
    offset = [(a.box[i] + a.box[i + 2] - b.box[i] - b.box[i + 2]) / 2 for i in (0, 1)]
    sizes = [a.box[i + 2] - a.box[i] + b.box[i + 2] - b.box[i] for i in (0, 1)]
    beyond = [
        math.copysign(max(abs(o) - POSITION_THRESHOLD * s, 0.0), o)
        for o, s in zip(offset, sizes, strict=True)
    ]
    if all(abs(value) < 1e-3 for value in beyond):
        return 0.0
    dx, dy = DIRECTIONS[relation]
    return (dx * beyond[0] + dy * beyond[1]) / math.hypot(*offset)


def _most_confident(clause: Clause, objects: Sequence[DetectedObject]) -> _Found:
    """GenEval's choice: the ``count`` most confident objects of the class, shared by clauses."""
    of_class = [o for o in objects if o.name == clause.name]
    chosen = sorted(of_class, key=lambda o: -o.confidence)[: clause.count]
    right = [o for o in chosen if _fits(clause, o)]
    return _Found(right, [o for o in chosen if not _fits(clause, o)])


def _assign(target: GenEvalTarget, objects: Sequence[DetectedObject]) -> list[_Found]:
    """Give every object of an asked class to exactly one clause, whatever order they come in.

    Coloured clauses choose first, because any object fits a colourless one of its class. A
    positioned clause chooses before the one it refers to and takes the objects farthest along its
    direction, so that "a circle left of a circle" is judged as a reader would.
    """
    clauses = target.include
    found = [_Found() for _ in clauses]
    left = sorted(objects, key=lambda o: (-o.confidence, o.box, o.color or ""))
    order = sorted(range(len(clauses)), key=lambda i: (clauses[i].color is None, -i))
    for i in order:
        fits = [o for o in left if o.name == clauses[i].name and _fits(clauses[i], o)]
        fits.sort(key=_along(clauses[i].position))
        found[i].right = fits[: clauses[i].count]
        left = _without(left, found[i].right)
    for i, clause in enumerate(clauses):
        missing = clause.count - len(found[i].right)
        found[i].wrong_color = [o for o in left if o.name == clause.name][:missing]
        left = _without(left, found[i].wrong_color)
    for surplus in left:
        same = [i for i, clause in enumerate(clauses) if clause.name == surplus.name]
        fitting = [i for i in same if _fits(clauses[i], surplus)]
        if fitting:
            found[fitting[0]].right.append(surplus)
        elif same:
            found[same[0]].wrong_color.append(surplus)
    return found


def _along(position: tuple[Relation, int] | None) -> Callable[[DetectedObject], float]:
    dx, dy = DIRECTIONS[position[0]] if position else (0, 0)
    return lambda o: -(dx * (o.box[0] + o.box[2]) + dy * (o.box[1] + o.box[3]))


def _without(
    objects: Sequence[DetectedObject], taken: Sequence[DetectedObject]
) -> list[DetectedObject]:
    gone = {id(o) for o in taken}
    return [o for o in objects if id(o) not in gone]


def _fits(clause: Clause, candidate: DetectedObject) -> bool:
    return clause.color is None or candidate.color == clause.color


def _closeness(found: int, asked: int) -> float:
    return max(0.0, 1.0 - abs(found - asked) / asked)


def _clause_credit(clause: Clause, found: _Found) -> float:
    """Half for the class, half for class and colour together."""
    of_class = _closeness(len(found.all), clause.count)
    return 0.5 * of_class + 0.5 * _closeness(len(found.right), clause.count)


def _total_credit(
    target: GenEvalTarget, objects: Sequence[DetectedObject], found: list[_Found], match: Match
) -> float:
    if match == "geneval":
        need: dict[str, int] = {}
        for clause in target.include:
            need[clause.name] = max(need.get(clause.name, 0), clause.count)
        present = sum(min(n, sum(o.name == name for o in objects)) for name, n in need.items())
        return present / sum(need.values())
    number = len(objects) if match == "scene" else sum(len(f.all) for f in found)
    return _closeness(number, sum(clause.count for clause in target.include))


def _position_credit(
    relation: Relation, found: _Found, clause: Clause, other: _Found, anchor: Clause
) -> float:
    """Mean over all pairs: 1 if GenEval's rule holds, fading to 0 half-way to the other side."""
    pairs = [
        _alignment(relation, a, b)
        for a in found.all[: clause.count]
        for b in other.all[: anchor.count]
    ]
    if not pairs:
        return 0.0
    return _mean(
        [
            1.0 if s > DIRECTION_THRESHOLD else min(max(s + DIRECTION_THRESHOLD, 0.0), NEAR_MISS)
            for s in pairs
        ]
    )


def _exclusion_credits(
    target: GenEvalTarget, objects: Sequence[DetectedObject], match: Match
) -> list[float]:
    """Exact counts already fail the surplus of an asked class; it is not charged twice."""
    asked = {clause.name for clause in target.include} if match != "geneval" else set()
    kept = []
    for ban in target.exclude:
        if ban.name not in asked:
            over = sum(o.name == ban.name for o in objects) - ban.count + 1
            kept.append(max(0.0, 1.0 - max(over, 0) / ban.count))
    return kept


def _clause_failures(target: GenEvalTarget, found: list[_Found], match: Match) -> list[Failure]:
    failures = []
    met: list[bool] = []
    for i, (clause, got) in enumerate(zip(target.include, found, strict=True)):
        problem = _clause_problem(f"include[{i}]", clause, got, match)
        if problem is None and clause.position:
            problem = _position_problem(i, target, found, met)
        met.append(problem is None)
        if problem:
            failures.append(problem)
    return failures


def _clause_problem(path: str, clause: Clause, found: _Found, match: Match) -> Failure | None:
    number, right = len(found.all), len(found.right)
    if number != clause.count:
        least = "at least " if match == "geneval" else ""
        reason = f"expected {least}{clause.count} {clause.name}, found {number}"
        return Failure(path, reason)
    if right != clause.count:
        seen = ", ".join(sorted(str(o.color) for o in found.all))
        reason = f"expected {clause.count} {clause.color} {clause.name}, found {right} ({seen})"
        return Failure(f"{path}.color", reason)
    return None


def _position_problem(
    index: int, target: GenEvalTarget, found: list[_Found], met: list[bool]
) -> Failure | None:
    clause = target.include[index]
    assert clause.position is not None
    relation, anchor = clause.position
    path = f"include[{index}].position"
    other = target.include[anchor].name
    if not met[anchor]:
        return Failure(path, f"no {other} as asked for {clause.name} to be {relation}")
    for a in found[index].right:
        for b in found[anchor].right:
            real = relations(a, b)
            if relation not in real:
                seen = " and ".join(sorted(real)) or "on top of"
                return Failure(path, f"expected {clause.name} {relation} {other}, found it {seen}")
    return None


def _exclusion_failures(target: GenEvalTarget, objects: Sequence[DetectedObject]) -> list[Failure]:
    failures = []
    for i, ban in enumerate(target.exclude):
        number = sum(o.name == ban.name for o in objects)
        if number >= ban.count:
            reason = f"expected fewer than {ban.count} {ban.name}, found {number}"
            failures.append(Failure(f"exclude[{i}]", reason))
    return failures


def _describe(found: DetectedObject) -> str:
    return f"{found.color} {found.name}" if found.color else found.name


def _mean(values: Sequence[float]) -> float:
    """1 for an empty list: a clause nobody asked for cannot fail."""
    return sum(values) / len(values) if values else 1.0
