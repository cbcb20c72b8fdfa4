"""Alembic migrations, applied at every start of the server."""
