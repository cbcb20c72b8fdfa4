"""A backbone without weights, on torch's meta device, and what passes through it cost.

Only the folder's configuration files are read. Activations are counted as CUDA would keep them
under bf16 autocast: products in bf16, normalisations in fp32, attention that keeps its inputs and
its output.
"""

from __future__ import annotations

import importlib
import inspect
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from trainer.config import Config, ModelConfig
from trainer.errors import ModelError
from trainer.models.backbones import backbone_class
from trainer.models.backbones.pipeline import DECODED_PIXELS, DIFFUSERS, PipelineBackbone
from trainer.models.lora_files import LoraSpec
from trainer.models.networks import Networks

META = torch.device("meta")
PRODUCTS = (
    functional.linear,
    functional.conv2d,
    torch.matmul,
    torch.bmm,
    torch.addmm,
    torch.baddbmm,
)
NORMALISATIONS = (functional.layer_norm, functional.group_norm)


@dataclass(frozen=True)
class Costs:
    """What a model is, in bytes and floating-point operations (a product and a sum are two).

    forward: operations of one sample's pass. kept: bytes that a sample's pass with gradient keeps,
    and kept_by_block with checkpointing: at the blocks' borders, and inside one block. working:
    bytes of the largest operation of a sample's pass. decode, decode_working: of one picture.
    latent: numbers of a latent. pixels: of a picture. condition: bytes of the longest prompt.
    """

    network: int
    text_encoders: int
    vae: int
    adapter: int
    latent: int
    pixels: int
    forward: float
    kept: float
    kept_by_block: tuple[float, float]
    working: float
    decode: float
    decode_working: float
    decoded_at_once: int
    condition: int


def costs(config: Config) -> Costs:
    """Costs of the configured model with one adapter."""
    backbone = meta_backbone(config.model)
    networks = Networks(backbone, fold=False)
    targets = config.lora.targets or backbone.default_lora_targets
    networks.add("generator", LoraSpec(config.lora.rank, config.lora.scale_alpha, targets))
    adapter = sum(p.numel() for p in networks.parameters("generator"))
    base = [p for n, p in backbone.network.named_parameters() if ".lora_" not in n]
    x = torch.empty(1, *backbone.latent_shape, device=META)
    condition, t = backbone.longest(1), torch.empty(1, device=META)

    def forward() -> Tensor:
        with networks.acting_as("generator"):
            return backbone.predict(x.to(backbone.dtype), t, condition)

    with torch.no_grad():
        flops = _operations(forward)
        picture = x.to(backbone.dtype)
        decode = _operations(lambda: backbone.decode_latents(picture))
        working = _largest(forward, backbone.network)
        vae = backbone.pipeline.vae
        decode_working = _largest(lambda: backbone.decode_latents(picture), vae)
    kept = _kept(forward, backbone.network)
    side = backbone.latent_shape[-1] * backbone.scale()
    return Costs(
        network=_bytes((*base, *backbone.network.buffers())),
        text_encoders=sum(_bytes(e.parameters()) for e in backbone.text_encoders()),
        vae=_bytes(backbone.pipeline.vae.parameters()),
        adapter=adapter,
        latent=x[0].numel(),
        pixels=side**2,
        forward=flops,
        kept=kept,
        kept_by_block=_kept_by_block(networks, forward),
        working=working,
        decode=decode,
        decode_working=decode_working,
        decoded_at_once=max(1, DECODED_PIXELS // side**2),
        condition=condition.nbytes,
    )


def meta_backbone(model: ModelConfig) -> PipelineBackbone:
    """The backbone of the folder `model.path`, in bf16, without weights."""
    return described_backbone(model, META, torch.bfloat16)


def described_backbone(
    model: ModelConfig, device: torch.device, dtype: torch.dtype, *, text: bool = True
) -> PipelineBackbone:
    """The backbone that the configuration files of `model.path` describe, as initialised.

    It has no tokenizers and no scheduler. text: with its text encoders.

    Raises:
        ModelError: the folder's configuration files are not there or name unknown classes.
    """
    kind, path = backbone_class(model), Path(model.path)
    index = json.loads((path / "model_index.json").read_text(encoding="utf-8"))
    stock = getattr(DIFFUSERS, kind.pipeline_class)
    parts: dict[str, Any] = {}
    for name in inspect.signature(stock.__init__).parameters:
        wanted = name.startswith(("transformer", "vae", *(["text_encoder"] if text else [])))
        library, kind_name = (index.get(name) or (None, None)) if wanted else (None, None)
        parts[name] = (
            _part(path / name, library, kind_name, device, dtype) if library and kind_name else None
        )
    parts.pop("self")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = stock(**{n: p for n, p in parts.items() if n not in ("args", "kwargs")})
    return kind(pipeline, device, dtype, model)


def _part(
    folder: Path, library: str, name: str, device: torch.device, dtype: torch.dtype
) -> nn.Module:
    """One network of a pipeline from its configuration file."""
    kind: Any = getattr(importlib.import_module(library), name)
    try:
        with device:
            if library == "transformers":
                part = kind(kind.config_class.from_pretrained(str(folder), local_files_only=True))
            else:
                part = kind.from_config(kind.load_config(str(folder), local_files_only=True))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} does not describe a {name}: {error}") from error
    module: nn.Module = part.to(dtype)
    return module


def _bytes(parameters: Any) -> int:
    return sum(p.numel() * p.element_size() for p in parameters)


def _operations(run: Callable[[], Any]) -> float:
    counter = FlopCounterMode(display=False)
    with counter:
        run()
    return float(counter.get_total_flops())


class _Largest(TorchDispatchMode):
    """Bytes of the operation with the most of them, in and out, the networks' own left out."""

    def __init__(self, own: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0
        self._own = own

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, out)) if isinstance(x, Tensor)]
        activations = [x for x in tensors if x.untyped_storage()._cdata not in self._own]
        self.bytes = max(self.bytes, sum(x.numel() * x.element_size() for x in activations))
        return out


def _largest(run: Callable[[], Any], network: nn.Module) -> float:
    with _Autocast(), _Largest(_storages(network)) as largest:
        run()
    return float(largest.bytes)


class _Flash(torch.autograd.Function):
    """Attention as flash kernels keep it: inputs, output, and one number a query."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, sums)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, _, _ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


class _Autocast(TorchFunctionMode):
    """What torch.autocast does on CUDA in bf16, which it does not do on meta tensors."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            named = [kwargs.get(k) for k in ("query", "key", "value")]
            query, key, value = (
                _cast(x, torch.bfloat16) for x in (args[:3] if len(args) > 2 else named)
            )
            return _Flash.apply(query, key, value)  # type: ignore[no-untyped-call]
        if func in PRODUCTS or func in NORMALISATIONS:
            dtype = torch.bfloat16 if func in PRODUCTS else torch.float32
            args = [_cast(x, dtype) for x in args]
            kwargs = {k: _cast(x, dtype) for k, x in kwargs.items()}
        return func(*args, **kwargs)


def _cast(x: Any, dtype: torch.dtype) -> Any:
    return x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x


def _kept(run: Callable[[], Any], network: nn.Module) -> float:
    with _Autocast(), saved_bytes(network) as saved:
        run()
    return float(sum(saved.values()))


def _storages(network: nn.Module) -> set[int]:
    own = (*network.parameters(), *network.buffers())
    return {tensor.untyped_storage()._cdata for tensor in own}


@contextmanager
def saved_bytes(network: nn.Module) -> Iterator[dict[int, int]]:
    """Bytes of what is kept for the gradient beside the network's own tensors, by storage."""
    saved: dict[int, int] = {}
    alive: list[Tensor] = []  # a freed storage's number would be given to another
    own = _storages(network)

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own and storage._cdata not in saved:
            saved[storage._cdata] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield saved


def _kept_by_block(networks: Networks, run: Callable[[], Any]) -> tuple[float, float]:
    """Bytes at the borders of the blocks, and inside the largest block."""
    network: Any = networks.backbone.network
    borders, inside = [0.0], [0.0]

    def block_by_block(block: Any, *args: Any) -> Any:
        with saved_bytes(network) as saved:
            out = block(*args)
        inside.append(float(sum(saved.values())))
        borders.append(sum(x.nbytes for x in tree_leaves(args[:2]) if isinstance(x, Tensor)))
        return out

    network.enable_gradient_checkpointing(block_by_block)
    with _Autocast():
        run()
    network.disable_gradient_checkpointing()
    return sum(borders), max(inside)
