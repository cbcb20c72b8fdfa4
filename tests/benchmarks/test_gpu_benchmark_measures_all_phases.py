"""The GPU benchmark runs where there is no GPU, on models of a few layers."""

from __future__ import annotations

from pathlib import Path

from benchmarks.full_size import describe
from benchmarks.gpu import configured, measured, table


def test_every_phase_is_timed(tmp_path: Path) -> None:
    config = configured(describe("z-image", tmp_path / "model", tiny=True), tiny=True)
    config = config.model_copy(
        update={"compute": config.compute.model_copy(update={"device": "cpu"})}
    )
    phases = measured("z-image", "usual", config)
    assert [p.phase for p in phases] == [
        "rollout",
        "pictures",
        "surrogate",
        "fake score",
        "generator",
    ]
    assert all(p.seconds > 0 and p.tflops > 0 for p in phases)
    assert table(phases).row_count == 5
