"""What API keys have used of their rate.

Revision ID: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "usage",
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("full_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_usage"),
    )


def downgrade() -> None:
    """Drop it; every key starts with a full bucket again."""
    op.drop_table("usage")
