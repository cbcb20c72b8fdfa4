"""Jobs: look, wait for one or many, change, cancel, acknowledge."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request

from reward_server.api.problems import ApiError
from reward_server.api.security import Requester, Services
from reward_server.api.views import job_view
from reward_server.domain.jobs import NEVER
from reward_server.hub import wait_for
from reward_server.service import Service
from reward_server.store import jobs
from reward_server.store.changes import Change, ChangeRefused, change
from reward_server.store.jobs import Head, JobRecord, UnknownJob
from shared.schema import (
    MAX_ANSWERED_ITEMS,
    MAX_WAIT_S,
    Job,
    JobList,
    JobPatch,
    JobStatus,
    WaitRequest,
    WaitResult,
)

router: Final = APIRouter(tags=["jobs"])

Wait = Annotated[float, Query(ge=0, description="seconds to hold the answer, at most 60")]


async def view(service: Service, job_id: str, request: Request) -> Job:
    """One job for the wire.

    Raises:
        ApiError: 404, there is no such job; 410, its results were purged.
    """
    found = await views(service, [job_id], request)
    if not found:
        raise await _no_job(service, job_id)
    return found[0]


async def _no_job(service: Service, job_id: str) -> ApiError:
    if await service.read(jobs.purged_at, job_id) is None:
        return ApiError(404, f"no job {job_id!r} on this server", code="unknown_job")
    days = service.settings.results_kept_s / 86400
    return ApiError(410, f"the results of job {job_id!r} are gone: they are kept {days:g} days")


async def views(service: Service, ids: list[str], request: Request) -> list[Job]:
    """Jobs for the wire, in order; unknown ids are left out."""
    return await _views(service, await service.read(jobs.load, ids), request)


async def _views(service: Service, records: list[JobRecord], request: Request) -> list[Job]:
    depth: dict[str, int] = {}
    for record in records:
        kind = record.job.kind
        if record.job.finished_at is None and kind not in depth:
            depth[kind] = await service.read(jobs.pending, kind)
    return [_view(service, record, depth.get(record.job.kind, 0), request) for record in records]


def _view(service: Service, record: JobRecord, depth: int, request: Request) -> Job:
    eta_s = service.pace.eta_s(record.job.reward, depth, service.clock())
    return job_view(record, label_url=str(request.base_url), eta_s=eta_s)


async def view_when_over(
    service: Service, job_id: str, seconds: float, request: Request, rev: int | None = None
) -> Job:
    """``view`` once the job is over or its revision differs from ``rev``, or after ``seconds``.

    Raises:
        ApiError: 404, there is no such job; 410, its results were purged.
    """
    until = service.clock() + min(seconds, MAX_WAIT_S)
    with service.hub.listen([job_id]) as bell:
        while (left := until - service.clock()) > 0 and not service.hub.closing:
            news = await service.read(jobs.load_news, job_id, rev)
            if news is None:
                raise await _no_job(service, job_id)
            if news.items:
                return (await _views(service, [news], request))[0]
            await wait_for(bell, left)
    return await view(service, job_id, request)


@router.get("/jobs/{job_id}", response_model=Job)
async def get_job(
    job_id: str,
    request: Request,
    service: Services,
    caller: Requester,
    wait: Wait = 0.0,
    rev: int | None = None,
) -> Job:
    """A job's state; with ``wait``, once it is over or its revision is no longer ``rev``."""
    return await view_when_over(service, job_id, wait, request, rev)


@router.get("/jobs", response_model=JobList)
async def list_jobs(
    request: Request,
    service: Services,
    caller: Requester,
    run_id: str | None = None,
    group_id: str | None = None,
    status: JobStatus | None = None,
    after: Annotated[str | None, Query(description="`next` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> JobList:
    """Jobs, newest first; a page ends after ``limit`` jobs or about 4,096 items."""
    narrowed = {"run_id": run_id, "group_id": group_id, "status": status, "after": after}
    try:
        found = await service.read(jobs.search, **narrowed, limit=limit + 1)
    except UnknownJob as error:
        raise ApiError(422, f"after: {error}; give the `next` of a page before") from None
    page = _fitting(found[:limit])
    more = page[-1] if len(page) < len(found) else None
    return JobList(jobs=await views(service, page, request), next=more)


def _fitting(sizes: Iterable[tuple[str, int]]) -> list[str]:
    """The first jobs, by id and items, that one answer may hold; at least one."""
    room, ids = MAX_ANSWERED_ITEMS, list[str]()
    for job_id, n_items in sizes:
        room -= n_items
        if room < 0 and ids:
            break
        ids.append(job_id)
    return ids


@router.post("/jobs/wait", response_model=WaitResult)
async def wait_for_many(
    ask: WaitRequest, request: Request, service: Services, caller: Requester
) -> WaitResult:
    """Wait until any of these jobs has changed, or all are over; answers with the changed ones."""
    until = service.clock() + min(ask.wait, MAX_WAIT_S)
    with service.hub.listen(ask.ids) as bell:
        while True:
            heads = await service.read(jobs.heads, ask.ids)
            left = until - service.clock()
            if _satisfied(ask, heads) or left <= 0 or service.hub.closing:
                break
            await wait_for(bell, left)
    sizes = [(i, head.n_items) for i, head in heads.items() if _changed(ask, i, head)]
    changed = _fitting(sizes)
    return WaitResult(
        jobs=await views(service, changed, request),
        pending=[i for i in heads if i not in set(changed)],
        unknown=[i for i in ask.ids if i not in heads],
    )


def _changed(ask: WaitRequest, job_id: str, head: Head) -> bool:
    return head.rev != ask.revs[job_id] if job_id in ask.revs else head.over


def _satisfied(ask: WaitRequest, heads: dict[str, Head]) -> bool:
    if ask.mode == "all":
        return all(head.over for head in heads.values())
    return any(_changed(ask, i, head) for i, head in heads.items()) or not heads


@router.patch("/jobs/{job_id}", response_model=Job)
async def patch(
    job_id: str, ask: JobPatch, request: Request, service: Services, caller: Requester
) -> Job:
    """Change the deadline or the votes of a job whose last reward is not in yet."""
    before = await view(service, job_id, request)
    now = service.clock()
    if ask.votes is not None and service.rewards[before.reward].kind != "human":
        raise ApiError(422, f"votes: nobody votes on reward {before.reward!r}")
    deadline_at = None
    if "deadline_s" in ask.model_fields_set:
        deadline_at = NEVER if ask.deadline_s is None else now + ask.deadline_s
    wanted = Change(deadline_at, ask.votes)
    try:
        await service.write(change, job_id, wanted, now, service.settings.settle_s)
    except ChangeRefused as refused:
        raise ApiError(409, str(refused)) from None
    service.hub.notify([job_id])
    return await view(service, job_id, request)


@router.post("/jobs/{job_id}/cancel", response_model=Job)
async def cancel(job_id: str, request: Request, service: Services, caller: Requester) -> Job:
    """Stop a job; items without an answer become ``skipped``. A finished job stays as it is."""
    await view(service, job_id, request)
    await service.write(jobs.cancel, job_id, service.clock())
    service.hub.notify([job_id])
    return await view(service, job_id, request)


@router.post("/jobs/{job_id}/ack", response_model=Job)
async def ack(job_id: str, request: Request, service: Services, caller: Requester) -> Job:
    """Tell that the rewards were used: from now on no vote of this job can be undone."""
    await view(service, job_id, request)
    await service.write(jobs.acknowledge, job_id, service.clock())
    service.hub.notify([job_id])
    return await view(service, job_id, request)
