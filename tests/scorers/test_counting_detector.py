"""Promise: `counting` judges with any detector or segmenter that transformers loads, and explains
what it cannot load or see.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from transformers import EomtConfig, ResNetConfig

from reward_server.__main__ import main
from reward_server.domain.outcomes import Failed, Outcome, Scored
from reward_server.scorers import Scorer, ScorerItem, UnknownScorer, load
from reward_server.scorers.labels import spoken
from reward_server.scorers.metadata import GenEvalTarget
from reward_server.scorers.published_input import published_input, published_size
from shared.client import build_request
from shared.schema import Json
from tests.support.server_setup import ENV, running
from tests.support.tiny_detectors import PICTURES, SIDE, draw, save_detector, save_segmenter

CLASS = "reward_server.scorers.detector:DetectorScorer"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small DETR that knows ``PICTURES`` by heart."""
    made = tmp_path_factory.mktemp("detector")
    save_detector(made)
    return made


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """The environment of a server that counts with it."""
    choose(monkeypatch, model=str(folder))


def choose(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    """Set the detector's environment for this process and for servers; it is read at import."""
    for name, value in values.items():
        monkeypatch.setenv(f"REWARD_DETECTOR_{name.upper()}", value)
        monkeypatch.setitem(ENV, f"REWARD_DETECTOR_{name.upper()}", value)
    monkeypatch.delitem(sys.modules, "reward_server.scorers.detector", raising=False)


def score(number: int, *clauses: Json, mode: str = "strict", tag: str | None = None) -> Outcome:
    """The outcome for one of ``PICTURES``."""
    scorer: Scorer = load(CLASS)()
    item = ScorerItem(
        "",
        draw(PICTURES[number]),
        GenEvalTarget.model_validate({"include": list(clauses), "tag": tag}),
        scorer.options.model_validate({"mode": mode}),
    )
    (outcome,) = scorer.score([item])
    return outcome


def reward(outcome: Outcome) -> float:
    assert isinstance(outcome, Scored), outcome
    return outcome.reward


@pytest.mark.usefixtures("chosen")
def test_it_finds_what_is_there_and_how_many() -> None:
    assert reward(score(0, {"class": "apple", "count": 1})) == 1.0
    assert reward(score(1, {"class": "apple", "count": 2})) == 1.0
    assert reward(score(1, {"class": "apple", "count": 1})) == 0.0
    assert reward(score(1, {"class": "apple", "count": 4}, mode="soft")) == 0.5
    assert reward(score(2, {"class": "apple", "count": 2}, {"class": "mouse"})) == 1.0
    outcome = score(1, {"class": "apple", "count": 2})
    assert isinstance(outcome, Scored)
    found = sorted(one["box"] for one in outcome.detail["objects"])  # type: ignore[index, union-attr]
    boxes = sorted(box for _, _, box in PICTURES[1])
    for got, drawn in zip(found, boxes, strict=True):
        assert got == pytest.approx(drawn, abs=3)


@pytest.mark.usefixtures("chosen")
def test_it_names_colours_by_the_palette() -> None:
    red, blue = {"class": "apple", "color": "red"}, {"class": "apple", "color": "blue"}
    assert reward(score(0, red)) == 1.0
    assert reward(score(0, blue)) == 0.0
    assert reward(score(2, red, blue, {"class": "mouse", "color": "blue"})) == 1.0


@pytest.mark.usefixtures("chosen")
def test_it_takes_geneval_metadata_as_it_is() -> None:
    assert reward(score(2, {"class": "apple", "count": 2}, {"class": "computer mouse"})) == 1.0


def test_a_counting_prompt_asks_for_more_confidence(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    choose(monkeypatch, model=str(folder), counting_threshold="0.99999")
    assert reward(score(0, {"class": "apple"})) == 1.0
    assert reward(score(0, {"class": "apple"}, tag="counting")) == 0.0


@pytest.mark.usefixtures("chosen")
def test_a_class_the_model_does_not_know_is_named_with_its_neighbours() -> None:
    outcome = score(0, {"class": "aple"})
    assert isinstance(outcome, Failed)
    assert "include[0].class 'aple'" in outcome.message
    assert "did you mean 'apple'" in outcome.message
    assert "it knows: apple, mouse" in outcome.message
    assert isinstance(score(0, {"class": "N/A"}), Failed)


def test_a_segmenter_gives_objects_of_its_labels_inside_each_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_segmenter(tmp_path)
    choose(monkeypatch, model=str(tmp_path), threshold="0.01")
    detector = load(CLASS)()._detector
    small, large = draw(PICTURES[0]), draw(PICTURES[2]).repeat(2, axis=0)
    found = detector.detect([large, small, large])
    assert len(found) == 3 and all(found)
    for one, again in zip(found[0], found[2], strict=True):
        assert (one.name, one.box) == (again.name, again.box)
        assert one.confidence == pytest.approx(again.confidence, abs=1e-6)
    for objects, height in zip(found, (2 * SIDE, SIDE, 2 * SIDE), strict=True):
        for one in objects:
            x0, y0, x1, y1 = one.box
            assert one.name in detector.classes
            assert 0 <= x0 < x1 <= SIDE and 0 <= y0 < y1 <= height
            assert 0.01 <= one.confidence <= 1


@pytest.mark.usefixtures("chosen")
def test_a_server_counts_with_it_when_told_to(tmp_path: Path) -> None:
    targets = [{"include": [{"class": "apple", "count": n}]} for n in (1, 2, 3)]
    images = [draw(PICTURES[1])] * 3
    options = {"mode": "strict"}
    with (
        running(tmp_path / "data", "--scorer", f"counting={CLASS}") as server,
        server.client() as client,
    ):
        info = {one.name: one for one in client.info().rewards}
        model, classes = info["counting"].model, info["counting"].classes
        request = build_request("counting", ["a"] * 3, images, targets=targets, options=options)
        assert client.score(request).rewards == [0.0, 1.0, 0.0]
        assert model.startswith("counting/")
        assert classes == ["apple", "computer mouse", "mouse"]
        assert info["ocr"].classes is None


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No model hub is asked."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    yield


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("nobody/nothing", ("REWARD_DETECTOR_MODEL=nobody/nothing on cpu", "save_pretrained")),
        ("resnet", ("a 'resnet' model finds no objects", "RT-DETR")),
    ],
)
def test_a_model_that_cannot_be_used_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, words: tuple[str, ...]
) -> None:
    if model == "resnet":
        ResNetConfig().save_pretrained(tmp_path)
    choose(monkeypatch, model=str(tmp_path) if model == "resnet" else model)
    with pytest.raises(UnknownScorer) as caught:
        load(CLASS)()
    for word in words:
        assert word in str(caught.value)


def test_a_server_does_not_start_without_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(tmp_path), "--port", "0", "--scorer", f"counting={CLASS}"]
    monkeypatch.delenv("REWARD_DETECTOR_MODEL", raising=False)
    choose(monkeypatch)
    assert main(arguments) == 2
    assert "REWARD_DETECTOR_MODEL: Field required" in capsys.readouterr().err
    choose(monkeypatch, model=str(tmp_path / "gone"))
    assert main(arguments) == 2
    assert f"{tmp_path / 'gone'}: no config.json in that folder" in capsys.readouterr().err
    choose(monkeypatch, model="some/model")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(arguments) == 2
    assert "needs torch: pip install 'tdm-r1[detector]'" in capsys.readouterr().err


VOC = {
    "couch": "sofa",
    "airplane": "aeroplane",
    "motorcycle": "motorbike",
    "potted plant": "pottedplant",
    "dining table": "diningtable",
    "tv": "tvmonitor",
}


def test_a_class_is_asked_by_any_of_its_names() -> None:
    words = spoken(VOC.values())
    assert {asked: words[asked] for asked in VOC} == VOC
    assert spoken(["Dining Table"])["diningtable"] == "Dining Table"
    assert spoken(["mouse"])["computer mouse"] == "mouse"
    animals = spoken(["mouse", "computer mouse"])
    assert (animals["mouse"], animals["computer mouse"]) == ("mouse", "computer mouse")


def test_a_segmenter_whose_instances_are_not_read_is_refused_at_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    EomtConfig().save_pretrained(tmp_path)
    choose(monkeypatch, model=str(tmp_path))
    with pytest.raises(UnknownScorer, match="of a 'eomt' model are not read here"):
        load(CLASS)()


@pytest.mark.parametrize(
    ("size", "resized", "padded"),
    [
        ((512, 512), (800, 800), (800, 800)),
        ((1024, 1024), (800, 800), (800, 800)),
        ((512, 768), (800, 1200), (800, 1216)),
        ((1200, 400), (1333, 444), (1344, 448)),
    ],
)
def test_a_segmenter_can_see_pictures_as_the_published_one_did(
    size: tuple[int, int], resized: tuple[int, int], padded: tuple[int, int]
) -> None:
    image = np.full((*size, 3), (255, 0, 0), np.uint8)
    assert published_size(size) == resized
    seen = published_input(image)
    assert seen.shape == (3, *padded)
    assert seen[:, 0, 0] == pytest.approx([2.2489, -2.0357, -1.8044], abs=1e-4)
    assert not seen[:, resized[0] :].any() and not seen[:, :, resized[1] :].any()


def test_instances_of_padded_pictures_lie_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_segmenter(tmp_path)
    monkeypatch.setattr("reward_server.scorers.published_input.LONGER", 100)
    monkeypatch.setattr("reward_server.scorers.published_input.SHORTER", 72)
    choose(monkeypatch, model=str(tmp_path), threshold="0.01", input="geneval")
    detector = load(CLASS)()._detector
    corner = np.zeros((1, 1, 24, 32))
    corner[..., :9, :12] = 1  # of the picture's 18 x 25 of the network's 24 x 32
    detector._torch.manual_seed(0)
    assert all(detector.detect([draw(PICTURES[0])[:23]]))
    whole, inside = detector._seen
    assert (tuple(whole), inside) == ((96, 128), (72, 100))
    mask = detector._torch.from_numpy(corner - 0.5)
    ys, xs = np.nonzero((detector._enlarged(mask, (36, 50))[0, 0] > 0).numpy())
    assert (ys.max() + 1, xs.max() + 1) == (18, 24)
    with pytest.raises(UnknownScorer, match="Mask2Former alone"):
        save_detector(tmp_path / "detr", most_steps=1)
        choose(monkeypatch, model=str(tmp_path / "detr"), input="geneval")
        load(CLASS)()
