"""``POST /score``: accept a batch for one reward, answer at once if the scores are quick."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import JSONResponse

from reward_server.api.intake import (
    Intake,
    check_fields,
    choose_reward,
    new_job,
    parse,
    write_about,
)
from reward_server.api.jobs import view_when_over
from reward_server.api.problems import ApiError
from reward_server.api.security import Caller, Sender, Services
from reward_server.service import Reward, Service
from reward_server.store import jobs
from shared.schema import MAX_WAIT_S, Job

router: Final = APIRouter(tags=["scoring"])

PIXEL: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTKe3wAAAABJRU5ErkJggg=="
)
"""A white pixel as PNG: the image of the documented examples."""


def _example(reward: str, target: dict[str, Any] | None, prompt: str) -> dict[str, Any]:
    item: dict[str, Any] = {"prompt": prompt, "image": {"b64": PIXEL}}
    if target is not None:
        item["target"] = target
    return {"summary": reward, "value": {"reward": reward, "items": [item]}}


BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/ScoreRequest"},
                "examples": {
                    "ocr": _example("ocr", {"text": "Hi"}, 'A sign that says "Hi"'),
                    "counting": _example(
                        "counting",
                        {"include": [{"class": "circle", "count": 3, "color": "red"}]},
                        "three red circles",
                    ),
                    "human": _example("human", None, "a red bus"),
                },
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["request"],
                    "properties": {"request": {"$ref": "#/components/schemas/ScoreRequest"}},
                    "additionalProperties": {"type": "string", "format": "binary"},
                },
                "encoding": {"request": {"contentType": "application/json"}},
            },
        },
    }
}
ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    202: {"model": Job, "description": "Accepted; poll the Location."}
}

Prefer = Annotated[str | None, Header(description="RFC 7240: wait=SECONDS or respond-async")]
IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=255)]


@router.post("/score", response_model=Job, responses=ANSWERS, openapi_extra=BODY)
async def score(
    request: Request,
    service: Services,
    caller: Sender,
    prefer: Prefer = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Score images by the reward named in the body."""
    return await _score(request, service, caller, None, prefer, idempotency_key)


@router.post("/score/{reward}", response_model=Job, responses=ANSWERS, openapi_extra=BODY)
async def score_by(
    reward: str,
    request: Request,
    service: Services,
    caller: Sender,
    prefer: Prefer = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Score images by the reward named in the path."""
    return await _score(request, service, caller, reward, prefer, idempotency_key)


async def _score(
    request: Request,
    service: Service,
    caller: Caller,
    path: str | None,
    prefer: str | None,
    key: str | None,
) -> Response:
    if path is not None:
        choose_reward(service, path, None)
    intake = await parse(request)
    reward = choose_reward(service, path, intake.request.reward)
    check_fields(reward, intake.request)
    job_id, replayed = await accept(service, reward, intake, caller, key)
    hold = _hold(prefer, service.settings.machine_wait_s if reward.kind == "machine" else 0.0)
    job = await view_when_over(service, job_id, hold, request)
    headers = {"Location": f"/jobs/{job_id}"}
    if replayed:
        headers["Idempotency-Replayed"] = "true"
    if prefer is not None:
        headers["Preference-Applied"] = f"wait={hold:g}" if hold > 0 else "respond-async"
    if not job.terminal:
        headers["Retry-After"] = "1"
    status = 200 if job.terminal else 202
    return JSONResponse(job.model_dump(mode="json"), status_code=status, headers=headers)


async def accept(
    service: Service,
    reward: Reward,
    intake: Intake,
    caller: Caller,
    key: str | None,
) -> tuple[str, bool]:
    """Accept a checked request; returns its job's id, and whether an equal one had made it before.

    Raises:
        ApiError: 422, 429.
        RateExceeded: the caller sends too fast.
    """
    new = await new_job(service, reward, intake, owner=caller.name, key=key)
    settings = service.settings
    limit = settings.max_pending_human if reward.kind == "human" else settings.max_pending_machine
    images = [one.image for one in new.items if one.image is not None]
    try:
        accepted = await write_about(
            service, images, jobs.accept, new, service.clock(), limit, caller.rate
        )
    except jobs.QueueFull as full:
        eta = service.pace.eta_s(reward.name, len(new.items), service.clock())
        pause = int(min(max(eta or 1.0, 1.0), 60.0))
        raise ApiError(
            429, f"{full}; try again", retry_after=pause, queue_depth=full.depth
        ) from None
    except jobs.IdempotencyMismatch as mismatch:
        raise ApiError(422, str(mismatch), code="idempotency_mismatch") from None
    service.pool.wake()
    return accepted


def _hold(prefer: str | None, default: float) -> float:
    """Seconds to hold the answer (RFC 7240): ``respond-async``, ``wait=N``, or the default."""
    hold = default
    for part in (prefer or "").split(","):
        name, _, value = part.strip().partition("=")
        if name.lower() == "respond-async":
            hold = 0.0
        elif name.lower() == "wait" and value.strip().isdecimal():
            return min(float(value), MAX_WAIT_S)
    return hold
