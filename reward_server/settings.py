"""Everything about a server that can be chosen; every value, its help and its limits once.

`Settings` is what a server goes by. `ServeOptions` and `ScorerOptions` are the same as options of
the command line (`--max-pending-human`) and as variables (`REWARD_MAX_PENDING_HUMAN`).
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_settings import BaseSettings, CliSuppress, NoDecode, SettingsConfigDict

from reward_server.scorers import REGISTRY
from shared.schema.campaigns import CampaignSettings

RATE_LIMIT: Final = 12_000
"""Images a minute of one API key, where others depend on the same server."""


def _registered(value: Any) -> Any:
    """ "NAME=MODULE:CLASS" texts, or a mapping, beside the scorers that come with the server."""
    if isinstance(value, str):
        value = dict(_named(text) for text in re.split(r"[\s,]+", value.strip()))
    return dict(REGISTRY) | value if isinstance(value, dict) else value


def _named(text: str) -> tuple[str, str]:
    found = re.fullmatch(r"([a-z0-9_-]{1,64})=([\w.]+:\w+)", text)
    if found is None:
        raise ValueError(f"{text!r} is not of the form NAME=MODULE:CLASS")
    return found[1], found[2]


class Place(BaseModel):
    """Where a server keeps its state; the same for all its processes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path = Field(default=Path("data"), description="folder of the server's state")
    database: str | None = Field(
        default=None,
        description="postgresql+psycopg://USER@HOST/NAME, shared by any number of servers and "
        "scorers (password: in ~/.pgpass or PGPASSWORD); else SQLite in --data",
    )

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL; SQLite inside the data folder unless ``database`` says otherwise."""
        return self.database or f"sqlite:///{(self.data / 'queue.sqlite3').resolve()}"


class Scoring(Place):
    """What a scorer process goes by as well."""

    scorers: Annotated[dict[str, str], NoDecode, BeforeValidator(_registered)] = Field(
        default={},
        validate_default=True,
        description="NAME=MODULE:CLASS: add a scorer of your own, or replace one; the same for all "
        "servers and scorers (REWARD_SCORERS: with spaces between several)",
    )
    durability: Literal["normal", "full"] = Field(
        default="normal", description="full: an answer survives a power failure, more slowly"
    )


class Settings(Scoring):
    """Settings of one server process; times in seconds."""

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8000, ge=0, le=65535, description="0 takes any free one")
    scorer_processes: int = Field(
        default=1, ge=0, le=64, description="that this server starts and restarts"
    )
    settle_s: float = Field(
        default=5.0,
        ge=0,
        description="seconds a human job waits for an undo",
    )
    onboarding: int = Field(
        default=5, ge=0, le=100, description="golds a new annotator judges first, if any exist"
    )
    gold_limit: float = Field(
        default=0.7,
        ge=0,
        le=1,
        description="below this share of right answers to golds an annotator is asked to pause",
    )
    session_s: float = Field(
        default=30 * 86400.0,
        gt=0,
        description="seconds a sign-in lasts without use",
    )
    max_pending_machine: int = Field(
        default=4096, ge=1, description="items that may wait for scorers"
    )
    max_pending_human: int = Field(
        default=100_000, ge=1, description="items that may wait for people"
    )
    rate_limit: int | None = Field(
        default=None,
        ge=0,
        description="images a minute of each API key, 0 for none; counted in the database, hence "
        f"over all servers on it (else: {RATE_LIMIT} beyond loopback, none on it)",
    )
    # For tests and benchmarks.
    ui: CliSuppress[Path] = Path(__file__).resolve().parent.parent / "labeling_ui"
    reward_latency: CliSuppress[float] = Field(default=0.0, ge=0)
    machine_wait_s: CliSuppress[float] = Field(default=30.0, ge=0)
    results_kept_s: CliSuppress[float] = 7 * 86400.0
    campaign: CliSuppress[CampaignSettings] = CampaignSettings()

    @property
    def images_per_minute(self) -> int | None:
        """What one API key may send; None for as much as it likes."""
        chosen = self.rate_limit
        if chosen is None:
            chosen = 0 if self.loopback else RATE_LIMIT
        return chosen or None

    @property
    def loopback(self) -> bool:
        """True if only this machine can connect."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


OPTIONS: Final = SettingsConfigDict(
    frozen=True,
    extra="ignore",  # of the environment, where REWARD_ may begin other names as well
    env_prefix="REWARD_",
    cli_kebab_case=True,
    cli_implicit_flags=True,
    cli_avoid_json=True,
    cli_hide_none_type=True,
    cli_shortcuts={"scorers": "scorer", "settle_s": "settle", "session_s": "session"},
)


class ScorerOptions(Scoring, BaseSettings):
    """Options of `scorer`."""

    model_config = OPTIONS

    heartbeat: Path | None = Field(
        default=None, description="file that is touched as long as the scorer is well"
    )
    attached: CliSuppress[bool] = False

    def settings(self) -> Settings:
        """What the process goes by."""
        own = {name: getattr(self, name) for name in Scoring.model_fields}
        return Settings(**own | {"data": self.data.resolve()})


class ServeOptions(Settings, CampaignSettings, BaseSettings):
    """Options of `serve`, with how people are asked where neither request nor campaign says it."""

    model_config = OPTIONS

    def settings(self) -> Settings:
        """What the server goes by."""
        asked = {name: getattr(self, name) for name in CampaignSettings.model_fields}
        own = {name: getattr(self, name) for name in Settings.model_fields}
        changed = {"data": self.data.resolve(), "campaign": CampaignSettings(**asked)}
        return Settings(**own | changed)
