"""Labeling: what annotators' browsers call. Nothing here shows a run, a reward or others' votes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Body, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from sqlalchemy import Connection

from reward_server.api.problems import ApiError
from reward_server.api.security import (
    LOCAL,
    Administrator,
    Annotator,
    Services,
    check_local_host,
    check_origin,
    sign_in,
)
from reward_server.api.views import lease_view
from reward_server.queue import lease_seconds
from reward_server.service import HUMAN, Service
from reward_server.store import Store, claims, labels, people, progress
from reward_server.store.claims import HumanLease
from shared.schema import MAX_CLAIM, Label
from shared.schema_labels import Annotator as AnnotatorView
from shared.schema_labels import (
    ClaimRequest,
    ClaimResult,
    LabelStats,
    LeaseRequest,
    LeaseResult,
    QueueView,
    SessionRequest,
    SubmitResult,
    SubmitResults,
    SubmitRow,
    UndoRequest,
    UndoResult,
)

router: Final = APIRouter(tags=["labeling"])

DAY_S: Final = 86400.0


@router.post("/label/session", response_model=AnnotatorView)
async def open_session(ask: SessionRequest, request: Request, service: Services) -> Response:
    """Sign in with an invite; a bare name is enough on a loopback server without keys."""
    check_origin(request)
    if ask.invite is not None:
        name = await service.read(people.invited, ask.invite)
        if name is None:
            raise ApiError(401, "this invite is unknown or revoked; ask for a new one")
    else:
        if not service.settings.loopback or await service.read(people.any_key):
            raise ApiError(401, "this server needs an invite")
        check_local_host(request)
        name = ask.name or LOCAL
        await service.write(people.ensure_annotator, name, service.clock())
    view = await service.read(_me, name, service.clock())
    response = JSONResponse(view.model_dump(mode="json"))
    await sign_in(request, response, service, name)
    return response


@router.get("/label/me", response_model=AnnotatorView)
async def me(service: Services, caller: Annotator) -> AnnotatorView:
    """Who is signed in, what they have done, what is left for them."""
    return await service.read(_me, caller.name, service.clock())


def _me(connection: Connection, name: str, now: float) -> AnnotatorView:
    return AnnotatorView(
        name=name,
        labels=progress.labels_by(connection, name),
        labels_today=progress.labels_by(connection, name, now - now % DAY_S),
        leased=progress.leased_by(connection, name),
        queue=progress.queue_view(connection, name, now),
    )


@router.post("/label/claim", response_model=ClaimResult)
async def claim(ask: ClaimRequest, service: Services, caller: Annotator) -> ClaimResult:
    """Lease items to look at; an empty answer says in ``queue`` why."""
    now = service.clock()
    if await service.read(_worth_claiming, caller.name, ask.resume, now):
        leases, queue = await service.write(_claim, caller.name, ask, now)
    else:
        leases, queue = [], await service.read(progress.queue_view, caller.name, now)
    return ClaimResult(items=[lease_view(lease) for lease in leases], queue=queue)


def _worth_claiming(connection: Connection, worker: str, resume: bool, now: float) -> bool:
    held = resume and progress.leased_by(connection, worker) > 0
    return held or progress.queue_view(connection, worker, now).open > 0


def _claim(
    connection: Connection, worker: str, ask: ClaimRequest, now: float
) -> tuple[list[HumanLease], QueueView]:
    lease_s = lease_seconds(claims.typical_seconds(connection, worker), ask.n)
    found = claims.claim(connection, worker, ask.n, now, lease_s, resume=ask.resume)
    return found, progress.queue_view(connection, worker, now)


@router.post("/label/submit", response_model=SubmitResults)
async def submit(
    rows: Annotated[list[SubmitRow], Body(min_length=1, max_length=1000)],
    service: Services,
    caller: Annotator,
) -> SubmitResults:
    """Hand in labels; safe to repeat, answered row by row."""
    now = service.clock()
    results, changed, total = await service.write(
        _submit, caller.name, rows, now, service.settings.settle_s
    )
    counted = sum(result.outcome == "counted" for result in results)
    if counted:
        service.pace.record(HUMAN.name, counted, now)
    service.hub.notify(changed)
    return SubmitResults(results=results, labels=total)


def _submit(
    connection: Connection, worker: str, rows: list[SubmitRow], now: float, settle_s: float
) -> tuple[list[SubmitResult], list[str], int]:
    results, changed = labels.submit(connection, worker, rows, now, settle_s)
    return results, changed, progress.labels_by(connection, worker)


@router.post("/label/undo", response_model=UndoResult)
async def undo(ask: UndoRequest, service: Services, caller: Annotator) -> UndoResult:
    """Retract a label until its reward is handed out; its item comes back with a new lease."""
    now = service.clock()
    try:
        key, label, lease, job_id = await service.write(_undo, caller.name, ask, now, service)
    except labels.UndoRefused as refused:
        raise ApiError(409, str(refused), code=refused.code) from None
    service.hub.notify([job_id])
    again = None if lease is None else lease_view(lease)
    return UndoResult(client_label_id=key, label=label, item=again)


def _undo(
    connection: Connection, worker: str, ask: UndoRequest, now: float, service: Service
) -> tuple[str, Label, HumanLease | None, str]:
    lease_s = lease_seconds(claims.typical_seconds(connection, worker), MAX_CLAIM)
    settle_s = service.settings.settle_s
    return labels.undo(connection, worker, ask.client_label_id, now, lease_s, settle_s)


@router.post("/label/heartbeat", response_model=LeaseResult)
async def heartbeat(ask: LeaseRequest, service: Services, caller: Annotator) -> LeaseResult:
    """Keep leases while their items wait on somebody's screen."""
    live = await service.write(claims.extend, caller.name, ask.leases, service.clock())
    return _lease_result(ask, live)


@router.post("/label/release", response_model=LeaseResult)
async def release(ask: LeaseRequest, service: Services, caller: Annotator) -> LeaseResult:
    """Give leases back on leaving; made for ``navigator.sendBeacon``."""
    live = await service.write(claims.release, caller.name, ask.leases)
    return _lease_result(ask, live)


def _lease_result(ask: LeaseRequest, live: list[str]) -> LeaseResult:
    asked = [lease.assignment for lease in ask.leases]
    return LeaseResult(live=live, lost=[one for one in asked if one not in set(live)])


@router.get("/label/stats", response_model=LabelStats)
async def stats(service: Services, caller: Annotator) -> LabelStats:
    """Progress of the human queue as a whole."""
    return await service.read(progress.label_stats, service.clock())


@router.get("/labels/export")
async def export(
    service: Services,
    caller: Administrator,
    format: Annotated[Literal["jsonl"], Query()] = "jsonl",
) -> StreamingResponse:
    """Every label ever given, one JSON object per line, undone and late ones marked as such."""
    return StreamingResponse(_lines(service.store), media_type="application/x-ndjson")


def _lines(store: Store) -> Iterator[str]:
    with store.reading() as connection:
        for row in progress.export(connection):
            yield json.dumps(row, ensure_ascii=False) + "\n"
