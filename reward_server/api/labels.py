"""Labeling: what annotators' browsers call. Nothing here shows a run, a reward or others' votes."""

from __future__ import annotations

import random
from typing import Annotated, Final

from fastapi import APIRouter, Body, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy import Connection

from reward_server.api.labeling import Labeling, labeling_now
from reward_server.api.problems import ApiError
from reward_server.api.security import (
    LOCAL,
    Annotator,
    Services,
    SignedIn,
    check_local_host,
    check_origin,
    sign_in,
)
from reward_server.api.views import lease_view
from reward_server.domain.jobs import lease_seconds
from reward_server.domain.standing import golds_among, newcomers_golds, standing
from reward_server.service import HUMAN, Service
from reward_server.settings import Settings
from reward_server.store import claims, golds, labels, people, progress
from reward_server.store.claims import HumanLease
from shared.schema import MAX_CLAIM, Label
from shared.schema.labels import Annotator as AnnotatorView
from shared.schema.labels import (
    ClaimRequest,
    ClaimResult,
    LabelStats,
    LeaseRequest,
    LeaseResult,
    LeaveRequest,
    LeaveResult,
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
PAUSED: Final = ("retry", "requester")


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
    view = await service.read(_me, name, service.clock(), service.settings)
    response = JSONResponse(view.model_dump(mode="json"))
    await sign_in(request, response, service, name)
    return response


@router.get("/label/me", response_model=AnnotatorView)
async def me(service: Services, caller: Annotator) -> AnnotatorView:
    """Who is signed in, what they have done, what is left for them."""
    return await service.read(_me, caller.name, service.clock(), service.settings)


def _me(connection: Connection, name: str, now: float, settings: Settings) -> AnnotatorView:
    labeling = labeling_now(connection, settings)
    return AnnotatorView(
        name=name,
        role=people.role_of(connection, name),
        layout=labeling.layout,
        labels=progress.labels_by(connection, name),
        labels_today=progress.labels_by(connection, name, now - now % DAY_S),
        leased=progress.leased_by(connection, name),
        queue=_queue(connection, name, now, labeling),
    )


@router.post("/label/claim", response_model=ClaimResult)
async def claim(ask: ClaimRequest, service: Services, caller: Annotator) -> ClaimResult:
    """Lease items to look at; an empty answer says in ``queue`` why."""
    now, labeling = service.clock(), await service.read(labeling_now, service.settings)
    if await service.read(_worth_claiming, caller.name, ask.resume, now):
        leases, queue = await service.write(_claim, caller.name, ask, now, labeling)
    else:
        leases, queue = [], await service.read(_queue, caller.name, now, labeling)
    return ClaimResult(items=[lease_view(lease) for lease in leases], queue=queue)


def _worth_claiming(connection: Connection, worker: str, resume: bool, now: float) -> bool:
    held = resume and progress.leased_by(connection, worker) > 0
    return held or progress.queue_view(connection, worker, now).open > 0


def _claim(
    connection: Connection, worker: str, ask: ClaimRequest, now: float, labeling: Labeling
) -> tuple[list[HumanLease], QueueView]:
    found: list[HumanLease] = []
    if not claims.is_closed(connection, worker, ask.page):
        found = _leases(connection, worker, ask, now, labeling)
    return found, _queue(connection, worker, now, labeling)


def _leases(
    connection: Connection, worker: str, ask: ClaimRequest, now: float, labeling: Labeling
) -> list[HumanLease]:
    """Golds for newcomers, nothing in a pause, otherwise work with golds among it."""
    checks, luck = labeling.checks, random.SystemRandom()
    lease_s = lease_seconds(claims.typical_seconds(connection, worker), ask.n)
    record = golds.record(connection, worker)
    at = standing(checks, record)
    if at in PAUSED:
        return []
    found: list[HumanLease] = []
    if at == "onboarding":
        n_golds = min(newcomers_golds(checks, record), ask.n)
    else:
        n_golds = min(golds_among(ask.n, checks.share, luck), record.unseen)
        wanted = ask.n - n_golds
        if wanted > 0:
            found = claims.claim(
                connection,
                worker,
                wanted,
                now,
                lease_s,
                resume=ask.resume,
                page=ask.page,
                together=ask.together,
            )
        if len(found) < wanted:
            # Few are waiting: then few golds, or they would stand out.
            n_golds = min(n_golds, golds_among(len(found), checks.share, luck))
    tokens = golds.claim(connection, worker, n_golds, now, lease_s, ask.page)
    for gold in claims.human_leases(connection, tokens):
        found.insert(luck.randint(0, len(found)), gold)
    return found


def _queue(connection: Connection, worker: str, now: float, labeling: Labeling) -> QueueView:
    """What is left for an annotator, and whether a pause is due."""
    view = progress.queue_view(connection, worker, now)
    found = standing(labeling.checks, golds.record(connection, worker))
    pause = found if found in PAUSED else None
    return view.model_copy(update={"pause": pause})


@router.post("/label/continue", response_model=AnnotatorView)
async def go_on(service: Services, caller: Annotator) -> AnnotatorView:
    """End a pause: the next pictures show whether it goes better."""
    now, labeling = service.clock(), await service.read(labeling_now, service.settings)
    await service.write(_go_on, caller.name, now, labeling)
    return await service.read(_me, caller.name, now, service.settings)


def _go_on(connection: Connection, worker: str, now: float, labeling: Labeling) -> None:
    found = standing(labeling.checks, golds.record(connection, worker))
    if found == "requester":
        raise ApiError(409, "the requester would like to talk to you before you go on")
    if found == "retry":
        golds.check_anew(connection, worker, worker, now)


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
    checks = labeling_now(connection, service.settings).checks
    if standing(checks, golds.record(connection, worker)) in PAUSED:
        raise labels.UndoRefused("conflict", "nothing can be undone while you take a break")
    lease_s = lease_seconds(claims.typical_seconds(connection, worker), MAX_CLAIM)
    settle_s = service.settings.settle_s
    return labels.undo(connection, worker, ask.client_label_id, now, lease_s, settle_s, ask.page)


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


@router.post("/label/leave", response_model=LeaveResult)
async def leave(ask: LeaveRequest, service: Services, caller: SignedIn) -> LeaveResult:
    """Give everything back a page holds, claims on their way included: the page has ended."""
    now = service.clock()
    worker = ask.annotator or caller.name
    released = await service.write(claims.close_page, worker, ask.page, ask.keep, now)
    return LeaveResult(released=released)


def _lease_result(ask: LeaseRequest, live: list[str]) -> LeaseResult:
    asked = [lease.assignment for lease in ask.leases]
    return LeaseResult(live=live, lost=[one for one in asked if one not in set(live)])


@router.get("/label/stats", response_model=LabelStats)
async def stats(service: Services, caller: Annotator) -> LabelStats:
    """Progress of the human queue as a whole."""
    return await service.read(progress.label_stats, service.clock())
