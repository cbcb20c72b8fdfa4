"""Counters and client-chosen numbers beyond 32 bits, which PostgreSQL's INTEGER does not hold.

Revision ID: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

COLUMNS = (
    ("job", "step"),
    ("assignment", "rt_ms"),
    ("traffic", "requests"),
    ("traffic", "items"),
    ("traffic", "bytes"),
)


def upgrade() -> None:
    """Widen the columns; SQLite's integers are 64 bits wide already."""
    _change(sa.Integer(), sa.BigInteger())


def downgrade() -> None:
    """Narrow them again; fails, changing nothing, if a value needs the width."""
    _change(sa.BigInteger(), sa.Integer())


def _change(before: sa.types.TypeEngine[int], after: sa.types.TypeEngine[int]) -> None:
    if op.get_bind().dialect.name == "postgresql":
        for table, column in COLUMNS:
            op.alter_column(table, column, existing_type=before, type_=after)
