"""Promise: a run on several rewards goes on while nobody labels, and likes count when they come."""

from __future__ import annotations

from pathlib import Path

from shared.schema import Job, ScoreRequest
from tests.support.fakes import FunctionServer, brightness, build_sd3_folder
from tests.support.small_runs import trained
from trainer.config import load_config
from trainer.rewards.prompts import PromptStream
from trainer.run.log import read_metrics

REWARDS = ("brightness", "human")
WINDOW = 2


class LabelingRoom(FunctionServer):
    """Machine rewards at once; people answer once `open_after` requests have come."""

    def __init__(self, open_after: int) -> None:
        super().__init__(brightness, rewards=REWARDS)
        self.open_after = open_after

    def _job(self, job_id: str, request: ScoreRequest) -> Job:
        away = request.reward == "human" and len(self.requests) <= self.open_after
        group = str(request.group_id)
        (self.held.add if away else self.held.discard)(group)
        return super()._job(job_id, request)

    def asked(self, reward: str) -> int:
        return sum(request.reward == reward for request in self.requests)


def run(tmp_path: Path, server: LabelingRoom, iterations: int) -> list[dict[str, float]]:
    files = [tmp_path / f"{reward}.jsonl" for reward in REWARDS]
    for file in files:
        file.write_text("\n".join(f'{{"prompt": "{file.stem} {i}"}}' for i in range(5)))
    sets = ", ".join(f'{{file="{f}", reward="{f.stem}"}}' for f in files)
    config = load_config(
        None,
        [
            "run.name=test",
            f"run.folder={tmp_path / 'runs'}",
            f"run.iterations={iterations}",
            f"model.path={build_sd3_folder(tmp_path / 'model')}",
            "lora.rank=2",
            f"prompts=[{sets}]",
            "groups.size=3",
            "groups.per_step=2",
            "generator.frozen=0",
            "heldout.every=0",
            f"server.human_window={WINDOW}",
            "run.live_view=false",
        ],
    )
    return read_metrics(trained(config, server))


def test_training_goes_on_while_nobody_labels(tmp_path: Path) -> None:
    server = LabelingRoom(open_after=1000)
    assert len(run(tmp_path, server, iterations=8)) >= 8
    assert server.asked("human") == WINDOW
    assert server.asked("brightness") >= 2 * 8
    assert server.acked == []


def test_likes_count_when_they_come_and_more_is_asked_then(tmp_path: Path) -> None:
    server = LabelingRoom(open_after=12)
    run(tmp_path, server, iterations=12)
    assert len(server.acked) > WINDOW
    assert server.asked("human") > WINDOW


def test_what_had_no_room_catches_up(tmp_path: Path) -> None:
    config_sets = []
    for reward in REWARDS:
        file = tmp_path / f"{reward}.txt"
        file.write_text("\n".join(f"{reward} {i}" for i in range(4)))
        config_sets.append(f'{{file="{file}", reward="{reward}"}}')
    config = load_config(None, [f"prompts=[{', '.join(config_sets)}]"])
    stream = PromptStream(config.prompts, seed=0)
    assert [p.reward for p in stream.take(4, {"human": 1})].count("human") == 1
    assert [p.reward for p in stream.take(3, {"human": 0})] == ["brightness"] * 3
    assert [p.reward for p in stream.take(5)] == ["human"] * 5
    assert sorted(stream.cursor) == [6, 6]
