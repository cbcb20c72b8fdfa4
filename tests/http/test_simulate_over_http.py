"""Simulated annotators use the browser's API, keep their limits, and leave nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from reward_server.__main__ import main as command_line
from reward_server.simulation.tastes import likes_high, likes_light
from shared.client import RewardClient
from tests.support.labeling_setup import ROOT, Server, eventually, running_server


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def server(shared_server: Server) -> Iterator[Server]:
    yield shared_server
    shared_server.ask_no_more()


def simulate(url: str, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "reward_server", "simulate", "--url", url, *options]
    return subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=180)
    return process.returncode, out, err


def test_without_noise_every_reward_is_the_taste_in_the_pixels(server: Server) -> None:
    job, pictures = server.ask(30)
    options = ["--rate=0", "--noise=0", "--max-labels=30"]
    code, out, err = ended(simulate(server.url, *options))
    assert (code, err) == (0, "")
    assert "30 labels" in out
    assert server.finished(job).rewards == [float(likes_high(p)) for p in pictures]


def test_several_annotators_share_a_queue_and_vote_once_each(server: Server) -> None:
    job, pictures = server.ask(12, votes=3)
    options = ["--annotators=4", "--rate=0", "--noise=0", "--preference=light", "--max-labels=36"]
    code, _, err = ended(simulate(server.url, *options))
    assert (code, err) == (0, "")
    result = server.finished(job)
    votes = [item.votes for item in result.data if item.votes]
    assert [v.like + v.dislike + v.skip for v in votes] == [3] * 12
    assert result.rewards == [float(likes_light(p)) for p in pictures]


def test_a_limit_is_not_exceeded_by_many_hands(server: Server) -> None:
    server.ask(40, prefix="limit")
    before = labels(server)
    code, out, _ = ended(simulate(server.url, "--annotators=3", "--rate=0", "--max-labels=17"))
    assert code == 0
    assert "17 labels" in out
    stats = httpx.get(f"{server.url}/label/stats", trust_env=False).json()
    assert (stats["labels"] - before, stats["leased"]) == (17, 0)


def test_ctrl_c_gives_the_pictures_back_and_ends_well(server: Server) -> None:
    server.ask(40, prefix="stop")
    before = labels(server)
    process = simulate(server.url, "--annotators=2", "--rate=5")
    eventually(lambda: labels(server) >= before + 2)
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process)
    assert (code, err) == (0, "")
    assert f"{labels(server) - before} labels" in out
    assert httpx.get(f"{server.url}/label/stats", trust_env=False).json()["leased"] == 0


def test_a_server_killed_in_the_middle_gets_every_label_once(server: Server) -> None:
    job, pictures = server.ask(40, prefix="killed")
    before = labels(server)
    process = simulate(server.url, "--rate=20", "--noise=0", "--max-labels=40")
    eventually(lambda: labels(server) >= before + 5)
    server.kill()
    server.start()
    code, out, _ = ended(process)
    assert code == 0
    assert "40 labels" in out
    result = server.finished(job)
    assert result.rewards == [float(likes_high(p)) for p in pictures]
    assert labels(server) == before + 40


def test_the_rate_is_kept(server: Server) -> None:
    server.ask(30, prefix="rate")
    code, out, _ = ended(simulate(server.url, "--rate=8", "--max-labels=24"))
    assert code == 0
    rate = float(out.splitlines()[-1].split("liked, ")[1].split(" a second")[0])
    assert 1 < rate <= 8.2


def test_more_annotators_than_invites_is_a_usage_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command_line(["simulate", "--annotators=3", "--invite=a"]) == 2
    assert "give one --invite for each of them" in capsys.readouterr().err


def test_a_wrong_invite_is_refused_with_the_servers_words(server: Server) -> None:
    code, _, err = ended(simulate(server.url, "--invite=inv_wrong"))
    assert code == 1
    assert "invite is unknown or revoked" in err


def test_invited_people_work_on_a_server_with_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_server(tmp_path) as server:
        job, pictures = server.ask(6)
        link = made(server, capsys, "invite", "create", "--name=ann", f"--url={server.url}")
        key = made(server, capsys, "keys", "create", "--name=bot", "--scope=label")
        code, _, err = ended(simulate(server.url, "--max-labels=1"))
        assert (code, "needs an invite" in err) == (1, True)
        options = ["--rate=0", "--noise=0"]
        assert ended(simulate(server.url, *options, f"--invite={link}", "--max-labels=4"))[0] == 0
        assert ended(simulate(server.url, *options, f"--api-key={key}", "--max-labels=2"))[0] == 0
        team = made(server, capsys, "keys", "create", "--name=team")
        requester = RewardClient(server.url, api_key=team)
        with requester:
            eventually(lambda: requester.job(job).terminal)
            assert requester.job(job).rewards == [float(likes_high(p)) for p in pictures]


def made(server: Server, capsys: pytest.CaptureFixture[str], *command: str) -> str:
    """What a command of the server's owner prints: a link or a key."""
    assert command_line([*command, "--data", str(server.data)]) == 0
    return capsys.readouterr().out.strip()


def labels(server: Server) -> int:
    found: int = httpx.get(f"{server.url}/label/stats", trust_env=False).json()["labels"]
    return found
