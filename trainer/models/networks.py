"""All roles as LoRA adapters on ONE frozen base; the teacher is the base with adapters off.

Switching roles touches one attribute per adapted layer (PEFT's own `set_adapter` walks the module
tree and toggles gradients, milliseconds each time). In small models the adapter is folded into the
adapted matrices for the length of a pass (W + s B A, differentiable: half the time on a CPU, the
same numbers up to rounding); the base is never copied and its own weights are never written.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trainer.arithmetic.randomness import normal
from trainer.arithmetic.shapes import Latents, PerSample
from trainer.config import Config
from trainer.errors import ModelError
from trainer.models.backbones import Backbone, Conditioning
from trainer.models.lora_files import Lora, LoraSpec
from trainer.models.rollout import Velocity
from trainer.models.starts import read_fake, read_student

Role = Literal[
    "generator",
    "generator_ema",
    "surrogate",
    "surrogate_ema",
    "surrogate_old",
    "reference",
    "fake",
]
Source = Literal[Role, "teacher"]
# Most adapted weights a model may have to be folded: a copy per role, so never for a large one.
FOLD_LIMIT = 16_000_000


class Networks:
    """The roles of one run on one backbone."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        fold: bool = True,
        inference_batch: int | None = None,
        checkpointing: bool = False,
    ):
        self.backbone = backbone
        self.specs: dict[Role, LoraSpec] = {}
        self._inference_batch = inference_batch
        self._fold_small = fold and not checkpointing  # a folded weight cannot be computed again
        self._acting: Source = "teacher"
        self._layers: dict[str, Any] = {}
        self._foldable: set[Source] = set()
        self._kept: dict[Role, dict[str, Tensor]] = {}  # folded weights for passes at no gradient
        if checkpointing:
            network: Any = backbone.network  # of diffusers, which has no types
            network.enable_gradient_checkpointing(self._checkpointed)

    def add(self, role: Role, spec: LoraSpec, seed: int = 0) -> None:
        """A new adapter that changes nothing yet (B = 0); A is drawn from (seed, role)."""
        self._require_targets(spec)
        config = PeftLoraConfig(
            r=spec.rank,
            lora_alpha=spec.alpha,  # PEFT accepts fractions
            target_modules=list(spec.targets),
            init_lora_weights=False,
        )
        with warnings.catch_warnings():  # several adapters in one model are the point here
            warnings.filterwarnings("ignore", "Already found a `peft_config`")
            inject_adapter_in_model(config, self.backbone.network, role)
        self.specs[role] = spec
        self._layers = {
            name: module
            for name, module in self.backbone.network.named_modules()
            if isinstance(module, LoraLayer)
        }
        for name, layer in self._of(role):
            a, b = layer.lora_A[role], layer.lora_B[role]
            a.to(self.backbone.device, torch.float32)
            b.to(self.backbone.device, torch.float32)
            # PEFT's "gaussian" initialisation, keyed instead of drawn from hidden state
            a.weight.data.copy_(normal(a.weight.shape, seed, role, name) / spec.rank)
            nn.init.zeros_(b.weight)
        self._switch_off()
        if self._fold_small and self._may_fold(role):
            self._foldable.add(role)
        for parameter in self.parameters(role):
            parameter.requires_grad_(role in ("generator", "surrogate", "fake"))
        self.changed(role)

    def add_copy(self, role: Role, source: Role) -> None:
        """A new adapter equal to an existing one."""
        self.add(role, self.specs[source])
        self.copy(role, source)

    def add_lora(self, role: Role, lora: Lora) -> None:
        """A new adapter with the shape and weights of a file."""
        self.add(role, lora.spec)
        self.load_tensors(role, lora.tensors)

    def velocity(self, source: Source) -> Velocity:
        """The network as that role (or as the teacher): v(x_t, t, condition)."""

        def call(x_t: Latents, t: PerSample, condition: Conditioning) -> Latents:
            with self.acting_as(source):
                if torch.is_grad_enabled() or self._inference_batch is None:
                    return self.backbone.velocity(x_t, t, condition)
                return self._in_parts(x_t, t, condition)

        return call

    def parameters(self, role: Role) -> list[Tensor]:
        """The adapter's A and B matrices, in a fixed order."""
        return [p for _, layer in self._of(role) for p in _pair(layer, role)]

    def tensors(self, role: Role) -> dict[str, Tensor]:
        """The adapter's weights by diffusers' names (without `transformer.`), not copied."""
        return {
            f"{name}.lora_{letter}.weight": parameter.data
            for name, layer in self._of(role)
            for letter, parameter in zip("AB", _pair(layer, role), strict=True)
        }

    def lora(self, role: Role) -> Lora:
        """The adapter as it would be written to a file."""
        return Lora(self.specs[role], {k: t.clone() for k, t in self.tensors(role).items()})

    def load_tensors(self, role: Role, tensors: dict[str, Tensor]) -> None:
        """Overwrites the adapter; names and shapes must agree."""
        own = self.tensors(role)
        if own.keys() != tensors.keys():
            odd = sorted(own.keys() ^ tensors.keys())[:3]
            raise ModelError(f"weights for {role} do not fit its modules (first odd ones: {odd})")
        for name, target in own.items():
            if target.shape != tensors[name].shape:
                raise ModelError(
                    f"{role}: {name} has shape {tuple(tensors[name].shape)}, not "
                    f"{tuple(target.shape)}; set lora.rank to the file's rank"
                )
            target.copy_(tensors[name])
        self.changed(role)

    @torch.no_grad()
    def copy(self, role: Role, source: Role) -> None:
        """role := source."""
        torch._foreach_copy_(self.parameters(role), self.parameters(source))
        self.changed(role)

    @torch.no_grad()
    def average(self, role: Role, source: Role, decay: float) -> None:
        """role := decay role + (1 - decay) source, in fp32 (an exponential moving average)."""
        mine, theirs = self.parameters(role), self.parameters(source)
        torch._foreach_lerp_(mine, theirs, 1 - decay)
        self.changed(role)

    def changed(self, role: Role) -> None:
        """Forgets what was folded; to be called after an optimizer wrote the adapter."""
        self._kept.pop(role, None)

    def fingerprint(self, source: Source) -> str:
        """SHA-256 of a role's weights; of the base's for the teacher."""
        digest = hashlib.sha256()
        if source == "teacher":
            named = {
                k: p.data
                for k, p in self.backbone.network.named_parameters()
                if not re.search(r"\.lora_[AB]\.", k)
            }
        else:
            named = self.tensors(source)
        for name in sorted(named):
            digest.update(name.encode())
            raw = named[name].detach().cpu().contiguous().view(torch.uint8)
            digest.update(raw.numpy().tobytes())
        return digest.hexdigest()

    def _of(self, role: Role) -> list[tuple[str, Any]]:
        return [(name, layer) for name, layer in self._layers.items() if role in layer.lora_A]

    @contextmanager
    def acting_as(self, source: Source) -> Iterator[None]:
        """The base acts as `source` inside the block, and as the teacher outside."""
        before, self._acting = self._acting, source
        try:
            if source == "teacher":
                yield
            elif source in self._foldable:
                with self._folded(source):
                    yield
            else:
                self._switch_on(source)
                yield
        finally:
            self._acting = before
            self._switch_off()

    def _switch_on(self, role: Role) -> None:
        for layer in self._layers.values():
            layer._active_adapter = [role]
            layer._disable_adapters = False

    def _checkpointed(self, block: Any, *args: Any) -> Any:
        """The block's output; what it needs for its gradient is computed again, in the same role.

        By then the pass is over and the network acts as the teacher.
        """
        role = self._acting
        return checkpoint(
            block,
            *args,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), self.acting_as(role)),
        )

    def _switch_off(self) -> None:
        for layer in self._layers.values():
            layer._disable_adapters = True

    @contextmanager
    def _folded(self, role: Role) -> Iterator[None]:
        """Swaps each adapted layer's weight OBJECT, so graphs built before keep the base's."""
        if torch.is_grad_enabled():
            folded = self._fold(role)
        elif (kept := self._kept.get(role)) is not None:
            folded = kept
        else:
            folded = self._kept[role] = self._fold(role)
        bases = {name: self._layers[name].base_layer for name in folded}
        own = {name: base.weight for name, base in bases.items()}
        try:
            for name, weight in folded.items():
                bases[name]._parameters["weight"] = weight
            yield
        finally:
            for name, weight in own.items():
                bases[name]._parameters["weight"] = weight

    def _fold(self, role: Role) -> dict[str, Tensor]:
        """W + scale B A per adapted layer; gradients reach A and B through it."""
        folded = {}
        for name, layer in self._of(role):
            a, b = _pair(layer, role)
            folded[name] = torch.addmm(layer.base_layer.weight, b, a, alpha=layer.scaling[role])
        return folded

    def _may_fold(self, role: Role) -> bool:
        weights = [layer.base_layer.weight for _, layer in self._of(role)]
        small = sum(w.numel() for w in weights) <= FOLD_LIMIT
        return small and all(w.dtype == torch.float32 for w in weights)

    def _in_parts(self, x_t: Latents, t: PerSample, condition: Conditioning) -> Latents:
        size = self._inference_batch or len(t)
        parts = [slice(i, i + size) for i in range(0, len(t), size)]
        return torch.cat([self.backbone.velocity(x_t[p], t[p], condition.rows(p)) for p in parts])

    def _require_targets(self, spec: LoraSpec) -> None:
        names = [
            name
            for name, module in self.backbone.network.named_modules()
            if isinstance(module, nn.Linear | LoraLayer)
        ]
        for target in spec.targets:
            if not any(name == target or name.endswith("." + target) for name in names):
                raise ModelError(
                    f"lora target {target!r} names no linear layer of {self.backbone.name}; "
                    f"its attention layers are {', '.join(self.backbone.default_lora_targets)}"
                )


def _pair(layer: Any, role: Role) -> tuple[Tensor, Tensor]:
    return layer.lora_A[role].weight, layer.lora_B[role].weight


def build_networks(backbone: Backbone, config: Config) -> Networks:
    """The roles the configuration needs, at their starting points.

    The generator starts as the few-step student, the fake score as its own file or else as the
    student (with `fake.start = "teacher"`: as the teacher), surrogate and reference as the
    teacher. The direct RL loss has no surrogate: its
    reference starts as the generator.
    """
    compute = config.compute
    networks = Networks(
        backbone,
        fold=compute.fold_adapters == "auto",
        inference_batch=compute.passed_at_once,
        checkpointing=compute.checkpointing,
    )
    targets = config.lora.targets or backbone.default_lora_targets
    fresh = LoraSpec(config.lora.rank, config.lora.scale_alpha, targets)
    model, seed = config.model, config.run.seed
    if model.student_lora is not None:
        networks.add_lora("generator", read_student(config))
    else:
        networks.add("generator", fresh, seed)
    networks.add_copy("generator_ema", "generator")
    if config.fake.start == "teacher":
        networks.add("fake", fresh, seed)
    elif model.fake_lora is not None:
        networks.add_lora("fake", read_fake(config))
    else:
        networks.add_copy("fake", "generator")
    if config.method == "direct_rl":
        networks.add_copy("reference", "generator")
    elif config.method != "tdm_only":
        _add_surrogate(networks, config, fresh)
    return networks


def _add_surrogate(networks: Networks, config: Config, fresh: LoraSpec) -> None:
    networks.add("surrogate", fresh, config.run.seed)
    if config.surrogate.clip is not None and config.surrogate.clip_from == "old":
        networks.add_copy("surrogate_old", "surrogate")
    if config.surrogate.ema > 0:
        networks.add_copy("surrogate_ema", "surrogate")
    if config.reference.kind == "ema":
        networks.add_copy("reference", "surrogate")
