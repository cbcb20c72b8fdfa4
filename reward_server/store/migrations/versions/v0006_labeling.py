"""What long labeling takes: pages that end, flags with a reason, golds, roles, sessions that end,
and one more vote where people disagree.

Revision ID: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

SESSION_S = 30 * 86400


def upgrade() -> None:
    """Add the columns and the table of closed pages; whoever is signed in stays so for a month."""
    op.add_column("job", sa.Column("max_votes", sa.Integer()))
    agreement = sa.Column("min_agreement", sa.Float(), nullable=False, server_default="0.5")
    op.add_column("job", agreement)
    op.add_column("assignment", sa.Column("reason", sa.String(20)))
    op.add_column("assignment", sa.Column("page", sa.String(200)))
    role = sa.Column("role", sa.String(12), nullable=False, server_default="annotator")
    op.add_column("annotator", role)
    checked = sa.Column("checked_since", sa.Float(), nullable=False, server_default="0")
    op.add_column("annotator", checked)
    expires = sa.Column("expires_at", sa.Float(), nullable=False, server_default="0")
    op.add_column("session", expires)
    op.execute(f"UPDATE session SET expires_at = created_at + {SESSION_S}")
    op.create_table(
        "closed_page",
        sa.Column("worker", sa.String(200), nullable=False),
        sa.Column("page", sa.String(200), nullable=False),
        sa.Column("closed_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("worker", "page", name="pk_closed_page"),
    )
    op.create_index("ix_closed_page_closed_at", "closed_page", ["closed_at"])


def downgrade() -> None:
    """Drop them; golds, which the older code would not know, go with what was said about them."""
    op.execute("DELETE FROM assignment WHERE kind = 'gold'")
    op.execute("DELETE FROM item WHERE kind = 'gold'")
    op.execute("DELETE FROM job WHERE kind = 'gold'")
    op.drop_table("closed_page")
    op.drop_column("session", "expires_at")
    op.drop_column("annotator", "checked_since")
    op.drop_column("annotator", "role")
    op.drop_column("assignment", "page")
    op.drop_column("assignment", "reason")
    op.drop_column("job", "min_agreement")
    op.drop_column("job", "max_votes")
