"""``keys``, ``invite`` and ``webhooks``: who may use a server, and whom it tells.

Decided by whoever can write its data folder.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time

import httpx

from reward_server.settings import Place, Settings
from reward_server.store import Store, golds, outbox, people
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
    create = actions.add_parser("create", help="(default) print a sign-in link, once")
    create.add_argument("--name", required=True, type=_name)
    create.add_argument("--role", choices=("annotator", "requester"), default="annotator")
    create.add_argument("--url", default="http://127.0.0.1:8000", help="where annotators connect")
    revoke = actions.add_parser("revoke", help="sign an annotator out for good; labels stay")
    revoke.add_argument("--name", required=True, type=_name)
    go_on = actions.add_parser("continue", help="let go on whom wrong answers to golds paused")
    go_on.add_argument("--name", required=True, type=_name)
    listing = actions.add_parser("list", help="everybody invited")
    for one in (create, revoke, go_on, listing):
        add_data_arguments(one)


def add_webhooks_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``webhooks``."""
    actions = parser.add_subparsers(dest="action", required=True)
    create = actions.add_parser("create", help="register an endpoint and print its secret once")
    create.add_argument("--name", required=True, type=_name, help="what a request names it by")
    create.add_argument("--url", required=True, type=_url, help="where messages are posted to")
    revoke = actions.add_parser("revoke", help="send nothing there any more")
    revoke.add_argument("--name", required=True, type=_name)
    listing = actions.add_parser("list", help="names, addresses and age; never the secrets")
    for one in (create, revoke, listing):
        add_data_arguments(one)


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Where a server keeps its state; the same for all its processes."""
    about = {name: field.description for name, field in Place.model_fields.items()}
    data, database = os.environ.get("REWARD_DATA", "data"), os.environ.get("REWARD_DATABASE")
    parser.add_argument("--data", default=data, help=f"{about['data']} (or REWARD_DATA)")
    parser.add_argument(
        "--database",
        default=database,
        metavar="URL",
        help=f"{about['database']} (or REWARD_DATABASE)",
    )


def keys(args: argparse.Namespace, settings: Settings) -> int:
    """Create, revoke or list API keys."""
    store = open_store(settings)
    if args.action == "create":
        scopes: list[Scope] = args.scope or ["score"]
        try:
            secret = store.write(people.create_key, args.name, scopes, time.time())
        except people.NameTaken as error:
            return fail(str(error))
        say(secret)
        sys.stderr.write(f"key {args.name!r}, scopes {scopes}; it is not shown again\n")
    elif args.action == "revoke":
        if not store.write(people.revoke_key, args.name, time.time()):
            return fail(f"no key named {args.name!r} is in use; see: keys list")
        say(f"revoked {args.name}")
    else:
        for row in store.read(people.keys):
            say(f"{row.name}\t{','.join(row.scopes)}\t{_since(row.created_at, row.revoked_at)}")
    store.close()
    return 0


def invite(args: argparse.Namespace, settings: Settings) -> int:
    """Invite, revoke, let go on or list people."""
    store = open_store(settings)
    if args.action == "create":
        try:
            token = store.write(people.create_invite, args.name, time.time(), args.role)
        except people.NameTaken as error:
            return fail(str(error))
        say(f"{args.url.rstrip('/')}/?invite={token}")
    elif args.action == "revoke":
        if not store.write(people.revoke_annotator, args.name, time.time()):
            return fail(f"nobody named {args.name!r} is active; see: invite list")
        say(f"revoked {args.name}")
    elif args.action == "continue":
        if not store.write(golds.check_anew, args.name, "command", time.time()):
            return fail(f"nobody is named {args.name!r}; see: invite list")
        say(f"{args.name} may go on")
    else:
        for row in store.read(people.annotators):
            say(f"{row.name}\t{row.role}\t{_since(row.created_at, row.revoked_at)}")
    store.close()
    return 0


def webhooks(args: argparse.Namespace, settings: Settings) -> int:
    """Register, revoke or list endpoints; requests can name no others."""
    store = open_store(settings)
    if args.action == "create":
        try:
            say(store.write(outbox.create, args.name, args.url, time.time()))
        except people.NameTaken as error:
            return fail(str(error))
    elif args.action == "revoke":
        if not store.write(outbox.revoke, args.name, time.time()):
            return fail(f"no webhook named {args.name!r} is in use; see: webhooks list")
        say(f"revoked {args.name}")
    else:
        for row in store.read(outbox.endpoints):
            say(f"{row.name}\t{row.url}\t{_since(row.created_at, row.revoked_at)}")
    store.close()
    return 0


def open_store(settings: Settings) -> Store:
    """The store of a server, which may be running."""
    if settings.database is None:
        settings.data.mkdir(parents=True, exist_ok=True)
    store = Store(settings.database_url)
    store.migrate()
    return store


def _since(created: float, revoked: float | None) -> str:
    day = time.strftime("%Y-%m-%d", time.gmtime(created))
    return f"since {day}" if revoked is None else f"since {day}, revoked"


def say(line: str) -> None:
    """Print a result."""
    sys.stdout.write(line + "\n")


def fail(message: str) -> int:
    """Say what is in the way; the exit code."""
    sys.stderr.write(f"reward_server: {message}\n")
    return 1


def _url(text: str) -> str:
    try:
        url = httpx.URL(text)
        fine = url.scheme in ("http", "https") and url.host != ""
    except httpx.InvalidURL:
        fine = False
    if not fine:
        raise argparse.ArgumentTypeError(f"{text!r} is no address; use https://HOST/PATH")
    return text


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.@-]{1,64}", text):
        raise argparse.ArgumentTypeError(
            f"{text!r}: use 1 to 64 letters, digits, dots, dashes, underscores or @"
        )
    return text
