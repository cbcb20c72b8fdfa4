"""Models and LoRAs named as on the Hugging Face hub: `owner/name[:file][@revision]`.

A path that exists is that path; anything else of that form is fetched into the hub's own cache
(`HF_HUB_CACHE`), once, and then found there without a network. Weights come as safetensors; a
torch file is fetched only where it is named.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is its client's
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)

from trainer.errors import ModelError

FORM = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)"
    r"(?::(?P<file>[^@:]+))?(?:@(?P<revision>[\w./-]+))?"
)
# What lies beside or in other folders is the model once more, in the layouts of other programs.
PARTS = (
    "scheduler",
    *(f"{part}{n}" for part in ("text_encoder", "tokenizer") for n in ("", "_2", "_3")),
    "transformer",
    "vae",
)
ENDINGS = ("json", "safetensors", "txt", "model", "jinja")
PIPELINE_FILES = ("model_index.json", *(f"{part}/*.{end}" for part in PARTS for end in ENDINGS))
OTHER_PRECISIONS = ("*.fp16.safetensors", "*.fp16-*.safetensors", "*.bf16.safetensors")
CONFIG_FILE = "adapter_config.json"
LORA_FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")


@dataclass(frozen=True)
class HubName:
    """What `owner/name[:file][@revision]` says; revision: a branch, tag or commit."""

    repo: str
    file: str | None = None
    revision: str | None = None

    @property
    def command(self) -> str:
        """The command that downloads it where there is a network."""
        file = f" {self.file}" if self.file else ""
        revision = f" --revision {self.revision}" if self.revision else ""
        return f"hf download {self.repo}{file}{revision}"


def hub_name(path: Path) -> HubName | None:
    """The hub's name that a path is, unless it is there or cannot be one."""
    match = FORM.fullmatch(path.as_posix())
    if match is None or path.exists():
        return None
    return HubName(match["repo"], match["file"], match["revision"])


def model_folder(path: Path) -> Path:
    """The folder of a pipeline on this machine, downloaded if need be.

    Raises:
        ModelError: the hub does not have it, or cannot be reached.
    """
    name = hub_name(path)
    if name is None:
        return path
    if name.file is not None:
        raise ModelError(
            f"{path} names a file, and a model is a folder of parts; leave out ':{name.file}'"
        )
    return _fetched(path, name, PIPELINE_FILES, ("model_index.json",))


def lora_path(path: Path) -> Path:
    """The folder or file of a LoRA on this machine, downloaded if need be.

    Raises:
        ModelError: the hub does not have it, or cannot be reached.
    """
    name = hub_name(path)
    if name is None:
        return path
    if name.file is None:
        return _fetched(path, name, (*LORA_FILES, CONFIG_FILE), LORA_FILES)
    beside = (Path(name.file).parent / CONFIG_FILE).as_posix()
    folder = _fetched(path, name, (name.file, beside), (name.file,))
    return folder / name.file


def is_here(path: Path) -> bool:
    """False for a model or LoRA of the hub that is not in the cache yet."""
    name = hub_name(path)
    if name is None:
        return True
    needed = (name.file,) if name.file else ("model_index.json", *LORA_FILES)
    try:
        _fetched(path, name, (*needed, CONFIG_FILE), needed, look_only=True)
    except ModelError:
        return False
    return True


@cache
def _fetched(
    path: Path,
    name: HubName,
    files: tuple[str, ...],
    needed: tuple[str, ...],
    *,
    look_only: bool = False,
) -> Path:
    """The snapshot's folder, with those of the files that the hub has: one of `needed` at least."""
    try:
        found = snapshot_download(
            name.repo,
            revision=name.revision,
            allow_patterns=list(files),
            ignore_patterns=list(OTHER_PRECISIONS),
            local_files_only=look_only or constants.is_offline_mode(),
        )
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise ModelError(_unreachable(path, name)) from error
    except GatedRepoError as error:
        raise ModelError(
            f"{name.repo} asks for consent: accept its terms on its page of {constants.ENDPOINT}, "
            "then `hf auth login` (or HF_TOKEN)"
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"there is no folder {path} here, and {constants.ENDPOINT} does not give it: {reason}. "
            "Check the name and the revision; a private one needs `hf auth login` (or HF_TOKEN)"
        ) from error
    except HTTPError as error:  # of its HTTP client: a proxy that refuses, for example
        raise ModelError(f"{_unreachable(path, name)} ({error})") from error
    folder = Path(found)
    if not any((folder / file).is_file() for file in needed):
        if look_only or constants.is_offline_mode():
            raise ModelError(_unreachable(path, name))
        raise ModelError(
            f"{name.repo} on the hub holds no {' and no '.join(needed)}; a LoRA's file of another "
            f"name is named behind a colon: {name.repo}:FOLDER/FILE"
        )
    return folder


def _unreachable(path: Path, name: HubName) -> str:
    why = "the hub is switched off here" if constants.is_offline_mode() else "no hub answers here"
    cache = os.environ.get("HF_HUB_CACHE") or constants.HF_HUB_CACHE
    return (
        f"there is no folder {path}, {name.repo} is not in the cache {cache}, and {why}. Where "
        f"there is a network: `{name.command}`; then copy that machine's cache to this one's "
        f"(HF_HUB_CACHE says where), or add --local-dir DIR, copy DIR here and name it instead"
    )
