"""Promise: a run can be watched from what it has sent anyway: rewards by step with intervals, the
same prompts over time, what it waits for, how people are doing; and it outlives its results.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from sqlalchemy import create_engine, event
from starlette.testclient import TestClient

from reward_server.domain.agreement import Vote, krippendorff_alpha, wilson
from reward_server.domain.jobs import Blob, NewItem, NewJob, Rules
from reward_server.store import Store, campaign_stats, jobs, runs
from reward_server.store.runs import spread
from reward_server.store.tables import assignment, item, job
from shared.images import encode_png, to_b64
from tests.support.server_setup import HandClock, claim, job_of, label, picture

NUMBERS = itertools.count()
WHOLE = tuple(f"SCAN {table.name}" for table in (item, job, assignment))


def ask(client: TestClient, prompts: list[str], reward: str = "human", **fields: Any) -> Any:
    """Submit one new picture per prompt."""
    items: list[dict[str, Any]] = []
    for prompt in prompts:
        pixels = np.random.default_rng(next(NUMBERS)).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        items.append({"prompt": prompt, "image": {"b64": to_b64(encode_png(pixels))}})
        if reward == "ocr":
            items[-1]["target"] = {"text": "Hi"}
    headers = {"Prefer": "respond-async"}
    answer = client.post(f"/score/{reward}", json={"items": items} | fields, headers=headers)
    assert answer.status_code in (200, 202), answer.text
    return answer.json()


def get(client: TestClient, path: str) -> Any:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def judge(client: TestClient, *likes: str) -> None:
    """Like pictures of these prompts, dislike all others that wait."""
    leases = claim(client, 32)
    said = ["like" if one["prompt"] in likes else "dislike" for one in leases]
    assert set(label(client, leases, *said)) <= {"counted"}


def sign_in(client: TestClient, name: str) -> None:
    client.post("/label/session", json={"name": name})


def test_the_curve_is_the_mean_reward_by_step(client: TestClient) -> None:
    liked = {0: 0, 1: 2, 2: 4}
    for step, likes in liked.items():
        for group in range(4):
            prompts = ["good"] * (likes > group) + ["bad"] * (1 - (likes > group))
            ask(client, [*prompts, "bad"], run_id="r", group_id=f"r/{step}/{group}", step=step)
    judge(client, "good")
    view = get(client, "/runs/r/progress")
    assert (view["axis"], view["groups"], view["items"]) == ("step", 12, 24)
    (curve,) = view["curves"]
    assert (curve["reward"], curve["human"], curve["probe"]) == ("human", True, False)
    points = {p["x"]: p for p in curve["points"]}
    assert {x: p["mean"] for x, p in points.items()} == {0: 0.0, 1: 0.25, 2: 0.5}
    # Groups of step 1: 0.5, 0.5, 0, 0; their mean has the standard error sqrt(1/12) / 2.
    half = 1.959963984540054 * (1 / 12) ** 0.5 / 2
    assert (points[1]["low"], points[1]["high"]) == pytest.approx((0.25 - half, 0.25 + half))
    assert [p["n"] for p in curve["points"]] == [8, 8, 8]


def test_without_steps_the_axis_is_time_and_few_groups_have_no_interval(
    client: TestClient, clock: HandClock
) -> None:
    for _ in range(2):
        ask(client, ["good"], run_id="script")
        judge(client, "good")
        clock.now += 60.0
    view = get(client, "/runs/script/progress")
    assert view["axis"] == "seconds"
    (curve,) = view["curves"]
    assert [p["x"] for p in curve["points"]] == [0.0, 60.0]
    assert {p["low"] for p in curve["points"]} == {None}


def test_probes_belong_to_their_run_and_show_the_same_prompts(client: TestClient) -> None:
    ask(client, ["train"], run_id="r", step=0)
    ask(client, ["train"], run_id="r", step=40)
    for step in (0, 20, 40):
        ask(client, ["sun", "moon"], run_id="r.heldout", step=step)
    judge(client, "sun")
    assert [run["run_id"] for run in get(client, "/runs")["runs"]] == ["r"]
    curves = get(client, "/runs/r/progress")["curves"]
    assert [(c["probe"], len(c["points"])) for c in curves] == [(False, 2), (True, 3)]
    samples = get(client, "/runs/r/samples")
    assert samples["source"] == "probe"
    assert [s["prompt"] for s in samples["strips"]] == ["sun", "moon"]
    for strip in samples["strips"]:
        assert [shot["x"] for shot in strip["shots"]] == [0, 20, 40]
        assert {shot["reward"] for shot in strip["shots"]} == {float(strip["prompt"] == "sun")}
        hashes = {shot["sha256"] for shot in strip["shots"]}
        assert len(hashes) == 3
        for sha256 in hashes:
            assert client.get(f"/images/sha256-{sha256}").status_code == 200


def test_prompts_that_come_again_show_what_training_changes(client: TestClient) -> None:
    for step in range(3):
        ask(client, ["again", "again"], run_id="r", step=step)
        ask(client, [f"once {step}"], run_id="r", step=step)
    samples = get(client, "/runs/r/samples")
    assert samples["source"] == "training"
    (strip,) = samples["strips"]
    assert strip["prompt"] == "again" and [shot["x"] for shot in strip["shots"]] == [0, 1, 2]
    assert {shot["status"] for shot in strip["shots"]} == {"pending"}
    for step in range(2):
        ask(client, [f"new {step}"] * 2, run_id="fresh", step=step)
    latest = get(client, "/runs/fresh/samples")
    assert latest["source"] == "latest"
    assert [len(strip["shots"]) for strip in latest["strips"]] == [2, 2]


def test_what_a_run_waits_for_is_named(client: TestClient, clock: HandClock) -> None:
    def awaited() -> Any:
        return get(client, "/runs/a/b/progress")["awaited"]  # a run's name may hold a slash

    ask(client, ["one", "two"], run_id="a/b", step=0)
    clock.now += 30.0
    machine = ask(client, ["x"], "ocr", run_id="a/b", step=0)
    assert awaited() == {"by": "people", "groups": 1, "items": 2, "since_s": 30.0}
    judge(client)
    assert awaited()["by"] == "scorers"
    client.post(f"/jobs/{machine['id']}/cancel")
    assert awaited()["by"] == "trainer"
    clock.now += 301.0
    assert awaited() == {"by": "nothing", "groups": 0, "items": 0, "since_s": 301.0}
    assert client.get("/runs/unknown/progress").status_code == 404


def test_the_curve_outlives_its_results(client: TestClient, clock: HandClock) -> None:
    ask(client, ["good", "bad"], run_id="r", step=1)
    judge(client, "good")
    before = get(client, "/runs/r/progress")["curves"]
    clock.now += 8 * 86400.0
    assert client.portal is not None
    client.portal.call(client.app.state.service.purge)  # type: ignore[attr-defined]
    assert get(client, "/runs/r/progress")["curves"] == before
    assert before[0]["points"][0]["mean"] == 0.5


def test_a_campaign_says_what_waits_since_when_and_for_how_long(
    client: TestClient, clock: HandClock
) -> None:
    first = ask(client, [f"p{i}" for i in range(4)], run_id="r", group_id="r/0", step=7)
    clock.now += 100.0
    ask(client, ["later"] * 2, run_id="r", group_id="r/1", step=8)
    leases = [one for one in claim(client, 32) if one["prompt"] != "later"]
    label(client, leases[:1], "like")
    clock.now += 10.0
    label(client, leases[1:2], "dislike")
    clock.now += 10.0
    stats = get(client, "/campaigns/r/stats")
    assert (stats["waiting"], stats["groups_waiting"], stats["oldest_s"]) == (4, 2, 120.0)
    assert stats["labels_per_hour"] == pytest.approx(2 / 20 * 3600)
    nearest, other = stats["groups"]
    assert (nearest["job"], nearest["group_id"], nearest["step"]) == (first["id"], "r/0", 7)
    assert sorted(nearest["cells"]) == sorted("ldhh")
    assert (nearest["votes_missing"], nearest["eta_s"]) == (2, pytest.approx(20.0))
    assert (other["cells"], other["eta_s"]) == ("hh", pytest.approx(40.0))
    (person,) = stats["annotators"]
    assert (person["labels"], person["likes"], person["last_s"]) == (2, 1, 10.0)
    assert sum(person["pace"]) == 2 and person["pace"][-1] == 2
    assert person["median_s"] == 0.4
    assert get(client, "/campaigns/other/stats")["waiting"] == 0


def test_agreement_is_measured_where_several_judged(client: TestClient) -> None:
    said = {"anna": "llld", "ben": "lldd", "cleo": "lddd"}
    for name, letters in said.items():
        if name == "anna":
            alone = get(client, "/campaigns/r/stats")["agreement"]
            assert alone["raw"] is None and alone["why"] == "no item has two votes"
            ask(client, [f"p{i}" for i in range(4)], run_id="r", votes=3)
        sign_in(client, name)
        judge(client, *(f"p{i}" for i, letter in enumerate(letters) if letter == "l"))
    stats = get(client, "/campaigns/r/stats")
    votes = [Vote(i, name, x) for name, letters in said.items() for i, x in enumerate(letters)]
    assert stats["agreement"]["pictures"] == 4
    assert stats["agreement"]["raw"] == pytest.approx(2 / 3)
    assert stats["agreement"]["alpha"] == pytest.approx(krippendorff_alpha(votes).value)
    anna = next(one for one in stats["annotators"] if one["name"] == "anna")
    bounds = wilson(5, 8)
    assert bounds is not None
    expected = {"part": 5, "whole": 8, "low": bounds[0], "high": bounds[1]}
    assert anna["agreement"] == expected
    assert anna["gold"] is None


def test_known_answers_count_for_each_person(client: TestClient) -> None:
    golds = [
        {
            "prompt": f"g{i}",
            "image": {"b64": to_b64(picture(i))},
            "answer": "dislike" if i == 3 else "like",
        }
        for i in range(4)
    ]
    assert client.post("/golds", json={"golds": golds}).json()["added"] == 4
    for name, liked in (("anna", ["g0", "g1", "g2"]), ("ben", ["g0", "g1"])):
        sign_in(client, name)
        ask(client, ["p"], run_id="r")
        judge(client, *liked)  # newcomers see the golds first
        judge(client)
    stats = get(client, "/campaigns/r/stats")
    gold = {one["name"]: one["gold"] for one in stats["annotators"]}
    assert {name: (g["part"], g["whole"]) for name, g in gold.items()} == {
        "anna": (4, 4),
        "ben": (3, 4),
    }
    assert (stats["gold"]["part"], stats["gold"]["whole"]) == (7, 8)
    accuracy = {one["name"]: one["accuracy"] for one in stats["annotators"]}
    assert accuracy == {"anna": None, "ben": None}  # nobody asked for weights


def test_the_dashboard_is_for_requesters(client: TestClient) -> None:
    assert client.get("/dashboard").status_code == 200
    assert client.get("/runs", headers={"Host": "rebound.example"}).status_code == 403
    policy = client.get("/dashboard").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy


def test_moments_are_spread_with_the_first_and_the_last() -> None:
    assert spread(range(100), 5) == [0, 25, 50, 74, 99]
    assert spread([1, 2], 5) == [1, 2]


def test_no_question_of_the_dashboard_reads_a_whole_table(database: str) -> None:
    """Asked of the database itself, for every statement."""
    if not database.startswith("sqlite"):
        pytest.skip("PostgreSQL rightly reads small tables whole; its indexes are the same")
    store = Store(database)
    image = Blob("a" * 64, "image/png", 1, 8, 8)
    new = [NewItem(prompt="p", image=image)] * 2
    for i in range(3):
        asked = NewJob(
            f"job{i}", "human", "human", "m", new, f"f{i}", None, 0, run_id="r", step=i,
            rules=Rules(),
        )  # fmt: skip
        store.write(jobs.accept, asked, 1000.0 + i, 10**6)
    said: list[tuple[str, Any]] = []
    with store.reading() as connection:
        event.listen(
            connection,
            "before_cursor_execute",
            lambda c, cursor, statement, parameters, context, many: said.append(
                (statement, parameters)
            ),
        )
        runs.view(connection, "r", 2000.0)
        runs.samples(connection, "r")
        campaign_stats.stats(connection, "r", 2000.0)
    store.close()
    engine = create_engine(database)
    scans = []
    with engine.connect() as connection:
        for statement, parameters in said:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            steps = [row[3] for row in plan]
            # Walking along an index until a limit is no reading of the whole.
            scans += [step for step in steps if step.startswith(WHOLE) and "USING" not in step]
    engine.dispose()
    assert len(said) > 8
    assert scans == []


def test_a_finished_group_keeps_its_sum(client: TestClient) -> None:
    asked = ask(client, ["good", "bad", "bad"], run_id="r", step=0)
    judge(client, "good")
    assert job_of(client, asked)["status"] == "succeeded"
    (curve,) = get(client, "/runs/r/progress")["curves"]
    assert curve["points"][0]["mean"] == pytest.approx(1 / 3)
