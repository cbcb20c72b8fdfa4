"""Writes the trained generator as a LoRA that a stock diffusers pipeline loads, with its README.

The folder needs nothing of this project to be used. Only the averaged generator is exported: the
other roles are scaffolding of training.
"""

from __future__ import annotations

import json
from pathlib import Path
from string import Template
from typing import Any

from trainer.arithmetic.flow import time_grid
from trainer.config import Config
from trainer.errors import ModelError
from trainer.models.backbones import backbone_class, text_length
from trainer.models.lora_files import Lora, write_lora

README = Template("""\
# $title

A LoRA (rank $rank) for the $pipeline in `$model`, trained with TDM-R1 to make
images in $steps network evaluations, without classifier-free guidance. It needs diffusers and peft:

```python
from diffusers import $pipeline$scheduler_import

pipe = $pipeline.from_pretrained($model_literal$absent)$scheduler_line
pipe.load_lora_weights($out_literal)
call = dict(
    num_inference_steps=$steps,
    sigmas=$sigmas,
    $unguided
    max_sequence_length=$length,$size
)
image = pipe($prompt, **call).images[0]
```

- `sigmas` must be passed: the scheduler then shifts them to the times the generator was trained at
  ($times). Left out, it chooses others.
- $off is guidance as it was in training; with another the images are worse.
- `max_sequence_length=$length` is what the text was padded to in training.
""")
# Settings of diffusers' scheduler that move its times further.
STRETCHES = (
    "use_dynamic_shifting",
    "shift_terminal",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "stochastic_sampling",
)
SCHEDULER_LINE = """
pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift={shift})"""


def export(lora: Lora, config: Config, out: Path) -> Path:
    """Write `pytorch_lora_weights.safetensors` and README.md to the folder `out`; returns it.

    Raises:
        ModelError: `out` exists and is no folder, or cannot be written.
    """
    try:
        write_lora(out, lora)
        (out / "README.md").write_text(readme(lora, config, out), encoding="utf-8")
    except OSError as error:
        raise ModelError(
            f"cannot write the LoRA to {out}: {error}; choose another folder with --out"
        ) from error
    return out


def readme(lora: Lora, config: Config, out: Path) -> str:
    """The README with the exact stock-pipeline call."""
    k, shift = config.rollout.k_steps, config.rollout.flow_shift
    side = config.model.resolution
    backbone = backbone_class(config.model)
    unguided = [f"{name}={value}" for name, value in backbone.stock_call(config.model).items()]
    rescheduled = not _steps_like_training(config.model.path, shift)
    return README.substitute(
        title=f"{config.run.name}: {k}-step LoRA",
        rank=lora.spec.rank,
        pipeline=backbone.pipeline_class,
        unguided="\n    ".join(f"{argument}," for argument in unguided),
        off=" and ".join(f"`{argument}`" for argument in unguided),
        model=config.model.path,
        model_literal=repr(str(config.model.path)),
        out_literal=repr(str(out)),
        steps=k,
        sigmas=[1 - j / k for j in range(k)],
        times=", ".join(f"{t:.3g}" for t in time_grid(k, shift)[:-1]),
        length=text_length(backbone, config.model),
        absent="".join(f", {name}=None" for name in _absent_parts(config.model.path)),
        size=f"\n    height={side},\n    width={side}," if side else "",
        prompt=repr("a photo of three red circles"),
        scheduler_import=", FlowMatchEulerDiscreteScheduler" if rescheduled else "",
        scheduler_line=SCHEDULER_LINE.format(shift=shift) if rescheduled else "",
    )


def _absent_parts(model: Path) -> list[str]:
    """Text encoders the folder does without; `from_pretrained` must be told so for each."""
    index = _read(model / "model_index.json")
    text = ("text_encoder", "tokenizer")
    return [n for n, src in sorted(index.items()) if n.startswith(text) and src == [None, None]]


def _steps_like_training(model: Path, shift: float) -> bool:
    """Whether the folder's own scheduler takes Euler steps at times shifted by `shift` alone."""
    own = _read(model / "scheduler" / "scheduler_config.json")
    euler = own.get("_class_name") == "FlowMatchEulerDiscreteScheduler"
    plain = not any(own.get(key) for key in STRETCHES)
    return euler and plain and float(own.get("shift", 1.0)) == shift


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise ModelError(f"{file} is missing: is model.path a diffusers pipeline folder?")
    settings: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return settings
