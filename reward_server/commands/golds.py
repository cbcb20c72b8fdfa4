"""``gold``: pictures whose answer is known, mixed in unseen to see how well people judge."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from reward_server.blobs import Blobs
from reward_server.commands.access import add_data_arguments, fail, open_store, say
from reward_server.domain.jobs import Blob
from reward_server.settings import Settings
from reward_server.store import golds
from shared.images import ImageError, decode, probe
from shared.schema import NO_NUL, Wire


class _Line(Wire):
    """One line of the file; ``image`` is a path, from the file's folder on."""

    prompt: Annotated[str, Field(max_length=10_000, pattern=NO_NUL)]
    image: str
    answer: golds.Answer
    instruction: Annotated[str, Field(max_length=2000, pattern=NO_NUL)] | None = None


class _Unusable(ValueError):
    """A line of the file that cannot be used, and why."""


def add_gold_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``gold``."""
    actions = parser.add_subparsers(dest="action", required=True)
    add = actions.add_parser("add", help="add the golds of a JSON Lines file; known ones: answers")
    add.add_argument(
        "file",
        type=Path,
        help='lines like {"image": "FILE.png", "prompt": "a red bus", "answer": "like"}',
    )
    remove = actions.add_parser("remove", help="show one no more; answers to it count no more")
    remove.add_argument("id", type=int)
    listing = actions.add_parser("list", help="golds with their answers, and how people do on them")
    for one in (add, remove, listing):
        add_data_arguments(one)


def gold(args: argparse.Namespace, settings: Settings) -> int:
    """Add, remove or list golds."""
    store = open_store(settings)
    try:
        if args.action == "add":
            found = _read(args.file, Blobs(settings.data / "blobs"))
            added = store.write(golds.add, found, time.time())
            say(f"{added} new golds, {len(found) - added} were known")
        elif args.action == "remove":
            if not store.write(golds.remove, args.id):
                return fail(f"no gold {args.id} is in use; see: gold list")
            say(f"removed {args.id}")
        else:
            for row in store.read(golds.in_use):
                answer = "like" if row.value == 1.0 else "dislike"
                say(f"{row.id}\t{answer}\t{row.likes} likes, {row.dislikes} dislikes\t{row.prompt}")
            for row in store.read(golds.accuracy):
                say(f"{row.annotator}\t{row.right} of {row.answered} right")
    except (_Unusable, OSError) as error:
        return fail(str(error))
    finally:
        store.close()
    return 0


def _read(file: Path, blobs: Blobs) -> list[golds.Gold]:
    """All golds of a file; nothing is stored unless every line can be used."""
    found = []
    for number, text in enumerate(file.read_text().splitlines(), 1):
        if text.strip():
            try:
                found.append(_checked(text, file.parent))
            except (ValidationError, json.JSONDecodeError, ImageError, OSError) as error:
                raise _Unusable(f"{file} line {number}: {error}; nothing was added") from None
    if not found:
        raise _Unusable(f"{file} holds no gold; one JSON object per line is expected")
    return [_stored(line, data, blobs) for line, data in found]


def _checked(text: str, folder: Path) -> tuple[_Line, bytes]:
    line = _Line.model_validate_json(text)
    data = (folder / line.image).read_bytes()
    decode(data)
    return line, data


def _stored(line: _Line, data: bytes, blobs: Blobs) -> golds.Gold:
    header = probe(data)
    image = Blob(blobs.put(data), header.mime, len(data), header.width, header.height)
    return golds.Gold(line.prompt, image, line.answer, line.instruction)
