"""A backbone of two linear layers per latent pixel: every role and update in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainer.arithmetic.randomness import normal, normals
from trainer.config import Config, load_config
from trainer.models.backbones.base import Conditioning, Guidance
from trainer.models.backbones.guidance import ClassifierFree
from trainer.models.networks import Role, build_networks
from trainer.models.rollout import rollout
from trainer.tdm_r1.state import Batch, TrainState

CHANNELS, SIDE, PROMPT = 3, 2, 4


class PixelNet(nn.Module):
    """v of a latent pixel from its channels, the time and the prompt."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(CHANNELS + 1 + PROMPT, 16)
        self.outer = nn.Linear(16, CHANNELS)
        for name, parameter in self.named_parameters():
            parameter.data.copy_(0.4 * normal(parameter.shape, "small backbone", name))
            parameter.requires_grad_(False)

    def forward(self, x: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
        """(batch, channels, height, width) to the same."""
        pixels = x.permute(0, 2, 3, 1)
        shown = torch.cat([t[:, None], prompt], 1)[:, None, None].expand(*pixels.shape[:3], -1)
        hidden = torch.tanh(self.inner(torch.cat([pixels, shown], -1)))
        return self.outer(hidden).permute(0, 3, 1, 2)  # type: ignore[no-any-return]


class SmallBackbone:
    """See `trainer.models.backbones.base.Backbone`."""

    name = "small"
    device = torch.device("cpu")
    latent_shape: tuple[int, ...] = (CHANNELS, SIDE, SIDE)
    default_lora_targets = ("inner", "outer")
    guidance: Guidance = ClassifierFree()

    def __init__(self) -> None:
        self.network: nn.Module = PixelNet()

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        pooled = normals((PROMPT,), [("prompt", p) for p in prompts])
        return Conditioning({"pooled": pooled})

    def encode_unconditional(self) -> Conditioning:
        return self.encode([""])

    def free_text_encoders(self) -> None:
        pass

    def velocity(self, x_t: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        v: Tensor = self.network(x_t, t, condition["pooled"])
        return v

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        return latents.sigmoid()


def small_config(*overrides: str) -> Config:
    """Everything small, nothing waits, and rewards that hardly differ still count."""
    base = ["lora.rank=2", "groups.size=4", "groups.per_step=2", "groups.dead_std=1e-9"]
    now = ["generator.frozen=0", "generator.warmup=0", "generator.teacher_cfg=2.0"]
    return load_config(None, [*base, *now, *overrides])


class Recording(TrainState):
    """Keeps the gradient of each role's latest step, as the optimizer was given it."""

    def __init__(self, config: Config) -> None:
        backbone = SmallBackbone()
        networks = build_networks(backbone, config)
        for role in networks.specs:  # away from the start, where B = 0 and all roles agree
            for k, parameter in enumerate(networks.parameters(role)):
                parameter.data.add_(0.3 * normal(parameter.shape, "start", role, k))
            networks.changed(role)
        super().__init__(backbone, networks, config)
        self.gradients: dict[str, list[Tensor]] = {}

    def step(self, role: Role, progress: float) -> float:
        """As in training."""
        self.gradients[role] = [
            torch.zeros_like(p) if p.grad is None else p.grad.clone()
            for p in self.networks.parameters(role)
        ]
        return super().step(role, progress)


def rolled_out(state: TrainState, keys: Sequence[int] = (0, 1)) -> Batch:
    """Groups with these indices by the current generator."""
    config = state.config
    size = config.groups.size
    condition = state.backbone.encode([f"prompt {key}" for key in keys])
    noise = normals(state.backbone.latent_shape, [(key, i) for key in keys for i in range(size)])
    trajectory = rollout(
        state.networks.velocity("generator"),
        noise,
        condition.repeat(size),
        config.rollout.times,
        solver=config.rollout.solver,
    )
    return Batch(tuple(keys), size, condition, trajectory)
