"""The LoRAs that the roles start from, as the configuration names them."""

from __future__ import annotations

from pathlib import Path

from trainer.config import Config
from trainer.models.backbones import backbone_class
from trainer.models.hub import model_folder
from trainer.models.lora_files import Lora, read_lora
from trainer.models.lora_formats.nameless import Order, parameter_order


def read_student(config: Config) -> Lora:
    """`model.student_lora`, which must be set.

    Raises:
        ModelError: it cannot be read, or does not say its scale and `model.student_alpha` neither.
    """
    model = config.model
    return _read(config, model.student_lora, model.student_alpha, "model.student_alpha")


def read_fake(config: Config) -> Lora:
    """`model.fake_lora`, which must be set.

    Raises:
        ModelError: it cannot be read, or does not say its scale and `model.fake_alpha` neither.
    """
    return _read(config, config.model.fake_lora, config.model.fake_alpha, "model.fake_alpha")


def order_of(config: Config) -> Order:
    """The adapter's parameters in the model's order, for files without names; found when asked."""

    def order() -> dict[str, tuple[int, ...]]:
        targets = config.lora.targets or backbone_class(config.model).default_lora_targets
        return parameter_order(model_folder(config.model.path), targets)

    return order


def _read(config: Config, path: Path | None, alpha: float | None, setting: str) -> Lora:
    if path is None:
        raise ValueError(f"{setting.replace('_alpha', '_lora')} is not set")
    return read_lora(path, alpha, order=order_of(config), setting=setting)
