"""Who is asking, and may they: API keys for programs, cookies for annotators' browsers.

Routes for programs never read cookies. Without any key the server is open, but only to its own
machine, and then Host and Origin are checked so that no web page can speak for its reader.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import Depends, Request, Response
from fastapi.security import APIKeyCookie, HTTPBearer
from sqlalchemy import Connection, Row

from reward_server.api.problems import ApiError
from reward_server.domain.rates import Rate
from reward_server.service import Service
from reward_server.store import people, rates
from shared.schema import Scope

LOCAL: Final = "local"
"""Name of the requester and the annotator on a loopback server without keys."""

SAFE_METHODS: Final = {"GET", "HEAD", "OPTIONS"}
LOCAL_HOSTS: Final = {"127.0.0.1", "localhost", "::1"}


@dataclass(frozen=True)
class Caller:
    """Who asks: the name of a key or annotator, and what it may send, if that is limited."""

    name: str
    rate: Rate | None = None


async def service(request: Request) -> Service:
    """The service behind this app; a coroutine, since FastAPI sends plain functions to a thread."""
    found: Service = request.app.state.service
    return found


Services = Annotated[Service, Depends(service)]

# These two are for the API's document alone; what is believed is decided below.
ByKey = Annotated[Any, Depends(HTTPBearer(scheme_name="key", auto_error=False))]
ByCookie = Annotated[
    Any, Depends(APIKeyCookie(name="session", scheme_name="session", auto_error=False))
]


def _bearer(request: Request) -> str | None:
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    if not kind:
        return None
    secret = secret.strip()
    if kind.lower() == "basic":
        # Of a URL like http://key:API_KEY@HOST, for clients that cannot send headers. A browser
        # would remember it and send it along for any page, hence the check.
        check_origin(request)
        secret = _password(secret)
    elif kind.lower() != "bearer":
        secret = ""
    if not secret:
        raise ApiError(401, "send 'Authorization: Bearer <API key>', or Basic with it as password")
    return secret


def _password(credentials: str) -> str:
    """Password of HTTP Basic credentials (RFC 7617); empty if they are none."""
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


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


async def requester(request: Request, service: Services, _key: ByKey) -> Caller:
    """A program that may ask for scores."""
    caller = await _keyed(request, service, "score")
    if caller is None:
        raise _missing_key()
    return caller


async def administrator(request: Request, service: Services, _key: ByKey) -> Caller:
    """A program that may read everything, labels with names included."""
    caller = await _keyed(request, service, "admin")
    if caller is None:
        raise _missing_key()
    return caller


async def manager(request: Request, service: Services, key: ByKey, _cookie: ByCookie) -> Caller:
    """A person signed in as requester, or a program that may read everything."""
    person = await _signed_in_requester(request, service)
    return person or await administrator(request, service, key)


async def overseer(request: Request, service: Services, key: ByKey, _cookie: ByCookie) -> Caller:
    """A person signed in as requester, or a program that may ask for scores."""
    person = await _signed_in_requester(request, service)
    return person or await requester(request, service, key)


async def _signed_in_requester(request: Request, service: Service) -> Caller | None:
    person = None if _bearer(request) is not None else await session(request, service)
    if person is None:
        return None
    if person.role == "requester":
        check_origin(request)
        return Caller(person.name)
    if await service.read(people.any_key):
        raise ApiError(403, f"{person.name!r} signed in as annotator; this is for requesters")
    return None


async def annotator(
    request: Request, response: Response, service: Services, key: ByKey, cookie: ByCookie
) -> Caller:
    """A person with a session cookie, a program with a label key, or whoever is local.

    A page says for whom it labels (``?annotator=NAME``), so that clicks are never counted as those
    of somebody who signed in meanwhile in the same browser.
    """
    caller = await labeling(request, response, service, key, cookie)
    meant = request.query_params.get("annotator")
    if meant is not None and meant != caller.name:
        raise ApiError(
            401,
            f"{caller.name!r} is signed in here, this is from a page of {meant!r}; reload it",
            code="other_annotator",
        )
    return caller


async def labeling(
    request: Request, response: Response, service: Services, _key: ByKey, _cookie: ByCookie
) -> Caller:
    """Whoever may label, whatever their page says."""
    if _bearer(request) is None:
        person = await session(request, service)
        if person is not None:
            check_origin(request)
            await _renew(request, response, service, person.expires_at)
            return Caller(person.name)
    caller = await _keyed(request, service, "label")
    if caller is None:
        raise ApiError(401, "sign in with an invite link first; whoever runs this server makes one")
    return caller if caller.name == LOCAL else Caller(f"key.{caller.name}")


async def viewer(request: Request, service: Services, _key: ByKey, _cookie: ByCookie) -> Caller:
    """Whoever may see images: annotators and requesters alike."""
    person = await session(request, service)
    if person is not None:
        return Caller(person.name)
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
    """Check that the host is this machine by name, not by resolving to it (DNS rebinding).

    Raises:
        ApiError: 403.
    """
    host = request.url.hostname
    if host not in LOCAL_HOSTS:
        raise ApiError(
            403,
            f"host {host!r} is not this machine's name; use http://127.0.0.1, or make an API key",
            code="cross_origin",
        )


def check_origin(request: Request) -> None:
    """Check that no page of another origin asks for a change (Fetch metadata, then Origin).

    Raises:
        ApiError: 403.
    """
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


async def session(request: Request, service: Service) -> Row[Any] | None:
    """Person of the session cookie (``people.session_of``), if it is a live one."""
    secret = request.cookies.get(cookie_name(request))
    if secret is None:
        return None
    return await service.read(people.session_of, secret, service.clock())


async def sign_in(request: Request, response: Response, service: Service, name: str) -> None:
    """Start a session for ``name`` and put it in a cookie of ``response``."""
    lasts_s = service.settings.session_s
    secret = await service.write(people.open_session, name, service.clock(), lasts_s)
    _set_cookie(request, response, secret, lasts_s)


async def _renew(request: Request, response: Response, service: Service, expires_at: float) -> None:
    """A session in use does not end: past its half it starts again, and so does its cookie."""
    lasts_s = service.settings.session_s
    if expires_at - service.clock() > lasts_s / 2:
        return
    secret = request.cookies[cookie_name(request)]
    await service.write(people.renew_session, secret, service.clock() + lasts_s)
    _set_cookie(request, response, secret, lasts_s)


def _set_cookie(request: Request, response: Response, secret: str, lasts_s: float) -> None:
    response.set_cookie(
        cookie_name(request),
        secret,
        max_age=max(int(lasts_s), 1),
        path="/",
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )


async def sender(request: Request, service: Services, key: ByKey) -> Caller:
    """A requester that sends pictures; its rate is looked at before a body is read.

    Raises:
        RateExceeded: nothing more for now.
    """
    caller = await requester(request, service, key)
    per_minute = service.settings.images_per_minute
    if per_minute is None:
        return caller
    rate = Rate(caller.name, per_minute)
    await service.read(rates.check, rate, service.clock())
    return Caller(caller.name, rate)


Requester = Annotated[Caller, Depends(requester)]
Sender = Annotated[Caller, Depends(sender)]
Manager = Annotated[Caller, Depends(manager)]
Overseer = Annotated[Caller, Depends(overseer)]
SignedIn = Annotated[Caller, Depends(labeling)]
Annotator = Annotated[Caller, Depends(annotator)]
Viewer = Annotated[Caller, Depends(viewer)]
