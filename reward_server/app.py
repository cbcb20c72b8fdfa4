"""The web application: routes, error answers and middleware around one ``Service``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from reward_server import __version__
from reward_server.api import (
    campaigns,
    exports,
    flow_factory,
    golds,
    jobs,
    labels,
    ops,
    pages,
    problems,
    runs,
    score,
)
from reward_server.api.middleware import BodyLimit, RequestLog
from reward_server.service import Service
from shared.schema import Problem, ScoreRequest
from shared.schema.flow_factory import ComputeRequest
from shared.schema.labels import GoldRequest

DESCRIPTION = """Scores images by OCR, by counting and by people.

    curl -s 127.0.0.1:8000/score/ocr --json '{"items": [{"prompt": "A sign that says Hi",
      "image": {"b64": "iVBOR..."}, "target": {"text": "Hi"}}]}'

A reward that could not be measured is `null` with a reason, never a number."""

PROBLEM: Final[dict[str, Any]] = {
    "description": "Problem (RFC 9457)",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}


def create_app(service: Service) -> FastAPI:
    """An application that starts and stops ``service`` with its own lifespan."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    app = FastAPI(
        title="Reward server",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        responses={"default": PROBLEM},
    )
    app.state.service = service
    problems.install(app)
    labeling = (labels, golds, exports, campaigns, runs)
    for module in (score, jobs, flow_factory, *labeling, ops, pages):
        app.include_router(module.router)
    pages.mount(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(RequestLog, metrics=service.metrics)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document plus the types it cannot see: of hand-parsed bodies and of errors."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes
        )
        schemas = document["components"]["schemas"]
        for model in (ScoreRequest, ComputeRequest, GoldRequest, Problem):
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(schema.pop("$defs", {}))
            schemas[model.__name__] = schema
        _name_rewards(document["paths"], sorted(app.state.service.rewards))
        app.openapi_schema = document
    return app.openapi_schema


def _name_rewards(paths: dict[str, Any], known: list[str]) -> None:
    """Say which rewards may stand in a path, for the interactive documentation to offer them."""
    for operations in paths.values():
        for operation in operations.values():
            for one in operation.get("parameters", []):
                if (one["in"], one["name"]) == ("path", "reward"):
                    one["schema"]["enum"] = known
