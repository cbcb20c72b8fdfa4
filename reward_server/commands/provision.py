"""``provision``: the secrets a stack of containers needs, made once and kept in files.

A file whose secret is still good is left alone, so that every start may ask for all of them; one
that is missing, or of another database, is made anew. The files are readable by their owner alone.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from reward_server.commands.access import add_data_arguments
from reward_server.settings import Settings
from reward_server.store import Store, people
from shared.schema import Scope

SCOPES: Final[dict[str, Scope]] = {"score": "score", "label": "label", "admin": "admin"}


def add_provision_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``provision``."""
    parser.add_argument("--key", type=_key, action="append", default=[], metavar="NAME=SCOPE=FILE")
    parser.add_argument("--invite", type=_invite, action="append", default=[], metavar="NAME=FILE")
    parser.add_argument(
        "--renew",
        action="append",
        default=[],
        metavar="NAME",
        help="make this one anew, and the old one useless",
    )
    add_data_arguments(parser)


def _key(text: str) -> tuple[str, Scope, Path]:
    found = re.fullmatch(r"([\w.@-]+)=(\w+)=(.+)", text)
    if found is None or found[2] not in SCOPES:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not of the form NAME=SCOPE=FILE, with a scope of {sorted(SCOPES)}"
        )
    return found[1], SCOPES[found[2]], Path(found[3])


def _invite(text: str) -> tuple[str, Path]:
    name, _, file = text.partition("=")
    if not re.fullmatch(r"[\w.@-]+", name) or not file:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=FILE")
    return name, Path(file)


def provision(args: argparse.Namespace, settings: Settings) -> int:
    """Make what is missing; says on stderr what was made and what was kept, never a secret."""
    known = {name for name, *_ in (*args.key, *args.invite)}
    if unknown := set(args.renew) - known:
        sys.stderr.write(f"reward_server: --renew {unknown.pop()!r}: known are {sorted(known)}\n")
        return 2
    if settings.database is None:
        settings.data.mkdir(parents=True, exist_ok=True)
    store = Store(settings.database_url)
    store.migrate()
    for name, scope, file in args.key:
        _provide_key(store, name, scope, file, renew=name in args.renew)
    for name, file in args.invite:
        _provide_invite(store, name, file, renew=name in args.renew)
    store.close()
    return 0


def _provide_key(store: Store, name: str, scope: Scope, file: Path, *, renew: bool) -> None:
    held = None if renew else _held(file)
    row = None if held is None else store.read(people.key_of, held)
    if row is not None and scope in row.scopes:
        return _say(f"kept key {row.name!r} in {file}")
    before = _namesakes(name, (key.name for key in store.read(people.keys)))
    fresh = _next_name(name, before)
    _write(file, store.write(people.create_key, fresh, [scope], time.time()))
    for old in before:
        store.write(people.revoke_key, old, time.time())
    return _say(f"made key {fresh!r} for {scope!r} in {file}")


def _provide_invite(store: Store, name: str, file: Path, *, renew: bool) -> None:
    held = None if renew else _held(file)
    known = None if held is None else store.read(people.invited, held)
    if known is not None:
        return _say(f"kept the invitation of {known!r} in {file}")
    before = _namesakes(name, (person.name for person in store.read(people.annotators)))
    fresh = _next_name(name, before)
    _write(file, store.write(people.create_invite, fresh, time.time()))
    # Whoever is signed in stays so when merely the file was lost.
    for old in before if renew else []:
        store.write(people.revoke_annotator, old, time.time())
    return _say(f"made an invitation for {fresh!r} in {file}")


def _held(file: Path) -> str | None:
    return file.read_text(encoding="utf-8").strip() if file.is_file() else None


def _namesakes(name: str, names: Iterable[str]) -> list[str]:
    """Those called NAME, NAME-2, NAME-3 and so on: a name is never used twice."""
    return [one for one in names if re.fullmatch(rf"{re.escape(name)}(-\d+)?", one)]


def _next_name(name: str, before: list[str]) -> str:
    taken, number = name, 1
    while taken in before:
        number += 1
        taken = f"{name}-{number}"
    return taken


def _write(file: Path, secret: str) -> None:
    """Readable by the owner from the first byte on; there in full or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_name(f".{file.name}.part")
    scratch.unlink(missing_ok=True)
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "w") as handle:
        handle.write(secret + "\n")
    scratch.replace(file)


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
