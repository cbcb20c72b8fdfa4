"""The labeling UI's files: static, served as they are, under a strict Content-Security-Policy."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import FileResponse, RedirectResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from reward_server.api.problems import ApiError
from reward_server.api.security import LOCAL, LOCAL_HOSTS, Services, session, sign_in
from reward_server.store import people

router: Final = APIRouter(include_in_schema=False)

CSP: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Final = {"Content-Security-Policy": CSP, "Cache-Control": "no-cache"}


class Assets(StaticFiles):
    """The UI's files, revalidated at every load so that a new version shows at once."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """One file, with the page's headers."""
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response


def mount(app: FastAPI) -> None:
    """Serve the UI's files under ``/static/``."""
    app.mount("/static", Assets(directory=app.state.service.settings.ui, check_dir=False))


@router.get("/")
async def index(request: Request, service: Services, invite: str | None = None) -> Response:
    """The labeling page; an invite link signs in, a loopback server without keys does by itself."""
    if invite is not None:
        name = await service.read(people.invited, invite)
        if name is None:
            raise ApiError(401, "this invite is unknown or revoked; ask for a new one")
        response: Response = RedirectResponse("/", status_code=303)
        await sign_in(request, response, service, name)
        return response
    response = _page(service, "index.html")
    if await _needs_local_session(request, service):
        await service.write(people.ensure_annotator, LOCAL, service.clock())
        await sign_in(request, response, service, LOCAL)
    return response


@router.get("/dashboard")
async def dashboard(service: Services) -> Response:
    """The requester's page; it holds no data, and asks for an API key where one is needed."""
    return _page(service, "dashboard.html")


def _page(service: Services, name: str) -> Response:
    page = service.settings.ui / name
    if not page.is_file():
        raise ApiError(404, f"the labeling UI is not at {service.settings.ui}")
    return FileResponse(page, headers=HEADERS)


async def _needs_local_session(request: Request, service: Services) -> bool:
    if not service.settings.loopback or request.url.hostname not in LOCAL_HOSTS:
        return False
    if await service.read(people.any_key):
        return False
    return await session(request, service) is None
