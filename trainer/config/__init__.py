"""The typed configuration: `tree` declares every key, `reading` reads TOML and `--set`, `loading`
puts recipe, file and command line over each other, `checks` rejects what cannot train."""

from trainer.config.loading import load_config, with_overrides
from trainer.config.tree import (
    Betas,
    ComputeConfig,
    Config,
    Count,
    GroupsConfig,
    HealthConfig,
    HeldoutConfig,
    ModelConfig,
    OptimizerConfig,
    OptimizerKind,
    PromptSet,
    RolloutConfig,
    Section,
    Solver,
    SurrogateConfig,
    TimeRange,
    Weighting,
)

__all__ = [
    "Betas",
    "ComputeConfig",
    "Config",
    "Count",
    "GroupsConfig",
    "HealthConfig",
    "HeldoutConfig",
    "ModelConfig",
    "OptimizerConfig",
    "OptimizerKind",
    "PromptSet",
    "RolloutConfig",
    "Section",
    "Solver",
    "SurrogateConfig",
    "TimeRange",
    "Weighting",
    "load_config",
    "with_overrides",
]
