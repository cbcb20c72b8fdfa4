"""Promise: what phi learns from scored groups can be measured alone, for variants side by side."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.surrogate import main

VALUES = ("groups.size=4", "groups.per_step=4", "surrogate.updates=2", "compute.threads=1")
SMALL = [word for value in VALUES for word in ("--set", value)]


def test_variants_are_measured_on_the_same_groups(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    variants = ("--variant", "the same", "--variant", "no rate", "surrogate.lr=1e-30")
    sizes = ("--groups", "8", "--unseen", "6", "--strength", "0", "2", "--pictures", "12")
    assert main([*sizes, *variants, *SMALL, "--json", str(report)]) == 0
    as_it_is, same, still = json.loads(report.read_text())
    assert as_it_is["updates"] == same["updates"] == still["updates"] == 4
    figures = ("ranking", "error", "tilt", "distance")
    assert [as_it_is[name] for name in figures] == [same[name] for name in figures]
    assert 0 < as_it_is["ranking"] < 1
    assert as_it_is["distance"] > 1e-3 > still["distance"]
    assert as_it_is["guided"]["0.0"] == still["guided"]["2.0"] > 0
