"""From a configuration to measured rows: loads the models, has them evaluated, keeps pictures.

The composition root of evaluation; it decides nothing about scores or intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from shared.client import RewardClient
from shared.images import encode_png
from trainer.config import Config
from trainer.evaluation.evaluate import (
    EvaluationSettings,
    Gallery,
    Judge,
    Policy,
    batches,
    evaluate,
    generate,
)
from trainer.evaluation.policies import few_step, many_step
from trainer.evaluation.prompts import Prompts, images
from trainer.evaluation.results import START, SURROGATE, TEACHER, TRAINED, Evaluation, weight_hashes
from trainer.evaluation.shots import Shot
from trainer.models.backbones import backbone_class, load_backbone, text_length
from trainer.models.hub import hub_name, lora_path, model_folder
from trainer.models.lora_files import Lora, read_lora
from trainer.models.networks import Networks, Source
from trainer.models.starts import read_student

STUDENT = "student"  # the few-step start's LoRA inside a model folder


@dataclass(frozen=True)
class Plan:
    """Which rows are measured, of which models, on what, and how much of it."""

    config: Config
    rows: Sequence[str]
    prompts: Prompts
    settings: EvaluationSettings = field(default_factory=EvaluationSettings)
    trained: Lora | None = None
    surrogate: Lora | None = None
    judge: Judge | None = None


def student_lora(config: Config) -> Path | None:
    """The few-step start: as configured, else the folder's own, else none (the bare base)."""
    own = model_folder(config.model.path) / STUDENT
    return config.model.student_lora or (own if own.is_dir() else None)


def sampling(config: Config) -> dict[str, Any]:
    """What decides the pictures of teacher and start beside the model's own weights and noise."""
    start = student_lora(config)
    return {
        "resolution": config.model.resolution,
        "max_sequence_length": text_length(backbone_class(config.model), config.model),
        "flow_shift": config.rollout.flow_shift,
        "k_steps": config.rollout.k_steps,
        "mode": config.rollout.mode,
        "solver": config.rollout.solver,
        "guidance": config.generator.teacher_cfg,
        "start": None if start is None else _start_hashes(config, start),
    }


def _start_hashes(config: Config, start: Path) -> dict[str, str]:
    """The start's files, and the alpha it was given where they do not say it."""
    alpha = config.model.student_alpha
    return weight_hashes(lora_path(start)) | ({} if alpha is None else {"alpha": f"{alpha:g}"})


def evaluation_folder(config: Config) -> Path:
    """Where a model's own eval.json lies: in its folder, for one of the hub beside the runs."""
    if hub_name(config.model.path) is None:
        return config.model.path
    return config.run.folder / "models" / config.model.path.as_posix().replace("/", "--")


def measure(plan: Plan, client: RewardClient, console: Console) -> tuple[Evaluation, list[Shot]]:
    """Measure the plan's rows with a progress bar; the shots show the other models as well."""
    networks = load_roles(plan)
    policies = build_policies(plan, networks)
    measured = [policies[name] for name in plan.rows]
    settings, gallery = plan.settings, Gallery()
    count = len(images(plan.prompts, settings.images_per_tag, settings.signs)) * len(measured)
    with _bar(console) as bar:
        task = bar.add_task(f"evaluating {', '.join(p.label for p in measured)}", total=count)
        result = evaluate(
            measured,
            plan.prompts,
            client,
            settings,
            weight_hashes(model_folder(plan.config.model.path)),
            gallery,
            lambda count: bar.update(task, advance=count),
            plan.judge,
        )
    result = result.model_copy(update={"sampling": sampling(plan.config)})
    for policy in policies.values():
        if policy not in measured:
            pose(policy, plan.prompts, settings, gallery)
    return result, shots(gallery, plan.prompts)


def load_roles(plan: Plan) -> Networks:
    """The frozen base with the start (as "generator"), the trained generator and phi on it."""
    config = plan.config
    networks = Networks(
        load_backbone(config.model, config.compute), inference_batch=config.compute.passed_at_once
    )
    start = student_lora(config)
    if start is not None:
        named = config.model.student_lora is not None
        networks.add_lora("generator", read_student(config) if named else read_lora(start))
    if plan.trained is not None:
        networks.add_lora("generator_ema", plan.trained)
    if plan.surrogate is not None:
        networks.add_lora("surrogate", plan.surrogate)
    return networks


def build_policies(plan: Plan, networks: Networks) -> dict[str, Policy]:
    """Every model that can be sampled, by row name, in the order of the table."""
    config = plan.config
    start: Source = "generator" if "generator" in networks.specs else "teacher"
    guided = partial(
        many_step,
        networks=networks,
        shift=config.rollout.flow_shift,
        guidance=config.generator.teacher_cfg,
    )
    policies = [
        guided(TEACHER, "teacher"),
        few_step(START, start, networks, config.rollout),
    ]
    if plan.trained is not None:
        policies.append(few_step(TRAINED, "generator_ema", networks, config.rollout))
    if plan.surrogate is not None:
        policies.append(guided(SURROGATE, "surrogate"))
    return {policy.name: policy for policy in policies}


def pose(policy: Policy, prompts: Prompts, settings: EvaluationSettings, gallery: Gallery) -> None:
    """Pictures of a model that is not measured now, from the noise the others start from."""
    chosen = images(prompts, gallery.per_tag, gallery.per_tag)
    for batch in batches(chosen, settings.batch):
        for image, pixels in zip(batch, generate(policy, batch, settings.seed), strict=True):
            gallery.keep(policy.name, image, pixels)


def shots(gallery: Gallery, prompts: Prompts) -> list[Shot]:
    """The gallery as the report wants it, without scores."""
    return [
        Shot(policy, tag, index, prompts[tag][index % len(prompts[tag])].text, encode_png(pixels))
        for (policy, tag, index), pixels in gallery.pictures.items()
    ]


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )
