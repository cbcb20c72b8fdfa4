"""Promise: an invite link signs in, as annotator or requester; a sign-in lasts while it is used and
ends when it is not; a click is never counted as somebody else's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from reward_server.__main__ import main
from tests.support.server_setup import HandClock, ask_people, claim, inside, label

SESSION_S = 100.0


@pytest.fixture
def client(tmp_path: Path, clock: HandClock) -> Iterator[TestClient]:
    with inside(tmp_path, clock, session_s=SESSION_S) as opened:
        yield opened


@pytest.fixture
def key(client: TestClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """An API key: from now on nobody is let in without a name."""
    assert main(["keys", "create", "--name", "trainer", "--data", str(tmp_path)]) == 0
    return capsys.readouterr().out.strip()


def invite(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, *options: str) -> str:
    """Path and query of a new invite link."""
    assert main(["invite", "--name", name, *options, "--data", str(tmp_path)]) == 0
    link = capsys.readouterr().out.splitlines()[-1]  # after the log of the server
    assert link.startswith("http://127.0.0.1:8000/?invite=")
    return link.removeprefix("http://127.0.0.1:8000")


@pytest.mark.usefixtures("key")
def test_a_link_signs_in_and_what_it_opens_depends_on_the_role(
    client: TestClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert client.get("/label/me").status_code == 401
    client.get(invite(tmp_path, capsys, "anna"))
    me = client.get("/label/me").json()
    assert (me["name"], me["role"]) == ("anna", "annotator")
    refused = client.get("/labels/export")
    assert refused.status_code == 403 and "requesters" in refused.json()["detail"]
    client.get(invite(tmp_path, capsys, "rita", "--role", "requester"))
    assert client.get("/label/me").json()["role"] == "requester"
    assert client.get("/labels/export").status_code == 200
    assert client.get("/golds").status_code == 200


@pytest.mark.usefixtures("key")
def test_a_sign_in_lasts_while_it_is_used_and_no_longer(
    client: TestClient, clock: HandClock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = invite(tmp_path, capsys, "anna")
    client.get(link)
    for _ in range(5):
        clock.now += 0.6 * SESSION_S
        assert client.get("/label/me").json()["name"] == "anna"
    clock.now += 1.1 * SESSION_S
    assert client.get("/label/me").status_code == 401
    client.get(link)
    assert client.get("/label/me").json()["name"] == "anna"


@pytest.mark.usefixtures("key")
def test_a_revoked_person_is_out_at_once(
    client: TestClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = invite(tmp_path, capsys, "anna")
    client.get(link)
    assert main(["invite", "revoke", "--name", "anna", "--data", str(tmp_path)]) == 0
    assert client.get("/label/me").status_code == 401
    assert client.get(link).status_code == 401


def test_a_click_of_one_person_is_not_taken_from_another(client: TestClient) -> None:
    ask_people(client, 1)
    client.post("/label/session", json={"name": "anna"})
    held = claim(client, 1)
    client.post("/label/session", json={"name": "ben"})
    row = {k: held[0][k] for k in ("assignment", "token")} | {"label": "like"}
    rows = [row | {"client_label_id": "one"}]
    refused = client.post("/label/submit?annotator=anna", json=rows)
    assert (refused.status_code, refused.json()["code"]) == (401, "other_annotator")
    client.post("/label/session", json={"name": "anna"})
    assert client.post("/label/submit?annotator=anna", json=rows).json()["labels"] == 1
    assert label(client, held, "like") == ["refused"]  # labelled already
