"""The tree keeps its shape: who may import whom, how long things grow, what an import loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("shared", "trainer", "reward_server", "benchmarks")
HEAVY = {"torch", "diffusers", "peft", "transformers"}
# Pure files do arithmetic or domain logic: no files, network, clock or configuration.
PURE = (
    "trainer/flow.py",
    "trainer/groups.py",
    "trainer/health.py",
    "trainer/intervals.py",
    "trainer/results_page.py",
    "trainer/tdm_r1/losses.py",
    "reward_server/agreement.py",
    "reward_server/ballot.py",
    "reward_server/queue.py",
    "reward_server/reliability.py",
    "reward_server/votes.py",
    "reward_server/scorers/geneval.py",
)
IMPURE_MODULES = {
    "os",
    "io",
    "time",
    "datetime",
    "pathlib",
    "httpx",
    "sqlalchemy",
    "random",
    "socket",
}


def sources(package: str) -> Iterator[Path]:
    return (ROOT / package).rglob("*.py")


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return names


def roots(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def offenders(package: str, forbidden: set[str]) -> dict[str, set[str]]:
    found = {str(path.relative_to(ROOT)): roots(path) & forbidden for path in sources(package)}
    return {path: names for path, names in found.items() if names}


def test_shared_is_a_leaf() -> None:
    forbidden = {"trainer", "reward_server", "fastapi", "sqlalchemy", *HEAVY}
    assert offenders("shared", forbidden) == {}


def test_trainer_and_server_meet_only_over_http() -> None:
    assert offenders("trainer", {"reward_server", "fastapi", "sqlalchemy"}) == {}
    assert offenders("reward_server", {"trainer"}) == {}
    # The neural detector is an extra that a server loads only when it is told to.
    detector = {"reward_server/scorers/detector.py": {"torch", "transformers"}}
    assert offenders("reward_server", HEAVY) == detector


def test_only_the_command_line_and_tests_know_the_embedded_world() -> None:
    allowed = {"trainer/cli.py", "trainer/evaluate.py", "trainer/evaluation_set.py"}
    knowing = {
        str(path.relative_to(ROOT))
        for path in sources("trainer")
        if "tiny" not in path.parts and any(n.startswith("trainer.tiny") for n in imported(path))
    }
    assert knowing <= allowed


@pytest.mark.parametrize("name", PURE)
def test_pure_files_do_no_io(name: str) -> None:
    assert roots(ROOT / name) & IMPURE_MODULES == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_files_and_functions_stay_short(package: str) -> None:
    too_long = []
    for path in sources(package):
        text = path.read_text()
        if text.count("\n") >= 350:
            too_long.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > 60:
                    too_long.append(f"{path.relative_to(ROOT)}: {node.name} {length} lines")
    assert too_long == []


def test_importing_the_client_loads_no_heavy_library() -> None:
    assert loaded_by("shared.client") & (HEAVY | {"fastapi", "sqlalchemy", "numpy.random"}) == set()


def test_a_server_loads_no_heavy_library() -> None:
    assert loaded_by("reward_server.app") & HEAVY == set()


def loaded_by(module: str) -> set[str]:
    code = f"import sys, {module}; print(*sorted(m for m in sys.modules if '.' not in m))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())
