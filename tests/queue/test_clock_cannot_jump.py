"""A machine's clock that jumps moves no deadline and deletes nothing before an hour has passed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from reward_server.domain.clock import PATIENCE_S, SteadyClock
from reward_server.service import Service
from tests.support.server_setup import inside, items

YEAR_S = 365 * 86400.0
START = 1.8e9


class Machine:
    """A time of day that may be set, and a monotonic clock that may not."""

    def __init__(self) -> None:
        self.up = 100.0
        self.offset = START
        self.jumps: list[float] = []
        self.clock = SteadyClock(lambda: self.up + self.offset, lambda: self.up, self.jumps.append)

    def passes(self, seconds: float) -> float:
        """Seconds later, looked at on the way as a server does."""
        for _ in range(20):
            self.up += seconds / 20
            self.clock()
        return self.clock() - START - 100.0


@pytest.mark.parametrize("jump", [YEAR_S, -YEAR_S, 60.0, -3600.0])
def test_a_jump_that_is_taken_back_leaves_no_trace(jump: float) -> None:
    machine = Machine()
    assert machine.passes(7200) == pytest.approx(7200) and machine.clock.trusted
    machine.offset += jump
    assert machine.passes(8) == pytest.approx(7208) and not machine.clock.trusted
    machine.offset -= jump
    assert machine.passes(10) == pytest.approx(7218)
    assert not machine.clock.trusted
    assert machine.passes(PATIENCE_S + 400) > 0 and machine.clock.trusted
    assert machine.jumps == [pytest.approx(jump)]


def test_a_jump_that_lasts_an_hour_is_the_new_time_and_trusted_an_hour_later() -> None:
    machine = Machine()
    machine.passes(7200)
    machine.offset += YEAR_S
    machine.passes(PATIENCE_S / 2)
    assert machine.clock() < START + YEAR_S
    machine.passes(PATIENCE_S)
    assert machine.clock() == pytest.approx(machine.up + machine.offset)
    assert not machine.clock.trusted
    machine.passes(PATIENCE_S + 1)
    assert machine.clock.trusted


def test_small_corrections_are_followed_at_once() -> None:
    machine = Machine()
    machine.passes(7200)
    machine.offset += 2.0
    assert machine.passes(10) == pytest.approx(7212) and machine.clock.trusted


def test_a_server_deletes_nothing_by_a_clock_it_does_not_trust(tmp_path: Path) -> None:
    machine = Machine()
    with inside(tmp_path, machine.clock) as client:
        job = client.post("/score/human", json={"items": items(1)}).json()["id"]
        assert client.post(f"/jobs/{job}/cancel").is_success
        service: Service = client.app.state.service  # type: ignore[attr-defined]
        machine.offset += YEAR_S
        machine.up += 8
        asyncio.run(service.purge())
        assert client.get(f"/jobs/{job}").status_code == 200
        machine.offset -= YEAR_S
        machine.passes(8 * 86400.0)
        machine.passes(2 * PATIENCE_S)
        asyncio.run(service.purge())
        assert client.get(f"/jobs/{job}").status_code in (404, 410)
