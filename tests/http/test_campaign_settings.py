"""Promise: how people are asked is chosen per campaign, kept, and obeyed from the next request on;
what a request says itself wins; votes are weighed only where a campaign asks for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from reward_server.__main__ import main
from shared.schema.campaigns import CampaignSettings
from tests.support.server_setup import HandClock, ask_people, claim, inside, job_of, label


def settings(client: TestClient, campaign: str) -> dict[str, Any]:
    answer = client.get(f"/campaigns/{campaign}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["settings"]
    return found


def change(client: TestClient, campaign: str, **patch: Any) -> dict[str, Any]:
    answer = client.patch(f"/campaigns/{campaign}", json=patch)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def sign_in(client: TestClient, name: str) -> None:
    assert client.post("/label/session", json={"name": name}).status_code == 200


def vote(client: TestClient, name: str, *labels: str) -> None:
    sign_in(client, name)
    leases = sorted(claim(client, len(labels)), key=lambda one: str(one["prompt"]))
    assert label(client, leases, *labels) == ["counted"] * len(labels)


def test_an_untouched_campaign_has_the_servers_defaults(tmp_path: Path) -> None:
    defaults = CampaignSettings(instruction="Is it pretty?", votes=3, quorum=2, gold_share=0.2)
    with inside(tmp_path, campaign=defaults) as client:
        assert settings(client, "run/1") == defaults.model_dump()
        job = ask_people(client, 1, run_id="run/1")
        leased = claim(client)
        assert leased[0]["instruction"] == "Is it pretty?"
        label(client, leased, "like")
        vote(client, "anna", "like")
        assert job_of(client, job)["rewards"] == [1.0]  # two of three, a quorum


def test_settings_are_kept_and_hold_from_the_next_request(client: TestClient) -> None:
    before = ask_people(client, 1, run_id="r")
    changed = change(client, "r", votes=2, instruction="One criterion")
    assert changed["changed"] == ["instruction", "votes"]
    ask_people(client, 1, first=1, run_id="r")
    leases = {one["prompt"]: one for one in claim(client)}
    shown = [leases[f"picture {i}"]["instruction"] for i in range(2)]
    assert shown == [None, "One criterion"]
    label(client, [leases["picture 0"]], "like")
    assert job_of(client, before)["counts"]["ok"] == 1
    sign_in(client, "ben")
    assert [one["prompt"] for one in claim(client)] == ["picture 1"]  # wants two votes


def test_what_the_request_says_wins(client: TestClient) -> None:
    change(client, "r", votes=5, instruction="theirs")
    job = ask_people(client, 1, run_id="r", votes=1, instruction="mine")
    leased = claim(client)
    assert leased[0]["instruction"] == "mine"
    label(client, leased, "dislike")
    assert job_of(client, job)["rewards"] == [0.0]


def test_null_goes_back_to_the_default_and_campaigns_do_not_mix(client: TestClient) -> None:
    change(client, "a", votes=3, layout="grid")
    change(client, "b", votes=4)
    assert change(client, "a", votes=None)["changed"] == ["layout"]
    assert settings(client, "a")["votes"] == 1
    assert settings(client, "b")["votes"] == 4
    ask_people(client, 2, run_id="c")
    listed = client.get("/campaigns").json()["campaigns"]
    assert {one["id"] for one in listed} == {"a", "b", "c"}


def test_probes_belong_to_their_run_and_the_nameless_to_default(client: TestClient) -> None:
    change(client, "r", instruction="r and its probes")
    ask_people(client, 1, first=1, run_id="r.heldout")
    assert claim(client)[0]["instruction"] == "r and its probes"
    assert client.get("/campaigns/r/stats").json()["waiting"] == 1
    change(client, "default", instruction="for everybody else")
    ask_people(client, 1)
    assert claim(client)[0]["instruction"] == "for everybody else"
    assert client.get("/campaigns/default/stats").json()["waiting"] == 1


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        ({"quorum": 3}, "quorum=3 can never be reached with votes=1"),
        ({"votes": 0}, "votes"),
        ({"gold_share": 0.9}, "gold_share"),
        ({"colour": "red"}, "colour"),
        ({"instruction": "a\0b"}, "instruction"),
    ],
)
def test_contradictions_change_nothing(
    client: TestClient, patch: dict[str, Any], said: str
) -> None:
    before = settings(client, "r")
    refused = client.patch("/campaigns/r", json={"layout": "grid"} | patch)
    assert refused.status_code == 422 and said in refused.text
    assert settings(client, "r") == before


def test_an_impossible_default_is_refused_at_the_start(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["serve", "--data", str(tmp_path), "--gold-share", "0.9"]) == 2
    assert "--gold-share" in capsys.readouterr().err


def split_votes(client: TestClient) -> dict[str, Any]:
    """Three people agree on thirty pictures, one answers at random; then they split one 2 : 2."""
    ask_people(client, 30, run_id="r", votes=4)
    good = ["like" if i % 2 else "dislike" for i in range(30)]
    for name in ("anna", "ben", "cleo"):
        vote(client, name, *by_prompt(good))
    vote(client, "coin", *by_prompt(["like" if i % 3 == 0 else "dislike" for i in range(30)]))
    assert client.portal is not None
    job = ask_people(client, 1, first=40, run_id="r", votes=4)
    client.portal.call(client.app.state.service.learn)  # type: ignore[attr-defined]
    for name, said in (("anna", "like"), ("ben", "like"), ("cleo", "dislike"), ("coin", "dislike")):
        vote(client, name, said)
    return job_of(client, job)


def by_prompt(labels: list[str]) -> list[str]:
    """In the order in which `vote` sees pictures: by the text of their prompts."""
    return [labels[i] for i in sorted(range(len(labels)), key=lambda i: f"picture {i}")]


@pytest.mark.parametrize("weights", ["equal", "reliability"])
def test_only_a_campaign_that_asks_for_it_has_votes_weighed(
    tmp_path: Path, database: str, weights: str
) -> None:
    with inside(tmp_path, HandClock(), database=database) as client:
        change(client, "r", weights=weights)
        job = split_votes(client)
        assert job["status"] == "succeeded"
        if weights == "equal":
            assert job["rewards"] == [0.5]
            assert "unweighted" not in job["data"][0]["detail"]
        else:
            assert 0.6 < job["rewards"][0] < 0.7  # two reliable against one and a coin
            assert job["data"][0]["detail"]["unweighted"] == 0.5
