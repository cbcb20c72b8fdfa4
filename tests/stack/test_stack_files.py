"""Promise: the files of the stack of containers say what they should, as far as files can show it.

`make test-compose` runs the stack for real; this needs no container engine.
"""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from reward_server.metrics import Metrics
from reward_server.scorers import REGISTRY
from reward_server.store.progress import QueueFigures
from shared.schema.ops import Traffic

ROOT = Path(__file__).resolve().parents[2]
STACK = ROOT / "reward_server" / "stack"
COMPOSE = ROOT / "docker-compose.yml"
GPU = ROOT / "docker-compose.gpu.yml"
DOCKERFILES = [ROOT / "reward_server/Dockerfile", ROOT / "trainer/Dockerfile", STACK / "Dockerfile"]
BASE = "python:3.11-slim-bookworm"
OWN = {"tdm-r1-reward-server", "tdm-r1-trainer", "tdm-r1-proxy"}
OTHERS = {"postgres:16-bookworm", "prom/prometheus:v3.1.0", "grafana/grafana:11.4.0"}
ONCE = {"init", "setup", "welcome", "human", "machine"}
PROFILES = {
    "human": "human",
    "machine": "machine",
    "annotators": "simulated",
    "prometheus": "monitoring",
    "grafana": "monitoring",
}
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|API_KEY|CREDENTIAL")


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


SERVICES: dict[str, Any] = read(COMPOSE)["services"]
STAYING = sorted(SERVICES.keys() - ONCE)


def instructions(path: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, with continued lines joined."""
    text = path.read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_images_are_built_plainly_and_run_without_root(path: Path) -> None:
    steps = instructions(path)
    assert {rest.split(" ")[0] for word, rest in steps if word == "FROM"} == {BASE}
    assert "# syntax" not in path.read_text() and "<<" not in path.read_text()
    last = len(steps) - 1 - [word for word, _ in reversed(steps)].index("FROM")
    final = dict(steps[last:])
    assert final["WORKDIR"] == "/app"
    assert final["USER"].split(":")[0] not in ("root", "0")
    assert not any("--link" in rest for word, rest in steps if word == "COPY")


def test_images_are_our_own_or_of_a_fixed_version() -> None:
    assert {service["image"] for service in SERVICES.values()} == OWN | OTHERS


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_has_as_few_rights_as_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "mem_limit" in service and "privileged" not in service
    if name == "init":
        assert service["network_mode"] == "none" and service["restart"] == "no"
    else:
        own_user = service["image"] in OWN and "user" not in service
        assert own_user or str(service["user"]).split(":")[0] not in ("root", "0")
        assert "cap_add" not in service


@pytest.mark.parametrize("name", STAYING)
def test_what_stays_is_looked_after(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] in ("unless-stopped", "on-failure")
    assert service["healthcheck"]["test"]
    assert all("condition" in wanted for wanted in service["depends_on"].values())


def test_ports_are_open_to_this_machine_alone() -> None:
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            # BIND opens what asks who is there; the monitoring's pages do not.
            chosen = "${BIND:-127.0.0.1}:" if name == "proxy" else "127.0.0.1:"
            assert port.startswith(chosen), port
    assert {name for name, s in SERVICES.items() if "ports" in s} == {
        "proxy",
        "prometheus",
        "grafana",
    }
    assert read(COMPOSE)["networks"]["data"] == {"internal": True}
    assert SERVICES["postgres"]["networks"] == ["data"]


def test_no_file_holds_a_secret() -> None:
    for path in (COMPOSE, GPU):
        for service in read(path)["services"].values():
            for name, value in service.get("environment", {}).items():
                if SECRET.search(name):
                    assert name.endswith("_FILE"), name
                    assert value.startswith("/run/secrets/"), value
    for line in (ROOT / ".env.example").read_text().splitlines():
        assert not SECRET.search(line.partition("=")[0]) or line.startswith("#"), line


def test_secrets_reach_only_those_who_need_them() -> None:
    readers: dict[str, set[str]] = {}
    for name, service in SERVICES.items():
        for mount in service.get("volumes", []):
            source, _, target = mount.partition(":")
            if source.startswith("secrets-"):
                readers.setdefault(source, set()).add(name)
                assert target.endswith(":ro") or name in ("init", "setup"), mount
    servers = {"setup", "reward-server", "scorer"}
    assert readers == {
        "secrets-database": {"init", "postgres"},
        "secrets-servers": {"init", *servers},
        "secrets-trainer": {"init", "setup", "trainer"},
        "secrets-annotators": {"init", "setup", "annotators"},
        "secrets-monitoring": {"init", "setup", "prometheus", "grafana"},
        "secrets-people": {"init", "setup", "welcome"},
    }


def test_profiles_are_the_promised_ones() -> None:
    found = {name: s["profiles"] for name, s in SERVICES.items() if "profiles" in s}
    assert found == {name: [profile] for name, profile in PROFILES.items()}


def test_every_setting_is_explained_with_its_default() -> None:
    text = COMPOSE.read_text() + GPU.read_text()
    used = dict(re.findall(r"(?<!\$)\$\{([A-Z_]+):?[-?]?([^${}]*)\}?", text))
    example = dict(re.findall(r"^([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.M))
    assert used.keys() == example.keys()
    different = {n for n, value in example.items() if value and value != used[n]}
    assert different == set()


def test_volumes_are_named_and_prepared() -> None:
    named = set(read(COMPOSE)["volumes"])
    init = {mount.partition(":")[0] for mount in SERVICES["init"]["volumes"]}
    assert named == {source for source in init if not source.startswith(".")}
    for service in SERVICES.values():
        for source in (mount.partition(":")[0] for mount in service.get("volumes", [])):
            assert source in named or (ROOT / source).exists(), source


def test_what_images_copy_is_let_through() -> None:
    let_in = set(re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.M))
    for path in DOCKERFILES[:2]:
        for word, rest in instructions(path):
            if word == "COPY" and not rest.startswith("--from"):
                assert set(rest.split()[:-1]) <= let_in, rest


def test_the_server_image_holds_no_torch() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["server"]]
    assert not [one for one in wanted if one.startswith(("torch", "transformers", "diffusers"))]
    args = SERVICES["setup"]["build"]["args"]
    assert args["EXTRAS"] == "${SERVER_EXTRAS:-server}"


def test_gpus_are_asked_for_in_their_own_file_only() -> None:
    services = read(GPU)["services"]
    asking = [name for name, service in services.items() if "deploy" in service]
    assert asking == ["scorer", "trainer"]
    for name in asking:
        (device,) = services[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["driver"] == "nvidia" and device["capabilities"] == ["gpu"]
    assert "nvidia" not in COMPOSE.read_text() and "ulimits" not in COMPOSE.read_text()


def test_what_counts_in_photographs_is_the_same_for_servers_and_scorers() -> None:
    services = read(GPU)["services"]
    server, scorer = services["reward-server"], services["scorer"]
    assert server["environment"] == scorer["environment"]
    assert server["volumes"] == scorer["volumes"] == ["${MODELS:-./models}:/models:ro"]
    name, when, entry = server["environment"]["REWARD_SCORERS"].partition(":+")
    assert (name, when) == ("${DETECTOR", ":+")
    reward, _, path = entry.removesuffix("}").partition("=")
    module, _, scorer_class = path.partition(":")
    assert reward in REGISTRY
    assert (
        f"class {scorer_class}" in (ROOT / module.replace(".", "/")).with_suffix(".py").read_text()
    )
    assert "detector" in services["setup"]["build"]["args"]["EXTRAS"]


def test_the_dashboard_asks_for_figures_that_exist() -> None:
    metrics = Metrics()
    metrics.answered("POST", "/score", 200, 0.1)
    figures = QueueFigures({"ocr": Traffic()}, {"ocr": (1, 1.0)}, {"machine": 1}, {})
    offered = set(re.findall(r"^(\w+)", metrics.render(figures, 1).decode(), re.M))
    dashboard = json.loads((STACK / "grafana/dashboards/rewards.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    names = set(re.findall(r"\b(reward_\w+)\b", " ".join(asked)))
    assert names and names <= offered, names - offered
    assert {p["datasource"]["uid"] for p in dashboard["panels"]} == {"prometheus"}
    source = read(STACK / "grafana/provisioning/datasources/prometheus.yml")["datasources"][0]
    assert source["uid"] == "prometheus"


def test_prometheus_asks_every_replica_with_its_key() -> None:
    servers, proxy = read(STACK / "prometheus.yml")["scrape_configs"]
    assert servers["dns_sd_configs"][0]["names"] == ["reward-server"]
    key = servers["authorization"]["credentials_file"]
    assert f"--key=monitoring=score={key}" in SERVICES["setup"]["entrypoint"]
    assert proxy["static_configs"][0]["targets"] == ["proxy:8404"]


@pytest.mark.parametrize(
    "script", [*STACK.glob("*.sh"), ROOT / "trainer/start.sh"], ids=lambda p: p.name
)
def test_scripts_parse(script: Path) -> None:
    shell = script.read_text().partition("\n")[0].removeprefix("#!")
    subprocess.run([shell, "-n", script], check=True)
