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
# The rooms of each package, from the lowest floor up: imports point downward only.
FLOORS = {
    "trainer": (
        ("errors",),
        ("arithmetic", "processes"),
        ("config",),
        ("models", "optim"),
        ("rewards",),
        ("export",),
        ("tdm_r1", "evaluation", "planning"),
        ("baselines", "tiny", "photos"),
        ("run", "pretraining"),
        ("loop", "report"),
        ("launch", "ablation"),
        ("doctor",),
        ("commands",),
        ("cli",),
        ("__main__",),
    ),
    "reward_server": (
        ("domain",),
        ("scorers",),
        ("settings", "blobs", "logs", "hub", "clock"),
        ("store",),
        ("metrics", "scoring"),
        ("courier",),
        ("simulation", "service"),
        ("api",),
        ("app",),
        ("serve", "commands"),
        ("__main__",),
    ),
}
# Pure files do arithmetic or domain logic: no files, network, clock or configuration, neither
# themselves nor through what they import of this tree.
PURE = (
    "trainer/arithmetic/flow.py",
    "trainer/rewards/groups.py",
    "trainer/run/health.py",
    "trainer/evaluation/intervals.py",
    "trainer/tdm_r1/losses.py",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "reward_server/domain").glob("*.py")),
    "reward_server/scorers/geneval.py",
    "reward_server/scorers/published.py",
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
    """What a file imports when it runs, which leaves out what only its annotations need."""
    names: set[str] = set()
    tree = ast.parse(path.read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return names


def roots(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def room_of(path: Path) -> str:
    """The folder of a package, or the file that lies in the package itself."""
    return path.relative_to(ROOT).parts[1].removesuffix(".py")


def file_of(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def reached_from(path: Path) -> set[Path]:
    """The file and all of this tree that it imports, through whatever lies between."""
    found, waiting = set(), [path]
    while waiting:
        here = waiting.pop()
        if here in found:
            continue
        found.add(here)
        names = (name for name in imported(here) if name.split(".")[0] in PACKAGES)
        waiting += [file for name in names if (file := file_of(name)).is_file()]
    return found


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


@pytest.mark.parametrize("package", FLOORS)
def test_imports_point_downward_only(package: str) -> None:
    floors = FLOORS[package]
    floor_of = {room: number for number, rooms in enumerate(floors) for room in rooms}
    upward = []
    for path in sources(package):
        own = room_of(path)
        if own == "__init__":
            continue
        for name in imported(path):
            parts = name.split(".")
            if parts[0] != package or len(parts) < 2 or parts[1] == own:
                continue
            if floor_of[parts[1]] >= floor_of[own]:
                upward.append(f"{path.relative_to(ROOT)} -> {name}")
    assert upward == []


def test_only_the_commands_know_the_embedded_world() -> None:
    knowing = {
        room_of(path)
        for path in sources("trainer")
        if any(name.startswith("trainer.tiny") for name in imported(path))
    }
    assert knowing == {"tiny", "pretraining", "commands"}


def test_the_loop_loads_nothing_of_the_embedded_world_and_no_scipy() -> None:
    loaded = loaded_by("trainer.loop", every=True)
    assert {name for name in loaded if name.startswith("trainer.tiny")} == set()
    own = set().union(*(roots(file_of(name)) for name in loaded if file_of(name).is_file()))
    assert "torch" in own, "the files that are loaded were not found"
    assert "scipy" not in own


@pytest.mark.parametrize("name", PURE)
def test_pure_files_do_no_io(name: str) -> None:
    impure = {
        str(path.relative_to(ROOT)): found
        for path in reached_from(ROOT / name)
        if (found := roots(path) & IMPURE_MODULES)
    }
    assert impure == {}


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


def loaded_by(module: str, *, every: bool = False) -> set[str]:
    """Top-level modules that an import loads; every: modules inside packages as well."""
    code = (
        f"import sys, {module}; print(*sorted(m for m in sys.modules if {every} or '.' not in m))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())
