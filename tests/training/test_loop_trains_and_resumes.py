"""Training over HTTP: it runs, it resumes to the last bit, it loses no group."""

from __future__ import annotations

import io
import math
import signal
import threading
from pathlib import Path

import httpx
import pytest
from rich.console import Console
from safetensors.torch import load_file

from shared.errors import ServerUnreachable
from shared.images import Pixels
from shared.schema import ScoreRequest
from tests.support.fakes import FunctionServer, brightness
from tests.support.small_runs import (
    PROMPTS,
    cut_short,
    final_state,
    prompt_set,
    same_bits,
    small_run,
    trained,
)
from trainer.errors import CheckpointError, ConfigError
from trainer.loop import train
from trainer.models.lora_files import Lora, LoraSpec
from trainer.run.heldout import Probe
from trainer.run.log import read_metrics


@pytest.mark.parametrize("window", [0, 2], ids=["no lead", "one batch ahead"])
def test_a_resumed_run_ends_with_the_same_bits(model: Path, tmp_path: Path, window: int) -> None:
    server = FunctionServer(brightness)
    whole = small_run(model, tmp_path, f"server.window={window}", "run.name=whole")
    expected = final_state(trained(whole, server))
    parts = small_run(model, tmp_path, f"server.window={window}", "run.name=parts")
    trained(cut_short(parts, 1), server)
    folder = trained(parts, server, resume=True)
    assert same_bits(final_state(folder), expected)
    rows = read_metrics(folder)
    assert [row["iteration"] for row in rows] == [0, 1, 2, 3]


def test_all_roles_move_and_the_base_stays(model: Path, tmp_path: Path) -> None:
    server = FunctionServer(brightness)
    before = load_file(model / "transformer" / "diffusion_pytorch_model.safetensors")
    folder = trained(small_run(model, tmp_path), server)
    state = final_state(folder)
    for role in ("generator", "generator_ema", "fake", "surrogate", "surrogate_ema"):
        moved = [t for k, t in state.items() if k.startswith(f"lora/{role}/") and "lora_B" in k]
        assert any(t.abs().max() > 0 for t in moved), role
    after = load_file(model / "transformer" / "diffusion_pytorch_model.safetensors")
    assert same_bits(before, after)


def test_metrics_say_what_the_run_did(model: Path, tmp_path: Path) -> None:
    server = FunctionServer(brightness)
    folder = trained(small_run(model, tmp_path), server)
    row = read_metrics(folder)[2]
    for name in (
        "reward/mean",
        "reward/brightness",
        "surrogate/ranking_accuracy",
        "force/ratio",
        "force/cosine",
        "inflight/groups",
        "time/rollout",
        "time/rewards",
        "time/surrogate",
        "time/fake",
        "time/generator",
    ):
        assert name in row, name
    assert list((folder / "tensorboard").glob("events*"))


def test_missing_rewards_mask_their_samples(model: Path, tmp_path: Path) -> None:
    calls = iter(range(10_000))

    def every_third_fails(prompt: str, pixels: Pixels) -> float | None:
        return None if next(calls) % 3 == 0 else brightness(prompt, pixels)

    server = FunctionServer(every_third_fails)
    folder = trained(small_run(model, tmp_path), server)
    assert read_metrics(folder)[0]["groups/missing_share"] == pytest.approx(1 / 3)
    assert all(t.isfinite().all() for k, t in final_state(folder).items() if k != "norms")


def test_without_any_reward_nothing_but_fake_and_kl_is_trained(model: Path, tmp_path: Path) -> None:
    server = FunctionServer(lambda prompt, pixels: None)
    folder = trained(small_run(model, tmp_path), server)
    state = final_state(folder)
    phi = [t for k, t in state.items() if k.startswith("lora/surrogate/") and "lora_B" in k]
    assert all(t.abs().max() == 0 for t in phi)
    assert "reward/mean" not in read_metrics(folder)[0]


def test_heldout_probe_keeps_the_best_generator(model: Path, tmp_path: Path) -> None:
    server = FunctionServer(brightness)
    prompts = prompt_set(tmp_path / "heldout.jsonl", PROMPTS)
    config = small_run(
        model, tmp_path, "heldout.every=1", f"heldout.prompts={prompts}", "heldout.count=3"
    )
    folder = trained(config, server)
    scores = [r["heldout/score"] for r in read_metrics(folder) if "heldout/score" in r]
    assert scores
    assert (folder / "best" / "pytorch_lora_weights.safetensors").is_file()
    assert any((r.run_id or "").endswith(".heldout") for r in server.requests)


def test_a_probe_that_cannot_be_scored_says_so_and_training_goes_on(
    model: Path, tmp_path: Path
) -> None:
    def away(prompt: str, pixels: Pixels) -> float | None:
        raise httpx.ConnectError("nothing listens here")

    prompts = prompt_set(tmp_path / "heldout.jsonl", PROMPTS).replace("brightness", "mood")
    config = small_run(model, tmp_path, "heldout.every=1", f"heldout.prompts={prompts}")
    out = io.StringIO()
    with FunctionServer(brightness, others={"mood": away}).client() as client:
        folder = train(config, source=client, console=Console(file=out, width=200))
    assert "the held-out probe was not scored: cannot reach the reward server" in out.getvalue()
    assert [row["iteration"] for row in read_metrics(folder)] == [0, 1, 2, 3]
    assert (folder / "best" / "pytorch_lora_weights.safetensors").is_file()


def test_the_newest_generator_within_the_error_of_the_best_is_kept() -> None:
    def probe(score: float) -> Probe:
        return Probe(0, Lora(LoraSpec(1, 1.0, ()), {}), [], score, error=0.02)

    assert probe(0.1).as_good_as(None)
    assert probe(0.61).as_good_as(0.6)
    assert probe(0.59).as_good_as(0.6)
    assert not probe(0.57).as_good_as(0.6)
    assert not probe(math.nan).as_good_as(None)


def test_a_server_away_for_a_while_is_waited_for(model: Path, tmp_path: Path) -> None:
    server = FunctionServer(brightness)
    config = small_run(model, tmp_path)
    restarts = iter([5])

    def restart_once(prompt: str, pixels: Pixels) -> float | None:
        if len(server.requests) == 3:
            server.refusals = next(restarts, server.refusals)
        return brightness(prompt, pixels)

    server.score = restart_once
    folder = trained(config, server)
    assert server.refusals <= 0
    assert next(restarts, None) is None
    assert read_metrics(folder)[-1]["iteration"] == 3


def test_a_server_gone_for_good_saves_the_run_and_says_so(model: Path, tmp_path: Path) -> None:
    server = FunctionServer(brightness)
    config = small_run(model, tmp_path)

    def leave(prompt: str, pixels: Pixels) -> float | None:
        # Two groups are sent side by side: the third and fourth are still answered, and the last
        # two of the six that training needs are not.
        server.down = server.down or len(server.requests) > 2
        return brightness(prompt, pixels)

    server.score = leave
    with pytest.raises(ServerUnreachable, match="python -m reward_server"):
        trained(config, server, budget_s=0.2)
    server.down, server.score = False, brightness
    folder = trained(config, server, resume=True)
    rows = read_metrics(folder)
    assert [row["iteration"] for row in rows] == [0, 1, 2, 3]


def test_jobs_the_server_forgot_are_sent_again(model: Path, tmp_path: Path) -> None:
    server = FunctionServer(brightness)
    config = small_run(model, tmp_path)
    lost = threading.Event()

    def of_first_group() -> list[ScoreRequest]:
        return [r for r in list(server.requests) if (r.group_id or "").endswith("/0")]

    def lose() -> None:
        while not of_first_group():
            lost.wait(0.01)
        server.forget()
        server.held.clear()
        lost.set()

    class HoldFirst(set[str]):
        def __contains__(self, group_id: object) -> bool:
            return not lost.is_set() and str(group_id).endswith("/0")

    server.held = HoldFirst()
    thread = threading.Thread(target=lose)
    thread.start()
    folder = trained(config, server)
    thread.join()
    assert len(of_first_group()) == 2
    assert read_metrics(folder)[-1]["iteration"] == 3


def test_a_slow_group_is_overtaken_and_still_used(model: Path, tmp_path: Path) -> None:
    server = FunctionServer(brightness)
    released = threading.Event()

    class Slow(set[str]):
        def __contains__(self, group_id: object) -> bool:
            slow = str(group_id).endswith("/1")
            if slow and len(server.requests) >= 8:
                released.set()
            return slow and not released.is_set()

    server.held = Slow()
    config = small_run(
        model, tmp_path, "run.iterations=6", "server.window=3", "server.patience_s=0"
    )
    folder = trained(config, server)
    stale = [row["staleness/mean"] for row in read_metrics(folder) if "staleness/mean" in row]
    assert max(stale) >= 1
    assert released.is_set()


def test_groups_that_come_too_late_train_phi_alone_and_are_counted(
    model: Path, tmp_path: Path
) -> None:
    server = FunctionServer(brightness)
    config = small_run(
        model, tmp_path, "run.iterations=4", "server.window=2", "groups.max_staleness=0"
    )
    folder = trained(config, server)
    rows = read_metrics(folder)
    assert sum(row.get("staleness/late_groups", 0) for row in rows) >= 2
    assert all(row["staleness/mean"] == 0 for row in rows if "staleness/mean" in row)


def test_ctrl_c_saves_and_says_how_to_resume(model: Path, tmp_path: Path) -> None:
    server = FunctionServer(brightness)
    pressed: list[int] = []

    def press(prompt: str, pixels: Pixels) -> float | None:
        if len(server.requests) == 4 and not pressed:  # once: a second Ctrl-C would not save
            pressed.append(4)
            signal.raise_signal(signal.SIGINT)
        return brightness(prompt, pixels)

    server.score = press
    whole = small_run(model, tmp_path, "run.name=whole")
    parts = small_run(model, tmp_path, "run.name=parts")
    with pytest.raises(KeyboardInterrupt, match="same command and --resume"):
        trained(parts, server)
    server.score = brightness
    folder = trained(parts, server, resume=True)
    assert same_bits(final_state(folder), final_state(trained(whole, server)))


def test_an_unknown_reward_is_refused_before_the_model_is_loaded(
    model: Path, tmp_path: Path
) -> None:
    server = FunctionServer(brightness, rewards=("ocr", "counting"))
    config = small_run(model, tmp_path)
    with pytest.raises(ConfigError, match=r"'brightness' is not known.*counting, ocr"):
        trained(config, server)


def test_a_run_is_not_started_over_by_accident(model: Path, tmp_path: Path) -> None:
    server = FunctionServer(brightness)
    config = small_run(model, tmp_path, "run.iterations=1")
    trained(config, server)
    with pytest.raises(CheckpointError, match="--resume"):
        trained(config, server)
