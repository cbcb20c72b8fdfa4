"""Runs as their requester watches them, built from what the runs have sent."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query

from reward_server.api.problems import ApiError
from reward_server.api.security import Overseer, Services
from reward_server.store import progress, runs
from shared.schema.ops import RunStats
from shared.schema.runs import RunList, RunSamples, RunView

router: Final = APIRouter(tags=["runs"])


@router.get("/runs", response_model=RunList)
async def list_runs(
    service: Services,
    caller: Overseer,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> RunList:
    """Runs that have asked for scores, the latest first."""
    return await service.read(runs.listing, limit)


@router.get("/runs/{run_id:path}/stats", response_model=RunStats)
async def run_stats(run_id: str, service: Services, caller: Overseer) -> RunStats:
    """What this server has accepted from one run, kept in its database."""
    found = await service.read(progress.run_stats, run_id)
    if found is None:
        raise _unknown(run_id)
    return found


@router.get("/runs/{run_id:path}/progress", response_model=RunView)
async def run_progress(run_id: str, service: Services, caller: Overseer) -> RunView:
    """Reward curves of a run and its probes, and what it waits for."""
    found = await service.read(runs.view, run_id, service.clock())
    if found is None:
        raise _unknown(run_id)
    return found


@router.get("/runs/{run_id:path}/samples", response_model=RunSamples)
async def run_samples(run_id: str, service: Services, caller: Overseer) -> RunSamples:
    """Pictures of the same prompts over time, by hash."""
    found = await service.read(runs.samples, run_id)
    if found is None:
        raise _unknown(run_id)
    return found


def _unknown(run_id: str) -> ApiError:
    return ApiError(404, f"no request of run {run_id!r} was ever accepted here")
