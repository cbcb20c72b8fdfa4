"""Whether a run is still well: image statistics, symptoms, and when it counts as collapsed.

Pure. A run counts as collapsed when a statistic of the generator's latents, or the pull back to the
teacher, leaves its range around the run's own start, or when the held-out score falls far below its
best, for long enough. What only may go wrong is a warning.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trainer.arithmetic.shapes import Latents

if TYPE_CHECKING:
    from trainer.config import HealthConfig

CONTRAST, ROUGHNESS, DIVERSITY = "images/contrast", "images/roughness", "images/diversity"
PULL = "force/kl"
WORDS = {
    CONTRAST: "the contrast of the images",
    ROUGHNESS: "the roughness of the images",
    DIVERSITY: "the diversity of the images",
    PULL: "the pull back to the teacher, |g_kl|,",
}


def image_statistics(latents: Latents, size: int) -> dict[str, float]:
    """Statistics of whole groups of `size` latents.

    contrast: standard deviation within an image. roughness: RMS difference of neighbours over the
    contrast (about 1.4 for white noise, small for smooth pictures). diversity: RMS distance of two
    images of the same prompt, per dimension.
    """
    flat = latents.flatten(1)
    contrast = flat.std(1).mean()
    down, right = latents.diff(dim=-2), latents.diff(dim=-1)
    steps = (down.square().mean() + right.square().mean()) / 2
    groups = flat.view(-1, size, flat.shape[1])
    diversity = (2 * groups.var(1).mean()).sqrt()
    return {
        CONTRAST: float(contrast),
        ROUGHNESS: float(steps.sqrt() / contrast.clamp_min(1e-12)),
        DIVERSITY: float(diversity),
    }


@dataclass(frozen=True)
class Symptom:
    """A smoothed metric that should stay on its side of a limit, and what it means if not."""

    metric: str
    limit: float
    above: bool
    meaning: str

    def shows(self, value: float) -> bool:
        """Whether the value is on the wrong side."""
        return value < self.limit if self.above else value > self.limit


SYMPTOMS = (
    Symptom(
        "surrogate/ranking_accuracy",
        0.5,
        True,
        "the surrogate ranks fresh groups worse than chance, so g_r points away from the reward; "
        "smooth phi less than the reference (surrogate.ema, reference.decay)",
    ),
    Symptom(
        "force/ratio",
        1.7,  # 1.2 is seen in runs that do well, 1.6 with a mixture, whose phi is guided
        False,
        "the reward pulls much harder than the KL, at the cost of quality; lower generator.rho (of "
        "a mixture: generator.phi_share)",
    ),
    Symptom(
        "force/cosine",
        -0.6,  # -0.5 is seen in runs that do well
        True,
        "g_r undoes g_kl: either the reward asks for what the teacher would not paint, and the two "
        "are coming to a balance, or phi has drifted in ways that have nothing to do with the "
        "reward; then raise surrogate.t_min or surrogate.kl",
    ),
    Symptom(
        "surrogate/sigmoid_saturation",
        0.9,
        False,
        "nearly all preferences are saturated and teach nothing; lower surrogate.beta",
    ),
    Symptom(
        "groups/missing_share",
        0.5,
        False,
        "most pictures get no reward; their jobs say why, and so does the server's log",
    ),
    Symptom(
        "groups/dead_share",
        0.9,
        False,
        "in nearly all groups the rewards are equal; use harder prompts, larger groups or a "
        "softer reward",
    ),
)


@dataclass
class Guard:
    """Watches one run. `values` is all it remembers: plain numbers, for the checkpoint."""

    config: HealthConfig
    values: dict[str, float] = field(default_factory=dict)

    @property
    def healthy(self) -> bool:
        """Whether nothing speaks for a collapse at the moment."""
        return not any(map(self._get, ("streak", "low probes", "parted probes")))

    def observe(self, metrics: Mapping[str, float]) -> str | None:
        """Takes in one update; why the run has collapsed, or None."""
        watched = [name for name in WORDS if math.isfinite(metrics.get(name, math.nan))]
        if not {CONTRAST, ROUGHNESS, DIVERSITY} <= set(watched):
            return None
        seen = self._get("seen")
        self.values["seen"] = seen + 1
        for name in watched:
            if seen < self.config.baseline:
                start = self._get(f"start {name}")
                self.values[f"start {name}"] = start + metrics[name] / self.config.baseline
            else:
                self._smooth(name, metrics[name])
        if seen < self.config.baseline:
            return None
        problem = self._problem()
        self.values["streak"] = 0 if problem is None else self._get("streak") + 1
        if problem is None or self.values["streak"] < self.config.patience:
            return None
        return f"{problem} for {self.config.patience} updates in a row"

    def observe_score(self, score: float, best: float | None) -> str | None:
        """Takes in a held-out score; why the run has collapsed, or None. NaN says nothing."""
        drop = self.config.heldout_drop
        if drop is None or best is None or not math.isfinite(score):
            return None
        low = best - score > drop
        self.values["low probes"] = self._get("low probes") + 1 if low else 0
        if self._get("low probes") < self.config.heldout_patience:
            return None
        return (
            f"the held-out score is {score:.3f}, more than {drop:g} below its best ({best:.3f}), "
            f"{self.config.heldout_patience} times in a row"
        )

    def observe_gap(self, gap: float) -> str | None:
        """Takes in score minus second opinion; why they have parted, or None. NaN says nothing."""
        limit = self.config.second_gap
        if limit is None or not math.isfinite(gap):
            return None
        start = self.values.setdefault("first gap", gap)
        parted = gap - start > limit
        self.values["parted probes"] = self._get("parted probes") + 1 if parted else 0
        if self._get("parted probes") < self.config.heldout_patience:
            return None
        return (
            f"the reward exceeds the second opinion by {gap:.3f}, at the start by {start:.3f}, "
            f"{self.config.heldout_patience} times in a row: it is being exploited"
        )

    def warnings(self, metrics: Mapping[str, float]) -> list[str]:
        """What starts to look wrong now; each symptom once, until it has been well."""
        said = []
        for symptom in SYMPTOMS:
            if symptom.metric not in metrics or not math.isfinite(metrics[symptom.metric]):
                continue
            count = self._get(f"count {symptom.metric}") + 1
            self.values[f"count {symptom.metric}"] = count
            value = self._smooth(symptom.metric, metrics[symptom.metric])
            shows = count > self.config.baseline and symptom.shows(value)
            if shows and not self._get(f"said {symptom.metric}"):
                said.append(
                    f"{symptom.metric} is {value:.2f} (limit {symptom.limit:g}): {symptom.meaning}"
                )
            self.values[f"said {symptom.metric}"] = float(shows)
        return said

    def _problem(self) -> str | None:
        config = self.config
        ranges = (
            (PULL, 0.0, config.kl_factor or math.inf),
            (CONTRAST, 1 / config.contrast_factor, config.contrast_factor),
            (ROUGHNESS, 0.0, config.roughness_factor),
            (DIVERSITY, config.diversity_share, math.inf),
        )
        for name, low, high in ranges:
            if name not in self.values:
                continue
            share = self._get(name) / max(self._get(f"start {name}"), 1e-12)
            if not low <= share <= high:
                limit = f"at least {low:.2g}" if share < low else f"at most {high:.2g}"
                return f"{WORDS[name]} is {share:.2f} times that at the start ({limit})"
        return None

    def _smooth(self, name: str, value: float) -> float:
        keep = self.config.smoothing
        self.values[name] = keep * self.values.get(name, value) + (1 - keep) * value
        return self.values[name]

    def _get(self, name: str) -> float:
        return self.values.get(name, 0.0)
