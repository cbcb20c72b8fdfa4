"""Running the server: claims the port first, explains what is in the way, ends cleanly.

Exit codes: 0 stopped, 2 could not start (port taken, no key beyond loopback, no writable folder).
"""

from __future__ import annotations

import errno
import signal
import socket
import sys
from types import FrameType

import uvicorn

from reward_server.app import create_app
from reward_server.logs import log_to_stderr
from reward_server.service import Service
from reward_server.settings import Settings
from reward_server.store import Store, people


class CannotStart(Exception):
    """Why the server cannot start, and what to do about it."""


class _Server(uvicorn.Server):
    """Uvicorn that lets long-polls answer at once when it is told to stop."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the shutdown on SIGINT or SIGTERM."""
        self._service.hub.close()
        super().handle_exit(sig, frame)


def serve(settings: Settings) -> int:
    """Serve until told to stop."""
    try:
        _prepare(settings)
        listener = listen(settings)
    except CannotStart as error:
        sys.stderr.write(f"reward_server: {error}\n")
        return 2
    log_to_stderr()
    with listener:
        port = listener.getsockname()[1]
        service = Service(settings.model_copy(update={"port": port}))
        config = uvicorn.Config(
            create_app(service),
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=5,
            timeout_keep_alive=75,
        )
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        places = "labeling UI at /, dashboard at /dashboard, API at /docs"
        sys.stdout.write(f"reward server: http://{host}:{port} ({places})\n")
        sys.stdout.flush()
        # Uvicorn raises the signals it has handled once more when it is done.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _leave)
        _Server(config, service).run(sockets=[listener])
    return 0


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def _prepare(settings: Settings) -> None:
    try:
        settings.data.mkdir(parents=True, exist_ok=True)
        probe = settings.data / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise CannotStart(
            f"cannot write to --data {settings.data}: {error.strerror}; choose another folder"
        ) from error
    store = Store(settings.database_url)
    store.migrate()
    locked = store.read(people.any_key)
    store.close()
    if not settings.loopback and not locked:
        raise CannotStart(
            f"--host {settings.host} lets other machines in, but no API key exists. Make one:\n"
            f"  python -m reward_server keys create --name NAME {_where(settings)}\n"
            "or listen on this machine only: --host 127.0.0.1"
        )


def _where(settings: Settings) -> str:
    return f"--data {settings.data}" if settings.database is None else "--database URL"


def listen(settings: Settings) -> socket.socket:
    """The server's socket, bound and listening.

    Raises:
        CannotStart: the address is taken or is none of this machine.
    """
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        # asyncio turns Nagle's algorithm off only where it is told that this is TCP: otherwise an
        # answer's body waits 40 ms for the client's delayed acknowledgement of the headers.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((settings.host, settings.port))
            listener.listen(2048)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        if error.errno == errno.EADDRINUSE:
            raise CannotStart(
                f"port {settings.port} on {settings.host} is taken by another process. "
                f"Choose another one, e.g. --port {settings.port + 1}, or stop that process "
                f"(find it with: ss -ltnp 'sport = :{settings.port}')"
            ) from error
        raise CannotStart(f"cannot listen on {where}: {error.strerror or error}") from error
    return listener
