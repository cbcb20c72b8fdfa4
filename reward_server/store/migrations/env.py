"""Alembic's entry point: migrates over the connection it is given, inside its transaction."""

from __future__ import annotations

from alembic import context

from reward_server.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
