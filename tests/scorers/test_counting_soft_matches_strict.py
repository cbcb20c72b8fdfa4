"""The soft reward is partial credit that never contradicts the strict verdict: 1 iff it passes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from reward_server.scorers.geneval import DIRECTIONS, UNKNOWN, DetectedObject, Match, judge
from reward_server.scorers.metadata import GenEvalTarget

CLASSES = ("circle", "square", "ring")
COLORS = ("red", "blue")
MATCHES: tuple[Match, ...] = ("scene", "classes", "geneval")


@st.composite
def targets(draw: st.DrawFn) -> GenEvalTarget:
    include: list[dict[str, Any]] = []
    for index in range(draw(st.integers(1, 3))):
        clause: dict[str, Any] = {
            "class": draw(st.sampled_from(CLASSES)),
            "count": draw(st.integers(1, 3)),
        }
        if draw(st.booleans()):
            clause["color"] = draw(st.sampled_from(COLORS))
        if index and draw(st.booleans()):
            relation = draw(st.sampled_from(list(DIRECTIONS)))
            clause["position"] = [relation, draw(st.integers(0, index - 1))]
        include.append(clause)
    exclude = []
    for name in draw(st.lists(st.sampled_from(CLASSES), max_size=2, unique=True)):
        asked = sum(c["count"] for c in include if c["class"] == name)
        exclude.append({"class": name, "count": asked + draw(st.integers(1, 2))})
    return GenEvalTarget.model_validate({"include": include, "exclude": exclude})


@st.composite
def scenes(draw: st.DrawFn, target: GenEvalTarget) -> list[DetectedObject]:
    """About what the target asks for, so that both verdicts are common."""
    wanted = [(c.name, c.color) for c in target.include for _ in range(c.count)]
    kept = [w for w in wanted if draw(st.integers(0, 9))]
    strays = draw(
        st.lists(
            st.tuples(st.sampled_from((*CLASSES, UNKNOWN)), st.sampled_from(COLORS)), max_size=2
        )
    )
    objects = []
    for name, color in kept + (strays if draw(st.booleans()) else []):
        x, y = draw(st.integers(0, 20)), draw(st.integers(0, 20))
        size = draw(st.integers(1, 8))
        shown = color or draw(st.sampled_from(COLORS))
        confidence = draw(st.floats(0, 1))
        objects.append(DetectedObject(name, shown, (x, y, x + size, y + size), confidence))
    return objects


@given(data=st.data(), match=st.sampled_from(MATCHES))
def test_soft_is_one_exactly_when_strict_passes(data: st.DataObject, match: Match) -> None:
    target = data.draw(targets())
    judgement = judge(target, data.draw(scenes(target)), match)
    assert 0.0 <= judgement.soft <= 1.0
    assert judgement.passed == (judgement.soft == 1.0)
    assert judgement.passed == (not judgement.failures)


@given(data=st.data(), match=st.sampled_from(MATCHES))
def test_the_order_of_detections_does_not_matter_to_counts(
    data: st.DataObject, match: Match
) -> None:
    target = data.draw(targets().filter(lambda t: not any(c.position for c in t.include)))
    objects = data.draw(
        scenes(target).filter(lambda found: len({o.confidence for o in found}) == len(found))
    )
    shuffled = data.draw(st.permutations(objects))
    assert judge(target, shuffled, match).soft == pytest.approx(judge(target, objects, match).soft)


def test_a_colourless_clause_takes_the_same_objects_in_any_order() -> None:
    target = GenEvalTarget.model_validate(
        {
            "include": [
                {"class": "square", "count": 2, "color": "red"},
                {"class": "square", "count": 3},
            ]
        }
    )
    box = (0, 0, 1, 1)
    colors = ("red", "red", "red", "red", "red", "blue")
    objects = [DetectedObject("square", c, box, i / 8) for i, c in enumerate(colors)]
    assert judge(target, objects).soft == judge(target, objects[::-1]).soft


@given(data=st.data())
def test_passing_the_whole_scene_passes_the_laxer_rules(data: st.DataObject) -> None:
    """With one clause per class the three rules are nested: scene, then classes, then geneval."""
    target = data.draw(
        targets().filter(lambda t: len({c.name for c in t.include}) == len(t.include))
    )
    objects = data.draw(scenes(target))
    verdicts = [judge(target, objects, match).passed for match in MATCHES]
    assert verdicts == sorted(verdicts)


def _row(number: int, name: str = "circle", color: str = "red") -> list[DetectedObject]:
    return [DetectedObject(name, color, (10 * i, 0, 10 * i + 5, 5)) for i in range(number)]


@pytest.mark.parametrize("asked", range(1, 7))
def test_nearer_counts_earn_more(asked: int) -> None:
    target = GenEvalTarget.model_validate({"include": [{"class": "circle", "count": asked}]})
    rewards = [judge(target, _row(m)).soft for m in range(2 * asked + 2)]
    assert rewards[asked] == 1.0
    assert rewards[: asked + 1] == sorted(set(rewards[: asked + 1]))
    assert rewards[asked : 2 * asked + 1] == sorted(set(rewards[asked : 2 * asked + 1]))[::-1]
    assert rewards[0] == rewards[2 * asked] == rewards[2 * asked + 1] == 0.0


def test_half_for_the_number_of_objects_half_for_the_right_ones() -> None:
    target = GenEvalTarget.model_validate({"include": [{"class": "circle", "count": 4}]})
    assert judge(target, _row(3)).soft == pytest.approx(0.75)
    assert judge(target, _row(4, name="square")).soft == pytest.approx(0.5)
    mixed = _row(2) + [DetectedObject(UNKNOWN, "red", (0, 20, 5, 25))] * 2
    assert judge(target, mixed).soft == pytest.approx(0.5 + 0.5 * 0.5)


def test_the_right_class_in_the_wrong_colour_earns_part() -> None:
    target = GenEvalTarget.model_validate(
        {"include": [{"class": "circle", "color": "red"}, {"class": "square", "color": "blue"}]}
    )

    def reward(circle: str, square: str) -> float:
        return judge(target, _row(1, color=circle) + _row(1, "square", square)).soft

    assert reward("red", "blue") == 1.0
    assert reward("red", "red") == pytest.approx(0.875)
    assert reward("blue", "red") == pytest.approx(0.75)


def test_turning_towards_the_asked_side_earns_more() -> None:
    target = GenEvalTarget.model_validate(
        {"include": [{"class": "square"}, {"class": "circle", "position": ["left of", 0]}]}
    )
    square = DetectedObject("square", "red", (50, 50, 60, 60))
    rewards = []
    for dx, dy in [(30, 0), (30, -40), (0, -40), (-10, -40), (-40, 0)]:
        circle = DetectedObject("circle", "red", (50 + dx, 50 + dy, 60 + dx, 60 + dy))
        rewards.append(judge(target, [square, circle]).soft)
    assert rewards == sorted(rewards)
    assert rewards[0] == pytest.approx(0.75)
    assert rewards[0] < rewards[2] < rewards[3] < rewards[4] == 1.0


def test_targets_that_cannot_be_met_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"forbids 2 or more 'circle', but include asks"):
        GenEvalTarget.model_validate(
            {
                "include": [{"class": "circle", "count": 2}],
                "exclude": [{"class": "circle", "count": 2}],
            }
        )
