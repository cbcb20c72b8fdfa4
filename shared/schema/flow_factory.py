"""Wire types of Flow-Factory's remote reward protocol, as its client sends and reads them.

Facts from X-GenGroup/Flow-Factory, ``rewards/my_reward_remote.py`` (2026): the client posts
``{server_url}/compute`` and wants one float per image; a non-empty ``error`` makes it raise at
once, any other failure is tried again without a pause; it starts only if ``{server_url}/health``
answers.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, JsonValue

from shared.schema import MAX_ITEMS, Json, Wire


class ComputeRequest(Wire):
    """A batch of prompts, and the base64 of one PNG each.

    Of ``kwargs`` only ``metadata`` is looked at: one object per prompt, for GenEval's clauses.
    Videos and condition images are refused: no reward here looks at them.
    """

    prompt: Annotated[list[str], Field(min_length=1, max_length=MAX_ITEMS)]
    image: Annotated[list[str], Field(min_length=1, max_length=MAX_ITEMS)]
    video: None = None
    condition_images: None = None
    condition_videos: None = None
    kwargs: dict[str, JsonValue] | None = None


class ComputeResult(Wire):
    """One reward per image, null where there is none; then ``error`` says why."""

    rewards: list[float | None]
    error: str | None = None
    job: str


class ComputeHealth(Wire):
    """Answer of ``/health``: the client only wants it to be a 200."""

    status: str = "ok"


def metadata_of(request: ComputeRequest) -> list[Json]:
    """One object per prompt, empty without ``kwargs.metadata``.

    Raises:
        ValueError: it is no list of as many objects as there are prompts.
    """
    given = (request.kwargs or {}).get("metadata")
    if given is None:
        return [{} for _ in request.prompt]
    rows = given if isinstance(given, list) else []
    objects = [one for one in rows if isinstance(one, dict)]
    if not len(request.prompt) == len(objects) == len(rows):
        raise ValueError(f"kwargs.metadata: send a list of {len(request.prompt)} objects")
    return objects
