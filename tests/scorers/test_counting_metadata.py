"""Every clause of GenEval's metadata is judged, and the scorer says what failed and where."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from reward_server.domain.outcomes import Failed, Scored
from reward_server.scorers import ScorerItem, load
from reward_server.scorers.counting import CountingOptions, CountingScorer
from reward_server.scorers.geneval import DetectedObject, judge, relations
from reward_server.scorers.metadata import GenEvalTarget
from trainer.tiny.scenes import SIDE, Scene, Shape, render

SCENE = Scene(
    "white",
    (
        Shape("circle", "red", 7, 7, 4.5),
        Shape("circle", "blue", 25, 7, 4.5),
        Shape("square", "green", 7, 25, 4.5),
    ),
)


def _score(target: dict[str, Any], size: int = 32, **options: Any) -> Scored | Failed:
    item = ScorerItem(
        prompt="",
        image=render(SCENE, size),
        target=GenEvalTarget.model_validate(target),
        options=CountingOptions.model_validate(options),
    )
    (outcome,) = CountingScorer().score([item])
    return outcome


def _clause(name: str, count: int = 1, **more: Any) -> dict[str, Any]:
    return {"class": name, "count": count, **more}


SQUARE, CIRCLES = _clause("square"), _clause("circle", 2)


@pytest.mark.parametrize(
    ("include", "exclude", "failed"),
    [
        ([CIRCLES, SQUARE], [], None),
        ([CIRCLES, SQUARE], [_clause("circle", 3), _clause("ring")], None),
        ([_clause("circle", color="red"), _clause("circle", color="blue"), SQUARE], [], None),
        ([SQUARE, {**CIRCLES, "position": ["above", 0]}], [], None),
        ([SQUARE, {**CIRCLES, "position": ["left of", 0]}], [], "include[1].position"),
        (
            [SQUARE, _clause("circle", color="red", position=["above", 0]), _clause("circle")],
            [],
            None,
        ),
        ([_clause("circle", 3), SQUARE], [], "include[0]"),
        ([_clause("circle", 1), SQUARE], [], "include[0]"),
        ([_clause("circle", 2, color="red"), SQUARE], [], "include[0].color"),
        ([CIRCLES], [], "scene"),
        ([CIRCLES], [SQUARE], "exclude[0]"),
    ],
)
def test_each_clause_is_judged(
    include: list[dict[str, Any]], exclude: list[dict[str, Any]], failed: str | None
) -> None:
    target = {"include": include, "exclude": exclude}
    strict, soft = _score(target, mode="strict"), _score(target)
    assert isinstance(strict, Scored)
    assert isinstance(soft, Scored)
    assert strict.reward == float(failed is None)
    assert (soft.reward == 1.0) == (failed is None)
    failures: Any = strict.detail["failures"]
    clauses = [f["clause"] for f in failures]
    assert failed in clauses if failed else clauses == []


def test_the_detail_lists_what_was_found() -> None:
    outcome = _score({"include": [SQUARE]}, size=64)
    assert isinstance(outcome, Scored)
    objects: Any = outcome.detail["objects"]
    found = {(o["class"], o["color"]): o["box"] for o in objects}
    assert set(found) == {("circle", "red"), ("circle", "blue"), ("square", "green")}
    unit = 64 / SIDE  # pixels
    assert found["square", "green"] == pytest.approx(
        [v * unit for v in (2.95, 20.95, 11.05, 29.05)], abs=0.7
    )


def test_match_chooses_how_much_surplus_is_forgiven() -> None:
    for match, passes in [("scene", False), ("classes", True), ("geneval", True)]:
        outcome = _score({"include": [SQUARE]}, mode="strict", match=match)
        assert isinstance(outcome, Scored)
        assert outcome.reward == float(passes)
    for match, passes in [("classes", False), ("geneval", True)]:
        outcome = _score({"include": [_clause("circle")]}, mode="strict", match=match)
        assert isinstance(outcome, Scored)
        assert outcome.reward == float(passes)


@pytest.mark.parametrize(
    ("dx", "dy", "expected"),
    [
        (-30, 0, {"left of"}),
        (30, 0, {"right of"}),
        (0, -30, {"above"}),
        (0, 30, {"below"}),
        (30, 30, {"right of", "below"}),
        (0, 0, set()),
        (1, 1, set()),
    ],
)
def test_relations_are_genevals(dx: float, dy: float, expected: set[str]) -> None:
    anchor = DetectedObject("square", None, (50, 50, 60, 60))
    other = DetectedObject("circle", None, (50 + dx, 50 + dy, 60 + dx, 60 + dy))
    assert relations(other, anchor) == expected


def test_two_of_a_kind_can_be_placed_relative_to_each_other() -> None:
    include = [_clause("circle"), _clause("circle", position=["left of", 0])]
    target = GenEvalTarget.model_validate({"include": include})
    left = DetectedObject("circle", "red", (0, 0, 5, 5))
    right = DetectedObject("circle", "red", (20, 0, 25, 5))
    assert judge(target, [left, right]).passed
    assert judge(target, [right, left]).passed


def test_a_line_of_a_metadata_file_is_a_target() -> None:
    line = (
        '{"tag":"counting","include":[{"class":"wine glass","count":2}],'
        '"exclude":[{"class":"wine glass","count":3}],"prompt":"a photo of two wine glasses"}'
    )
    assert GenEvalTarget.model_validate_json(line).include[0].count == 2


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({}, "include"),
        ({"include": []}, "include"),
        ({"include": [{"count": 1}]}, "class"),
        ({"include": [_clause("circle", 0)]}, "greater than or equal to 1"),
        ({"include": [{"class": "circle", "count": "2"}]}, "valid integer"),
        ({"include": [{"class": "circle", "colour": "red"}]}, "colour"),
        ({"include": [SQUARE, _clause("circle", position=["beside", 0])]}, "left of"),
        ({"include": [_clause("circle", position=["left of", 0]), SQUARE]}, "earlier clause"),
    ],
)
def test_malformed_targets_say_what_is_wrong(target: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GenEvalTarget.model_validate(target)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"include": [_clause("circel")]}, "did you mean 'circle'"),
        ({"include": [_clause("giraffe")]}, "it knows: circle, square, triangle, cross, ring"),
        ({"include": [_clause("circle", color="mauve")]}, "include[0].color 'mauve'"),
        ({"include": [CIRCLES], "exclude": [_clause("dog")]}, "exclude[0].class 'dog'"),
    ],
)
def test_what_the_detector_cannot_see_is_an_item_error(
    target: dict[str, Any], message: str
) -> None:
    outcome = _score(target)
    assert isinstance(outcome, Failed)
    assert message in outcome.message


def test_one_bad_item_leaves_the_others_scored() -> None:
    good = GenEvalTarget.model_validate({"include": [CIRCLES, SQUARE]})
    bad = GenEvalTarget.model_validate({"include": [_clause("giraffe")]})
    items = [
        ScorerItem("", render(SCENE, size), target, CountingOptions())
        for size, target in [(32, good), (32, bad), (12, good), (64, good)]
    ]
    outcomes = CountingScorer().score(items)
    assert [type(o) for o in outcomes] == [Scored, Failed, Failed, Scored]
    assert isinstance(outcomes[2], Failed)
    assert "12x12 px" in outcomes[2].message


def test_the_registry_leads_to_this_scorer() -> None:
    assert load("reward_server.scorers.counting:CountingScorer") is CountingScorer
