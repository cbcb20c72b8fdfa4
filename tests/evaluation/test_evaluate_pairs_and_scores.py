"""Evaluation: same prompts and noise for all models, scores from the server, nothing made up."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from shared.images import encode_png, to_b64
from shared.schema import MAX_BODY_BYTES, MAX_ITEMS
from tests.support.evaluation_setup import FunctionAsServer, truth
from trainer.config import PromptSet, load_config, with_overrides
from trainer.errors import PromptError
from trainer.evaluation.evaluate import (
    EvaluationSettings,
    Gallery,
    Policy,
    batches,
    evaluate,
    per_request,
)
from trainer.evaluation.measure import sampling
from trainer.evaluation.prompts import (
    TEXT,
    EvalImage,
    fingerprint,
    images,
    read_prompts,
)
from trainer.evaluation.results import (
    OVERALL,
    START,
    TEACHER,
    TRAINED,
    Evaluation,
    EvaluationError,
    Row,
    load,
    require_sampling,
    require_weights,
    save,
    table,
    weight_hashes,
)
from trainer.rewards.groups import Prompt as GroupPrompt
from trainer.tiny.heldout import COLUMNS, embedded_prompts, heldout_prompts
from trainer.tiny.judge import verdict
from trainer.tiny.scenes import Scene, render
from trainer.tiny.world import TAGS, Prompt, Wanted, sample_scene, split

SETTINGS = EvaluationSettings(images_per_tag=6, signs=4, batch=4)
LATENTS = (2, 4, 4)


def _paint(pictures: list[np.ndarray[Any, Any]]) -> Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


def _prompt_of(caption: str) -> Prompt:
    tags = embedded_prompts()
    found = next(p for pool in tags.values() for p in pool if p.text == caption)
    target = found.target or {}
    include = target.get("include", [])
    if found.tag == TEXT:
        return Prompt(TEXT, word=target["text"])
    relation = next((c["position"][0] for c in include if "position" in c), None)
    wanted = [Wanted(c["class"], c.get("color"), c["count"]) for c in include]
    return Prompt(found.tag, tuple(wanted[::-1] if relation else wanted), relation)


def painter(skill: float) -> Callable[[Tensor, Sequence[str]], Tensor]:
    """A model that draws what was asked when its noise says so, and nothing otherwise."""

    def sample(noise: Tensor, prompts: Sequence[str]) -> Tensor:
        pictures = []
        for x, caption in zip(noise, prompts, strict=True):
            lucky = float(torch.special.ndtr(x.flatten()[0])) < skill
            scene = sample_scene(_prompt_of(caption), random.Random(int(x[0, 0, 0] * 1e6)))
            pictures.append(render(scene if lucky else Scene("gray")))
        return _paint(pictures)

    return sample


def _run(server: FunctionAsServer, **skills: float) -> Evaluation:
    policies = [Policy(name, name, 4, LATENTS, painter(skill)) for name, skill in skills.items()]
    gallery = Gallery(per_tag=2)
    with server.client() as client:
        return evaluate(
            policies, embedded_prompts(), client, SETTINGS, {"w": "1"}, gallery, judge=verdict
        )


def test_every_image_is_scored_strictly_by_the_server_and_kept() -> None:
    server = FunctionAsServer(truth)
    result = _run(server, start=0.5, trained=1.0)
    assert set(result.rows) == {START, TRAINED}
    trained = result.rows[TRAINED]
    assert {t: len(v) for t, v in trained.scores.items()} == {**dict.fromkeys(TAGS, 6), TEXT: 4}
    assert all(v == 1 for t in TAGS for v in trained.scores[t])
    assert trained.scores[TEXT] == [2 / 3] * 4
    assert set(trained.second) == set(TAGS)
    assert result.scorers == {"counting": "counting/test", "ocr": "ocr/test"}
    modes = {r["reward"]: r.get("options") for r in server.requests}
    assert modes == {"counting": {"mode": "strict"}, "ocr": {"case": "insensitive"}}
    assert {r["run_id"] for r in server.requests} == {"evaluation"}


def test_all_models_meet_the_same_prompts_and_noise() -> None:
    # A better painter succeeds wherever a worse one does only if both got the same noise.
    rows = _run(FunctionAsServer(truth), start=0.4, trained=0.8).rows
    for tag in TAGS:
        pairs = list(zip(rows[START].scores[tag], rows[TRAINED].scores[tag], strict=True))
        assert all((a or 0) >= (b or 0) for b, a in pairs)
    passed = {n: sum((v or 0) for t in TAGS for v in row.scores[t]) for n, row in rows.items()}
    assert passed[START] < passed[TRAINED]


def test_a_failed_score_is_missing_and_not_zero() -> None:
    calls: list[int] = []

    def flaky(item: dict[str, Any]) -> float | None:
        calls.append(1)
        return None if len(calls) % 3 == 0 else 1.0

    row = _run(FunctionAsServer(flaky), trained=1.0).rows[TRAINED]
    values = [v for scores in row.scores.values() for v in scores]
    assert None in values
    assert {v for v in values if v is not None} == {1.0}
    cells = table(_stored({TRAINED: row})).rows[TRAINED]
    assert cells[OVERALL].value == 1.0
    assert cells[OVERALL].n < 6 * len(TAGS)


def test_a_tag_nobody_could_score_is_an_error_not_an_empty_cell() -> None:
    with pytest.raises(EvaluationError, match="none of the 6 images of tag 'single_object'"):
        _run(FunctionAsServer(lambda item: None), trained=1.0)


def test_a_server_without_the_rewards_is_refused_before_any_work() -> None:
    server = FunctionAsServer(truth, rewards=("human",))
    with pytest.raises(EvaluationError, match=r"no reward counting, ocr.*human"):
        _run(server, trained=1.0)
    assert server.requests == []


def test_the_pictures_kept_for_the_report_are_the_first_not_the_best() -> None:
    gallery = Gallery(per_tag=2)
    with FunctionAsServer(truth).client() as client:
        policies = [Policy(TRAINED, "TDM-R1", 4, LATENTS, painter(0.5))]
        evaluate(policies, embedded_prompts(), client, SETTINGS, {}, gallery)
    assert set(gallery.pictures) == {(TRAINED, tag, i) for tag in COLUMNS for i in (0, 1)}


def test_evaluation_prompts_are_held_out_and_plenty() -> None:
    prompts = embedded_prompts()
    assert tuple(prompts) == COLUMNS
    assert all(len(pool) >= 100 for pool in prompts.values())
    for pool in prompts.values():
        assert len({p.text for p in pool}) == len(pool)
    signs = [Prompt(TEXT, word=(p.target or {})["text"]) for p in prompts[TEXT]]
    assert all(split(sign) == "heldout" for sign in signs)


def test_fewer_images_are_a_prefix_of_more() -> None:
    few, many = (images(embedded_prompts(), n, n) for n in (250, 500))
    for tag in COLUMNS:
        a = [i for i in few if i.prompt.tag == tag]
        b = [i for i in many if i.prompt.tag == tag]
        assert a == b[:250]
    noises = [i.noise((2, 2), 0) for i in few[:40]]
    assert len({tuple(n.flatten().tolist()) for n in noises}) == 40
    assert torch.equal(few[3].noise((2, 2), 5), many[3].noise((2, 2), 5))


def _stored(rows: dict[str, Row], **changes: Any) -> Evaluation:
    fields: dict[str, Any] = {
        "seed": 0,
        "prompts_sha256": "p",
        "prompt_counts": dict.fromkeys(COLUMNS, 6),
        "weights": {"a.safetensors": "1"},
        "scorers": {},
        "versions": {},
    }
    return Evaluation(rows=rows, **{**fields, **changes})


def _row(value: float, n: int = 6) -> Row:
    scores: dict[str, list[float | None]] = {tag: [value] * n for tag in TAGS}
    return Row(label="x", nfe=4, scores={**scores, TEXT: [0.123456] * n}, second=scores)


def test_results_survive_the_file_and_stay_small(tmp_path: Path) -> None:
    stored = _stored({TEACHER: _row(1.0, 500)})
    save(stored, tmp_path / "eval.json")
    again = load(tmp_path / "eval.json")
    assert again.rows[TEACHER].scores["colors"] == [1.0] * 500
    assert again.rows[TEACHER].scores[TEXT][0] == pytest.approx(0.123456, abs=1e-4)
    assert (tmp_path / "eval.json").stat().st_size < 20_000
    missing = _row(1.0).model_copy(update={"scores": {"colors": [1.0, None, 0.0]}})
    save(_stored({START: missing}), tmp_path / "eval.json")
    assert load(tmp_path / "eval.json").rows[START].scores["colors"] == [1.0, None, 0.0]


def test_stored_rows_of_other_weights_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "vae").mkdir()
    weights = tmp_path / "vae" / "model.safetensors"
    weights.write_bytes(b"before")
    stored = _stored({TEACHER: _row(1.0)}, weights=weight_hashes(tmp_path))
    require_weights(stored, tmp_path, tmp_path / "eval.json")
    weights.write_bytes(b"after")
    with pytest.raises(EvaluationError, match=r"differing: vae/model.safetensors.*trainer eval"):
        require_weights(stored, tmp_path, tmp_path / "eval.json")


@pytest.mark.parametrize(
    "change", [{"weights": {"a.safetensors": "2"}}, {"prompts_sha256": "q"}, {"seed": 1}]
)
def test_rows_that_cannot_be_compared_are_not_joined(change: dict[str, Any]) -> None:
    ours, theirs = _stored({START: _row(0.0)}), _stored({TRAINED: _row(1.0)}, **change)
    with pytest.raises(EvaluationError, match=f"different {next(iter(change))}"):
        ours.joined(theirs)


def test_differences_are_paired_and_agreement_counts_equal_verdicts() -> None:
    after, before = _row(1.0, 50), _row(0.0, 50)
    disagreeing = {t: [0.0, *v[1:]] for t, v in after.second.items()}
    after = after.model_copy(update={"second": disagreeing})
    result = table(_stored({START: before}).joined(_stored({TRAINED: after})))
    difference = result.differences[TRAINED, START][OVERALL]
    assert difference.value == 1.0
    assert difference.low > 0.9
    assert result.agreement[OVERALL].value == pytest.approx(1 - 6 / 600)
    assert result.columns == (*TAGS, OVERALL, TEXT)


def test_stored_rows_are_cut_to_the_images_measured_now() -> None:
    long, short = _stored({START: _row(0.0, 50)}), _row(1.0, 20)
    cut = long.first({tag: len(v) for tag, v in short.scores.items()})
    assert {len(v) for v in cut.rows[START].scores.values()} == {20}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "holds no prompts"),
        ("not json", "x.jsonl:1"),
        ('{"tag": "colors", "prompt": "a red car"}', "include"),
        ('{"prompt": "cars", "include": [{"class": "car"}]}', "'cars' needs a \"tag\""),
        ('\n{"tag": "text"}', "x.jsonl:2"),
    ],
)
def test_bad_prompt_files_are_named_with_their_line(
    tmp_path: Path, content: str, problem: str
) -> None:
    (tmp_path / "x.jsonl").write_text(content)
    with pytest.raises(PromptError, match=problem):
        read_prompts(tmp_path / "x.jsonl")


def test_prompt_files_in_the_fields_formats_are_read(tmp_path: Path) -> None:
    lines = [
        {
            "tag": "counting",
            "include": [{"class": "car", "count": 2}],
            "exclude": [],
            "prompt": "c",
        },
        {"tag": "text", "prompt": "A sign that says 'AB'", "text": "AB"},
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, lines)))
    prompts = read_prompts(tmp_path / "x.jsonl")
    assert prompts["counting"][0].reward == "counting"
    assert prompts["text"][0].target == {"text": "AB"}
    assert fingerprint(prompts) != fingerprint(embedded_prompts())


def test_a_run_is_measured_on_its_own_held_out_prompts_as_its_probe_judges_them() -> None:
    photos = heldout_prompts(load_config("trainer/configs/sd35-medium.toml").heldout.prompts)
    assert set(photos) == {"two_object", "counting", "colors", "position", "color_attr"}
    assert photos["position"][0].options == {"profile": "geneval", "mode": "strict"}
    assert (photos["counting"][0].target or {})["tag"] == "counting"
    tiny = heldout_prompts(load_config("trainer/configs/tiny.toml").heldout.prompts)
    assert fingerprint(tiny) == fingerprint(embedded_prompts())
    plain = {tag: [replace(p, options={}) for p in pool] for tag, pool in photos.items()}
    assert fingerprint(plain) != fingerprint(photos)


def test_prompts_that_only_people_can_judge_are_refused(tmp_path: Path) -> None:
    line = {"tag": "counting", "include": [{"class": "car", "count": 2}], "prompt": "cars"}
    (tmp_path / "x.jsonl").write_text(json.dumps(line))
    people = PromptSet(file=tmp_path / "x.jsonl", reward="human")
    with pytest.raises(PromptError, match=r"x\.jsonl.*--prompts FILE"):
        heldout_prompts([people])
    (tmp_path / "y.txt").write_text("A sign that says 'AB'\n")
    signs = PromptSet(file=tmp_path / "y.txt", reward="ocr")
    assert [p.target for p in heldout_prompts([people, signs])["text"]] == [{"text": "AB"}]


def test_what_is_judged_differently_is_no_batch() -> None:
    def image(index: int, **options: str) -> EvalImage:
        return EvalImage(GroupPrompt("a", "counting", "colors", {}, options), index, index)

    chosen = [image(0), image(1), image(2, mode="soft"), image(3, mode="soft")]
    assert [len(batch) for batch in batches(chosen, 10)] == [2, 2]


def test_rows_sampled_otherwise_are_refused() -> None:
    config = load_config("trainer/configs/tiny.toml")
    now = sampling(config)
    require_sampling(_stored({}), now, Path("eval.json"))  # older files do not say
    require_sampling(_stored({}, sampling=now), now, Path("eval.json"))
    other = sampling(with_overrides(config, ["generator.teacher_cfg=3"]))
    with pytest.raises(EvaluationError, match=r"guidance: 2\.5 there, 3\.0 here.*--all-rows"):
        require_sampling(_stored({}, sampling=now), other, Path("eval.json"))


def test_missing_and_damaged_results_say_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="python -m trainer eval --model"):
        load(tmp_path / "eval.json")
    (tmp_path / "eval.json").write_text("{}")
    with pytest.raises(EvaluationError, match="no evaluation this version reads"):
        load(tmp_path / "eval.json")


def test_a_request_holds_as_many_pictures_as_its_limit_allows() -> None:
    for side, most in ((36, MAX_ITEMS), (512, 64), (1024, 16), (8192, 1)):
        picture = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
        count = per_request(picture)
        assert count == pytest.approx(most, abs=2 if most > 1 else 0)
        if side <= 1024:
            assert count * len(to_b64(encode_png(picture))) < MAX_BODY_BYTES or count == MAX_ITEMS
