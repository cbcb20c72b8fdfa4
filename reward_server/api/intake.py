"""From a request's bytes to a checked job: parsing, images, targets, options.

A bad image becomes that item's error; anything else that is wrong refuses the whole request before
a single item of it is accepted.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import UploadFile

from reward_server.api.problems import ApiError, invalid
from reward_server.domain.jobs import Blob, NewItem, NewJob, Rules
from reward_server.service import Reward, Service
from reward_server.store import campaigns, jobs, outbox
from shared.images import ImageError, decode, from_b64, probe
from shared.schema import MAX_ITEMS, ImageRef, Json, ScoreRequest
from shared.schema.campaigns import CampaignSettings

P = ParamSpec("P")
T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

REQUEST_PART: Final = "request"
"""Name of the JSON part in multipart/form-data; every other part is an image file."""


@dataclass(frozen=True)
class Intake:
    """A parsed score request, its file parts by name, and the size of its body in bytes."""

    request: ScoreRequest
    parts: Mapping[str, bytes]
    size: int


async def parse(request: Request) -> Intake:
    """Read and validate the body, JSON or multipart.

    Raises:
        ApiError: 400, 413, 415 or 422.
    """
    kind = _content_type(request)
    parts: dict[str, bytes] = {}
    if kind == "application/json":
        body = await request.body()
    elif kind == "multipart/form-data":
        body, parts = await _multipart(request)
    else:
        raise ApiError(
            415,
            f"content type {kind!r}; send application/json (curl --json) or multipart/form-data",
        )
    parsed = _validated(ScoreRequest, body)
    return Intake(parsed, parts, getattr(request.state, "body_bytes", len(body)))


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """What the API's document says of a body that ``parse_json`` reads, for ``openapi_extra``."""
    schema = {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}
    return {"requestBody": {"required": True, "content": {"application/json": schema}}}


async def parse_json(request: Request, model: type[M]) -> M:
    """Read and validate a JSON body with images in it.

    A route that declares its body has it read and parsed before it knows who sends it; these may
    be large.

    Raises:
        ApiError: 400, 413, 415 or 422.
    """
    kind = _content_type(request)
    if kind != "application/json":
        raise ApiError(415, f"content type {kind!r}; send application/json (curl --json)")
    return _validated(model, await request.body())


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _validated(model: type[M], body: bytes) -> M:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_input=False)) from None


async def _multipart(request: Request) -> tuple[bytes, dict[str, bytes]]:
    async with request.form(max_files=MAX_ITEMS + 1, max_fields=16, max_part_size=2**26) as form:
        parts: dict[str, bytes] = {}
        text: bytes | None = None
        for name, value in form.multi_items():
            data = await value.read() if isinstance(value, UploadFile) else value.encode()
            if name == REQUEST_PART:
                text = data
            elif name in parts:
                raise ApiError(422, f"two parts are named {name!r}")
            else:
                parts[name] = data
    if text is None:
        raise ApiError(422, f"no part named {REQUEST_PART!r}: it carries the JSON of the request")
    return text, parts


def choose_reward(service: Service, path: str | None, body: str | None) -> Reward:
    """The reward named by path or body.

    Raises:
        ApiError: 404 unknown, naming the known ones; 422 none or two different ones named.
    """
    name = path or body
    if name is None:
        raise ApiError(422, f"reward: name one of {sorted(service.rewards)}")
    if path is not None and body is not None and path != body:
        raise ApiError(422, f"reward: the path says {path!r}, the body says {body!r}")
    reward = service.rewards.get(name)
    if reward is None:
        known = sorted(service.rewards)
        text = f"no reward {name!r} here; known: {', '.join(known)}"
        raise ApiError(404, text, code="unknown_reward", known=known)
    return reward


def check_fields(reward: Reward, request: ScoreRequest) -> None:
    """Validate options and targets against the reward.

    Raises:
        ApiError: 422.
    """
    if reward.options is None or reward.target is None:
        if request.options is not None:
            raise ApiError(422, f"options: reward {reward.name!r} has none")
        return
    _check(reward.options, request.options, ("options",))
    for index, item in enumerate(request.items):
        _check(reward.target, item.target, ("items", str(index), "target"))


def _check(model: type[BaseModel], value: Json | None, where: tuple[str, ...]) -> None:
    try:
        model.model_validate(value or {})
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_input=False), where) from None


async def new_job(
    service: Service, reward: Reward, intake: Intake, *, owner: str, key: str | None
) -> NewJob:
    """Store the images and put the job together.

    Raises:
        ApiError: 422 for a file part that is missing or a webhook nobody registered.
        OSError: the images could not be stored.
    """
    request = intake.request
    await _check_webhook(service, request.webhook)
    named = [one.image.sha256 for one in request.items if one.image.sha256 is not None]
    stored = await service.read(jobs.find_blobs, named) if named else {}
    items = await service.run(_items, service, reward, intake, stored)
    fingerprint = _fingerprint(reward, request, items)
    asked = await _campaign(service, reward, request)
    return NewJob(
        id=f"job_{int(service.clock() * 1000):011x}{secrets.token_hex(6)}",
        kind=reward.kind,
        reward=reward.name,
        model=reward.model,
        items=items,
        fingerprint=fingerprint,
        idempotency=_idempotency(reward, owner, key, fingerprint),
        request_bytes=intake.size,
        run_id=request.run_id,
        group_id=request.group_id,
        step=request.step,
        deadline_s=request.deadline_s,
        delay_s=service.settings.reward_latency if reward.kind == "machine" else 0.0,
        priority=request.priority,
        options=request.options,
        instruction=asked.instruction,
        webhook=request.webhook,
        rules=_rules(reward, request, asked),
        weights=asked.weights,
    )


async def _check_webhook(service: Service, name: str | None) -> None:
    if name is not None and not await service.read(outbox.known, name):
        raise ApiError(
            422,
            f"webhook: no endpoint {name!r} is registered here; whoever runs this server makes one "
            f"with 'python -m reward_server webhooks create --name {name} --url URL --data DIR'",
        )


async def _campaign(service: Service, reward: Reward, request: ScoreRequest) -> CampaignSettings:
    """What the request says, and what its campaign says where the request leaves it open."""
    defaults = service.settings.campaign
    if reward.kind == "machine":
        return defaults.model_copy(update={"instruction": request.instruction, "weights": "equal"})
    mine = campaigns.campaign_of(request.run_id)
    settings = await service.read(campaigns.settings_of, mine, defaults)
    said: dict[str, Any] = {}
    if request.instruction is not None:
        said["instruction"] = request.instruction
    if {"votes", "min_votes", "quorum", "max_votes"} & request.model_fields_set:
        said |= {"votes": request.votes, "quorum": request.quorum}
    return settings.model_copy(update=said)


def _rules(reward: Reward, request: ScoreRequest, asked: CampaignSettings) -> Rules:
    if reward.kind == "machine":
        return Rules()
    return Rules(
        asked.votes,
        request.min_votes,
        asked.quorum,
        request.max_skips or asked.votes,
        request.max_votes,
        request.min_agreement,
    )


def _items(
    service: Service, reward: Reward, intake: Intake, stored: Mapping[str, Blob]
) -> list[NewItem]:
    items = []
    # Before any image is stored: a request that is refused later would leave its files behind.
    for one in intake.request.items:
        if one.image.part is not None and one.image.part not in intake.parts:
            have = sorted(intake.parts)
            raise ApiError(422, f"image part {one.image.part!r} is missing; parts: {have}")
    for one in intake.request.items:
        item = NewItem(prompt=one.prompt, id=one.id, target=one.target)
        try:
            image = _image(service, reward, one.image, intake.parts, stored)
            items.append(replace(item, image=image))
        except ImageError as error:
            items.append(replace(item, error=(error.code, str(error))))
        except KeyError as error:
            why = f"no image is stored as sha256-{error.args[0]}; PUT it first"
            items.append(replace(item, error=("image_missing", why)))
    return items


def _image(
    service: Service,
    reward: Reward,
    ref: ImageRef,
    parts: Mapping[str, bytes],
    stored: Mapping[str, Blob],
) -> Blob:
    if ref.sha256 is not None:
        known = stored[ref.sha256]
        if not service.blobs.touch(known.sha256, known.bytes):
            raise KeyError(ref.sha256)
        return known
    data = parts[ref.part] if ref.part is not None else from_b64(ref.b64 or "")
    if reward.kind == "human":
        decode(data)
    return store_image(service, data)


def store_image(service: Service, data: bytes) -> Blob:
    """Check an image's header and keep its file.

    Raises:
        ImageError: not an image this server takes.
        OSError: it could not be stored.
    """
    header = probe(data)
    return Blob(service.blobs.put(data), header.mime, len(data), header.width, header.height)


async def write_about(
    service: Service,
    images: Sequence[Blob],
    work: Callable[Concatenate[Connection, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """``service.write`` for images whose files are stored already.

    Should it refuse them, they are recorded all the same: no other files are ever purged.
    """
    try:
        return await service.write(work, *args, **kwargs)
    except Exception:
        with contextlib.suppress(SQLAlchemyError):
            await service.write(jobs.keep_blobs, images, service.clock())
        raise


def _fingerprint(reward: Reward, request: ScoreRequest, items: list[NewItem]) -> str:
    """SHA-256 of the request with images by hash: what it asks for, not how it was sent."""
    asked = request.model_dump(exclude={"reward", "items"}, exclude_defaults=True)
    asked["reward"] = reward.name
    asked["items"] = [
        [item.id, item.prompt, item.target, item.image.sha256 if item.image else item.error]
        for item in items
    ]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def stored_key(owner: str, key: str) -> str:
    """An Idempotency-Key as the store knows it: everybody has keys of their own."""
    return f"key:{owner}:{key}"


def _idempotency(reward: Reward, owner: str, key: str | None, fingerprint: str) -> str | None:
    if key is not None:
        return stored_key(owner, key)
    return f"fingerprint:{owner}:{fingerprint}" if reward.kind == "human" else None
