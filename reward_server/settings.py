"""Everything about a server that can be chosen, in one frozen object; every value has one home."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from reward_server.scorers import REGISTRY
from shared.schema.campaigns import CampaignSettings

RATE_LIMIT: Final = 12_000
"""Images a minute of one API key, where others depend on the same server."""


class Settings(BaseModel):
    """Settings of one server process; times in seconds.

    ``rate_limit`` is in images a minute of each API key, 0 for none; unless chosen there is none
    on loopback and ``RATE_LIMIT`` beyond it.
    ``reward_latency`` delays machine rewards and exists for benchmarks only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    database: str | None = None
    ui: Path = Path(__file__).resolve().parent.parent / "labeling_ui"
    scorers: dict[str, str] = Field(default_factory=lambda: dict(REGISTRY))
    scorer_processes: int = Field(default=1, ge=0, le=64)
    reward_latency: float = Field(default=0.0, ge=0)
    settle_s: float = Field(default=5.0, ge=0)
    machine_wait_s: float = Field(default=30.0, ge=0)
    max_pending_machine: int = Field(default=4096, ge=1)
    max_pending_human: int = Field(default=100_000, ge=1)
    rate_limit: int | None = Field(default=None, ge=0)
    campaign: CampaignSettings = CampaignSettings()
    onboarding: int = Field(default=5, ge=0, le=100)
    gold_limit: float = Field(default=0.7, ge=0, le=1)
    session_s: float = Field(default=30 * 86400.0, gt=0)
    results_kept_s: float = 7 * 86400.0
    durability: Literal["normal", "full"] = "normal"

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL; SQLite inside the data folder unless ``database`` says otherwise."""
        return self.database or f"sqlite:///{(self.data / 'queue.sqlite3').resolve()}"

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
