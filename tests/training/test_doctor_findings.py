"""The doctor names what would stop a run, and what to do about it."""

from __future__ import annotations

import socket
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import constants

from shared.client import RewardClient
from tests.support.evaluation_setup import FunctionAsServer
from tests.support.server_setup import free_port
from trainer.cli import main
from trainer.config import Config, load_config, with_overrides
from trainer.doctor.configuration import config_findings
from trainer.doctor.surroundings import (
    NEEDED,
    Finding,
    Surroundings,
    browser_finding,
    disk_finding,
    examine,
    package_findings,
    port_finding,
    python_finding,
    server_findings,
    weights_finding,
    worst,
)
from trainer.evaluation.results import Evaluation, save, weight_hashes
from trainer.tiny.heldout import has_only_shapes

URL = "http://127.0.0.1:8000"


def _place(tmp_path: Path, **changes: Any) -> Surroundings:
    return Surroundings(**{"model": tmp_path / "model", "runs": tmp_path, "url": URL, **changes})


def _problem(status: int, code: str) -> httpx.MockTransport:
    body = {
        "type": "about:blank",
        "title": code,
        "status": status,
        "detail": code,
        "code": code,
        "retryable": False,
        "request_id": "r1",
    }
    return httpx.MockTransport(lambda request: httpx.Response(status, json=body))


def _refused(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused", request=request)


def test_an_old_python_and_old_or_missing_packages_fail_with_a_command() -> None:
    assert python_finding((3, 11)).status == "ok"
    assert python_finding((3, 10)).status == "fail"
    recent = package_findings(lambda name: "99.1.2+cpu")
    assert [f.status for f in recent] == ["ok"] * len(NEEDED)
    old = package_findings(lambda name: "0.1.0")
    assert all(f.status == "fail" and "pip install" in f.remedy for f in old)

    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    assert {f.text for f in package_findings(absent)} == {"not installed"}


def _model(folder: Path) -> Path:
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    (folder / "w.safetensors").write_bytes(b"weights")
    return folder


def test_weights_are_compared_with_their_evaluation(tmp_path: Path) -> None:
    assert "pretrain" in weights_finding(tmp_path / "nowhere").remedy
    model = _model(tmp_path / "model")
    assert weights_finding(model).status == "warn"
    evaluation = Evaluation(
        seed=0,
        prompts_sha256="",
        prompt_counts={},
        weights=weight_hashes(model),
        scorers={},
        versions={},
        rows={},
    )
    save(evaluation, model / "eval.json")
    assert weights_finding(model).status == "ok"
    (model / "w.safetensors").write_bytes(b"others")
    finding = weights_finding(model)
    assert finding.status == "fail"
    assert "w.safetensors" in finding.text


def test_disk_is_measured_where_the_run_will_write(tmp_path: Path) -> None:
    finding = disk_finding(tmp_path / "not" / "there" / "yet")
    assert "GB free" in finding.text


def test_a_taken_port_names_the_way_out() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        finding = port_finding(f"http://127.0.0.1:{port}")
    assert finding.status == "fail"
    assert f"PORT={port + 1}" in finding.remedy


def test_no_server_is_a_warning_because_a_run_starts_its_own(tmp_path: Path) -> None:
    client = RewardClient(URL, transport=httpx.MockTransport(_refused), budget_s=0)
    (finding,) = server_findings(client, _place(tmp_path))
    assert finding.status == "warn"
    assert "--port 8000 --data DIR" in finding.remedy


@pytest.mark.parametrize("key", [None, "wrong"])
def test_a_refused_key_says_where_keys_come_from(tmp_path: Path, key: str | None) -> None:
    client = RewardClient(URL, api_key=key, transport=_problem(401, "unauthorized"))
    (finding,) = server_findings(client, _place(tmp_path, api_key=key))
    assert finding.status == "fail"
    assert "REWARD_API_KEY" in finding.remedy
    assert ("not accepted" in finding.text) == (key is not None)


def test_missing_rewards_are_named(tmp_path: Path) -> None:
    with FunctionAsServer(lambda item: 1.0, rewards=("ocr",)).client() as client:
        server, rewards = server_findings(client, _place(tmp_path))
    assert server.status == "ok"
    assert rewards.status == "warn"
    assert "counting, human" in rewards.text


def test_a_page_that_is_not_the_server_is_a_failure(tmp_path: Path) -> None:
    page = httpx.MockTransport(lambda request: httpx.Response(200, text="<html>router</html>"))
    (finding,) = server_findings(RewardClient(URL, transport=page), _place(tmp_path))
    assert finding.status == "fail"


def test_a_browser_is_optional() -> None:
    assert browser_finding(lambda name: None).status == "warn"
    assert browser_finding(lambda name: "/usr/bin/" + name).text == "/usr/bin/chromium"


def test_the_whole_examination_here_finds_this_python_and_its_packages(tmp_path: Path) -> None:
    _model(tmp_path / "model")
    with FunctionAsServer(lambda item: 1.0, rewards=("counting", "human", "ocr")).client() as c:
        findings = examine(_place(tmp_path), c)
    by_name = {f.what: f.status for f in findings}
    assert {by_name[name] for name in ("python", *NEEDED)} == {"ok"}
    assert by_name["server"] == by_name["rewards"] == "ok"
    assert "port" not in by_name, "a port that a server answers on is not meant to be free"


def said(config: Config, known: dict[str, str] | None = None) -> dict[str, Finding]:
    return {finding.what: finding for finding in config_findings(config, known, has_only_shapes)}


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of a hub on this machine."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("empty_cache")
def test_what_a_configuration_lacks_is_named(tmp_path: Path) -> None:
    shapes = {"counting": "counting/shapes@1", "ocr": "ocr/1"}
    tiny = load_config("trainer/configs/tiny.toml")
    assert {f.status for f in config_findings(tiny, shapes, has_only_shapes)} == {"ok"}
    assert "no reward 'ocr'" in said(tiny, {"counting": "counting/shapes@1"})["rewards"].text
    photos = load_config("trainer/configs/sd35-medium.toml")
    absent = with_overrides(photos, [f"model.path={tmp_path}", "model.student_lora=/no/where"])
    assert said(absent)["student_lora"].status == "fail"
    found = said(photos, shapes)
    assert found["prompts"].text.startswith("1940 to train on")
    assert found["student_lora"].status == "warn"
    assert "must be downloaded first" in found["student_lora"].text
    assert "'a photo of" in found["counting"].text and "docs/rewards.md" in found["counting"].remedy
    assert "counting" not in said(photos, {"counting": "counting/PekingU/rtdetr_r50vd"})
    assert said(load_config(None))["student"].status == "warn"
    assert said(load_config(None))["prompts"].status == "fail"
    absent = with_overrides(tiny, [f'prompts.0.file="{tmp_path / "absent.jsonl"}"'])
    assert "absent.jsonl" in said(absent)["prompts"].text


def test_prompts_for_objects_without_a_name_are_counted() -> None:
    photos = load_config("trainer/configs/sd35-medium.toml")
    names = Path("trainer/photos/objects.txt").read_text().split("\n")
    known = {"counting": "counting/some/detector"}
    whole = config_findings(photos, known, has_only_shapes, {"counting": names})
    assert [one.text for one in whole if one.what == "counting"] == [
        "the server's detector names every class of 2040 prompts"
    ]
    without = {"counting": [name for name in names if name != "couch"]}
    (finding,) = (
        one
        for one in config_findings(photos, known, has_only_shapes, without)
        if one.what == "counting"
    )
    assert finding.status == "fail"
    prompts = Path("trainer/photos/prompts")
    lines = [line for f in prompts.iterdir() for line in f.read_text().splitlines()]
    lost = sum('"couch"' in line for line in lines)
    assert finding.text.startswith("the server's detector has no couch: ")
    assert f" {lost} of 2040 prompts get no reward, e.g. 'a photo of" in finding.text


@pytest.mark.usefixtures("empty_cache")
def test_the_command_examines_the_configuration_it_is_given(
    capsys: pytest.CaptureFixture[str],
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    words = ["doctor", "--config", "trainer/configs/sd35-medium.toml", "--server", nobody]
    assert main(words) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "hf download stabilityai/stable-diffusion-3.5-medium" in out
    assert main([*words, "--model", "no/such/folder"]) == 1
    out = capsys.readouterr().out
    assert "no/such/folder is no pipeline folder" in " ".join(out.split())
    assert "1940 to train on" in out


def test_the_worst_finding_decides() -> None:
    assert worst([]) == "ok"
    assert worst([Finding("ok", "a", ""), Finding("warn", "b", "")]) == "warn"
    assert worst([Finding("fail", "a", ""), Finding("warn", "b", "")]) == "fail"
