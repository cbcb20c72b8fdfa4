"""Preference pairs: a picture people liked and one they disliked, made for the same prompt."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Row, select

from reward_server.store.tables import item, job
from shared.schema import Json


def pairs(connection: Connection, run_id: str | None = None) -> Iterator[Json]:
    """Pairs of judged pictures, one prompt after the other, the oldest pictures first.

    Liked means a reward above 0.5, disliked below; between them nobody knows. Every picture is in
    one pair at most, so that no picture of a long run weighs more than others.
    """
    query = (
        select(item.c.prompt, item.c.sha256, item.c.value, item.c.likes, item.c.dislikes)
        .add_columns(job.c.run_id, job.c.step)
        .join(job, job.c.id == item.c.job_id)
        .where(item.c.kind == "human", item.c.status == "ok", item.c.value != 0.5)
        .order_by(item.c.prompt, job.c.created_at, item.c.id)
        .execution_options(yield_per=500)
    )
    if run_id is not None:
        query = query.where(job.c.run_id == run_id)
    for prompt, rows in groupby(connection.execute(query), key=lambda row: row.prompt):
        judged = list(rows)
        liked = [row for row in judged if row.value > 0.5]
        disliked = [row for row in judged if row.value < 0.5]
        for chosen, rejected in zip(liked, disliked, strict=False):
            yield _pair(prompt, chosen, rejected)


def _pair(prompt: str, chosen: Row[Any], rejected: Row[Any]) -> Json:
    return {
        "prompt": prompt,
        "chosen": chosen.sha256,
        "rejected": rejected.sha256,
        "chosen_reward": chosen.value,
        "rejected_reward": rejected.value,
        "chosen_votes": chosen.likes + chosen.dislikes,
        "rejected_votes": rejected.likes + rejected.dislikes,
        "chosen_step": chosen.step,
        "rejected_step": rejected.step,
        "run_id": chosen.run_id,
    }
