"""Golds over HTTP: pictures whose answer is known, and how well people do on them."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request
from sqlalchemy import Connection

from reward_server.api.intake import json_body, parse_json, store_image
from reward_server.api.labeling import labeling_now
from reward_server.api.problems import ApiError
from reward_server.api.security import Manager, Services
from reward_server.domain.standing import Checks, standing
from reward_server.service import Service
from reward_server.settings import Settings
from reward_server.store import golds
from shared.images import ImageError, decode, from_b64
from shared.schema.labels import (
    GoldAccuracy,
    GoldList,
    GoldReceipt,
    GoldRequest,
    GoldView,
    NewGold,
)

router: Final = APIRouter(tags=["labeling"])


@router.post("/golds", response_model=GoldReceipt, openapi_extra=json_body(GoldRequest))
async def add(request: Request, service: Services, caller: Manager) -> GoldReceipt:
    """Add pictures whose answer is known; all of them, or none if one cannot be used."""
    ask = await parse_json(request, GoldRequest)
    checked = await service.run(_checked, service, ask.golds)
    return await service.write(_add, checked, service.clock())


def _checked(service: Service, asked: list[NewGold]) -> list[golds.Gold]:
    files = []
    for at, one in enumerate(asked):
        if one.image.b64 is None:
            raise ApiError(422, f"golds[{at}].image: send it as b64")
        try:
            data = from_b64(one.image.b64)
            decode(data)
        except ImageError as error:
            raise ApiError(422, f"golds[{at}].image: {error}") from None
        files.append(data)
    # Not one is stored before all can be used: nothing would ever purge its file.
    return [
        golds.Gold(one.prompt, store_image(service, data), one.answer, one.instruction)
        for one, data in zip(asked, files, strict=True)
    ]


def _add(connection: Connection, found: list[golds.Gold], now: float) -> GoldReceipt:
    added = golds.add(connection, found, now)
    return GoldReceipt(added=added, total=len(golds.in_use(connection)))


@router.get("/golds", response_model=GoldList)
async def listing(service: Services, caller: Manager) -> GoldList:
    """All golds in use with their answers, and how everybody does on them."""
    return await service.read(_listing, service.settings)


def _listing(connection: Connection, settings: Settings) -> GoldList:
    checks = labeling_now(connection, settings).checks
    return GoldList(
        golds=[
            GoldView(
                id=row.id,
                prompt=row.prompt,
                sha256=row.sha256,
                answer="like" if row.value == 1.0 else "dislike",
                instruction=row.instruction,
                likes=row.likes,
                dislikes=row.dislikes,
                skips=row.skips,
            )
            for row in golds.in_use(connection)
        ],
        annotators=[
            GoldAccuracy(
                annotator=row.annotator,
                right=row.right,
                answered=row.answered,
                accuracy=row.right / row.answered,
                paused=_paused(connection, row.annotator, checks),
            )
            for row in golds.accuracy(connection)
        ],
    )


def _paused(connection: Connection, worker: str, checks: Checks) -> bool:
    return standing(checks, golds.record(connection, worker)) in ("retry", "requester")


@router.delete("/golds/{gold}", status_code=204)
async def remove(gold: int, service: Services, caller: Manager) -> None:
    """Show a gold no more; the answers to it count no more."""
    if not await service.write(golds.remove, gold):
        raise ApiError(404, f"no gold {gold} is in use; see GET /golds")


@router.post("/annotators/{name}/continue", status_code=204)
async def let_go_on(name: str, service: Services, caller: Manager) -> None:
    """End the pause of an annotator: their earlier answers to golds count no more."""
    if not await service.write(golds.check_anew, name, caller.name, service.clock()):
        raise ApiError(
            404, f"no annotator named {name!r}; see: python -m reward_server invite list"
        )
