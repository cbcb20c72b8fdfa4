"""The counting reward for photos: any detector or instance segmenter that ``transformers`` loads.

    pip install 'tdm-r1[server,detector]'
    REWARD_DETECTOR_MODEL=PekingU/rtdetr_r50vd python -m reward_server \\
        --scorer counting=reward_server.scorers.detector:DetectorScorer

Whoever runs the server chooses the model by environment variables (see ``Choice``). The judge and
the two thresholds are GenEval's (arXiv:2310.11513, which counts the instances of a Mask2Former);
colours are not: GenEval asks CLIP, here the median colour of an object's mask, or of the middle of
its box, is compared with a palette, and an object of no clear colour has none.
"""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from reward_server.scorers import UnknownScorer
from reward_server.scorers.counting import CountingScorer, Detector, JudgeOptions
from reward_server.scorers.geneval import DetectedObject
from reward_server.scorers.labels import UNNAMED, hub_or_folder, spoken, words_of
from reward_server.scorers.metadata import GenEvalTarget
from reward_server.scorers.published_input import published_input, published_size
from reward_server.scorers.shapes import PALETTE, background_color, nearest_color
from shared.images import Pixels

PREFIX: Final = "REWARD_DETECTOR_"
MODELS: Final = "an object detector (RT-DETR, DETR) or an instance segmenter (Mask2Former)"
SEGMENTERS: Final = ("mask2former", "maskformer")
"""Model types whose instances are read; EoMT's and OneFormer's processors work differently."""
SAME_BOX: Final = 0.9
"""Intersection over union from which two boxes are one object, named by the surer class."""
MIDDLE: Final = 0.25
"""Share of a box's width and height on each side that is left out when its colour is named."""


class Choice(BaseSettings):
    """``REWARD_DETECTOR_MODEL``: a model id or a folder. ``_DEVICE``: as torch names it.

    An object counts above a confidence of ``threshold``; in a target tagged ``counting`` above
    ``counting_threshold`` (both as in GenEval). ``input``: how pictures are prepared, as the
    model's own files say or as GenEval's detector saw them.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    model: str
    device: str = "cpu"
    threshold: float = Field(default=0.3, gt=0, lt=1)
    counting_threshold: float = Field(default=0.9, gt=0, lt=1)
    input: Literal["own", "geneval"] = "own"


def _choice() -> Choice:
    missing = [name for name in ("torch", "transformers") if not importlib.util.find_spec(name)]
    if missing:
        raise UnknownScorer(
            f"counting with a neural detector needs {' and '.join(missing)}: "
            "pip install 'tdm-r1[detector]'"
        )
    try:
        choice = Choice()
    except ValidationError as error:
        wrong = [
            f"{PREFIX}{''.join(str(part) for part in one['loc']).upper()}: {one['msg']}"
            for one in error.errors(include_input=False)
        ]
        text = f"the detector is set up by environment variables: {'; '.join(wrong)}"
        raise UnknownScorer(text) from None
    folder = Path(choice.model)
    is_id = choice.model.count("/") <= 1 and not choice.model.startswith((".", "/"))
    if (folder.is_dir() or not is_id) and not (folder / "config.json").is_file():
        raise UnknownScorer(
            f"{PREFIX}MODEL={choice.model}: no config.json in that folder; give the folder that "
            "save_pretrained wrote, or a model id such as PekingU/rtdetr_r50vd"
        )
    return choice


class DetectorOptions(JudgeOptions):
    """``backend``: what this server counts with; naming another one is refused."""

    backend: Literal["detector"] = "detector"


class DetectorScorer(CountingScorer):
    """The counting reward with the model of ``Choice``, a whole batch at a time."""

    choice: ClassVar[Choice] = _choice()
    model: ClassVar[str] = f"counting/{choice.model}"
    backend: ClassVar[str] = "detector"
    options = DetectorOptions
    classes: ClassVar[tuple[str, ...] | None] = words_of(choice.model)

    def _load(self) -> Detector:
        return NeuralDetector(self.choice)

    def _named(self, target: GenEvalTarget) -> GenEvalTarget:
        words = spoken(self._detector.classes)

        def translate(clauses: Sequence[Any]) -> tuple[Any, ...]:
            return tuple(c.model_copy(update={"name": words.get(c.name, c.name)}) for c in clauses)

        parts = {"include": translate(target.include), "exclude": translate(target.exclude)}
        return target.model_copy(update=parts)

    def _least(self, target: GenEvalTarget) -> float:
        counting = target.tag == "counting"
        return self.choice.counting_threshold if counting else self.choice.threshold

    def _things(self, found: list[DetectedObject], target: GenEvalTarget) -> list[DetectedObject]:
        least = self._least(target)
        return _distinct([one for one in found if one.confidence > least])


class NeuralDetector:
    """A model with its own preprocessing, for inference only.

    Raises:
        UnknownScorer: there is no such model, or it neither detects nor segments.
    """

    colors = tuple(PALETTE)

    def __init__(self, choice: Choice) -> None:
        import torch
        from transformers import AutoImageProcessor

        self._torch = torch
        self._device = choice.device
        self._as_published = choice.input == "geneval"
        self._seen: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
        self._least = min(choice.threshold, choice.counting_threshold)
        try:
            name, revision = hub_or_folder(choice.model)
            self._model, self._segments = _model(name, revision)
            if choice.input == "geneval" and not self._segments:
                raise ValueError(f"{PREFIX}INPUT=geneval is for Mask2Former alone")
            # The same pixels whether or not torchvision is installed.
            self._processor = AutoImageProcessor.from_pretrained(
                name, revision=revision, backend="pil"
            )
            self._model.to(choice.device).eval()
        except (OSError, ValueError, ImportError, RuntimeError) as error:
            why = str(error).strip().partition("\n")[0]
            raise UnknownScorer(
                f"{PREFIX}MODEL={choice.model} on {choice.device}: {why}. Give a model id of "
                f"{MODELS}, or the folder that save_pretrained wrote"
            ) from error
        labels = self._model.config.id2label
        self._names = {int(key): str(name) for key, name in labels.items()}
        self.classes = tuple(name for name in self._names.values() if name != UNNAMED)

    def detect(self, images: Sequence[Pixels]) -> list[list[DetectedObject]]:
        """The detections of each picture from the lower threshold on, in the model's order."""
        by_size: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, image in enumerate(images):
            by_size[image.shape].append(index)
        found: dict[int, list[DetectedObject]] = {}
        for indices in by_size.values():
            batch = self._detect([images[i] for i in indices])
            found.update(zip(indices, batch, strict=True))
        return [found[i] for i in range(len(images))]

    def _detect(self, images: list[Pixels]) -> list[list[DetectedObject]]:
        """Pictures of one size: padding among different ones would move the masks."""
        named = set(self.classes)
        with self._torch.inference_mode():
            outputs = self._model(**self._inputs(images))
            sizes = [image.shape[:2] for image in images]
            read = self._instances if self._segments else self._boxes
            return [
                [self._object(image, *one) for one in instances if self._names[one[0]] in named]
                for image, instances in zip(images, read(outputs, sizes), strict=True)
            ]

    def _inputs(self, images: list[Pixels]) -> Any:
        """What the network sees; ``_seen`` is its size and that of the picture in its corner."""
        if self._as_published:
            pixels = np.stack([published_input(image) for image in images])
            self._seen = pixels.shape[2:], published_size(images[0].shape[:2])
            return {"pixel_values": self._torch.from_numpy(pixels).to(self._device)}
        inputs = self._processor(images=images, return_tensors="pt").to(self._device)
        whole = tuple(inputs["pixel_values"].shape[2:])
        seen = inputs.get("pixel_mask")
        inside = whole if seen is None else (int(seen[0].any(1).sum()), int(seen[0].any(0).sum()))
        self._seen = whole, inside
        return inputs

    def _boxes(self, outputs: Any, sizes: list[tuple[int, ...]]) -> list[list[tuple[Any, ...]]]:
        """(label, confidence, box, mask) of each instance: the mask is the middle of its box."""
        results = self._processor.post_process_object_detection(
            outputs, threshold=self._least, target_sizes=sizes
        )
        return [
            [
                (int(label), float(score), tuple(box), _middle(box, size))
                for label, score, box in zip(
                    one["labels"], one["scores"], one["boxes"].tolist(), strict=True
                )
            ]
            for one, size in zip(results, sizes, strict=True)
        ]

    def _instances(self, outputs: Any, sizes: list[tuple[int, ...]]) -> list[list[tuple[Any, ...]]]:
        """(label, confidence, box, mask) of each instance: the box is that of its mask.

        As the published detector makes them: pairs of query and class by probability, as many as
        queries; masks enlarged as logits; confidence is the class's times the mask's mean.
        """
        found = []
        both = (outputs.class_queries_logits, outputs.masks_queries_logits, sizes)
        for logits, coarse, size in zip(*both, strict=True):
            masks = self._enlarged(coarse[None], size)[0]
            named = logits.softmax(-1)[:, :-1]
            likely, pairs = named.flatten().topk(len(named))
            instances = []
            for p, pair in zip(likely.tolist(), pairs.tolist(), strict=True):
                query, label = divmod(pair, named.shape[1])
                inside = masks[query] > 0
                sure = float(masks[query].sigmoid()[inside].sum() / (inside.sum() + 1e-6))
                if p * sure > self._least:
                    mask = inside.cpu().numpy()
                    instances.append((label, p * sure, _bounds(mask), mask))
            found.append(instances)
        return found

    def _enlarged(self, masks: Any, size: tuple[int, ...]) -> Any:
        """Mask logits (1, Q, h, w) at a picture's size, without the padding that was seen."""
        enlarge = partial(
            self._torch.nn.functional.interpolate, mode="bilinear", align_corners=False
        )
        whole, (height, width) = self._seen
        return enlarge(enlarge(masks, size=whole)[..., :height, :width], size=tuple(size))

    def _object(
        self,
        image: Pixels,
        label: int,
        score: float,
        box: tuple[float, float, float, float],
        mask: NDArray[np.bool_],
    ) -> DetectedObject:
        color = None
        if mask.any():
            median = np.median(image[mask].astype(np.float32), axis=0)
            color = nearest_color(median, background_color(image))
        return DetectedObject(self._names[label], color, box, score)


def _model(name: str, revision: str) -> tuple[Any, bool]:
    """The model, whose weights must be safetensors, and whether it segments."""
    from transformers import (
        MODEL_FOR_OBJECT_DETECTION_MAPPING,
        MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING,
        AutoConfig,
        AutoModelForObjectDetection,
        AutoModelForUniversalSegmentation,
    )

    config = AutoConfig.from_pretrained(name, revision=revision)
    choice = {"revision": revision, "use_safetensors": True}
    if type(config) in MODEL_FOR_OBJECT_DETECTION_MAPPING:
        return AutoModelForObjectDetection.from_pretrained(name, **choice), False
    if config.model_type in SEGMENTERS:
        return AutoModelForUniversalSegmentation.from_pretrained(name, **choice), True
    if type(config) in MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING:
        raise ValueError(
            f"the instances of a {config.model_type!r} model are not read here, only those of "
            + " and ".join(SEGMENTERS)
        )
    raise ValueError(f"a {config.model_type!r} model finds no objects")


def _middle(box: Sequence[float], size: tuple[int, ...]) -> NDArray[np.bool_]:
    """The middle of a box as a mask of the picture (H, W); empty for a box outside of it."""
    x0, y0, x1, y1 = box
    dx, dy = MIDDLE * (x1 - x0), MIDDLE * (y1 - y0)
    mask = np.zeros(size, dtype=np.bool_)
    rows = slice(max(0, round(y0 + dy)), max(0, round(y1 - dy) + 1))
    mask[rows, max(0, round(x0 + dx)) : max(0, round(x1 - dx) + 1)] = True
    return mask


def _bounds(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    ys, xs = np.nonzero(mask)
    return float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1)


def _distinct(objects: list[DetectedObject]) -> list[DetectedObject]:
    """One object per place: detectors may name one box twice, and a thing is counted once."""
    kept: list[DetectedObject] = []
    for one in sorted(objects, key=lambda o: -o.confidence):
        if all(_overlap(one.box, other.box) < SAME_BOX for other in kept):
            kept.append(one)
    return kept


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0.0) * max(height, 0.0)
    either = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    return both / either if either > 0 else 0.0
