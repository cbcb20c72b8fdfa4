"""What of a configuration would stop its run: prompts, LoRAs, rewards. It only looks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import chain
from pathlib import Path
from types import MappingProxyType

from trainer.config import Config, PromptSet
from trainer.doctor.surroundings import Finding
from trainer.errors import TrainerError
from trainer.evaluation.prompts import COUNTING
from trainer.models.hub import is_here
from trainer.models.starts import read_fake, read_student
from trainer.rewards.groups import Prompt
from trainer.rewards.prompts import read_prompt_set

BY_SHAPE = "counting/shapes"  # how a server names the scorer of the embedded world


def config_findings(
    config: Config,
    known: Mapping[str, str] | None,
    has_only_shapes: Callable[[Prompt], bool],
    classes: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> list[Finding]:
    """known: the server's rewards and what scores them; None while no server answers.

    has_only_shapes: whether the scorer of shapes can judge a prompt. classes: the names of objects
    that a reward can be asked for, of those rewards that publish them.
    """
    sets = (*config.prompts, *config.heldout.prompts)
    try:
        prompts = [read_prompt_set(one) for one in sets]
    except TrainerError as error:
        return [Finding("fail", "prompts", str(error)), *_loras(config)]
    count = sum(len(read) for read in prompts[: len(config.prompts)])
    text = f"{count} to train on, in {len(config.prompts)} sets"
    found = [Finding("ok", "prompts", text), *_loras(config)]
    if not config.prompts:
        found[0] = Finding("fail", "prompts", "none", "add [[prompts]] with file, reward and share")
    if known is None:
        return found
    return [
        *found,
        *_unknown(sets, known),
        *_unseen(chain.from_iterable(prompts), known, has_only_shapes),
        *_unnamed(list(chain.from_iterable(prompts)), classes),
    ]


def _loras(config: Config) -> Iterator[Finding]:
    """Whether the roles can start from where they should."""
    if config.model.student_lora is None:
        text = f"none: the generator starts as the teacher, in {config.rollout.k_steps} steps"
        remedy = "name the LoRA that makes it a few-step model: --set model.student_lora=FOLDER"
        yield Finding("warn", "student", text, remedy)
    for name, read in (("student_lora", read_student), ("fake_lora", read_fake)):
        path: Path | None = getattr(config.model, name)
        if path is None:
            continue
        if absent := [str(one) for one in (path, config.model.path) if not is_here(one)]:
            text = f"not looked at: {' and '.join(absent)} must be downloaded first"
            yield Finding("warn", name, text, "training does so")
            continue
        try:
            lora = read(config)
        except TrainerError as error:
            yield Finding("fail", name, str(error), f"--set model.{name}=FOLDER")
        else:
            text = f"{path}, rank {lora.spec.rank}, alpha {lora.spec.alpha:g}"
            yield Finding("ok", name, text)


def _unknown(sets: tuple[PromptSet, ...], known: Mapping[str, str]) -> Iterator[Finding]:
    """Rewards that the server does not have."""
    for name in sorted({one.reward for one in sets} - known.keys()):
        remedy = f"start the server with --scorer {name}=MODULE:CLASS"
        yield Finding("fail", "rewards", f"the server has no reward {name!r}", remedy)


def _unseen(
    prompts: Iterator[Prompt], known: Mapping[str, str], has_only_shapes: Callable[[Prompt], bool]
) -> Iterator[Finding]:
    """Photographs before a server that counts shapes."""
    if not known.get(COUNTING, "").startswith(BY_SHAPE):
        return
    for prompt in prompts:
        if prompt.reward == COUNTING and not has_only_shapes(prompt):
            text = f"counting knows shapes alone, and {prompt.text!r} asks for something else"
            remedy = "start the server with a detector for photographs, see docs/rewards.md"
            yield Finding("fail", "counting", text, remedy)
            return


def _unnamed(prompts: list[Prompt], classes: Mapping[str, Collection[str]]) -> Iterator[Finding]:
    """Prompts for objects that the server's detector has no name for: they get no reward."""
    for reward, names in classes.items():
        asked = [(one, _classes(one)) for one in prompts if one.reward == reward]
        lost = [one.text for one, wanted in asked if not wanted <= set(names)]
        absent = sorted(set().union(*(wanted for _, wanted in asked)) - set(names))
        if absent:
            text = f"the server's detector has no {', '.join(absent[:8])}"
            more = f" and {len(absent) - 8} more" if len(absent) > 8 else ""
            text += f"{more}: {len(lost)} of {len(asked)} prompts get no reward, e.g. {lost[0]!r}"
            remedy = "start the server with a detector that names them, or leave those prompts out"
            yield Finding("fail", reward, text, remedy)
        elif asked:
            text = f"the server's detector names every class of {len(asked)} prompts"
            yield Finding("ok", reward, text)


def _classes(prompt: Prompt) -> set[str]:
    """The classes of objects in a prompt's metadata."""
    target = prompt.target or {}
    return {one["class"] for part in ("include", "exclude") for one in target.get(part) or ()}
