"""Webhooks: endpoints, messages on their way, and which job told whom.

Revision ID: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add tables and column."""
    op.create_table(
        "webhook",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret", sa.String(200), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("revoked_at", sa.Float()),
        sa.PrimaryKeyConstraint("name", name="pk_webhook"),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.String(80), nullable=False),
        sa.Column("webhook", sa.String(64), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("due_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        sa.ForeignKeyConstraint(["webhook"], ["webhook.name"], name="fk_outbox_webhook"),
    )
    op.create_index("ix_outbox_due", "outbox", ["webhook", "due_at"])
    op.add_column("job", sa.Column("webhook", sa.String(64)))


def downgrade() -> None:
    """Drop them; messages on their way are lost."""
    op.drop_column("job", "webhook")
    op.drop_index("ix_outbox_due", "outbox")
    op.drop_table("outbox")
    op.drop_table("webhook")
