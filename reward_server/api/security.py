"""Who is asking, and may they: API keys for programs, cookies for annotators' browsers.

Routes for programs never read cookies. Without any key the server is open, but only to its own
machine, and then Host and Origin are checked so that no web page can speak for its reader.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import Depends, Request, Response
from sqlalchemy import Connection, Row

from reward_server.api.problems import ApiError
from reward_server.service import Service
from reward_server.store import people
from shared.schema import Scope

LOCAL: Final = "local"
"""Name of the requester and the annotator on a loopback server without keys."""

SAFE_METHODS: Final = {"GET", "HEAD", "OPTIONS"}
LOCAL_HOSTS: Final = {"127.0.0.1", "localhost", "::1"}
SESSION_S: Final = 30 * 86400


@dataclass(frozen=True)
class Caller:
    """Who asks: the name of a key or annotator."""

    name: str


def service(request: Request) -> Service:
    """The service behind this app."""
    found: Service = request.app.state.service
    return found


Services = Annotated[Service, Depends(service)]


def _bearer(request: Request) -> str | None:
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    if not kind:
        return None
    if kind.lower() != "bearer" or not secret.strip():
        raise ApiError(401, "send 'Authorization: Bearer <API key>'")
    return secret.strip()


def _lookup(connection: Connection, secret: str | None) -> tuple[bool, Row[Any] | None]:
    key = None if secret is None else people.key_of(connection, secret)
    return people.any_key(connection), key


async def _keyed(request: Request, service: Service, scope: Scope) -> Caller | None:
    """The caller by key, or by being local; None if it is neither.

    Raises:
        ApiError: 401 wrong key, 403 key without the scope or a page of another origin.
    """
    secret = _bearer(request)
    locked, key = await service.read(_lookup, secret)
    if secret is None or not locked:
        if locked or not service.settings.loopback:
            return None
        check_local_host(request)
        check_origin(request)
        return Caller(LOCAL)
    if key is None:
        raise ApiError(
            401,
            "this API key is unknown or revoked; make one on the server with "
            "'python -m reward_server keys create --name NAME --data DIR'",
        )
    if scope not in key.scopes and "admin" not in key.scopes:
        raise ApiError(403, f"key {key.name!r} has scopes {key.scopes}, this needs {scope!r}")
    return Caller(key.name)


async def requester(request: Request, service: Services) -> Caller:
    """A program that may ask for scores."""
    caller = await _keyed(request, service, "score")
    if caller is None:
        raise _missing_key()
    return caller


async def administrator(request: Request, service: Services) -> Caller:
    """A program that may read everything, labels with names included."""
    caller = await _keyed(request, service, "admin")
    if caller is None:
        raise _missing_key()
    return caller


async def annotator(request: Request, service: Services) -> Caller:
    """A person with a session cookie, a program with a label key, or whoever is local."""
    if _bearer(request) is None:
        name = await session_name(request, service)
        if name is not None:
            check_origin(request)
            return Caller(name)
    caller = await _keyed(request, service, "label")
    if caller is None:
        raise ApiError(401, "sign in with an invite link first; whoever runs this server makes one")
    return caller if caller.name == LOCAL else Caller(f"key.{caller.name}")


async def viewer(request: Request, service: Services) -> Caller:
    """Whoever may see images: annotators and requesters alike."""
    name = await session_name(request, service)
    if name is not None:
        return Caller(name)
    secret = _bearer(request)
    locked, key = await service.read(_lookup, secret)
    if key is not None:
        return Caller(key.name)
    if locked or not service.settings.loopback:
        raise _missing_key()
    check_local_host(request)
    return Caller(LOCAL)


def _missing_key() -> ApiError:
    return ApiError(401, "this server needs an API key: send 'Authorization: Bearer <API key>'")


def check_local_host(request: Request) -> None:
    """Refuse host names that merely resolve to this machine (DNS rebinding)."""
    host = request.url.hostname
    if host not in LOCAL_HOSTS:
        raise ApiError(
            403,
            f"host {host!r} is not this machine's name; use http://127.0.0.1, or make an API key",
            code="cross_origin",
        )


def check_origin(request: Request) -> None:
    """Refuse changes asked for by pages of other origins (Fetch metadata, then Origin)."""
    if request.method in SAFE_METHODS:
        return
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is not None:
        foreign = site not in ("same-origin", "none")
    else:
        foreign = origin is not None and origin != f"{request.url.scheme}://{request.url.netloc}"
    if foreign:
        raise ApiError(403, f"refused for a page of {origin or site!r}", code="cross_origin")


def cookie_name(request: Request) -> str:
    """``__Host-session`` over HTTPS, where the prefix holds; plain ``session`` otherwise."""
    return "__Host-session" if request.url.scheme == "https" else "session"


async def session_name(request: Request, service: Service) -> str | None:
    """Annotator of the session cookie, if it is a live one."""
    secret = request.cookies.get(cookie_name(request))
    return None if secret is None else await service.read(people.session_of, secret)


async def sign_in(request: Request, response: Response, service: Service, name: str) -> None:
    """Start a session for ``name`` and put it in a cookie of ``response``."""
    secret = await service.write(people.open_session, name, service.clock())
    response.set_cookie(
        cookie_name(request),
        secret,
        max_age=SESSION_S,
        path="/",
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )


Requester = Annotated[Caller, Depends(requester)]
Administrator = Annotated[Caller, Depends(administrator)]
Annotator = Annotated[Caller, Depends(annotator)]
Viewer = Annotated[Caller, Depends(viewer)]
