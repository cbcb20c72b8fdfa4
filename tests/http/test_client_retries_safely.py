"""Promise: a client retries what can be retried, gives up in time, and says what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from shared.client import (
    AsyncRewardClient,
    BadAnswer,
    JobNotFound,
    RequestRejected,
    RewardClient,
    RewardError,
    ServerBusy,
    ServerFailed,
    ServerUnreachable,
    Unauthorized,
    UnknownReward,
    WaitTimeout,
    build_request,
)
from shared.schema import Job

REQUEST = build_request("ocr", ["a"], [b"file"], targets=[{"text": "a"}])
JOB = Job.model_validate(
    {
        "id": "job_1",
        "reward": "ocr",
        "status": "queued",
        "rev": 1,
        "rewards": [None],
        "valid": [False],
        "data": [{"index": 0, "status": "pending"}],
        "counts": {"ok": 0, "pending": 1, "error": 0},
        "model": "m",
        "created_at": 0.0,
    }
)
Answer = httpx.Response | Exception


class Script:
    """A function as server: answers with what stands in the script, and remembers the requests.

    Time only passes when the client sleeps, by as much as it asked for.
    """

    def __init__(self, *answers: Answer) -> None:
        self.answers: Iterator[Answer] = iter(answers)
        self.requests: list[httpx.Request] = []
        self.sleeps: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = next(self.answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self, budget_s: float = 60.0) -> RewardClient:
        return RewardClient(
            budget_s=budget_s,
            transport=httpx.MockTransport(self),
            clock=lambda: sum(self.sleeps),
            sleep=self.sleeps.append,
            draw=lambda low, high: high,
        )


def ok(job: Job = JOB) -> httpx.Response:
    return httpx.Response(200, content=job.model_dump_json())


def problem(status: int, code: str, headers: dict[str, str] | None = None, **members: Any) -> Any:
    body = {"status": status, "code": code, "detail": "why", "request_id": "req_7"} | members
    return httpx.Response(status, json=body, headers=headers)


@pytest.mark.parametrize(
    "failure",
    [
        problem(408, "malformed"),
        problem(429, "queue_full"),
        problem(500, "internal"),
        problem(503, "not_ready"),
        problem(507, "disk_full"),
        httpx.Response(502, text="<html>bad gateway</html>"),
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("cut off"),
    ],
)
def test_passing_failures_are_retried_under_one_idempotency_key(failure: Answer) -> None:
    script = Script(failure, failure, ok())
    assert script.client().submit(REQUEST).id == "job_1"
    keys = [request.headers["Idempotency-Key"] for request in script.requests]
    assert len(keys) == 3 and len(set(keys)) == 1
    assert len({request.content for request in script.requests}) == 1


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (problem(400, "malformed"), RequestRejected),
        (problem(401, "unauthorized"), Unauthorized),
        (problem(403, "forbidden"), Unauthorized),
        (problem(404, "unknown_job"), JobNotFound),
        (problem(404, "unknown_reward", known=["ocr"]), UnknownReward),
        (problem(409, "conflict"), RequestRejected),
        (problem(410, "purged"), JobNotFound),
        (problem(413, "too_large"), RequestRejected),
        (problem(422, "invalid_request"), RequestRejected),
        (httpx.Response(404, text="<html>not here</html>"), BadAnswer),
        (httpx.Response(200, text="<html>welcome</html>"), BadAnswer),
    ],
)
def test_lasting_failures_are_raised_at_once(answer: Any, kind: type[RewardError]) -> None:
    script = Script(answer)
    with pytest.raises(kind):
        script.client().submit(REQUEST)
    assert script.sleeps == []


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (lambda: problem(429, "queue_full"), ServerBusy),
        (lambda: problem(500, "internal"), ServerFailed),
        (lambda: httpx.ConnectError("refused"), ServerUnreachable),
    ],
)
def test_the_budget_bounds_all_retries_together(
    answer: Callable[[], Answer], kind: type[RewardError]
) -> None:
    script = Script(*(answer() for _ in range(100)))
    with pytest.raises(kind):
        script.client(budget_s=20.0).submit(REQUEST)
    assert 10.0 < sum(script.sleeps) < 20.0


def test_pauses_grow_and_retry_after_is_honoured() -> None:
    busy = problem(429, "queue_full", {"Retry-After": "7"})
    script = Script(*(problem(500, "internal") for _ in range(4)), busy, ok())
    script.client().submit(REQUEST)
    assert script.sleeps == [0.2, 0.4, 0.8, 1.6, 7.0]


def test_a_server_away_for_hours_is_still_asked_again() -> None:
    script = Script(*(problem(500, "internal") for _ in range(1500)), ok())
    script.client(budget_s=1e6).submit(REQUEST)
    assert set(script.sleeps[10:]) == {8.0}


def test_a_server_that_asks_for_more_than_the_budget_is_not_waited_for() -> None:
    script = Script(problem(503, "not_ready", {"Retry-After": "3600"}))
    with pytest.raises(ServerBusy) as busy:
        script.client().submit(REQUEST)
    assert busy.value.retry_after == 3600.0
    assert script.sleeps == []


def test_messages_carry_the_value_and_the_remedy() -> None:
    client = RewardClient("http://127.0.0.1:1", budget_s=0.0)
    with pytest.raises(ServerUnreachable, match=r"127\.0\.0\.1:1 .*python -m reward_server"):
        client.info()
    with pytest.raises(Unauthorized, match=r"keys create.*req_7"):
        Script(problem(401, "unauthorized")).client().info()
    with pytest.raises(UnknownReward) as unknown:
        Script(problem(404, "unknown_reward", known=["ocr", "human"])).client().submit(REQUEST)
    assert unknown.value.known == ["ocr", "human"]


def test_scoring_waits_until_the_job_is_over() -> None:
    over = JOB.model_copy(update={"status": "failed"})
    script = Script(ok(), ok(), ok(over))
    assert script.client().score(REQUEST).terminal
    assert [request.url.path for request in script.requests] == ["/score", *["/jobs/job_1"] * 2]


def test_scoring_that_takes_too_long_hands_back_the_job() -> None:
    script = Script(*(ok() for _ in range(9)))
    script.sleeps.append(0.0)

    def slow(request: httpx.Request) -> httpx.Response:
        script.sleeps.append(5.0)
        return script(request)

    client = RewardClient(transport=httpx.MockTransport(slow), clock=lambda: sum(script.sleeps))
    with pytest.raises(WaitTimeout, match="still queued after 20 s") as late:
        client.score(REQUEST, timeout_s=20.0)
    assert late.value.job.id == "job_1"


def test_people_are_asked_under_the_servers_fingerprint_unless_a_key_is_given() -> None:
    human = REQUEST.model_copy(update={"reward": "human"})
    script = Script(ok(), ok())
    script.client().submit(human)
    script.client().submit(human, idempotency_key="mine")
    assert [r.headers.get("Idempotency-Key") for r in script.requests] == [None, "mine"]


def test_both_clients_have_the_same_methods() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert public(AsyncRewardClient) - {"aclose"} == public(RewardClient) - {"close"}


def test_the_awaiting_client_retries_alike() -> None:
    script = Script(httpx.ConnectError("refused"), problem(503, "not_ready"), ok())

    async def handle(request: httpx.Request) -> httpx.Response:
        return script(request)

    async def sleep(seconds: float) -> None:
        script.sleeps.append(seconds)

    async def submit() -> Job:
        transport = httpx.MockTransport(handle)
        async with AsyncRewardClient(
            transport=transport,
            clock=lambda: sum(script.sleeps),
            sleep=sleep,
            draw=lambda low, high: high,
        ) as client:
            return await client.submit(REQUEST)

    assert asyncio.run(submit()) == JOB
    assert script.sleeps == [0.2, 0.4]
