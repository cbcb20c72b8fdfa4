"""`python -m trainer import-lora FILE --out DIR`: anybody's LoRA, as training starts from it."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from trainer.config import Config, with_overrides
from trainer.errors import ModelError
from trainer.models.hub import model_folder
from trainer.models.lora_files import Lora, read_lora, write_lora
from trainer.models.lora_formats.nameless import parameter_order
from trainer.models.starts import order_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which LoRA, where to, and what its file does not say."""
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="a file, a folder, or owner/name[:file][@revision]"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--alpha", type=float, metavar="A", help="of a file that states none")
    parser.add_argument(
        "--model",
        type=Path,
        metavar="DIR",
        help="the base it is for: needed by files without names; its layers are then checked",
    )
    parser.add_argument(
        "--targets",
        metavar="A,B",
        help="the layers that a file without names adapts (default: the model's attention)",
    )


def main(args: argparse.Namespace) -> int:
    """Write the folder, and say what was found."""
    if args.alpha is not None and not 0 < args.alpha < float("inf"):
        raise ModelError(f"--alpha {args.alpha} is no positive number")
    order = None
    if args.model is not None:
        config = with_overrides(Config(), [f'model.path="{args.model}"'])
        if args.targets:
            lora = config.lora.model_copy(update={"targets": tuple(args.targets.split(","))})
            config = config.model_copy(update={"lora": lora})
        order = order_of(config)
    found = read_lora(args.file, args.alpha, order=order)
    if args.model is not None:
        require_fit(found, args.model)
    try:
        write_lora(args.out, found)
    except OSError as error:
        raise ModelError(f"cannot write to {args.out}: {error}; choose another --out") from error
    spec = found.spec
    text = f"{len(spec.targets)} layers, rank {spec.rank}, alpha {spec.alpha:g}"
    remedy = f'start from it: --set model.student_lora="{args.out}"'
    Console().print(f"{text}; {remedy}", markup=False, highlight=False, soft_wrap=True)
    return 0


def require_fit(lora: Lora, model: Path) -> None:
    """Raises ModelError unless each layer is one of the model's, of that shape."""
    wanted = parameter_order(model_folder(model), lora.spec.targets)
    for name, tensor in lora.tensors.items():
        shape, axis = wanted.get(name), 1 if ".lora_A." in name else 0
        if shape is None:
            raise ModelError(f"{model} has no layer {name.partition('.lora_')[0]}")
        if shape[axis] != tensor.shape[axis]:
            raise ModelError(
                f"{name} has shape {tuple(tensor.shape)}, and that layer of {model} is "
                f"{shape[axis]} wide: the LoRA is for another model"
            )
