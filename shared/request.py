"""From prompts and images to a score request: the few lines every caller would write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shared.images import Pixels, encode_png, to_b64
from shared.schema import ImageRef, Json, ScoreItem, ScoreRequest


def build_request(
    reward: str,
    prompts: Sequence[str],
    images: Sequence[Pixels | bytes],
    *,
    targets: Sequence[Json | None] | None = None,
    ids: Sequence[str] | None = None,
    **fields: Any,
) -> ScoreRequest:
    """Put prompts and images together into a score request.

    Args:
        reward: name of the reward, as listed by ``info()``.
        prompts: one per image.
        images: RGB uint8 arrays (H, W, 3), or the bytes of PNG, JPEG or WebP files.
        targets: what each image is compared with, for rewards that need it.
        ids: your own names for the items, returned with the results.
        **fields: the other fields of ``ScoreRequest`` (run_id, group_id, step, votes, ...).

    Raises:
        ValueError: the sequences differ in length, or a field is not acceptable.
    """
    n = len(images)
    if not len(prompts) == n == len(targets or images) == len(ids or images):
        raise ValueError(
            f"{n} images with {len(prompts)} prompts, "
            f"{len(targets) if targets else 'no'} targets, {len(ids) if ids else 'no'} ids"
        )
    files = [image if isinstance(image, bytes) else encode_png(image) for image in images]
    items = [
        ScoreItem(
            id=ids[i] if ids else None,
            prompt=prompts[i],
            image=ImageRef(b64=to_b64(files[i])),
            target=targets[i] if targets else None,
        )
        for i in range(n)
    ]
    return ScoreRequest(reward=reward, items=items, **fields)
