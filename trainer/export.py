"""Writes the trained generator as a LoRA for other programs, with its model card (README.md).

The folder needs nothing of this project to be used. Only the averaged generator is exported: the
other roles are scaffolding of training.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from string import Template

from trainer.config import Config
from trainer.errors import ModelError
from trainer.models.backbones import backbone_class, text_length
from trainer.models.backbones.pipeline import absent_parts
from trainer.models.hub import hub_name
from trainer.models.lora_files import Lora
from trainer.models.lora_formats.writing import write_as

README = Template("""\
---
library_name: $library
pipeline_tag: text-to-image
tags: [lora, text-to-image, tdm-r1]$base
---

# $title

A LoRA (rank $rank, alpha $rank: strength 1 wherever it is loaded) for the $pipeline
in `$model`, trained with TDM-R1 to make images in $steps network evaluations, without
classifier-free guidance. It was trained on the base in $precision.

$use
""")
IN_PYTHON = Template("""\
It needs diffusers and peft:

```python
import torch
from diffusers import $scheduler, $pipeline$peft_import

device = "cuda" if torch.cuda.is_available() else "cpu"
pipe = $pipeline.from_pretrained(
    $model,$revision
    dtype=$dtype,
    use_safetensors=True,$absent
).to(device)
pipe.scheduler = $scheduler($settings)
$load
call = dict(
    num_inference_steps=$steps,$sigmas
    $unguided
    max_sequence_length=$length,$size
)
image = pipe(prompt="a photo of three red circles", **call).images[0]
```

- $stepping
- $off is guidance as it was in training; with another the images are worse.
- `max_sequence_length=$length` is what the text was padded to in training.
""")
IN_NODES = Template("""\
`$file` has the layers' original names (query, key and value in one) and `.alpha` keys.

- **ComfyUI**: put it into `models/loras`; Load LoRA (model only) at strength 1.0, $sampling
  with shift $shift, KSampler with $steps steps, cfg 1.0, sampler `euler`, scheduler `simple`:
  the times are then those of training ($times).$order$forge
- cfg 1.0 turns guidance off; with guidance the images are worse and cost twice.
""")
SECOND_ORDER = """
  Training sampled with steps of second order, which no node takes alike: pictures differ."""
FORGE = """
- **Forge, A1111**: put it into `models/Lora`, `<lora:{name}:1>` in the prompt, sampler Euler,
  schedule type Simple, {steps} steps, CFG scale 1, shift {shift}."""


@dataclass(frozen=True)
class Stepping:
    """How a stock scheduler takes the rollout's steps: its name, its settings, what to know."""

    scheduler: str
    settings: str
    sigmas: str
    note: str


STEPPING = {
    "euler": Stepping(
        "FlowMatchEulerDiscreteScheduler",
        "shift={shift}",
        "\n    sigmas={sigmas},",
        "The scheduler takes Euler steps of flow matching. `sigmas` must be passed: "
        "`shift={shift}` then\n  moves them to the times the generator was trained at ({times})."
        "\n  Left out, it chooses others.",
    ),
    "dpmsolver++": Stepping(
        "DPMSolverMultistepScheduler",
        '\n    prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift={shift}\n',
        "",
        "The scheduler takes the steps of second order that training took, at the same times "
        "({times}); it\n  tells the network these in whole thousandths.",
    ),
}
SAMPLING = {
    "sd3": "ModelSamplingSD3",
    "zimage": "ModelSamplingAuraFlow",
    "qwen_image": "ModelSamplingAuraFlow",
    # FLUX's node takes the logarithm of the shift, the same at both resolutions
    "flux": "ModelSamplingFlux (max_shift = base_shift = ln of the shift)",
}
LOAD = {
    "diffusers": "pipe.load_lora_weights({folder!r})",
    "peft": "pipe.transformer = PeftModel.from_pretrained(pipe.transformer, {folder!r})",
}
AUTO_DTYPE = 'torch.bfloat16 if device == "cuda" else torch.float32'
DTYPES = {"auto": AUTO_DTYPE, "fp32": "torch.float32", "bf16": "torch.bfloat16"}
PRECISION = {
    "auto": "bfloat16 on CUDA, else float32",
    "fp32": "float32",
    "bf16": "bfloat16",
}


def export(lora: Lora, config: Config, out: Path, kind: str = "diffusers") -> Path:
    """Write the LoRA and its README.md to the folder `out`; returns it.

    kind: one of `lora_formats.writing.FORMATS`. alpha / rank is folded into B, and
    alpha = rank is written: who reads no alpha sees the same.

    Raises:
        ModelError: `out` exists and is no folder, or cannot be written; a layer has no name in
            that format.
    """
    try:
        file = write_as(kind, out, lora.parts, backbone_class(config.model).name)
        (out / "README.md").write_text(readme(lora, config, file, kind), encoding="utf-8")
    except OSError as error:
        raise ModelError(
            f"cannot write the LoRA to {out}: {error}; choose another folder with --out"
        ) from error
    return out


def readme(lora: Lora, config: Config, file: Path, kind: str) -> str:
    """The model card, with the exact call (or nodes) that make the trainer's pictures."""
    name = hub_name(config.model.path)
    return (
        README.substitute(
            library="peft" if kind == "peft" else "diffusers",
            base=f"\nbase_model: {name.repo}\nbase_model_relation: adapter" if name else "",
            title=f"{config.run.name}: {config.rollout.k_steps}-step LoRA",
            rank=lora.spec.rank,
            pipeline=backbone_class(config.model).pipeline_class,
            model=config.model.path,
            steps=config.rollout.k_steps,
            precision=PRECISION[config.compute.dtype],
            use=_in_python(config, file, kind) if kind in LOAD else _in_nodes(config, file, kind),
        ).rstrip()
        + "\n"
    )


def _in_python(config: Config, file: Path, kind: str) -> str:
    """The stock call."""
    k, shift = config.rollout.k_steps, config.rollout.flow_shift
    model, backbone = config.model, backbone_class(config.model)
    name, side = hub_name(model.path), model.resolution
    unguided = [f"{argument}={value}" for argument, value in backbone.stock_call(model).items()]
    revision = f"\n    revision={name.revision!r}," if name and name.revision else ""
    stepping = STEPPING[config.rollout.solver]
    return IN_PYTHON.substitute(
        pipeline=backbone.pipeline_class,
        peft_import="\nfrom peft import PeftModel" if kind == "peft" else "",
        model=repr(name.repo if name else str(model.path)),
        revision=revision,
        dtype=DTYPES[config.compute.dtype],
        absent="".join(f"\n    {part}=None," for part in _absent_text(model.path)),
        scheduler=stepping.scheduler,
        settings=stepping.settings.format(shift=shift),
        stepping=stepping.note.format(shift=shift, times=_times(config)),
        load=LOAD[kind].format(folder=str(file.parent)),
        steps=k,
        sigmas=stepping.sigmas.format(sigmas=[1 - j / k for j in range(k)]),
        unguided="\n    ".join(f"{argument}," for argument in unguided),
        off=" and ".join(f"`{argument}`" for argument in unguided),
        length=text_length(backbone, model),
        size=f"\n    height={side},\n    width={side}," if side else "",
    )


def _in_nodes(config: Config, file: Path, kind: str) -> str:
    """What to choose in programs with buttons."""
    k, shift = config.rollout.k_steps, config.rollout.flow_shift
    backbone = backbone_class(config.model).name
    forge = FORGE.format(name=file.stem, steps=k, shift=shift) if kind == "kohya" else ""
    sampling = SAMPLING.get(backbone, "the model's sampling node")
    order = "" if config.rollout.solver == "euler" else SECOND_ORDER
    if backbone == "flux":
        sampling = f"FluxGuidance at {config.model.embedded_guidance}, {sampling}"
    return IN_NODES.substitute(
        file=file.name,
        sampling=sampling,
        shift=shift,
        steps=k,
        times=_times(config),
        order=order,
        forge=forge,
    )


def _times(config: Config) -> str:
    return ", ".join(f"{t:.3g}" for t in config.rollout.times[:-1])


def _absent_text(model: Path) -> list[str]:
    """Text encoders the folder does without; `from_pretrained` must be told so for each."""
    text = ("text_encoder", "tokenizer")
    return sorted(part for part in absent_parts(model) if part.startswith(text))
