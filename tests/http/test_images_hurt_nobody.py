"""Promise: whatever is sent as an image gets a score or an error of its own, quickly and in little
memory; the other images of its batch are scored, and the server stays up.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_server.blobs import Blobs
from reward_server.domain.outcomes import Failed, Outcome, Scored
from reward_server.scorers.ocr import OcrScorer
from reward_server.scoring import worker
from reward_server.store.leases import MachineLease
from shared.images import MAX_SIDE, ImageError, decode, probe, sha256_hex, to_b64
from tests.support.odd_images import RAMP, READABLE, REFUSED, any_file, texts
from tests.support.server_setup import Server

# Pillow warns of odd files; a server goes on, while tests make errors of warnings.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
CODES = {"image_undecodable", "image_unsupported", "image_too_large"}
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", READABLE)
def test_every_usual_kind_of_file_is_read(name: str) -> None:
    pixels, header = decode(READABLE[name]), probe(READABLE[name])
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    assert sorted(pixels.shape[:2]) == sorted((header.width, header.height))
    assert 20 < pixels.mean() < 235


@pytest.mark.parametrize("name", REFUSED)
def test_everything_else_is_an_image_error(name: str) -> None:
    with pytest.raises(ImageError) as refused:
        decode(REFUSED[name])
    assert refused.value.code in CODES


def test_sixteen_bits_become_their_upper_eight() -> None:
    assert (decode(READABLE["png grey 16 bit"])[..., 0] == RAMP >> 8).all()


@settings(max_examples=600)
@given(any_file)
def test_a_damaged_file_is_read_or_refused(data: bytes) -> None:
    try:
        header, pixels = probe(data), decode(data)
    except ImageError as error:
        assert error.code in CODES and str(error)
    else:
        assert max(header.width, header.height) <= MAX_SIDE
        assert pixels.dtype == np.uint8 and pixels.shape[2] == 3


BOUNDED = """
import resource, sys
from shared.images import ImageError, decode
from tests.support.odd_images import largest
resource.setrlimit(resource.RLIMIT_CPU, (120, 120))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name, data in largest():
    try:
        print(name, decode(data).shape)
    except ImageError as error:
        print(name, error.code)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_the_largest_files_are_read_and_bombs_refused_within_a_bound() -> None:
    """The kernel ends a process that takes longer than 120 s of CPU; memory is its own peak."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BOUNDED], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *said, grown_mib = done.stdout.splitlines()
    assert len(said) == 8 and sum("(4096, 4096, 3)" in line for line in said) == 4, said
    assert int(grown_mib) < 512


class _Counts:
    """A scorer that notes how many images it is given at once."""

    name, model = "counts", "counts"
    target, options = OcrScorer.target, OcrScorer.options

    def __init__(self) -> None:
        self.batches: list[int] = []

    def score(self, batch: list[Any]) -> list[Outcome]:
        self.batches.append(len(batch))
        return [Scored(1.0) for _ in batch]


def score_files(scorer: _Counts, folder: Path, files: list[bytes]) -> list[Outcome]:
    """What a scorer process makes of a micro-batch of these files."""
    blobs = Blobs(folder)
    leases = [
        MachineLease(i, "t", i, "j", "counts", "a", blobs.put(one), {"text": "A"}, None)
        for i, one in enumerate(files)
    ]
    return [outcome for _, outcome in worker.score(scorer, leases, blobs)]


def test_a_scorer_process_survives_an_image_that_fails_in_a_way_nobody_foresaw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(data: bytes) -> Any:
        if data == READABLE["jpeg"]:
            raise RuntimeError("a decoder's own failure")
        return decode(data)

    monkeypatch.setattr(worker, "decode", broken)
    files = [READABLE["webp"], READABLE["jpeg"], READABLE["png rgba"]]
    good, bad, also_good = score_files(_Counts(), tmp_path, files)
    assert isinstance(good, Scored) and isinstance(also_good, Scored)
    assert isinstance(bad, Failed) and bad.message == "RuntimeError: a decoder's own failure"


def test_large_images_are_scored_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "PIXELS_AT_ONCE", 2 * 32 * 32)
    scorer = _Counts()
    files = [READABLE["webp"], READABLE["png rgba"], b"none", READABLE["jpeg"], READABLE["jpeg"]]
    outcomes = score_files(scorer, tmp_path, [*files, READABLE["webp"]])
    assert [isinstance(one, Scored) for one in outcomes] == [True, True, False, True, True, True]
    assert scorer.batches == [2, 2, 1]


def score(server: Server, images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One batch to the counting scorer over HTTP; the items of its answer."""
    target = {"include": [{"class": "circle", "count": 1}]}
    rows = [{"prompt": "a circle", "image": image, "target": target} for image in images]
    body = {"items": rows}
    answer = httpx.post(f"{server.url}/score/counting", json=body, trust_env=False, timeout=120)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def check(item: dict[str, Any]) -> None:
    """A score, or an error of its own and no number."""
    if item["status"] == "ok":
        assert item["reward"] is not None and item["error"] is None
    else:
        assert item["status"] == "error" and item["reward"] is None
        small = "counting needs sides" in item["error"]["message"]
        assert item["error"]["code"] in CODES or small


def test_every_kind_of_file_is_answered_by_the_server(reward_server: Server) -> None:
    files = [*READABLE.values(), *REFUSED.values()]
    answered = score(reward_server, [{"b64": to_b64(one)} for one in files])
    for item in answered:
        check(item)
    statuses = [item["status"] for item in answered]
    assert statuses == ["ok"] * len(READABLE) + ["error"] * len(REFUSED)


@settings(max_examples=40)
@given(st.lists(texts(), min_size=1, max_size=6), st.sampled_from(["png", "jpeg", "webp"]))
def test_a_batch_survives_what_is_in_it(reward_server: Server, bad: list[str], mime: str) -> None:
    good = {"b64": to_b64(READABLE["png palette"])}
    images = [good, *({"b64": text, "mime": f"image/{mime}"} for text in bad), good]
    answered = score(reward_server, images)
    assert answered[0]["status"] == answered[-1]["status"] == "ok"
    for item in answered[1:-1]:
        check(item)


@settings(max_examples=25)
@given(any_file, st.sampled_from(["image/png", "image/jpeg", "text/html", ""]))
def test_files_sent_as_they_are_are_answered_too(
    reward_server: Server, data: bytes, mime: str
) -> None:
    put = httpx.put(
        f"{reward_server.url}/images/sha256-{sha256_hex(data)}",
        content=data,
        headers={"Content-Type": mime},
        trust_env=False,
        timeout=120,
    )
    assert put.status_code in (200, 201, 413, 415), put.text
    refs = [{"prompt": "a", "image": {"part": "x"}, "target": {"text": "A"}}]
    part = httpx.post(
        f"{reward_server.url}/score/ocr",
        data={"request": json.dumps({"items": refs})},
        files={"x": ("x", data, mime or "image/png")},
        trust_env=False,
        timeout=120,
    )
    assert part.status_code == 200, part.text
    check(part.json()["data"][0])
