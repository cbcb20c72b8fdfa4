"""The trainer's one exception tree.

Each message carries the offending value and what to do about it; the command line prints it without
a traceback. Nothing here catches or retries: that is the caller's decision.
"""

from __future__ import annotations


class TrainerError(Exception):
    """Something that stops the trainer, in words meant for the person who started it."""


class ConfigError(TrainerError):
    """A key, a value or a combination of values that cannot be trained with."""


class ModelError(TrainerError):
    """A model folder or LoRA file that does not fit."""


class PromptError(TrainerError):
    """A prompt file that is missing, empty or malformed."""


class CheckpointError(TrainerError):
    """A checkpoint that cannot be written or does not belong to this run."""


class UnscoredError(TrainerError):
    """A machine reward scores nothing at all; the run was saved."""


class OtherProcessError(UnscoredError):
    """The reward server let down another of several processes; the run was saved."""


class TrainingCollapsedError(TrainerError):
    """The generator's images or its held-out score fell apart; the last good state was kept."""


class TrainingDivergedError(TrainerError):
    """A loss or gradient stopped being a finite number."""
