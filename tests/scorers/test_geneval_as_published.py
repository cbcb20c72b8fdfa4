"""Promise: the profiles of `counting` give the verdicts of GenEval's evaluator and of flow_grpo's
reward server, detection for detection.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from reward_server.scorers import Failed, Outcome, Scored, ScorerItem
from reward_server.scorers.counting import CountingOptions, CountingScorer, JudgeOptions
from reward_server.scorers.geneval import DetectedObject, judge
from reward_server.scorers.metadata import GenEvalTarget
from reward_server.scorers.published import counted, server_verdict
from shared.images import Pixels
from tests.support.detections import COLORS, detections

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "trainer/photos/prompts/photos.train.jsonl").read_text().splitlines()
GOLDEN = json.loads((Path(__file__).parent / "golden/geneval_verdicts.json").read_text())
PHOTO = np.zeros((512, 512, 3), np.uint8)


class Told(CountingScorer):
    """Judges with the thresholds of GenEval what it is told to have detected."""

    class _Detector:
        classes = ("dog", "cat", "couch", "bed")
        colors = tuple(COLORS)

        def __init__(self, objects: list[DetectedObject]) -> None:
            self._objects = objects

        def detect(self, images: Sequence[Pixels]) -> list[list[DetectedObject]]:
            return [self._objects for _ in images]

    def __init__(self, objects: list[DetectedObject]) -> None:
        self._detector = self._Detector(objects)

    def _least(self, target: GenEvalTarget) -> float:
        return 0.9 if target.tag == "counting" else 0.3


def ask(objects: list[DetectedObject], target: dict[str, Any], **options: Any) -> Outcome:
    chosen: JudgeOptions = CountingOptions.model_validate(options)
    item = ScorerItem("", PHOTO, GenEvalTarget.model_validate(target), chosen)
    return Told(objects).score([item])[0]


def reward(objects: list[DetectedObject], target: dict[str, Any], **options: Any) -> float:
    outcome = ask(objects, target, **options)
    assert isinstance(outcome, Scored), outcome
    return outcome.reward


def thing(name: str, place: float = 0, confidence: float = 0.95) -> DetectedObject:
    return DetectedObject(name, "white", (place, 0, place + 25, 25), confidence)


def test_every_line_is_judged_as_the_published_code_judges_it() -> None:
    wrong = []
    for number, (line, expected) in enumerate(zip(LINES, GOLDEN["verdicts"], strict=True)):
        target = GenEvalTarget.model_validate_json(line)
        found = detections(json.loads(line), number)
        kept = counted(found, 0.9 if target.tag == "counting" else 0.3)
        server = server_verdict(target, kept)
        got = [int(judge(target, kept, "geneval").passed), int(server.strict), server.score]
        if got != pytest.approx(expected, abs=1e-8):
            wrong.append((number, line, got, expected))
    assert wrong == []
    correct, strict, _ = zip(*GOLDEN["verdicts"], strict=True)
    assert 0.3 < sum(correct) / len(LINES) < 0.9 and 0 < sum(strict) < sum(correct)


ONE_OF_EACH = {"include": [{"class": "dog", "count": 1}, {"class": "cat", "count": 1}]}


def test_surplus_passes_the_evaluator_and_costs_the_reward_servers_score() -> None:
    objects = [*(thing("dog", 30 * i) for i in range(5)), thing("cat", 200)]
    assert reward(objects, ONE_OF_EACH, profile="geneval", mode="strict") == 1.0
    assert reward(objects, ONE_OF_EACH, profile="geneval") == 1.0
    assert reward(objects, ONE_OF_EACH, profile="flow_grpo", mode="strict") == 0.0
    assert reward(objects, ONE_OF_EACH, profile="flow_grpo") == -1.0
    outcome = ask(objects, ONE_OF_EACH, profile="flow_grpo")
    assert isinstance(outcome, Scored)
    published = {key: outcome.detail[key] for key in ("correct", "strict_correct", "score")}
    assert published == {"correct": True, "strict_correct": False, "score": -1.0}


def test_two_classes_on_one_box_are_both_there() -> None:
    target = {"include": [{"class": "couch"}, {"class": "bed"}], "tag": "two_object"}
    objects = [thing("bed", confidence=0.55), thing("couch", confidence=0.41)]
    assert reward(objects, target, profile="geneval", mode="strict") == 1.0
    assert reward(objects, target, profile="flow_grpo") == 1.0


@pytest.mark.parametrize(("tag", "least"), [("single_object", 0.3), ("counting", 0.9)])
def test_an_object_counts_above_its_threshold_only(tag: str, least: float) -> None:
    target = {"include": [{"class": "dog"}], "tag": tag}
    for confidence, expected in ((least, 0.0), (least + 1e-7, 1.0)):
        objects = [thing("dog", confidence=confidence)]
        assert reward(objects, target, profile="geneval", mode="strict") == expected


def test_at_most_sixteen_of_a_class_are_looked_at_and_later_ones_first_among_equals() -> None:
    many = [thing("dog", 30 * i) for i in range(20)]
    assert [one.box[0] for one in counted(many, 0.3)] == [30 * i for i in range(19, 3, -1)]
    target = {
        "include": [{"class": "dog", "count": 16}],
        "exclude": [{"class": "dog", "count": 17}],
    }
    assert reward(many, target, profile="geneval", mode="strict") == 1.0


def test_clauses_of_one_class_share_objects_where_a_profile_says_so() -> None:
    twice = {
        "include": [{"class": "dog"}, {"class": "dog"}],
        "exclude": [{"class": "dog", "count": 2}],
    }
    assert reward([thing("dog")], twice, profile="geneval", mode="strict") == 1.0
    assert reward([thing("dog")], twice, match="geneval", mode="strict") == 1.0
    outcome = ask([thing("dog")], twice)
    assert isinstance(outcome, Failed)
    assert "exclude[0] forbids 2 or more 'dog', but include asks for 2" in outcome.message


def test_keys_of_other_tools_are_accepted_and_misspelt_ones_are_not() -> None:
    target = ONE_OF_EACH | {"id": 7, "source": "somewhere", "exclude": []}
    assert reward([thing("dog"), thing("cat", 90)], target) == 1.0
    for wrong, right in (("excludes", "exclude"), ("inclued", "include")):
        with pytest.raises(ValidationError, match=f"did you mean '{right}'"):
            GenEvalTarget.model_validate({wrong: [{"class": "dog"}]})


def test_a_profile_has_its_own_rule() -> None:
    with pytest.raises(ValidationError, match="leave match 'scene' out"):
        CountingOptions.model_validate({"profile": "geneval", "match": "scene"})
