"""`make test-compose`: brings the stack up, uses it, breaks it, and says what became of everything.

Exit code 0 only if every check was made and held. Leaves nothing behind unless KEEP=1.
"""

from __future__ import annotations

import os
import sys
import time

from tests.compose.person import person
from tests.compose.stack import StackError, compose
from tests.compose.story import CHECKS, Story


def main() -> int:
    """Run all checks in order; stops at the first that does not hold."""
    os.environ["REQUIRE_BROWSER"] = "1"
    made = 0
    compose("--profile", "*", "down", "-v", "--remove-orphans")
    with person() as somebody:
        story = Story(somebody)
        try:
            for check in CHECKS:
                _say(f"... {(check.__doc__ or '').strip()}")
                began = time.monotonic()
                said = check(story)
                made += 1
                _say(f"ok  {said} ({time.monotonic() - began:.0f} s)")
        except Exception as error:  # whatever it is: the account comes first, then the failure
            _say(f"FAILED {type(error).__name__}: {error}")
            _say(compose("--profile", "*", "ps", "--all", check=False))
            _say(compose("--profile", "*", "logs", "--tail", "40", "--no-color", check=False))
        finally:
            _tell(story)
            if os.environ.get("KEEP") != "1":
                compose("--profile", "*", "down", "-v", check=False)
    _say(f"{made} of {len(CHECKS)} checks made and held")
    return 0 if made == len(CHECKS) else 1


def _tell(story: Story) -> None:
    for name, value in story.figures.items():
        _say(f"{name:<32} {value}")
    try:
        for line in story.ledger.table():
            _say(line)
    except StackError as error:
        _say(f"no account: {error}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
