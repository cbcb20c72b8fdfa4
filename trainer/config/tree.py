"""One typed, frozen configuration tree: every value the trainer uses has its home here.

Combinations that cannot train are errors with a remedy. The switches are those of TDM-R1 (arXiv
2603.07700), of its authors' published code (docs/algorithm.md) and of the ablations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trainer.arithmetic.flow import time_grid
from trainer.config.checks import cross_field_problems

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Betas = tuple[Fraction, Fraction]
TimeRange = Literal["full", "segment"]
OptimizerKind = Literal["adamw", "muon"]
Solver = Literal["euler", "dpmsolver++"]
TargetKind = Literal["mixed", "bridge"]
Weighting = Literal["x0", "flow"]
# The paper's method, TDM without reward, and its baselines (Figs. 4 and 5, 8, 9).
Method = Literal["tdm_r1", "tdm_only", "direct_rl", "frozen_surrogate", "dgpo_then_distil"]


class Section(BaseModel):
    """A part of the tree: immutable, unknown keys forbidden."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RunConfig(Section):
    """What the run is called, where it lives, how long it lasts."""

    name: str = Field(default="tdm-r1", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    folder: Path = Path("runs")
    seed: Annotated[int, Field(ge=0)] = 0
    iterations: Count = 400
    time_budget_minutes: Positive | None = None  # training stops when this is spent, if earlier
    checkpoint_every: Count = 50
    images_every: Count = 50  # iterations between grids of rollouts on TensorBoard
    live_view: bool = True

    @property
    def home(self) -> Path:
        """The run's own folder."""
        return self.folder / self.name


class ModelConfig(Section):
    """The frozen base and the LoRAs that training starts from."""

    # path and LoRAs: a folder, a LoRA's file, or owner/name[:file][@revision] on the hub
    path: Path = Path("trainer/tiny/weights")
    backbone: str | None = None  # of trainer.models.backbones; None: the folder says which
    student_lora: Path | None = None  # the few-step start; None: the generator starts as teacher
    student_alpha: Positive | None = None  # of a student_lora that does not state its own
    fake_lora: Path | None = None  # its fake score; None: the fake score starts as the student
    fake_alpha: Positive | None = None  # of a fake_lora that does not state its own
    max_sequence_length: Count | None = None  # tokens of a prompt; None: as the stock pipeline
    embedded_guidance: Positive = 1.0  # what FLUX.1-dev is told; its few-step LoRAs want 3.5
    resolution: Count | None = None  # pixels; None: what the model was made for


class LoraConfig(Section):
    """Shape of adapters that start from nothing; loaded ones keep the shape of their file."""

    rank: Count = 32
    alpha: Positive | None = None  # None: equal to the rank (scale 1)
    targets: tuple[str, ...] | None = None  # module name endings; None: the backbone's attention

    @property
    def scale_alpha(self) -> float:
        """alpha with its default filled in."""
        return float(self.rank) if self.alpha is None else self.alpha


class ComputeConfig(Section):
    """Where and in which precision the network runs."""

    device: str = "auto"
    dtype: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 on CUDA, fp32 elsewhere
    threads: Count | None = None
    micro_batch: Count | None = None  # samples of a pass with gradient; None: all at once
    inference_batch: Count | None = None  # of a pass without; None: as micro_batch
    checkpointing: bool = False  # activations are computed again, not kept: a third more work
    # free: all prompts are encoded before training, into main memory, and the encoders go.
    text_encoders: Literal["auto", "free", "keep"] = "auto"  # auto: keep on a CPU, else free
    fold_adapters: Literal["auto", "never"] = "auto"  # auto: small fp32 models run W + s B A

    @property
    def passed_at_once(self) -> int | None:
        """Samples of a pass without gradient; None: all."""
        return self.inference_batch or self.micro_batch


class ServerConfig(Section):
    """The reward server and how far training may run ahead of it."""

    url: str = "http://127.0.0.1:8000"
    # The environment variable that holds the key; with _FILE at its end: the file that does.
    api_key_env: str = "REWARD_API_KEY"
    # Groups that may still wait for their scores when the next batch is rolled out; None: one
    # batch (groups.per_step), 0: none, so that every update sees the policy's own scores.
    window: Annotated[int, Field(ge=0)] | None = None
    # Groups that may wait for people beside that window, where other rewards are asked for as well:
    # training goes on with those until people come. None: they count like all others.
    human_window: Count | None = None
    patience_s: NotNegative = 5.0  # scored groups wait so long for older ones, once, to keep order
    retry_budget_s: Positive = 600.0  # an unreachable server is retried this long


class PromptSet(Section):
    """One file of prompts, the reward that scores it, and its share of the groups.

    tags: only the prompts with one of these tags, so that a file's tags can have shares of their
    own; empty: all.
    """

    file: Path
    tags: tuple[str, ...] = ()
    reward: str
    share: Positive = 1.0
    options: dict[str, str | int | float | bool] = Field(default_factory=dict)


class HeldoutConfig(Section):
    """A small fixed probe (prompts and noise never change), scored through the server."""

    every: Annotated[int, Field(ge=0)] = 25  # iterations; 0: no probe
    prompts: tuple[PromptSet, ...] = ()
    count: Count = 64  # prompts in all, shared out like training prompts; a picture of each
    # An independent judge of the same images, whose parting from the score is a sign of reward
    # hacking: "judge" (the embedded world's own, in this process) or a reward of the server.
    second_opinion: str | None = None


class RolloutConfig(Section):
    """How the generator samples."""

    k_steps: Count = 4
    flow_shift: Positive = 2.0
    mode: Literal["deterministic", "stochastic"] = "deterministic"
    # dpmsolver++: DPM-Solver++ 2M on diffusers' grid, whose first time before the shift is 0.999;
    # updates take each of its steps again as one Euler step.
    solver: Solver = "euler"

    @property
    def times(self) -> tuple[float, ...]:
        """The grid of the steps: k_steps + 1 times from the noise to 0."""
        start = 1.0 if self.solver == "euler" else 0.999
        return time_grid(self.k_steps, self.flow_shift, start)


class GroupsConfig(Section):
    """Groups of samples of one prompt, and what happens when scores come late."""

    size: Annotated[int, Field(ge=2)] = 8
    per_step: Count = 8
    # group: each group's own; batch: pooled over the groups of a reward; global: of all rewards of
    # the batch, differences between prompts included.
    advantage_std: Literal["group", "batch", "global"] = "group"
    advantage_clip: Positive | None = None  # advantages beyond this count as this
    min_valid: Annotated[int, Field(ge=2)] = 2
    dead_std: NotNegative = 1e-3  # of the reward's range [0, 1]; below it a group says nothing
    # Iterations on stored groups after each on new scores: where a score is a person's click, phi
    # should read it more than once, and the generator has something to do meanwhile.
    replays: Annotated[int, Field(ge=0)] = 0
    memory: Count = 256  # newest scored groups kept for that, in memory and in checkpoints
    max_staleness: Annotated[int, Field(ge=0)] = 8  # versions; older groups train phi alone


class TargetConfig(Section):
    """The denoising target at re-noised times, common to surrogate and fake score."""

    kind: TargetKind = "mixed"
    # shifted: times are uniform before rollout.flow_shift, so that noisy ones are more frequent.
    times: Literal["uniform", "shifted"] = "uniform"
    t_min_gap: Annotated[float, Field(ge=0, lt=0.5)] = 0.02
    t_max: Annotated[float, Field(gt=0, le=1)] = 0.98
    # Draws of (step, time, noise) per update, whose gradients are averaged; of different steps for
    # fake score and generator.
    draws: Count = 1


class SurrogateConfig(Section):
    """phi, the surrogate reward parameterised as a diffusion model (Eq. 8/9)."""

    lr: Positive = 4e-5
    betas: Betas = (0.9, 0.99)
    updates: Count = 1  # per iteration; each redraws (j, t) and noise
    t_range: TimeRange = "full"
    # phi is trained, and pulls the generator's steps that begin there, at times from here on only:
    # what a picture shows is decided where it is mostly noise, and below that phi - reference is
    # mostly noise itself.
    t_min: Fraction = 0.0
    target: TargetKind | None = None  # None: as the fake score's, target.kind
    # late: step j of K is drawn with a probability proportional to j, or weighs j / K
    steps: Literal["uniform", "late"] = "uniform"
    step_weight: Literal["none", "late"] = "none"
    beta: Positive = 100.0
    # x0: w of the fake score, largest at t = 0.3, where x_t shows already what is in the picture;
    # flow: 1, as flow matching trains the teacher, so that t = 0.6-0.8 counts, where it is decided.
    weighting: Weighting = "x0"
    weight_norm: Positive = 1.0  # divides w; 0.08 makes the mean of "x0" about 1, like "flow"
    kl: NotNegative = 0.01
    kl_anchor: Literal["reference", "teacher"] = "teacher"
    # The trust region: no gradient from a sample whose exp(d_old - d) has left 1 +- clip the way
    # its advantage wants. old: an average of phi whose decay grows by 0.001 an iteration up to
    # old_decay, so that it is nearly the phi of the iteration before.
    clip: Positive | None = None
    clip_from: Literal["reference", "old"] = "reference"
    old_decay: Fraction = 0.3
    # Where a group's mean (v_phi - v_anchor)^2 exceeds this, samples that phi already tells from
    # the reference the way their advantage wants give no gradient.
    drift: Positive | None = None
    ema: Fraction = 0.98  # the smoothed phi used for g_r; 0: phi itself


class ReferenceConfig(Section):
    """What phi is compared with. static: the teacher; ema: a slow copy of phi that trails it."""

    kind: Literal["static", "ema"] = "static"
    decay: Fraction = 0.97


class FakeConfig(Section):
    """The score of the generator's own distribution (Eq. 1)."""

    lr: Positive = 2e-4
    betas: Betas = (0.0, 0.99)
    updates: Count = 1
    t_range: TimeRange = "full"
    start: Literal["student", "teacher"] = (
        "student"  # student: model.fake_lora, or else the student
    )
    weighting: Weighting = "x0"
    anchor: NotNegative = 0.0  # weight of (v_fake - v_teacher)^2, the teacher without guidance
    # Iterations before its first update: a score that was loaded with its generator needs none
    # while that generator stands still (generator.frozen).
    frozen: Annotated[int, Field(ge=0)] = 0


class GeneratorConfig(Section):
    """The few-step generator (Eq. 10/11)."""

    # muon takes about ten times the rate of adamw, and no betas
    optimizer: OptimizerKind = "adamw"
    lr: Positive = 4e-5
    betas: Betas = (0.0, 0.99)
    t_range: TimeRange = "full"
    ema: Fraction = 0.99
    ema_ramp: bool = False  # at most (1 + n)/(10 + n) after n updates, so that it starts fast
    # difference: g_kl + rho g_r at one x_t. mixture: distribution matching towards phi (a share of
    # phi_share) and the teacher, both guided, in three normalised terms; phi is heard at an x_t of
    # its own, whose noise is common to a group. It knows no rho, ratio or cap.
    form: Literal["difference", "mixture"] = "difference"
    # Guidance of phi as the generator hears it. In a difference, g_r is then guided phi - guided
    # teacher; in a mixture, guided phi - reference.
    phi_cfg: Annotated[float, Field(ge=1)] = 1.0
    phi_t_min: Fraction | None = None  # phi is heard at times from here on; None: surrogate.t_min
    phi_share: Annotated[float, Field(gt=0, le=1)] = 0.7  # mixture
    phi_steps: Count | None = None  # mixture: phi is heard in the first so many steps; None: in all
    teacher_cfg: Annotated[float, Field(ge=1)] = 4.0
    frozen: Annotated[int, Field(ge=0)] = 10  # iterations before its first update
    warmup: Annotated[int, Field(ge=0)] = 50  # iterations before g_r is used
    ratio: Literal["fixed", "norm_ema"] = "fixed"
    rho: NotNegative = 2.0  # fixed: factor of g_r; norm_ema: wanted |g_r| / |g_kl|
    ratio_cap: Positive | None = 3.0  # fixed: |rho g_r| stays below this times |g_kl|
    norm_floor: NotNegative = 0.05  # norm_ema: |g_r| counts as at least this times |g_kl|


class DgpoConfig(Section):
    """The first phase of `frozen_surrogate` and `dgpo_then_distil`: phi alone, on its own samples.

    phi is trained with many-step samples of its own, as DGPO (arXiv 2510.08425) trains a teacher.
    """

    iterations: Count = 200  # of run.iterations; the rest trains the generator
    steps: Count = 10  # per sample; guidance (generator.teacher_cfg) doubles the evaluations


class HealthConfig(Section):
    """When a run counts as collapsed; it then stops and keeps its last good checkpoint."""

    # auto: runs that start from a few-step student (model.student_lora); without one the images
    # must change beyond recognition.
    stop: Literal["auto", "always", "never"] = "auto"
    baseline: Count = 10  # first generator updates, whose images later ones are compared with
    patience: Count = 20  # updates in a row that must look collapsed
    smoothing: Fraction = 0.9  # of every watched number, before it is judged
    # allowed growth of |g_kl|, the pull back to the teacher: runs that stay well reach 1.5, one
    # that loses its objects 4.5 (docs/lab-notes.md); None: not watched
    kl_factor: Annotated[float, Field(gt=1)] | None = 2.5
    contrast_factor: Annotated[float, Field(gt=1)] = 2.5  # allowed change, up or down
    roughness_factor: Annotated[float, Field(gt=1)] = 2.0  # allowed change, up
    diversity_share: Fraction = 0.35  # of the start's distance between images of one prompt
    heldout_drop: Positive | None = 0.15  # below the best held-out score; None: not watched
    heldout_patience: Count = 2  # probes in a row
    # By how much score minus second opinion may exceed that of the first probe; None: unwatched
    second_gap: Positive | None = 0.1


class OptimizerConfig(Section):
    """What the optimizers of all roles have in common, and the schedule over the run."""

    weight_decay: NotNegative = 0.01
    eps: Positive = 1e-8
    grad_norm: Positive = 1.0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    final_lr: Annotated[float, Field(ge=0, le=1)] = 0.1  # share of the rate left at the end


class Config(Section):
    """The whole run."""

    # A file of trainer/configs/recipes that lies under this one: what is said here goes before it.
    recipe: str | None = None
    method: Method = "tdm_r1"
    run: RunConfig = RunConfig()
    model: ModelConfig = ModelConfig()
    lora: LoraConfig = LoraConfig()
    compute: ComputeConfig = ComputeConfig()
    server: ServerConfig = ServerConfig()
    prompts: tuple[PromptSet, ...] = ()
    heldout: HeldoutConfig = HeldoutConfig()
    rollout: RolloutConfig = RolloutConfig()
    groups: GroupsConfig = GroupsConfig()
    target: TargetConfig = TargetConfig()
    surrogate: SurrogateConfig = SurrogateConfig()
    reference: ReferenceConfig = ReferenceConfig()
    fake: FakeConfig = FakeConfig()
    generator: GeneratorConfig = GeneratorConfig()
    dgpo: DgpoConfig = DgpoConfig()
    health: HealthConfig = HealthConfig()
    optimizer: OptimizerConfig = OptimizerConfig()

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        for problem in cross_field_problems(self):
            raise ValueError(problem)
        return self
