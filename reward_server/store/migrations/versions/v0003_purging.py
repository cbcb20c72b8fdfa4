"""What it takes to purge old results: when a job was purged, and quick ways to what can go.

Revision ID: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

KEPT = sa.text("purged_at IS NULL")


def upgrade() -> None:
    """Add the column and the indexes."""
    op.add_column("job", sa.Column("purged_at", sa.Float()))
    op.create_index("ix_job_kept", "job", ["finished_at"], sqlite_where=KEPT, postgresql_where=KEPT)
    op.create_index("ix_item_sha256", "item", ["sha256"])


def downgrade() -> None:
    """Drop them; purged jobs look as if they had had no items."""
    op.drop_index("ix_item_sha256", "item")
    op.drop_index("ix_job_kept", "job")
    op.drop_column("job", "purged_at")
