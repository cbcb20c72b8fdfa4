"""What happens to the stack, check by check, and what is known at that point."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from shared.images import encode_png, to_b64
from tests.compose.ledger import EXPECTED, TARGETS, WORD, Ledger
from tests.compose.manual import manual
from tests.compose.person import Person
from tests.compose.stack import (
    COMPOSE,
    ENVIRONMENT,
    ROOT,
    URL,
    StackError,
    admin,
    compose,
    containers,
    docker,
    eventually,
    from_volume,
    healthy,
    kill,
    megabytes,
    restarted,
    rows,
    shell,
)
from tests.support.server_setup import sign

SERVICES = ("postgres", "reward-server", "scorer", "proxy", "trainer")
RUN = "mixed"
CLICKS = 3


@dataclass
class Story:
    """The state that checks share."""

    person: Person
    figures: dict[str, str] = field(default_factory=dict)
    began: float = 0.0
    _ledger: Ledger | None = None

    @property
    def ledger(self) -> Ledger:
        """The client that keeps sending; there once the stack is up."""
        if self._ledger is None:
            raise StackError("the client has not begun")
        return self._ledger

    def begin_ledger(self) -> None:
        """Give a client a key of its own and let it send."""
        self._ledger = Ledger(admin("keys", "create", "--name", "ledger").strip())

    def since_up(self) -> str:
        """Seconds since `up`, as a figure."""
        return f"{time.monotonic() - self.began:.1f} s"

    def iteration(self, run: str = RUN) -> int:
        """Iterations of a run so far."""
        return int(max((row["iteration"] + 1 for row in rows(run)), default=0))


def images(story: Story) -> str:
    """Images are built from the files as they are, and the server's holds no torch."""
    compose("build")
    names = ("tdm-r1-reward-server", "tdm-r1-trainer", "tdm-r1-proxy")
    for name in names:
        story.figures[f"image {name}"] = f"{megabytes(name):.0f} MB"
    server, trainer = _packages(names[0]), _packages(names[1])
    if "torch" in server or "torch" not in trainer:
        raise StackError("torch belongs into the trainer's image, and only there")
    return ", ".join(story.figures[f"image {name}"] for name in names)


def _packages(image: str) -> dict[str, str]:
    """Version by name of the Python packages that our own code in an image can import."""
    tell = (
        "import importlib.metadata as m, site; "
        "packages = m.distributions(path=site.getsitepackages()); "
        "print(*(f'{p.name}=={p.version}' for p in packages))"
    )
    found = docker("run", "--rm", image, "python", "-c", tell).split()
    return {name.lower().replace("_", "-"): v for name, v in (one.split("==") for one in found)}


def up(story: Story) -> str:
    """`up` on nothing: scores by curl, a page with pictures, a trainer that steps."""
    story.began = time.monotonic()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    starting = subprocess.Popen([*COMPOSE, "up", "-d"], cwd=ROOT, env=ENVIRONMENT, **quiet)
    with ThreadPoolExecutor(2) as threads:
        score = threads.submit(_first, story, "first score", _scored_by_curl)
        step = threads.submit(_first, story, "first trainer step", lambda: story.iteration() > 0)
        link = eventually("the link in the logs", _link)
        story.person.sign_in(link)
        eventually("a picture on the page", story.person.sees_a_picture, 0.2)
        story.figures["from up to first like possible"] = story.since_up()
        for waited in (score, step):
            waited.result()
    if starting.wait() != 0:
        raise StackError("docker compose up failed")
    eventually("all healthy", lambda: all(healthy(s) for s in SERVICES))
    story.begin_ledger()
    return ", ".join(f"{n}: {v}" for n, v in story.figures.items() if n.startswith("from up"))


def _first(story: Story, name: str, holds: Callable[[], Any]) -> None:
    eventually(name, holds, 0.3)
    story.figures[f"from up to {name}"] = story.since_up()


def _link() -> str:
    said = compose("logs", "--no-log-prefix", "--no-color", "welcome", check=False).split()
    return next((word for word in said if "/?invite=" in word), "")


def _scored_by_curl() -> bool:
    key = from_volume("secrets-trainer", "key")
    if not key:
        return False
    item = {"prompt": "A sign", "image": {"b64": to_b64(encode_png(sign(WORD)))}}
    items = [{**item, "target": target} for target in TARGETS]
    curl = ["curl", "-s", f"{URL}/score/ocr", "-H", f"Authorization: Bearer {key}"]
    curl += ["-H", "Content-Type: application/json", "--data-binary", "@-"]
    body = json.dumps({"items": items})
    said = subprocess.run(curl, input=body, capture_output=True, text=True).stdout
    try:
        rewards = json.loads(said)["rewards"]
    except (ValueError, KeyError):
        return False  # the proxy answers before a server does
    return [round(r or 0.0, 6) for r in rewards] == [round(r, 6) for r in EXPECTED]


def secrets(story: Story) -> str:
    """No secret has a default or is shown; without a key nobody gets in."""
    if httpx.get(f"{URL}/info", trust_env=False).status_code != 401:
        raise StackError("a request without a key was let in")
    held = [from_volume("secrets-trainer", "key"), from_volume("secrets-people", "invite")]
    held.append(from_volume("secrets-servers", "pgpass").rpartition(":")[2])
    for container in [c for s in SERVICES for c in containers(s)]:
        shown = json.dumps(container) + docker("history", "--no-trunc", container["Image"])
        if any(secret in shown for secret in held):
            raise StackError(f"{container['Name']} shows a secret")
        if container["Config"]["User"] in ("", "root", "0"):
            raise StackError(f"{container['Name']} runs as root")
    return f"{len(held)} secrets made, of {min(map(len, held))} characters or more; 401 without"


def group(story: Story) -> str:
    """Likes and dislikes complete a group, the trainer takes it and steps."""
    before = story.iteration()
    while not (used := _used_groups()):
        story.person.click(8)
    eventually("a step with likes", lambda: any(_with_likes(row) for row in rows(RUN)))
    eventually("one more step", lambda: story.iteration() > before)
    return f"{sum(story.person.clicks.values())} clicks, group {used[0]['group_id']} used"


def _with_likes(row: dict[str, float]) -> bool:
    """A step that used a group of people: in its batch, or beside it if it came late."""
    return "reward/human" in row or row.get("staleness/late_groups", 0) > 0


def _used_groups(run: str = RUN) -> list[dict[str, Any]]:
    """Groups of a run that people have scored and the trainer has taken."""
    file = f"/var/lib/runs/{run}/run.json"
    written = compose("exec", "-T", "trainer", "cat", file, check=False)
    if not written:
        return []
    asked = httpx.get(
        f"{URL}/jobs",
        params={"run_id": json.loads(written)["run_id"], "status": "succeeded", "limit": 1000},
        headers={"Authorization": f"Bearer {from_volume('secrets-trainer', 'key')}"},
        timeout=60,
        trust_env=False,
    )
    jobs = asked.raise_for_status().json()["jobs"]
    return [job for job in jobs if job["reward"] == "human" and job["acked"]]


def killed(service: str) -> Callable[[Story], str]:
    """A check that kills a service and waits until all is as it was."""

    def check(story: Story) -> str:
        return _survives(story, f"kill {service}", containers(service))

    check.__doc__ = f"kill -9 of {service}: it comes back, and nothing accepted is lost."
    return check


def _survives(story: Story, phase: str, victims: Sequence[dict[str, Any]]) -> str:
    before = story.iteration()
    story.ledger.phase = phase
    eventually("requests before", lambda: story.ledger.accepted(phase) >= CLICKS)
    for victim in victims:
        kill(victim)
    story.person.click(CLICKS)
    for victim in victims:
        eventually(f"{victim['Name']} back", lambda victim=victim: restarted(victim))
    then = story.ledger.accepted(phase)
    eventually("requests after", lambda: story.ledger.accepted(phase) >= then + CLICKS)
    story.person.everything_sent()
    story.ledger.settle()
    eventually("the trainer goes on", lambda: story.iteration() > before)
    return f"{story.ledger.accepted(phase)} requests accepted around it, all answered"


def scale(story: Story) -> str:
    """Three servers and four scorers behind one address; killing one of each loses nothing."""
    compose("up", "-d", "--no-recreate", "--scale", "reward-server=3", "--scale", "scorer=4")
    eventually("3 servers, 4 scorers", lambda: healthy("reward-server", 3) and healthy("scorer", 4))
    servers = containers("reward-server")
    eventually("all servers asked", lambda: all(_asked(server) for server in servers))
    victims = [servers[1], containers("scorer")[2]]
    said = _survives(story, "kill 1 of 3 and 1 of 4", victims)
    compose("up", "-d", "--no-recreate")
    eventually("1 server, 1 scorer", lambda: healthy("reward-server") and healthy("scorer"))
    return said


def _asked(server: dict[str, Any]) -> bool:
    return '"/score"' in docker("logs", server["Id"]) + _stderr(server)


def _stderr(server: dict[str, Any]) -> str:
    command = ["docker", "logs", "--tail", "2000", server["Id"]]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True).stderr


def rotation(story: Story) -> str:
    """New key for the trainer, new password for the database, as the manual says."""
    old = from_volume("secrets-trainer", "key")
    shell(manual("rotate-key"))
    headers = {"Authorization": f"Bearer {old}"}
    if httpx.get(f"{URL}/info", headers=headers, trust_env=False).status_code != 401:
        raise StackError("the old key still works")
    before = from_volume("secrets-servers", "pgpass")
    story.ledger.phase = "rotate password"
    shell(manual("rotate-password"))
    if from_volume("secrets-servers", "pgpass") == before:
        raise StackError("the password is the old one")
    return _goes_on(story)


def _goes_on(story: Story) -> str:
    """All is well, requests are accepted and answered, the trainer steps."""
    eventually("all healthy", lambda: all(healthy(s) for s in SERVICES))
    phase, before = story.ledger.phase, story.iteration()
    then = story.ledger.accepted(phase)
    eventually("requests", lambda: story.ledger.accepted(phase) >= then + CLICKS)
    story.ledger.settle(again=True)
    story.person.click(CLICKS)
    story.person.everything_sent()
    eventually("the trainer goes on", lambda: story.iteration() > before)
    return f"{len(story.ledger.entries)} requests answered, iteration {story.iteration()}"


def down_and_up(story: Story) -> str:
    """`down` and `up` keep jobs, sessions, labels and the run."""
    story.ledger.phase, before = "down and up", story.iteration()
    story.person.everything_sent()
    compose("down")
    compose("up", "-d")
    said = _goes_on(story)
    if story.iteration() < before:
        raise StackError(f"iteration {story.iteration()} after {before}")
    return said


def backup(story: Story) -> str:
    """A backup by the manual, everything destroyed, and restored by the manual."""
    story.ledger.phase = "before the backup"
    story.person.everything_sent()
    story.ledger.pause()
    compose("stop", "trainer")
    with tempfile.TemporaryDirectory() as folder:
        shell(manual("backup"), Path(folder))
        compose("down", "-v")
        shell(manual("restore"), Path(folder))
    story.ledger.go_on("after the restore")
    return _goes_on(story)


def profiles(story: Story) -> str:
    """The other profiles: people alone (simulated ones), machines alone; the rest is valid."""
    story.ledger.stop()
    story.ledger.settle()
    compose("down")
    compose("--profile", "human", "--profile", "simulated", "up", "-d")
    eventually("likes of simulated people used", lambda: _used_groups("human"))
    eventually("a step on likes alone", lambda: story.iteration("human") > 0)
    compose("--profile", "*", "down")
    compose("--profile", "machine", "up", "-d")
    eventually("a step without people", lambda: story.iteration("machine") > 0)
    compose("--profile", "monitoring", "config", "--quiet")
    gpu = "docker compose -f docker-compose.gpu.yml config"
    shell(f"MODEL=/models/mine {gpu} | grep -q 'driver: nvidia'")
    return "human and simulated, machine; monitoring and GPUs as configuration"


def account(story: Story) -> str:
    """The client's book, the page's clicks and the server's account of both agree."""
    story.ledger.settle(again=True)
    story.figures["account"] = story.ledger.compare()
    key = admin("keys", "create", "--name", "account", "--scope", "admin").strip()
    told = httpx.get(
        f"{URL}/labels/export",
        headers={"Authorization": f"Bearer {key}"},
        timeout=60,
        trust_env=False,
    ).raise_for_status()
    labels = [json.loads(line) for line in told.text.splitlines()]
    return f"{story.figures['account']}; {story.person.compare(labels, 'annotator')}"


CHECKS: tuple[Callable[[Story], str], ...] = (
    images,
    up,
    secrets,
    group,
    *(killed(service) for service in ("reward-server", "scorer", "postgres", "trainer", "proxy")),
    scale,
    rotation,
    down_and_up,
    backup,
    profiles,
    account,
)
