"""Operations: alive, ready, what is here; and images by hash."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from sqlalchemy import Connection

from reward_server import __version__
from reward_server.api.intake import store_image, write_about
from reward_server.api.problems import ApiError
from reward_server.api.security import Requester, Sender, Services, Viewer
from reward_server.domain.jobs import Blob
from reward_server.domain.rates import Rate
from reward_server.metrics import CONTENT_TYPE
from reward_server.service import Service, describe
from reward_server.store import jobs, people, progress, rates
from shared.images import MAX_PIXELS, MAX_SIDE, MIME, ImageError, sha256_hex
from shared.schema import API_VERSION, MAX_BODY_BYTES, MAX_ITEMS, MAX_WAIT_S, StoredImage
from shared.schema.ops import Health, Info, Limits, RewardInfo

router: Final = APIRouter(tags=["operations"])

FILES: Final[dict[str, Any]] = {
    mime: {"schema": {"type": "string", "format": "binary"}} for mime in MIME.values()
}
Hash = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]


@router.get("/healthz", response_model=Health)
async def healthz() -> Health:
    """This process answers."""
    return Health(status="ok")


@router.get("/readyz", response_model=Health)
async def readyz(service: Services) -> Health:
    """Database answers, scorers loaded, not shutting down; 503 otherwise."""
    checks = {
        "database": await service.read(people.any_key) in (True, False),
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
                classes=None if reward.classes is None else list(reward.classes),
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


@router.get("/metrics", response_class=PlainTextResponse)
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
        max_images_per_minute=settings.images_per_minute,
        settle_s=settings.settle_s,
        results_kept_s=settings.results_kept_s,
    )


@router.put(
    "/images/sha256-{sha256}",
    response_model=StoredImage,
    status_code=201,
    responses={200: {"model": StoredImage, "description": "It was there already."}},
    openapi_extra={"requestBody": {"required": True, "content": FILES}},
)
async def put_image(sha256: Hash, request: Request, service: Services, caller: Sender) -> Response:
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
    await write_about(service, [image], _keep, image, caller.rate, service.clock())
    receipt = StoredImage(
        sha256=image.sha256,
        mime=image.mime,
        bytes=image.bytes,
        width=image.width,
        height=image.height,
    )
    return JSONResponse(receipt.model_dump(), status_code=200 if before else 201)


def _keep(connection: Connection, image: Blob, rate: Rate | None, now: float) -> None:
    if rate is not None:
        rates.spend(connection, rate, 1, now)
    jobs.add_blobs(connection, [image], now)


@router.head("/images/sha256-{sha256}", include_in_schema=False)
@router.get(
    "/images/sha256-{sha256}",
    response_class=FileResponse,
    responses={200: {"content": FILES, "description": "The file as it was sent."}},
)
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
