"""``keys`` and ``invite``: who may use a server, decided by whoever can write its data folder."""

from __future__ import annotations

import argparse
import re
import sys
import time

from reward_server.settings import Settings
from reward_server.store import Store, people
from shared.schema import Scope


def add_keys_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``keys``."""
    actions = parser.add_subparsers(dest="action", required=True)
    create = actions.add_parser("create", help="make a key and print it once")
    create.add_argument("--name", required=True, type=_name)
    create.add_argument("--scope", action="append", choices=("score", "label", "admin"))
    revoke = actions.add_parser("revoke", help="make a key useless")
    revoke.add_argument("--name", required=True, type=_name)
    listing = actions.add_parser("list", help="names, scopes and age; never the keys themselves")
    for one in (create, revoke, listing):
        add_data_arguments(one)


def add_invite_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``invite``."""
    actions = parser.add_subparsers(dest="action", required=True)
    create = actions.add_parser("create", help="make an annotator and print the sign-in link once")
    create.add_argument("--name", required=True, type=_name)
    create.add_argument("--url", default="http://127.0.0.1:8000", help="where annotators connect")
    revoke = actions.add_parser("revoke", help="sign an annotator out for good; labels stay")
    revoke.add_argument("--name", required=True, type=_name)
    listing = actions.add_parser("list", help="all annotators")
    for one in (create, revoke, listing):
        add_data_arguments(one)


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Where a server keeps its state; the same for all its processes."""
    parser.add_argument("--data", default="data", help="folder of the server's state")
    parser.add_argument(
        "--database",
        metavar="URL",
        help="postgresql+psycopg://USER@HOST/NAME, shared by any number of servers and scorers "
        "(password: in ~/.pgpass or PGPASSWORD); default: SQLite in --data",
    )


def keys(args: argparse.Namespace, settings: Settings) -> int:
    """Create, revoke or list API keys."""
    store = _open(settings)
    if args.action == "create":
        scopes: list[Scope] = args.scope or ["score"]
        try:
            secret = store.write(people.create_key, args.name, scopes, time.time())
        except people.NameTaken as error:
            return _fail(str(error))
        _say(secret)
        sys.stderr.write(f"key {args.name!r}, scopes {scopes}; it is not shown again\n")
    elif args.action == "revoke":
        if not store.write(people.revoke_key, args.name, time.time()):
            return _fail(f"no key named {args.name!r} is in use; see: keys list")
        _say(f"revoked {args.name}")
    else:
        for row in store.read(people.keys):
            _say(f"{row.name}\t{','.join(row.scopes)}\t{_since(row.created_at, row.revoked_at)}")
    store.close()
    return 0


def invite(args: argparse.Namespace, settings: Settings) -> int:
    """Create, revoke or list annotators."""
    store = _open(settings)
    if args.action == "create":
        try:
            token = store.write(people.create_invite, args.name, time.time())
        except people.NameTaken as error:
            return _fail(str(error))
        _say(f"{args.url.rstrip('/')}/?invite={token}")
    elif args.action == "revoke":
        if not store.write(people.revoke_annotator, args.name, time.time()):
            return _fail(f"no annotator named {args.name!r} is active; see: invite list")
        _say(f"revoked {args.name}")
    else:
        for row in store.read(people.annotators):
            _say(f"{row.name}\t{_since(row.created_at, row.revoked_at)}")
    store.close()
    return 0


def _open(settings: Settings) -> Store:
    if settings.database is None:
        settings.data.mkdir(parents=True, exist_ok=True)
    store = Store(settings.database_url)
    store.migrate()
    return store


def _since(created: float, revoked: float | None) -> str:
    day = time.strftime("%Y-%m-%d", time.gmtime(created))
    return f"since {day}" if revoked is None else f"since {day}, revoked"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _fail(message: str) -> int:
    sys.stderr.write(f"reward_server: {message}\n")
    return 1


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.@-]{1,64}", text):
        raise argparse.ArgumentTypeError(
            f"{text!r}: use 1 to 64 letters, digits, dots, dashes, underscores or @"
        )
    return text
