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

import httpx
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)

from trainer.errors import ModelError

FORM = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)"
    r"(?::(?P<file>[^@:]+))?(?:@(?P<revision>[\w./-]+))?"
)
# A pipeline's parts lie in folders; what lies beside them is the model once more in other layouts.
PIPELINE_FILES = (
    "model_index.json",
    *(f"*/*.{ending}" for ending in ("json", "safetensors", "txt", "model", "jinja")),
)
OTHER_PRECISIONS = ("*.fp16.safetensors", "*.fp16-*.safetensors", "*.bf16.safetensors")
CONFIG_FILE = "adapter_config.json"
LORA_FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors", CONFIG_FILE)


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


def model_folder(path: Path, *, look_only: bool = False) -> Path:
    """The folder of a pipeline on this machine; look_only: without downloading anything.

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
    return _fetched(path, name, PIPELINE_FILES, "model_index.json", look_only=look_only)


def lora_path(path: Path, *, look_only: bool = False) -> Path:
    """The folder or file of a LoRA on this machine; look_only: without downloading anything.

    Raises:
        ModelError: the hub does not have it, or cannot be reached.
    """
    name = hub_name(path)
    if name is None:
        return path
    if name.file is None:
        return _fetched(path, name, LORA_FILES, None, look_only=look_only)
    beside = (Path(name.file).parent / CONFIG_FILE).as_posix()
    folder = _fetched(path, name, (name.file, beside), name.file, look_only=look_only)
    return folder / name.file


@cache
def _fetched(
    path: Path, name: HubName, files: tuple[str, ...], needed: str | None, *, look_only: bool
) -> Path:
    """The snapshot's folder, with those of the files that the hub has."""
    try:
        found = snapshot_download(
            name.repo,
            revision=name.revision,
            allow_patterns=list(files),
            ignore_patterns=list(OTHER_PRECISIONS),
            local_files_only=look_only or constants.is_offline_mode(),
        )
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.HTTPError, ConnectionError) as e:
        raise ModelError(_unreachable(path, name)) from e
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
    folder = Path(found)
    if needed is not None and not (folder / needed).is_file():
        offline = look_only or constants.is_offline_mode()
        raise ModelError(
            _unreachable(path, name)
            if offline
            else f"{name.repo} on the hub holds no {needed}; files are named as in "
            f"{name.repo}:FOLDER/FILE"
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
