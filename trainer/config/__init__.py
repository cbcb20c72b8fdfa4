"""The typed configuration: `tree` declares every key, `reading` reads TOML and `--set`, `checks`
rejects combinations that cannot train."""

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
    SurrogateConfig,
    TimeRange,
    load_config,
    with_overrides,
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
    "SurrogateConfig",
    "TimeRange",
    "load_config",
    "with_overrides",
]
