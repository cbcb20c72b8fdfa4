"""GenEval as it was published: which detections count, and the published reward servers' verdict.

Read off GenEval's ``evaluation/evaluate_images.py`` and the ``gen_eval.py`` of flow_grpo's reward
server. Pure: detections come in, numbers go out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reward_server.scorers.geneval import DetectedObject, Failure, relations
from reward_server.scorers.metadata import Clause, GenEvalTarget

MOST_OF_A_CLASS = 16


def counted(objects: Iterable[DetectedObject], least: float) -> list[DetectedObject]:
    """The detections that GenEval's evaluator looks at, the most confident of a class first.

    Confidences above ``least``, at most sixteen of a class; boxes may overlap, within a class and
    across. Of equal confidences the one that was detected later stands first: the evaluator turns
    an ascending order round.
    """
    by_class: defaultdict[str, list[DetectedObject]] = defaultdict(list)
    for one in objects:
        if one.confidence > least:
            by_class[one.name].append(one)
    ordered = (sorted(same, key=lambda o: o.confidence)[::-1] for same in by_class.values())
    return [one for same in ordered for one in same[:MOST_OF_A_CLASS]]


@dataclass(frozen=True, slots=True)
class ServerVerdict:
    """``strict``: exactly what was asked is there. ``score``: at most 1, below 0 for surplus."""

    strict: bool
    score: float
    failures: tuple[Failure, ...]


def server_verdict(target: GenEvalTarget, objects: Sequence[DetectedObject]) -> ServerVerdict:
    """flow_grpo's reward of one picture, from ``counted`` detections.

    Each clause enters the mean ``score`` with 1 - |m - n| / n for m objects where n were asked,
    which has no floor: five dogs for one are -3. A wrong number adds a 0 where a colour or a
    position was asked too; a right one adds the same measure of the colour, and a position adds 1
    when it was looked at, with a 0 before it if it was wrong. Exclusions are not read.
    """
    credits: list[float] = []
    failures: list[Failure] = []
    groups: list[list[DetectedObject] | None] = []
    for index, clause in enumerate(target.include):
        found = [one for one in objects if one.name == clause.name]
        failure = _clause(f"include[{index}]", clause, found, groups, credits)
        groups.append(found if failure is None else None)
        if failure is not None:
            failures.append(failure)
    return ServerVerdict(not failures, sum(credits) / len(credits), tuple(failures))


def _clause(
    path: str,
    clause: Clause,
    found: list[DetectedObject],
    groups: list[list[DetectedObject] | None],
    credits: list[float],
) -> Failure | None:
    """Adds a clause's credits and says why it is not met; ``groups``: earlier clauses' objects."""
    credits.append(_closeness(len(found), clause.count))
    if len(found) != clause.count:
        if clause.color is not None or clause.position is not None:
            credits.append(0.0)
        return Failure(path, f"expected {clause.count} {clause.name}, found {len(found)}")
    if clause.color is not None:
        right = sum(one.color == clause.color for one in found)
        credits.append(_closeness(right, clause.count))
        if right != clause.count:
            reason = f"expected {clause.count} {clause.color} {clause.name}, found {right}"
            return Failure(f"{path}.color", reason)
    if clause.position is None:
        return None
    relation, anchor = clause.position
    others = groups[anchor]
    if others is None:
        credits.append(0.0)
        reason = f"nothing as asked for {clause.name} to be {relation}"
        return Failure(f"{path}.position", reason)
    wrong = any(relation not in relations(a, b) for a in found for b in others)
    credits += [0.0, 1.0] if wrong else [1.0]
    reason = f"expected {clause.name} {relation} include[{anchor}]"
    return Failure(f"{path}.position", reason) if wrong else None


def _closeness(found: int, asked: int) -> float:
    return 1.0 - abs(asked - found) / asked
