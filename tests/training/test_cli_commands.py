"""The command line: one clear message per error, the right exit code, no traceback."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.cli import COMMANDS, main
from trainer.commands.demo import CONFIGS, free_name
from trainer.commands.eval import rows_of
from trainer.commands.train import add_config_arguments, read_config_arguments
from trainer.config import load_config
from trainer.evaluation.results import START, TEACHER, TRAINED


def test_help_names_every_command_without_loading_torch() -> None:
    script = (
        "import sys; from trainer.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_describes_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    assert f"trainer {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report", "runs/never-was"], "runs/never-was holds no run"),
        (["export", "runs/never-was", "--out", "out"], "runs/never-was holds no run"),
        (["train", "--set", "surrogate.lrr=1"], "did you mean surrogate.lr?"),
        (["train", "--config", "nowhere.toml"], "no configuration file nowhere.toml"),
        (["eval", "--model", "nowhere"], "nowhere holds no model_index.json"),
        (["demo", "--set", "model.path=nowhere"], "nowhere/eval.json does not exist"),
    ],
)
def test_designed_errors_are_one_message_and_exit_code_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert "Traceback" not in error


def test_a_run_can_be_measured_with_other_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(load_config(None).model_dump_json())
    run = ["eval", "--run", str(tmp_path)]
    assert main([*run, "--set", "generator.teacher_cgf=2"]) == 2
    assert "did you mean generator.teacher_cfg?" in capsys.readouterr().err
    assert main([*run, "--config", "trainer/configs/tiny.toml"]) == 2
    assert "measured as it was trained" in capsys.readouterr().err


def test_an_unreachable_server_is_named_with_the_command_that_starts_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.support.fakes import build_sd3_folder

    model = build_sd3_folder(tmp_path / "model")
    words = ["eval", "--model", str(model), "--server", "http://127.0.0.1:9", "--budget", "0"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "http://127.0.0.1:9" in error
    assert "python -m reward_server" in error


def test_short_options_win_over_set() -> None:
    parser = argparse.ArgumentParser()
    add_config_arguments(parser)
    words = ["--set", "run.name=a", "--set", "surrogate.lr=1e-3", "--name", "b", "--model", "m n"]
    config = read_config_arguments(parser.parse_args(words))
    assert (config.run.name, config.surrogate.lr) == ("b", 1e-3)
    assert config.model.path == Path("m n")


def test_a_second_demo_gets_a_name_of_its_own(tmp_path: Path) -> None:
    assert free_name(tmp_path, "demo") == "demo"
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo-2").mkdir()
    assert free_name(tmp_path, "demo") == "demo-3"


def test_a_run_is_measured_alone_unless_all_rows_are_asked_for(tmp_path: Path) -> None:
    assert rows_of(None, everything=False) == (TEACHER, START)
    assert rows_of(tmp_path, everything=False) == (TRAINED,)
    assert rows_of(tmp_path, everything=True) == (TEACHER, START, TRAINED)


@pytest.mark.parametrize("reward", sorted(CONFIGS))
def test_the_demos_configurations_load_and_ask_for_their_reward(reward: str) -> None:
    config = load_config(CONFIGS[reward])
    asked = {prompts.reward for prompts in config.prompts}
    assert asked == ({"counting", "ocr"} if reward == "machine" else {"human"})
    assert all(prompts.file.is_file() for prompts in config.prompts)
