"""Operations: alive, ready, what is here, what a run has sent; and images by hash."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import FileResponse, JSONResponse

from reward_server import __version__
from reward_server.api.intake import store_image
from reward_server.api.problems import ApiError
from reward_server.api.security import Requester, Services, Viewer
from reward_server.metrics import CONTENT_TYPE
from reward_server.service import Service, describe
from reward_server.store import jobs, people, progress
from shared.images import MAX_PIXELS, MAX_SIDE, ImageError, sha256_hex
from shared.schema import API_VERSION, MAX_BODY_BYTES, MAX_ITEMS, MAX_WAIT_S, StoredImage
from shared.schema_ops import Health, Info, Limits, RewardInfo, RunStats

router: Final = APIRouter(tags=["operations"])

Hash = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]


@router.get("/healthz", response_model=Health)
async def healthz() -> Health:
    """This process answers."""
    return Health(status="ok")


@router.get("/readyz", response_model=Health)
async def readyz(service: Services) -> Health:
    """Database writable, scorers loaded, not shutting down; 503 otherwise."""
    checks = {
        "database": await service.write(people.any_key) in (True, False),
        "scorers": service.pool.ready,
        "open": not service.hub.closing,
    }
    if not all(checks.values()):
        waiting = ", ".join(name for name, fine in checks.items() if not fine)
        raise ApiError(503, f"not ready: {waiting}", retry_after=1, checks=checks)
    return Health(status="ok", checks=checks)


@router.get("/info", response_model=Info)
async def info(service: Services, caller: Requester) -> Info:
    """Rewards with the schemas of their targets and options, limits, traffic, queue depths."""
    return Info(
        api_version=API_VERSION,
        server_version=__version__,
        rewards=[
            RewardInfo(
                name=reward.name,
                kind=reward.kind,
                model=reward.model,
                target=describe(reward.target),
                options=describe(reward.options),
            )
            for reward in service.rewards.values()
        ],
        limits=_limits(service),
        traffic=await service.read(progress.total_traffic),
        pending={
            "machine": await service.read(jobs.pending, "machine"),
            "human": await service.read(jobs.pending, "human"),
        },
        uptime_s=service.clock() - service.started_at,
    )


@router.get("/metrics", response_class=Response)
async def metrics(service: Services, caller: Requester) -> Response:
    """Figures for Prometheus; the queue's are the same whichever server is asked."""
    queue = await service.read(progress.queue_figures, service.clock())
    text = service.metrics.render(queue, len(service.pool.pids))
    return Response(text, media_type=CONTENT_TYPE)


def _limits(service: Service) -> Limits:
    settings = service.settings
    return Limits(
        max_items=MAX_ITEMS,
        max_body_bytes=MAX_BODY_BYTES,
        max_side_px=MAX_SIDE,
        max_pixels=MAX_PIXELS,
        max_wait_s=MAX_WAIT_S,
        max_pending_machine=settings.max_pending_machine,
        max_pending_human=settings.max_pending_human,
        settle_s=settings.settle_s,
        results_kept_s=settings.results_kept_s,
    )


@router.get("/runs/{run_id}/stats", response_model=RunStats)
async def run_stats(run_id: str, service: Services, caller: Requester) -> RunStats:
    """What this server has accepted from one run, kept in its database."""
    found = await service.read(progress.run_stats, run_id)
    if found is None:
        raise ApiError(404, f"no request of run {run_id!r} was ever accepted here")
    return found


@router.put("/images/sha256-{sha256}", response_model=StoredImage, status_code=201)
async def put_image(
    sha256: Hash, request: Request, service: Services, caller: Requester
) -> Response:
    """Store an image file under its hash; 200 if it was there already."""
    data = await request.body()
    if sha256_hex(data) != sha256:
        text = f"the body's SHA-256 is {sha256_hex(data)}"
        raise ApiError(409, text, code="hash_mismatch")
    before = await service.read(jobs.find_blobs, [sha256])
    try:
        image = await service.run(store_image, service, data)
    except ImageError as error:
        status = 413 if error.code == "image_too_large" else 415
        raise ApiError(status, str(error)) from None
    await service.write(jobs.add_blobs, [image], service.clock())
    receipt = StoredImage(
        sha256=image.sha256,
        mime=image.mime,
        bytes=image.bytes,
        width=image.width,
        height=image.height,
    )
    return JSONResponse(receipt.model_dump(), status_code=200 if before else 201)


@router.head("/images/sha256-{sha256}", include_in_schema=False)
@router.get("/images/sha256-{sha256}", response_class=FileResponse)
async def get_image(sha256: Hash, service: Services, caller: Viewer) -> Response:
    """An image file; it can never change, so browsers may keep it for a year."""
    found = await service.read(jobs.find_blobs, [sha256])
    if sha256 not in found:
        raise ApiError(404, f"no image sha256-{sha256} is stored here")
    return FileResponse(
        service.blobs.path(sha256),
        media_type=found[sha256].mime,
        headers={"Cache-Control": "private, max-age=31536000, immutable"},
    )
