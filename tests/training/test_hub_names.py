"""`owner/name[:file][@revision]` is fetched from a hub once, pinned, and as safetensors alone."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from tests.support.fakes import build_sd3_folder
from trainer.cli import main
from trainer.config import ComputeConfig, Config, ModelConfig
from trainer.doctor.surroundings import weights_finding
from trainer.errors import ModelError
from trainer.export import readme
from trainer.models import hub
from trainer.models.backbones import load_backbone
from trainer.models.lora_files import Lora, LoraSpec, read_lora

COMMIT = hashlib.sha1(b"the pinned one").hexdigest()
BRANCHES = {"main": COMMIT, "v1": COMMIT}


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's interface as its own client needs to download a repository."""

    root: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.asked.append(path)
        words = path.strip("/").split("/")
        if words[:2] == ["api", "models"]:
            self._api("/".join(words[2:4]), words[4:])
        elif len(words) > 4 and words[2] == "resolve":
            self._file(self.root / words[0] / words[1] / "/".join(words[4:]))
        else:
            self._answer(404, b"")

    def _api(self, repo: str, rest: list[str]) -> None:
        folder = self.root / repo
        if not folder.is_dir():
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        names = [p.relative_to(folder).as_posix() for p in files]
        if rest[:1] == ["tree"]:
            entries = [
                {"type": "file", "path": n, "size": p.stat().st_size, "oid": digest(p)}
                for n, p in zip(names, files, strict=True)
            ]
            self._answer(200, json.dumps(entries).encode())
            return
        revision = rest[1] if rest[:1] == ["revision"] else "main"
        if BRANCHES.get(revision, revision) != COMMIT:
            self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [{"rfilename": name} for name in names]
        self._answer(200, json.dumps({"id": repo, "sha": COMMIT, "siblings": siblings}).encode())

    def _file(self, file: Path) -> None:
        if not file.is_file():
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        self._answer(200, file.read_bytes(), {"ETag": f'"{digest(file)}"'})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        common = {"X-Repo-Commit": COMMIT, "Content-Length": str(len(body))}
        for name, value in (common | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


def digest(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repositories: a pipeline, with files that must not be fetched, and a few LoRAs."""
    root = tmp_path_factory.mktemp("hub")
    model = build_sd3_folder(root / "owner" / "model")
    (model / "whole.safetensors").write_bytes(b"the model once more, as a single file")
    (model / "text_encoders").mkdir()
    (model / "text_encoders" / "t5xxl.safetensors").write_bytes(b"a part once more")
    (model / "vae" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps("code"))
    (model / "vae" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"half")
    lora = root / "owner" / "lora"
    lora.mkdir()
    pair = {
        "base_model.model.transformer_blocks.0.attn.to_q.lora_A.weight": torch.ones(2, 16),
        "base_model.model.transformer_blocks.0.attn.to_q.lora_B.weight": torch.ones(16, 2),
    }
    for folder, alpha in ((lora, 4), (lora / "step-100", 6)):
        folder.mkdir(exist_ok=True)
        save_file(pair, folder / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "r": 2, "lora_alpha": alpha}
        (folder / "adapter_config.json").write_text(json.dumps(config))
    (lora / "optimizer.bin").write_bytes(bytes(1000))
    return root


@pytest.fixture
def asked(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub on this machine, an empty cache, and what is asked of it."""
    handler = type("Shelf", (Hub,), {"root": shelf, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    files = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.chdir(tmp_path)
    hub._fetched.cache_clear()
    yield handler.asked
    server.shutdown()
    server.server_close()
    hub._fetched.cache_clear()


def switch_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub._fetched.cache_clear()


def test_a_model_is_fetched_once_and_then_found_offline(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ModelConfig(path=Path("owner/model@v1"), resolution=32, max_sequence_length=1)
    backbone = load_backbone(model, ComputeConfig())
    assert backbone.encode(["a sign"])["tokens"].isfinite().all()
    fetched = [path for path in asked if "/resolve/" in path]
    assert fetched
    assert all(COMMIT in path for path in fetched), "one revision for all"
    unwanted = (".bin", "whole.safetensors", "t5xxl.safetensors", ".fp16.safetensors")
    assert not [path for path in fetched if path.endswith(unwanted)]
    switch_off(monkeypatch)
    asked.clear()
    load_backbone(model, ComputeConfig())
    assert weights_finding(model.path).status == "ok"
    assert asked == []
    config = Config.model_validate({"model": model})
    tensors = {f"transformer_blocks.0.attn.to_q.lora_{c}.weight": torch.ones(2, 2) for c in "AB"}
    lora = Lora(LoraSpec(2, 2.0, ("transformer_blocks.0.attn.to_q",)), tensors)
    card = readme(lora, config, Path("out/x.safetensors"), "diffusers")
    assert "base_model: owner/model\n" in card
    assert "'owner/model',\n    revision='v1',\n" in card


def test_a_lora_is_named_by_repository_file_and_revision(
    asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read_lora(Path("owner/lora")).spec.alpha == 4
    assert read_lora(Path(f"owner/lora@{COMMIT}")).spec.alpha == 4
    assert not [path for path in asked if path.endswith("optimizer.bin")]
    name = "owner/lora:step-100/adapter_model.safetensors@v1"
    assert main(["import-lora", name, "--out", str(tmp_path / "out")]) == 0
    assert read_lora(tmp_path / "out").spec.alpha == 6
    assert "rank 2, alpha 6" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("owner/absent", "no folder owner/absent here, and .* does not give it"),
        ("owner/lora@v9", "does not give it"),
        ("owner/lora:absent.safetensors", "holds no absent.safetensors"),
        ("owner/model", "holds no pytorch_lora.* and no adapter_model.*owner/model:FOLDER/FILE"),
    ],
)
def test_names_that_the_hub_does_not_know(asked: list[str], name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_lora(Path(name))


def test_offline_says_what_to_download_and_where_to_put_it(
    asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch_off(monkeypatch)
    for name, command in (
        ("owner/lora", "hf download owner/lora`"),
        ("owner/lora:a.ckpt@v1", r"hf download owner/lora a.ckpt --revision v1`"),
    ):
        with pytest.raises(ModelError, match=command) as caught:
            read_lora(Path(name))
        assert str(tmp_path / "cache") in str(caught.value)
        assert "--local-dir DIR" in str(caught.value)
    with pytest.raises(ModelError, match="hf download owner/model`"):
        load_backbone(ModelConfig(path=Path("owner/model")), ComputeConfig())
    with pytest.raises(ModelError, match="a model is a folder of parts"):
        load_backbone(ModelConfig(path=Path("owner/model:file")), ComputeConfig())
    assert not hub.is_here(Path("owner/lora"))
    assert weights_finding(Path("owner/model")).status == "warn"
    assert asked == []


def test_a_hub_that_does_not_answer_is_like_none(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match=r"no hub answers here.*hf download owner/lora"):
        read_lora(Path("owner/lora"))


def test_folders_come_first_and_paths_are_no_names(asked: list[str], tmp_path: Path) -> None:
    shutil.copytree(Path(__file__).parent, tmp_path / "owner" / "model")
    assert hub.hub_name(Path("owner/model")) is None
    for path in ("trainer/tiny/weights", "nowhere", "/owner/name", "./a/b/c", "../owner/name"):
        assert hub.hub_name(Path(path)) is None
    found = hub.hub_name(Path("a/b:c/d.ckpt@refs/pr/3"))
    assert found == hub.HubName("a/b", "c/d.ckpt", "refs/pr/3")


class Malice:
    """Would write a file if it were unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("touched"),)


@pytest.mark.parametrize("part", ["vae", "transformer", "text_encoder"])
def test_pickled_weights_are_not_opened(
    shelf: Path, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = shutil.copytree(shelf / "owner" / "model", tmp_path / "model")
    for file in (model / part).glob("*.safetensors"):
        file.unlink()
    name = "pytorch_model.bin" if part == "text_encoder" else "diffusion_pytorch_model.bin"
    torch.save(Malice(), model / part / name)
    with pytest.raises(ModelError, match="does not load as a StableDiffusion3Pipeline"):
        load_backbone(ModelConfig(path=model), ComputeConfig())
    assert not (tmp_path / "touched").exists()
