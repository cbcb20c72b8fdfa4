"""Wire types of the operations routes: what the server says about itself and about a run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shared.schema import Json, Wire


class Traffic(Wire):
    """What the server has accepted: score requests, images, and bytes of request bodies."""

    requests: int = 0
    items: int = 0
    bytes: int = 0


class RunStats(Traffic):
    """Traffic of one run in total and by reward, and how those items ended that are still kept."""

    run_id: str
    by_reward: dict[str, Traffic]
    by_status: dict[str, int]


class RewardInfo(Wire):
    """One reward this server knows, with the JSON schemas of its target and options.

    ``classes``: the names of objects it can be asked for; null where that is no list, or not known.
    """

    name: str
    kind: Literal["machine", "human"]
    model: str
    target: Json | None = None
    options: Json | None = None
    classes: list[str] | None = None


class Limits(Wire):
    """Bounds a client can plan with; ``max_images_per_minute`` is of each API key."""

    max_items: int
    max_body_bytes: int
    max_side_px: int
    max_pixels: int
    max_wait_s: float
    max_pending_machine: int
    max_pending_human: int
    max_images_per_minute: int | None = None
    settle_s: float
    results_kept_s: float


class Info(Wire):
    """Answer of ``GET /info``."""

    api_version: str
    server_version: str
    rewards: list[RewardInfo]
    limits: Limits
    traffic: Traffic
    pending: dict[str, int]
    uptime_s: float


class Health(Wire):
    """Answer of ``/healthz`` and ``/readyz``; ``checks`` names what readiness depends on."""

    status: Literal["ok"]
    checks: dict[str, bool] = Field(default_factory=dict)
