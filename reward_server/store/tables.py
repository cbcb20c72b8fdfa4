"""Tables of the queue. Invariants stand here as constraints, not only in code.

Times are epoch seconds, hashes lower-case hex. A change here needs a migration; a test compares.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_JSON: Final = JSON(none_as_null=True)
_LARGE: Final = BigInteger().with_variant(Integer(), "sqlite")
"""Numbers beyond 32 bits: all of SQLite's integers hold them."""

job: Final = Table(
    "job",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("kind", String(8), nullable=False),
    Column("reward", String(200), nullable=False),
    Column("model", String(200), nullable=False),
    Column("status", String(12), nullable=False),
    Column("rev", Integer, nullable=False),
    Column("run_id", String(200)),
    Column("group_id", String(200)),
    Column("step", _LARGE),
    Column("options", _JSON),
    Column("instruction", Text),
    Column("votes", Integer, nullable=False),
    Column("min_votes", Integer, nullable=False),
    Column("quorum", Integer),
    Column("max_skips", Integer, nullable=False),
    Column("max_votes", Integer),
    Column("min_agreement", Float, nullable=False),
    Column("n_items", Integer, nullable=False),
    Column("n_done", Integer, nullable=False),
    Column("n_ok", Integer, nullable=False, server_default="0"),
    Column("value_sum", Float, nullable=False, server_default="0"),
    Column("weights", String(12), nullable=False, server_default="equal"),
    Column("created_at", Float, nullable=False),
    Column("last_label_at", Float),
    Column("settles_at", Float),
    Column("finished_at", Float),
    Column("acked_at", Float),
    Column("purged_at", Float),
    Column("webhook", String(64)),
    CheckConstraint("(settles_at IS NULL) OR (finished_at IS NULL)", name="settled"),
    Index(None, "run_id", "group_id"),
    Index(None, "run_id", "created_at"),
    Index(None, "created_at"),
    Index(
        "ix_job_open",
        "kind",
        "created_at",
        sqlite_where=text("finished_at IS NULL"),
        postgresql_where=text("finished_at IS NULL"),
    ),
    Index(
        "ix_job_kept",
        "finished_at",
        sqlite_where=text("purged_at IS NULL"),
        postgresql_where=text("purged_at IS NULL"),
    ),
    Index(
        "ix_job_settling",
        "settles_at",
        sqlite_where=text("settles_at IS NOT NULL"),
        postgresql_where=text("settles_at IS NOT NULL"),
    ),
)

_PENDING = text("status = 'pending'")

item: Final = Table(
    "item",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("job_id", String(64), ForeignKey("job.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("kind", String(8), nullable=False),
    Column("reward", String(200), nullable=False),
    Column("given_id", String(200)),
    Column("prompt", Text, nullable=False),
    Column("sha256", String(64), ForeignKey("blob.sha256")),
    Column("target", _JSON),
    Column("status", String(12), nullable=False),
    Column("value", Float),
    Column("detail", _JSON),
    Column("error_code", String(40)),
    Column("error_message", Text),
    Column("need", Integer, nullable=False),
    Column("done", Integer, nullable=False),
    Column("leased", Integer, nullable=False),
    Column("likes", Integer, nullable=False),
    Column("dislikes", Integer, nullable=False),
    Column("skips", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("available_at", Float, nullable=False),
    Column("deadline_at", Float, nullable=False),
    Column("shuffle", Integer, nullable=False),
    UniqueConstraint("job_id", "position"),
    CheckConstraint("done >= 0 AND leased >= 0 AND done + leased <= need", name="slots"),
    CheckConstraint("(status = 'ok') = (value IS NOT NULL)", name="value_iff_ok"),
    CheckConstraint("likes >= 0 AND dislikes >= 0 AND skips >= 0", name="tally"),
    Index(
        "ix_item_waiting",
        "kind",
        "reward",
        "priority",
        "deadline_at",
        "id",
        sqlite_where=_PENDING,
        postgresql_where=_PENDING,
    ),
    Index(None, "sha256"),
    Index("ix_item_deadline", "deadline_at", sqlite_where=_PENDING, postgresql_where=_PENDING),
)

_LIVE = text("state IN ('leased', 'done', 'skipped')")
_LEASED = text("state = 'leased'")
_LABELLED = text("client_label_id IS NOT NULL")

assignment: Final = Table(
    "assignment",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("item_id", Integer, ForeignKey("item.id"), nullable=False),
    Column("worker", String(200), nullable=False),
    Column("kind", String(8), nullable=False),
    Column("state", String(8), nullable=False),
    Column("token", String(64), nullable=False),
    Column("lease_s", Float, nullable=False),
    Column("lease_until", Float, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("done_at", Float),
    Column("label", String(8)),
    Column("reason", String(20)),
    Column("page", String(200)),
    Column("rt_ms", _LARGE),
    Column("client_label_id", String(200)),
    Column("undone_at", Float),
    Index(None, "item_id"),
    Index(
        "uq_assignment_item_worker",
        "item_id",
        "worker",
        unique=True,
        sqlite_where=_LIVE,
        postgresql_where=_LIVE,
    ),
    Index(
        "uq_assignment_worker_label",
        "worker",
        "client_label_id",
        unique=True,
        sqlite_where=_LABELLED,
        postgresql_where=_LABELLED,
    ),
    Index("ix_assignment_leased", "lease_until", sqlite_where=_LEASED, postgresql_where=_LEASED),
    Index("ix_assignment_worker", "worker", "done_at"),
    Index(
        "ix_assignment_labelled",
        "done_at",
        sqlite_where=text("label IS NOT NULL"),
        postgresql_where=text("label IS NOT NULL"),
    ),
)

blob: Final = Table(
    "blob",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("mime", String(20), nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
)

idempotency: Final = Table(
    "idempotency",
    metadata,
    Column("key", String(600), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("job_id", String(64), ForeignKey("job.id"), nullable=False),
    Column("created_at", Float, nullable=False),
)

event: Final = Table(
    "event",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("kind", String(20), nullable=False),
    Column("actor", String(200), nullable=False),
    Column("job_id", String(64)),
    Column("assignment_id", Integer),
    Column("data", _JSON),
)

api_key: Final = Table(
    "api_key",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("hash", String(64), nullable=False, unique=True),
    Column("scopes", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("revoked_at", Float),
)

usage: Final = Table(
    "usage",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("full_at", Float, nullable=False),
)

webhook: Final = Table(
    "webhook",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("url", Text, nullable=False),
    Column("secret", String(200), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("revoked_at", Float),
)

outbox: Final = Table(
    "outbox",
    metadata,
    Column("id", String(80), primary_key=True),
    Column("webhook", String(64), ForeignKey("webhook.name"), nullable=False),
    Column("body", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("due_at", Float, nullable=False),
    Index("ix_outbox_due", "webhook", "due_at"),
)

annotator: Final = Table(
    "annotator",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("role", String(12), nullable=False),
    Column("invite_hash", String(64), unique=True),
    Column("checked_since", Float, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("revoked_at", Float),
)

session: Final = Table(
    "session",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("annotator", String(64), ForeignKey("annotator.name"), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
)

closed_page: Final = Table(
    "closed_page",
    metadata,
    Column("worker", String(200), primary_key=True),
    Column("page", String(200), primary_key=True),
    Column("closed_at", Float, nullable=False),
    Index(None, "closed_at"),
)

traffic: Final = Table(
    "traffic",
    metadata,
    Column("run_id", String(200), primary_key=True),
    Column("reward", String(200), primary_key=True),
    Column("requests", _LARGE, nullable=False),
    Column("items", _LARGE, nullable=False),
    Column("bytes", _LARGE, nullable=False),
)

campaign: Final = Table(
    "campaign",
    metadata,
    Column("id", String(200), primary_key=True),
    Column("settings", _JSON, nullable=False),
    Column("updated_at", Float, nullable=False),
)

reliability: Final = Table(
    "reliability",
    metadata,
    Column("worker", String(200), primary_key=True),
    Column("accuracy", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
)
