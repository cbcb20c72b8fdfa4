"""What a scorer says of one image: a reward, or the reason why there is none."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any, Final, get_args

from shared.schema import ItemErrorCode, Json

MAX_DETAIL: Final = 65_536
"""Characters of a detail as JSON; what explains a reward should be read by a person."""
MAX_REWARD: Final = 1e100
"""Sums and squares of rewards stay numbers, in every database."""
MAX_MESSAGE: Final = 2000
MAX_DEPTH: Final = 16
MAX_INTEGER: Final = 2**63
SHOWN: Final = 60


@dataclass(frozen=True)
class Scored:
    """A finite reward, usually in [0, 1], and JSON-able facts that explain it."""

    reward: float
    detail: Json = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """No reward, and why."""

    message: str
    code: ItemErrorCode = "scorer_failed"


Outcome = Scored | Failed


def checked(outcome: object) -> Outcome:
    """The outcome as every database and client takes it.

    A reward that is no finite number, or a detail that is no JSON, makes the item fail and says so;
    of a failure's message stays what is text.
    """
    try:
        return _checked(outcome)
    except Exception as error:  # whatever the scorer's own objects do when they are looked at
        return Failed(f"the scorer's outcome cannot be read: {type(error).__name__}")


def _checked(outcome: object) -> Outcome:
    if isinstance(outcome, Failed):
        return _told(outcome)
    if not isinstance(outcome, Scored):
        return _told(Failed(f"the scorer returned {_brief(outcome)}, not Scored or Failed"))
    try:
        reward = math.nan if isinstance(outcome.reward, str | bytes) else float(outcome.reward)
    except (TypeError, ValueError, OverflowError):
        return _told(Failed(f"the scorer returned {_brief(outcome.reward)}, which is no reward"))
    if not abs(reward) <= MAX_REWARD:
        return _told(Failed(f"the scorer returned {_brief(outcome.reward)}, which is no reward"))
    problem: str | None = f"detail is {_brief(outcome.detail)}, not a dictionary"
    if isinstance(outcome.detail, dict):
        problem = _problem(outcome.detail, "detail", 0)
    if problem is None and len(json.dumps(outcome.detail)) > MAX_DETAIL:
        problem = f"detail is longer than {MAX_DETAIL} characters"
    if problem is not None:
        return _told(Failed(f"the scorer's {problem}"))
    return Scored(reward, outcome.detail)


def _told(failed: Failed) -> Failed:
    text = str(failed.message)[:MAX_MESSAGE].replace("\x00", "\ufffd")
    text = text.encode("utf-8", "replace").decode("utf-8")
    if failed.code in get_args(ItemErrorCode):
        return Failed(text, failed.code)
    return Failed(f"{text} (unknown code {_brief(failed.code)})")


def _problem(value: Any, where: str, depth: int) -> str | None:
    """What is no JSON in a value, and where; None if all is well."""
    if depth > MAX_DEPTH:
        return f"{where} is nested more than {MAX_DEPTH} deep"
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        return None if _is_text(value) else f"{where} holds NUL or half a character"
    if type(value) is int:
        return None if abs(value) < MAX_INTEGER else f"{where} is an integer beyond 64 bits"
    if type(value) is float:
        return None if math.isfinite(value) else f"{where} is {value}"
    parts: list[tuple[Any, str]]
    if isinstance(value, dict):
        wrong = [key for key in value if not isinstance(key, str) or not _is_text(key)]
        if wrong:
            return f"{where} has the key {_brief(wrong[0])}"
        parts = [(part, f"{where}.{key}") for key, part in value.items()]
    elif isinstance(value, list | tuple):
        parts = [(part, f"{where}[{i}]") for i, part in enumerate(value)]
    else:
        return f"{where} is {_brief(value)}, which is no JSON"
    return next((p for part, at in parts if (p := _problem(part, at, depth + 1))), None)


def _is_text(value: str) -> bool:
    return "\x00" not in value and not any("\ud800" <= c <= "\udfff" for c in value)


def _brief(value: object) -> str:
    """The value's type and its beginning, whatever its own text does."""
    kind = type(value).__name__
    try:
        text = ascii(value)
    except Exception:
        return f"a {kind}"
    return f"a {kind} ({text[:SHOWN]})"
