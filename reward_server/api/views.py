"""Rows of the store as wire types. Pure."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row

from reward_server.store.claims import HumanLease
from reward_server.store.jobs import JobRecord
from shared.schema import Counts, ItemError, ItemResult, Job, VoteCounts
from shared.schema.labels import ClaimedItem


def job_view(record: JobRecord, *, label_url: str, eta_s: float | None) -> Job:
    """A job as its requester sees it."""
    row = record.job
    data = [_item_view(item) for item in record.items]
    ok = sum(item.status == "ok" for item in data)
    pending = sum(item.status == "pending" for item in data)
    return Job(
        id=row.id,
        reward=row.reward,
        status=row.status,
        rev=row.rev,
        run_id=row.run_id,
        group_id=row.group_id,
        step=row.step,
        rewards=[item.reward for item in data],
        valid=[item.status == "ok" for item in data],
        data=data,
        counts=Counts(ok=ok, pending=pending, error=len(data) - ok - pending),
        eta_s=None if row.finished_at is not None else eta_s,
        model=row.model,
        label_url=label_url if row.kind == "human" else None,
        created_at=row.created_at,
        finished_at=row.finished_at,
        acked=row.acked_at is not None,
    )


def _item_view(row: Row[Any]) -> ItemResult:
    human = row.kind == "human"
    error = None
    if row.error_code is not None:
        error = ItemError(code=row.error_code, message=row.error_message)
    return ItemResult(
        index=row.position,
        id=row.given_id,
        status=row.status,
        reward=row.value,
        detail=row.detail,
        votes=VoteCounts(like=row.likes, dislike=row.dislikes, skip=row.skips) if human else None,
        error=error,
    )


def lease_view(lease: HumanLease) -> ClaimedItem:
    """A leased image as its annotator sees it."""
    return ClaimedItem(
        assignment=str(lease.assignment),
        token=lease.token,
        prompt=lease.prompt,
        image_url=f"/images/sha256-{lease.sha256}",
        width=lease.width,
        height=lease.height,
        instruction=lease.instruction,
        lease_s=lease.lease_s,
    )
