"""What people said, to take away: every label, and preference pairs for training on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from sqlalchemy import Connection

from reward_server.api.formats import (
    MEDIA_TYPES,
    Columns,
    Format,
    ParquetUnavailable,
    check_parquet,
    lines,
    parquet,
    table,
)
from reward_server.api.problems import ApiError
from reward_server.api.security import Manager, Overseer, Services
from reward_server.api.spool import spooled
from reward_server.service import Service
from reward_server.store import progress
from reward_server.store.pairs import pairs
from shared.schema import Json

router: Final = APIRouter(tags=["exports"])

Rows = Callable[[Connection, str | None], Iterator[Json]]
RunId = Annotated[str | None, Query(description="only what this run asked for")]

LABELS: Final[Columns] = {
    "annotator": "string",
    "label": "string",
    "at": "float",
    "rt_ms": "int",
    "too_fast": "bool",
    "reason": "string",
    "counted": "bool",
    "undone": "bool",
    "job": "string",
    "index": "int",
    "id": "string",
    "prompt": "string",
    "sha256": "string",
    "run_id": "string",
    "group_id": "string",
    "step": "int",
}
PAIRS: Final[Columns] = {
    "prompt": "string",
    "chosen": "string",
    "rejected": "string",
    "chosen_reward": "float",
    "rejected_reward": "float",
    "chosen_votes": "int",
    "rejected_votes": "int",
    "chosen_step": "int",
    "rejected_step": "int",
    "run_id": "string",
}
FILES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {kind: {} for kind in MEDIA_TYPES.values()}, "description": "A file."}
}
PICTURES: Final[Columns] = {**PAIRS, "chosen": "image", "rejected": "image"}


@router.get("/labels/export", response_class=StreamingResponse, responses=FILES)
async def export_labels(
    service: Services, caller: Manager, format: Format = "jsonl", run_id: RunId = None
) -> StreamingResponse:
    """Every label ever given, oldest first, undone and late ones marked as such."""
    return await _download(service, "labels", progress.export, LABELS, format, run_id)


@router.get("/preferences/export", response_class=StreamingResponse, responses=FILES)
async def export_preferences(
    service: Services,
    caller: Overseer,
    format: Format = "jsonl",
    run_id: RunId = None,
    images: Annotated[bool, Query(description="Parquet: pictures instead of hashes")] = True,
) -> StreamingResponse:
    """Pairs of a liked and a disliked picture of the same prompt, each picture once.

    Parquet holds the pictures and is read by ``datasets.load_dataset("parquet", ...)``; JSON lines
    and CSV name them by SHA-256, for ``GET /images/sha256-<hex>``.
    """
    columns = PICTURES if format == "parquet" and images else PAIRS
    return await _download(service, "preferences", pairs, columns, format, run_id)


async def _download(
    service: Service, name: str, rows: Rows, columns: Columns, format: Format, run_id: str | None
) -> StreamingResponse:
    if format == "parquet":
        try:
            await service.run(check_parquet)
        except ParquetUnavailable as error:
            raise ApiError(422, str(error)) from None

    def body() -> Iterator[bytes]:
        with service.store.reading() as connection:
            found = rows(connection, run_id)
            if format == "jsonl":
                yield from lines(found)
            elif format == "csv":
                yield from table(found, columns)
            else:
                yield from parquet(found, columns, service.blobs.get)

    return await spooled(service, body, MEDIA_TYPES[format], f"{name}.{format}")
