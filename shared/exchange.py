"""The client's request logic without I/O: generators that yield calls and pauses to a driver.

Decides what is retried, how long to pause and which exception an answer becomes. Opens no
connection and never sleeps, so that the blocking and the awaiting client cannot differ.
"""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, TypeVar

import httpx
from pydantic import ValidationError

from shared.errors import BadAnswer, RewardError, ServerUnreachable, WaitTimeout, from_problem
from shared.images import sha256_hex
from shared.schema import (
    MAX_WAIT_S,
    Job,
    ScoreRequest,
    StoredImage,
    WaitRequest,
    WaitResult,
    Wire,
)

BUDGET_S: Final = 60.0
"""Seconds one call may spend on retries."""
READ_MARGIN_S: Final = 30.0
"""Seconds an answer may take beyond the wait that was asked for."""
POLL_S: Final = 25.0
"""Length of one long-poll."""
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 8.0

T = TypeVar("T")
W = TypeVar("W", bound=Wire)


@dataclass(frozen=True)
class Call:
    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    wait_s: float = 0.0
    budget_s: float = BUDGET_S


@dataclass(frozen=True)
class Pause:
    seconds: float


Steps = Generator[Call | Pause, httpx.Response | httpx.TransportError | None, T]


class Exchange:
    """The request logic without I/O: generators that yield calls and pauses to a driver."""

    def __init__(
        self,
        url: str,
        budget_s: float,
        clock: Callable[[], float],
        draw: Callable[[float, float], float],
    ) -> None:
        self.url = url.rstrip("/")
        self.budget_s = budget_s
        self._clock = clock
        self._draw = draw

    def submit(self, request: ScoreRequest, key: str | None, wait: float) -> Steps[Job]:
        prefer = f"wait={int(wait)}" if wait >= 1 else "respond-async"
        headers = {"Content-Type": "application/json", "Prefer": prefer}
        if key is not None or request.reward != "human":
            headers["Idempotency-Key"] = key or uuid.uuid4().hex
        body = request.model_dump_json(exclude_none=True, exclude_defaults=True).encode()
        call = Call("POST", "/score", headers=headers, body=body, wait_s=wait)
        return (yield from self.ask(call, Job))

    def job(self, job_id: str, wait: float, rev: int | None) -> Steps[Job]:
        wait = min(wait, MAX_WAIT_S)
        params = {"wait": f"{wait:g}"} if wait > 0 else {}
        if rev is not None:
            params["rev"] = str(rev)
        return (yield from self.ask(Call("GET", f"/jobs/{job_id}", params, wait_s=wait), Job))

    def wait_many(self, ask: WaitRequest) -> Steps[WaitResult]:
        ask = ask.model_copy(update={"wait": min(ask.wait, MAX_WAIT_S)})
        return (yield from self.ask(post("/jobs/wait", ask, wait_s=ask.wait), WaitResult))

    def score(self, request: ScoreRequest, key: str | None, timeout_s: float) -> Steps[Job]:
        until = self._clock() + timeout_s
        job = yield from self.submit(request, key, min(POLL_S, timeout_s))
        while not job.terminal:
            left = until - self._clock()
            if left <= 0:
                raise WaitTimeout(job, timeout_s)
            job = yield from self.job(job.id, min(POLL_S, left), None)
        return job

    def put_image(self, data: bytes) -> Steps[StoredImage]:
        call = Call("PUT", f"/images/sha256-{sha256_hex(data)}", body=data)
        return (yield from self.ask(call, StoredImage))

    def ask(self, call: Call, answer: type[W]) -> Steps[W]:
        response = yield from self.raw(call)
        try:
            return answer.model_validate_json(response.content)
        except ValidationError as error:
            why = f"no {answer.__name__}: {error.errors()[0]['msg']}"
            raise BadAnswer(str(response.url), response.status_code, why) from None

    def raw(self, call: Call) -> Steps[httpx.Response]:
        """The successful answer itself, retried as all others are."""
        return (yield from self._answered(replace(call, budget_s=self.budget_s + call.wait_s)))

    def _answered(self, call: Call) -> Steps[httpx.Response]:
        deadline = self._clock() + call.budget_s
        ceiling = FIRST_PAUSE_S
        while True:
            result = yield call
            assert result is not None
            failure = self._failure(result)
            if failure is None:
                assert isinstance(result, httpx.Response)
                return result
            pause = max(self._draw(0.0, ceiling), failure.retry_after or 0.0)
            if not failure.retryable or self._clock() + pause >= deadline:
                raise failure
            ceiling = min(LONGEST_PAUSE_S, 2 * ceiling)
            yield Pause(pause)

    def _failure(self, result: httpx.Response | httpx.TransportError) -> RewardError | None:
        if isinstance(result, httpx.TransportError):
            failure = ServerUnreachable(self.url, result)
            failure.retryable = not isinstance(result, httpx.UnsupportedProtocol)
            return failure
        if result.is_success:
            return None
        try:
            problem = result.json()
        except ValueError:
            problem = None
        if isinstance(problem, dict) and "code" in problem:
            return from_problem(result.status_code, problem, _retry_after(result))
        if result.status_code in (408, 429) or result.status_code >= 500:
            about = {"code": "gateway", "detail": result.reason_phrase}
            return from_problem(result.status_code, about, _retry_after(result))
        return BadAnswer(
            str(result.url), result.status_code, result.headers.get("content-type", "")
        )


def post(path: str, body: Wire | None = None, *, wait_s: float = 0.0) -> Call:
    """A POST of ``body`` as JSON; harmless to repeat for every path this API has."""
    data = None if body is None else body.model_dump_json().encode()
    return Call(
        "POST", path, headers={"Content-Type": "application/json"}, body=data, wait_s=wait_s
    )


def get(path: str) -> Call:
    """A plain GET."""
    return Call("GET", path)


def arguments(call: Call) -> dict[str, Any]:
    """Keyword arguments of ``httpx.Client.request`` for ``call``."""
    timeout = httpx.Timeout(READ_MARGIN_S, read=call.wait_s + READ_MARGIN_S)
    return {
        "params": dict(call.params),
        "headers": dict(call.headers),
        "content": call.body,
        "timeout": timeout,
    }


def wait_request(
    ids: Sequence[str],
    wait: float,
    mode: Literal["any", "all"],
    revs: Mapping[str, int] | None,
) -> WaitRequest:
    """A ``WaitRequest`` from loosely typed arguments."""
    return WaitRequest(ids=list(ids), wait=wait, mode=mode, revs=dict(revs or {}))


def auth(api_key: str | None) -> dict[str, str]:
    """Bearer header (RFC 6750), if there is a key."""
    return {} if api_key is None else {"Authorization": f"Bearer {api_key}"}


def is_loopback(url: str) -> bool:
    """True for addresses no proxy can reach on our behalf."""
    host = httpx.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _retry_after(response: httpx.Response) -> float | None:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else None
