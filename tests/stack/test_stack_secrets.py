"""Promise: a stack's secrets are made once, kept in files only their owner reads, and renewed on
request; a scorer shows that it is well, and programs take their key from a file.
"""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from reward_server.__main__ import main
from shared.keys import KeyFileUnreadable, api_key
from tests.support.server_setup import ENV, ROOT, eventually, inside, items

Provision = Callable[..., str]


@pytest.fixture
def provision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Provision:
    """``python -m reward_server provision`` for a trainer and a person; what it said."""

    def run(*more: str) -> str:
        wanted = [f"--key=trainer=score={tmp_path / 'keys' / 'trainer'}"]
        wanted += [f"--invite=annotator={tmp_path / 'keys' / 'invite'}"]
        assert main(["provision", *wanted, "--data", str(tmp_path / "data"), *more]) == 0
        return "".join(capsys.readouterr())

    return run


def held(tmp_path: Path) -> dict[str, str]:
    return {f.name: f.read_text().strip() for f in (tmp_path / "keys").iterdir()}


def admitted(tmp_path: Path, key: str) -> int:
    with inside(tmp_path / "data") as client:
        headers = {"Authorization": f"Bearer {key}"}
        return client.post("/score/human", json={"items": items(1)}, headers=headers).status_code


def test_secrets_are_made_once_and_never_said(tmp_path: Path, provision: Provision) -> None:
    said = provision()
    made = held(tmp_path)
    assert sorted(made) == ["invite", "trainer"]
    for file in (tmp_path / "keys").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o400
    said += provision()
    assert held(tmp_path) == made
    assert not [secret for secret in made.values() if secret in said]
    assert admitted(tmp_path, made["trainer"]) == 202
    with inside(tmp_path / "data") as client:
        assert client.get("/", params={"invite": made["invite"]}).is_success
        assert client.get("/label/me").json()["name"] == "annotator"


def test_a_renewed_key_makes_the_old_one_useless(tmp_path: Path, provision: Provision) -> None:
    provision()
    before = held(tmp_path)
    provision("--renew", "trainer")
    after = held(tmp_path)
    assert after["invite"] == before["invite"] and after["trainer"] != before["trainer"]
    assert (admitted(tmp_path, before["trainer"]), admitted(tmp_path, after["trainer"])) == (
        401,
        202,
    )
    assert "trainer-2" in provision()


def test_secrets_of_another_database_are_made_anew(tmp_path: Path, provision: Provision) -> None:
    provision()
    before = held(tmp_path)
    (tmp_path / "data").rename(tmp_path / "lost")
    provision()
    after = held(tmp_path)
    assert not set(before.values()) & set(after.values())
    assert admitted(tmp_path, after["trainer"]) == 202


def test_mistakes_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--data", str(tmp_path)]
    for wrong in (f"--key=a=everything={tmp_path / 'a'}", "--key=a=score", "--invite=anna"):
        with pytest.raises(SystemExit):
            main(["provision", wrong, *where])
        assert wrong.partition("=")[2] in capsys.readouterr().err
    assert main(["provision", "--renew", "nobody", *where]) == 2
    assert "nobody" in capsys.readouterr().err


def test_a_key_may_lie_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("rsk_from_a_file\n")
    assert api_key("K", {"K_FILE": str(file)}) == "rsk_from_a_file"
    assert api_key("K", {"K": "rsk_itself", "K_FILE": str(file)}) == "rsk_itself"
    assert api_key("K", {}) is None
    for text in ("", "\n"):
        file.write_text(text)
        with pytest.raises(KeyFileUnreadable, match="K_FILE"):
            api_key("K", {"K_FILE": str(file)})
    with pytest.raises(KeyFileUnreadable, match="nowhere"):
        api_key("K", {"K_FILE": str(tmp_path / "nowhere")})


def test_a_scorer_that_is_well_touches_its_file(tmp_path: Path) -> None:
    beat, data = tmp_path / "beat", tmp_path / "data"
    data.mkdir()
    command = [sys.executable, "-m", "reward_server", "scorer", "--heartbeat", str(beat)]
    environment = ENV | {"REWARD_DATA": str(data)}
    scorer = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: beat.exists() or scorer.poll() is not None, 300)
        first = beat.stat().st_mtime_ns
        eventually(lambda: beat.stat().st_mtime_ns > first)
    finally:
        scorer.terminate()
        assert scorer.wait(120) == 0
