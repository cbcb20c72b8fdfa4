"""What of a configuration would stop its run: prompts, LoRAs, rewards. It only looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain

from trainer.config import Config, PromptSet
from trainer.doctor.surroundings import Finding
from trainer.errors import TrainerError
from trainer.evaluation.prompts import COUNTING
from trainer.models.lora_files import read_lora
from trainer.rewards.groups import Prompt
from trainer.rewards.prompts import read_prompt_set

BY_SHAPE = "counting/shapes"  # how a server names the scorer of the embedded world


def config_findings(
    config: Config, known: Mapping[str, str] | None, has_only_shapes: Callable[[Prompt], bool]
) -> list[Finding]:
    """known: the server's rewards and what scores them; None while no server answers.

    has_only_shapes: whether the scorer of shapes can judge a prompt.
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
    ]


def _loras(config: Config) -> Iterator[Finding]:
    """Whether the roles can start from where they should."""
    if config.model.student_lora is None:
        text = f"none: the generator starts as the teacher, in {config.rollout.k_steps} steps"
        remedy = "name the LoRA that makes it a few-step model: --set model.student_lora=FOLDER"
        yield Finding("warn", "student", text, remedy)
    for name in ("student_lora", "fake_lora"):
        path = getattr(config.model, name)
        if path is None:
            continue
        try:
            lora = read_lora(path)
        except TrainerError as error:
            yield Finding("fail", name, str(error), f"--set model.{name}=FOLDER")
        else:
            yield Finding("ok", name, f"{path}, rank {lora.spec.rank}")


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
