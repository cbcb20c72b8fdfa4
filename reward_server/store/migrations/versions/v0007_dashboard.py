"""What the dashboard reads: sums of rewards by job, campaigns, reliability, and quick ways there.

Revision ID: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

OPEN = sa.text("finished_at IS NULL")
LABELLED = sa.text("label IS NOT NULL")

FILL = """
UPDATE job SET
  n_ok = (SELECT COUNT(*) FROM item WHERE item.job_id = job.id AND item.status = 'ok'),
  value_sum = (SELECT COALESCE(SUM(value), 0) FROM item
               WHERE item.job_id = job.id AND item.status = 'ok')
"""


def upgrade() -> None:
    """Add columns, fill them from the items that are still kept, add tables and indexes."""
    op.add_column("job", sa.Column("n_ok", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("job", sa.Column("value_sum", sa.Float(), nullable=False, server_default="0"))
    op.add_column(
        "job", sa.Column("weights", sa.String(12), nullable=False, server_default="equal")
    )
    op.execute(FILL)
    op.create_table(
        "campaign",
        sa.Column("id", sa.String(200), primary_key=True),
        sa.Column("settings", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
    )
    op.create_table(
        "reliability",
        sa.Column("worker", sa.String(200), primary_key=True),
        sa.Column("accuracy", sa.Float(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
    )
    op.create_index("ix_job_run_id_created_at", "job", ["run_id", "created_at"])
    op.create_index(
        "ix_job_open", "job", ["kind", "created_at"], sqlite_where=OPEN, postgresql_where=OPEN
    )
    op.create_index(
        "ix_assignment_labelled",
        "assignment",
        ["done_at"],
        sqlite_where=LABELLED,
        postgresql_where=LABELLED,
    )


def downgrade() -> None:
    """Drop them; settings of campaigns are lost."""
    op.drop_index("ix_assignment_labelled", "assignment")
    op.drop_index("ix_job_open", "job")
    op.drop_index("ix_job_run_id_created_at", "job")
    op.drop_table("reliability")
    op.drop_table("campaign")
    for name in ("weights", "value_sum", "n_ok"):
        op.drop_column("job", name)
