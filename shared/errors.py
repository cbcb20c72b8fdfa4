"""What can go wrong between a client and the reward server, as one exception tree.

Every message carries the offending value and the remedy. Transport and protocol failures only: an
item that could not be scored is no exception but a ``null`` reward with a reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from shared.schema import Job


class RewardError(Exception):
    """Base of everything ``RewardClient`` raises on its own account."""

    retryable = False
    retry_after: float | None = None
    """Seconds the server asked to wait before the next try."""


class ServerUnreachable(RewardError):
    """No HTTP answer at all: nothing listens, the network is down, or the answer never came."""

    retryable = True

    def __init__(self, url: str, cause: Exception) -> None:
        self.url = url
        parts = urlsplit(url)
        where = f"--host {parts.hostname or '127.0.0.1'} --port {parts.port or 8000}"
        super().__init__(
            f"cannot reach the reward server at {url} ({type(cause).__name__}: {cause}). "
            f"Start one with: python -m reward_server {where} --data DIR"
        )


class WaitTimeout(RewardError):
    """The time allowed for scoring is over; ``job`` is its last state, to be waited for again."""

    def __init__(self, job: Job, timeout_s: float) -> None:
        self.job = job
        super().__init__(
            f"job {job.id} is still {job.status} after {timeout_s:g} s "
            f"({job.counts.pending} of {len(job.data)} items pending); "
            "nothing is lost: wait again with client.job(id, wait=...) or raise timeout_s"
        )


class BadAnswer(RewardError):
    """An answer that is not this API's: another service, a proxy page, or another API version."""

    def __init__(self, url: str, status: int, why: str) -> None:
        self.status = status
        super().__init__(
            f"{url} answered {status} with something that is not this API ({why}); "
            "check the URL and that client and server are of the same version"
        )


class Refused(RewardError):
    """The server answered with a problem document (RFC 9457), kept in ``problem``."""

    def __init__(self, status: int, problem: Mapping[str, Any], hint: str = "") -> None:
        self.status = status
        self.problem = dict(problem)
        self.code = str(problem.get("code", ""))
        self.request_id = str(problem.get("request_id", ""))
        text = str(problem.get("detail") or problem.get("title") or "no reason given")
        tail = f" [request {self.request_id}]" if self.request_id else ""
        super().__init__(f"{status} {self.code}: {text}{hint}{tail}")


class Unauthorized(Refused):
    """401 or 403: no API key, a wrong one, or one without the scope this call needs."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        hint = (
            "; pass api_key=..., a key made on the server with: "
            "python -m reward_server keys create --name NAME --data DIR"
        )
        super().__init__(status, problem, hint)


class UnknownReward(Refused):
    """The server has no reward of that name; ``known`` lists those it has."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.known: list[str] = [str(name) for name in problem.get("known", [])]
        super().__init__(status, problem)


class JobNotFound(Refused):
    """404 or 410: this server never had the job, or has purged its results."""


class RequestRejected(Refused):
    """The request itself is at fault and would be refused again."""


class ServerBusy(Refused):
    """408, 429 or 503: try again after ``retry_after`` seconds; nothing was accepted."""

    retryable = True

    def __init__(
        self, status: int, problem: Mapping[str, Any], retry_after: float | None = None
    ) -> None:
        self.retry_after = retry_after
        super().__init__(status, problem)


class ServerFailed(Refused):
    """Another 5xx: the server's fault; ``request_id`` finds it in its log."""

    retryable = True


def from_problem(
    status: int, problem: Mapping[str, Any], retry_after: float | None = None
) -> Refused:
    """Choose the exception for an error answer by status and ``code``."""
    code = problem.get("code")
    if status in (408, 429, 503):
        return ServerBusy(status, problem, retry_after)
    if status in (401, 403):
        return Unauthorized(status, problem)
    if code == "unknown_reward":
        return UnknownReward(status, problem)
    if code in ("unknown_job", "purged"):
        return JobNotFound(status, problem)
    if status >= 500:
        return ServerFailed(status, problem)
    return RequestRejected(status, problem)
