"""Promise: what people said can be taken away as JSON lines, CSV or Parquet, and Hugging Face
`datasets` loads it from the file, pictures included.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from shared.images import decode, encode_png, sha256_hex, to_b64
from tests.support.server_setup import claim, label

PROMPT = 'a "red" bus, =1+1\nsecond line'


def picture(seed: int) -> bytes:
    return encode_png(np.random.default_rng(seed).integers(0, 256, (12, 10, 3), dtype=np.uint8))


def ask(client: TestClient, prompt: str, seeds: range, **fields: Any) -> None:
    items = [{"id": str(s), "prompt": prompt, "image": {"b64": to_b64(picture(s))}} for s in seeds]
    answer = client.post("/score/human", json={"items": items} | fields)
    assert answer.status_code == 202, answer.text


def seed_of(lease: dict[str, Any]) -> int:
    name = str(lease["image_url"]).rpartition("-")[2]
    return next(s for s in range(100) if sha256_hex(picture(s)) == name)


def judge(client: TestClient, *, skipped: tuple[int, ...] = ()) -> None:
    """Even pictures are liked, odd ones disliked."""
    leases = claim(client, 32)
    said = [
        "skip" if seed_of(one) in skipped else ("dislike" if seed_of(one) % 2 else "like")
        for one in leases
    ]
    assert set(label(client, leases, *said)) == {"counted"}


@pytest.fixture
def judged(client: TestClient) -> TestClient:
    ask(client, PROMPT, range(7), run_id="r", group_id="r/0", step=3)  # 4 liked, 3 disliked
    ask(client, "only liked", range(20, 21), run_id="r", step=4)
    ask(client, "skipped", range(30, 32), run_id="r", step=4)
    ask(client, "another run", range(40, 44), run_id="other")
    judge(client, skipped=(30,))
    return client


def load(kind: str, answer: Any, folder: Path) -> datasets.Dataset:
    """As a user would: from the file that was downloaded, without a network."""
    assert answer.status_code == 200, answer.text
    file = folder / f"export.{kind}"
    file.write_bytes(answer.content)
    loader = {"jsonl": "json", "csv": "csv", "parquet": "parquet"}[kind]
    cache = str(folder / f"cache-{kind}")
    return datasets.load_dataset(loader, data_files=str(file), split="train", cache_dir=cache)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_labels_say_the_same_in_every_format(judged: TestClient, tmp_path: Path, kind: str) -> None:
    lines = judged.get("/labels/export").text.splitlines()
    expected = [json.loads(line) for line in lines]
    assert len(expected) == 14
    found = load(kind, judged.get("/labels/export", params={"format": kind}), tmp_path)
    assert len(found) == 14
    for row, wanted in zip(found, expected, strict=True):
        if kind == "csv":  # where every id looks like a number
            wanted |= {"id": int(wanted["id"])}
        assert {k: row[k] for k in wanted} == wanted


def test_csv_survives_quotes_and_lines(judged: TestClient) -> None:
    text = judged.get("/labels/export", params={"format": "csv", "run_id": "r"}).text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["prompt"] for row in rows].count(PROMPT) == 7
    assert {row["counted"] for row in rows} == {"true"}
    assert {row["run_id"] for row in rows} == {"r"}


def test_pairs_load_with_their_pictures(judged: TestClient, tmp_path: Path) -> None:
    answer = judged.get("/preferences/export", params={"format": "parquet", "run_id": "r"})
    assert 'filename="preferences.parquet"' in answer.headers["content-disposition"]
    found = load("parquet", answer, tmp_path)
    assert isinstance(found.features["chosen"], datasets.Image)
    assert [row["prompt"] for row in found] == [PROMPT] * 3
    for i, row in enumerate(found):
        assert np.array_equal(np.asarray(row["chosen"]), decode(picture(2 * i)))
        assert np.array_equal(np.asarray(row["rejected"]), decode(picture(2 * i + 1)))
        assert (row["chosen_reward"], row["rejected_reward"]) == (1.0, 0.0)
        assert (row["chosen_votes"], row["chosen_step"], row["run_id"]) == (1, 3, "r")


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_pairs_load_by_hash_and_every_picture_is_in_one(
    judged: TestClient, tmp_path: Path, kind: str
) -> None:
    query = {"format": kind, "images": False}
    found = load(kind, judged.get("/preferences/export", params=query), tmp_path)
    used = [*found["chosen"], *found["rejected"]]
    assert len(used) == len(set(used)) == 2 * (3 + 2)
    for sha256 in used:
        stored = judged.get(f"/images/sha256-{sha256}")
        assert sha256_hex(stored.content) == sha256


def test_nothing_to_export_is_an_empty_file_of_the_right_kind(client: TestClient) -> None:
    assert client.get("/preferences/export").content == b""
    header = client.get("/labels/export", params={"format": "csv"}).text.strip()
    assert header.startswith("annotator,label,at,")
    answer = client.get("/preferences/export", params={"format": "parquet"})
    found = pq.read_table(io.BytesIO(answer.content))  # `datasets` refuses files without rows
    assert found.num_rows == 0 and found.column_names[:3] == ["prompt", "chosen", "rejected"]


def test_without_pyarrow_parquet_is_refused_with_a_remedy(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "pyarrow.parquet", raising=False)
    refused = client.get("/labels/export", params={"format": "parquet"})
    assert refused.status_code == 422
    assert "pip install pyarrow" in refused.json()["detail"]
    assert client.get("/labels/export", params={"format": "csv"}).status_code == 200
    unknown = client.get("/labels/export", params={"format": "xml"})
    assert unknown.status_code == 422 and "parquet" in unknown.text
