"""The results page says what was measured, with intervals, and what was not."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from tests.evaluation.test_ablation_fills_its_page import matrix
from trainer.ablation.kept import Curves
from trainer.ablation.matrix import Claim, load_ablation
from trainer.ablation.page import markdown
from trainer.ablation.plots import draw, mean_curve, timed
from trainer.ablation.results import (
    PICTURES,
    SYMPTOMS,
    CellResult,
    ClaimResult,
    Results,
    gather_results,
    order,
    over_seeds,
)
from trainer.evaluation.intervals import Estimate


def results(tmp_path: Path) -> Results:
    ablation = load_ablation(matrix(tmp_path), ["seeds=[0, 1]"])

    def done(seed: int, value: float) -> CellResult:
        estimate = Estimate(value, value - 0.1, value + 0.1, 50)
        curve = [(0.0, 0.1), (10.0, value)]
        return CellResult(
            "one",
            seed,
            "done",
            scores={"overall": estimate, "text": estimate, "counting": estimate},
            curves=Curves(
                iterations=3,
                minutes=2.5,
                reward=curve,
                heldout=curve,
                clock=[(0.0, 0.0), (10.0, 2.0 + seed)],
                signs=dict.fromkeys((*SYMPTOMS, *PICTURES), curve),
            ),
        )

    others = [
        CellResult("two", 0, "begun", curves=Curves(iterations=2, minutes=1.0)),
        CellResult("two", 1, "missing"),
        CellResult("three", 0, "failed", "the disk is full"),
        CellResult("three", 1, "missing"),
    ]
    return Results(ablation, [done(0, 0.4), done(1, 0.6), *others])


def test_the_page_gives_means_with_intervals_and_marks_what_was_not_run(tmp_path: Path) -> None:
    page = markdown(results(tmp_path), [("curves", "images/a.svg")], "python -m trainer ablate x")
    rows = [line for line in page.splitlines() if line.startswith("|")]
    half = 0.1 / 2**0.5  # of a mean of two
    assert f"0.500 ({0.5 - half:.3f} to {0.5 + half:.3f})" in rows[2]
    assert rows[2].endswith("| 2 of 2 |")
    assert rows[3].startswith("| no reward | not yet run | not yet run |")
    assert r"direct \| RL" in rows[4]
    assert "| variant | counting |" in rows  # which alone was measured
    (by_tag,) = [row for row in rows if row.startswith("| TDM-R1 | 0.500 (") and row != rows[2]]
    assert by_tag.count("0.500") == 1
    by_seed = [row for row in rows if "| 0 |" in row or "| 1 |" in row]
    assert [row.split(" | ")[2] for row in by_seed] == [
        "done",
        "done",
        "not finished",
        "not yet run",
        "failed",
        "not yet run",
    ]
    assert "2 of 6 cells are done" in page
    assert "three, seed 0: the disk is full" in page
    assert "![curves](images/a.svg)" in page


def test_a_mean_needs_at_least_one_seed(tmp_path: Path) -> None:
    found = results(tmp_path)
    assert over_seeds(found.of("two"), "overall") is None
    mean = over_seeds(found.of("one"), "overall")
    assert mean is not None and mean.value == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ((-0.03, -0.02, -0.04), "refuted"),
        ((0.02, 0.03, 0.025), "held"),
        ((0.03, -0.01), "open"),
        ((0.03,), "needs a second seed"),
        ((), "not yet run"),
    ],
)
def test_an_order_counts_where_it_exceeds_twice_its_error_over_the_seeds(
    tmp_path: Path, differences: tuple[float, ...], verdict: str
) -> None:
    claim = Claim(above="two", below="one")
    found = ClaimResult(claim, dict(enumerate(differences)))
    page = markdown(replace(results(tmp_path), claims=[found]), [], "python -m trainer ablate x")
    (row,) = [line for line in page.splitlines() if line.startswith("| no reward > TDM-R1 |")]
    assert row.endswith(f"| {verdict} |")
    assert ", ".join(f"{d:+.3f}" for d in differences) in row
    place = order(differences)
    assert (place is None) == (len(differences) < 2)
    if place is not None:
        assert place.verdict == {"refuted": "below", "held": "above"}.get(verdict, verdict)
        spread = statistics.stdev(differences) / len(differences) ** 0.5
        assert place.error == pytest.approx(2 * spread)
        assert f"{statistics.fmean(differences):+.3f} +-{2 * spread:.3f}" in row


def test_a_claimed_order_is_judged_by_paired_differences_of_the_same_seed() -> None:
    ablation = load_ablation(Path("trainer/configs/ablations/paper.toml"), ["seeds=[0]"])
    found = gather_results(ablation)
    scores = {(c.variant, c.seed): c.scores["overall"].value for c in found.cells if c.scores}
    assert [claimed.claim for claimed in found.claims] == list(ablation.claims)
    for claimed in found.claims:
        above, below = claimed.claim.above, claimed.claim.below
        both = {s for v, s in scores if v == above} & {s for v, s in scores if v == below}
        assert 0 in both
        # Every image was scored, so that the mean of differences is the difference of means.
        expected = {s: pytest.approx(scores[above, s] - scores[below, s]) for s in both}
        assert claimed.by_seed == expected


def test_figures_are_the_same_bytes_for_the_same_results(tmp_path: Path) -> None:
    found = results(tmp_path)
    first = {text: path.read_bytes() for text, path in draw(found, tmp_path / "a", "results")}
    second = {text: path.read_bytes() for text, path in draw(found, tmp_path / "b", "results")}
    assert first == second
    assert len(first) == 5
    changed = Results(found.ablation, found.cells[1:])
    third = {text: path.read_bytes() for text, path in draw(changed, tmp_path / "c", "results")}
    assert all(third[text] != first[text] for text in first)


def test_a_mean_curve_stands_where_all_curves_do() -> None:
    assert mean_curve([[(0, 1.0), (5, 2.0)], [(0, 3.0), (10, 4.0)], []]) == [(0, 2.0)]
    assert mean_curve([[]]) == []


def test_a_score_against_the_clock_stands_at_the_mean_time_of_its_probes(tmp_path: Path) -> None:
    cells = results(tmp_path).of("one")
    clock, scores = (
        mean_curve([c.curves.clock for c in cells]),
        mean_curve([c.curves.heldout for c in cells]),
    )
    assert timed(clock, scores) == [(0.0, 0.1), (2.5, pytest.approx(0.5))]
    assert timed([], scores) == []
