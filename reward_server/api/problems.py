"""Errors as problem documents (RFC 9457): a code, whether a retry can help, a request id.

Anything that goes wrong passes through here; an unforeseen failure says nothing about the inside
but the id under which the log has it.
"""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from sqlalchemy.exc import DatabaseError, DataError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from reward_server.domain.rates import RateExceeded
from shared.schema import ErrorCode

log = structlog.get_logger()

FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

TITLES: Final[Mapping[int, tuple[ErrorCode, str]]] = {
    400: ("malformed", "Malformed request"),
    401: ("unauthorized", "API key or sign-in needed"),
    403: ("forbidden", "Not allowed"),
    404: ("not_found", "Not found"),
    405: ("method_not_allowed", "Method not allowed"),
    409: ("conflict", "Conflict"),
    410: ("purged", "Gone"),
    413: ("too_large", "Too large"),
    415: ("unsupported_media_type", "Unsupported media type"),
    422: ("invalid_request", "Invalid request"),
    424: ("scorer_unavailable", "Scorer unavailable"),
    429: ("queue_full", "Too many requests"),
    500: ("internal", "Internal error"),
    503: ("not_ready", "Not ready"),
    507: ("disk_full", "Disk full"),
}


class ApiError(HTTPException):
    """An error answer: status, code, a sentence with value and remedy, extension members."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: ErrorCode | None = None,
        retry_after: int | None = None,
        **members: Any,
    ) -> None:
        super().__init__(status, detail)
        self.code: ErrorCode = code or TITLES[status][0]
        self.members = members
        if retry_after is not None:
            self.headers = {"Retry-After": str(retry_after)}


def invalid(errors: Sequence[Any], where: tuple[str, ...] = ()) -> ApiError:
    """A pydantic validation failure as 400 (no JSON at all) or 422, naming the first fields."""
    shown = [
        {"loc": [*where, *(str(part) for part in e["loc"])], "msg": e["msg"]} for e in errors[:20]
    ]
    if any(e["type"] == "json_invalid" for e in errors):
        return ApiError(400, f"the body is no JSON: {shown[0]['msg']}")
    first = f"{'.'.join(shown[0]['loc']) or 'body'}: {shown[0]['msg']}"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return ApiError(422, first + more, errors=shown)


class ProblemResponse(JSONResponse):
    """A problem document in plain ASCII: it may quote a text that no encoding can carry."""

    media_type = "application/problem+json"

    def render(self, content: Any) -> bytes:
        """JSON with everything beyond ASCII escaped."""
        return json.dumps(content).encode()


def answer(request: Request, error: ApiError) -> JSONResponse:
    """The problem document of ``error``."""
    retryable = error.status_code in (408, 429) or error.status_code >= 500
    body = {
        "type": "about:blank",
        "title": TITLES.get(error.status_code, ("", "Error"))[1],
        "status": error.status_code,
        "detail": str(error.detail),
        "code": error.code,
        "retryable": retryable,
        "request_id": getattr(request.state, "request_id", ""),
        **error.members,
    }
    return ProblemResponse(body, status_code=error.status_code, headers=error.headers)


def _known(request: Request, error: HTTPException) -> ApiError:
    """The framework's own errors in our words."""
    status = error.status_code if error.status_code in TITLES else 500
    known = ApiError(status, str(error.detail))
    known.headers = error.headers
    if status == 405 and (allowed := _allowed(request)):
        known.headers = {"Allow": ", ".join(allowed)}
    return known


def _allowed(request: Request) -> list[str]:
    """Methods documented for a path; the router names those of one of its routes only."""
    paths, asked = request.app.openapi()["paths"], request.url.path
    fitting = [one for one in paths if compile_path(one)[0].match(asked)]
    exact = [asked] if asked in paths else fitting
    return sorted({method.upper() for one in exact for method in paths[one]})


def storage_error(error: OSError | DatabaseError | PoolTimeout) -> ApiError:
    """What a failing disk or database means to a client: nothing was accepted, try again."""
    full = error.errno in FULL if isinstance(error, OSError) else "is full" in str(error)
    if full:
        advice = "the server's disk is full: free space in its --data folder; nothing was accepted"
        return ApiError(507, advice, retry_after=10)
    busy = "the server's storage failed; nothing was accepted, its log says more"
    return ApiError(503, busy, code="storage_failed", retry_after=2)


def install(app: FastAPI) -> None:
    """Make every error of ``app`` a problem document."""

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> JSONResponse:
        return answer(request, error if isinstance(error, ApiError) else _known(request, error))

    @app.exception_handler(RequestValidationError)
    async def on_request(request: Request, error: RequestValidationError) -> JSONResponse:
        return answer(request, invalid(error.errors()))

    @app.exception_handler(ValidationError)
    async def on_validation(request: Request, error: ValidationError) -> JSONResponse:
        log.error("invalid_answer", error=str(error))
        return answer(request, ApiError(500, "the server's own answer was invalid; see its log"))

    @app.exception_handler(DataError)
    async def on_data(request: Request, error: DataError) -> JSONResponse:
        text = "a value the database cannot hold, such as a text with a NUL character"
        return answer(request, ApiError(422, f"{text}; nothing was accepted"))

    @app.exception_handler(UnicodeEncodeError)
    async def on_text(request: Request, error: UnicodeEncodeError) -> JSONResponse:
        text = "a text with half of a surrogate pair, such as \\ud800; nothing was accepted"
        return answer(request, ApiError(422, text))

    @app.exception_handler(RateExceeded)
    async def on_rate(request: Request, error: RateExceeded) -> JSONResponse:
        pause = math.ceil(error.wait_s)
        limit = error.rate.per_minute
        text = f"{error}; nothing was accepted"
        return answer(
            request,
            ApiError(429, text, code="rate_limited", retry_after=pause, images_per_minute=limit),
        )

    @app.exception_handler(OSError)
    @app.exception_handler(DatabaseError)
    @app.exception_handler(PoolTimeout)
    async def on_storage(request: Request, error: Exception) -> JSONResponse:
        log.error("storage_failed", error=f"{type(error).__name__}: {error}")
        assert isinstance(error, (OSError, DatabaseError, PoolTimeout))
        return answer(request, storage_error(error))

    @app.exception_handler(Exception)
    async def on_anything(request: Request, error: Exception) -> JSONResponse:
        return answer(request, ApiError(500, "unexpected failure; the server's log has the cause"))
