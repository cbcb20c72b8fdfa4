"""Flow-Factory's remote reward protocol: ``server_url: http://HOST:PORT/flow-factory/REWARD``.

Its client has no word for a missing reward, cannot poll and cannot send headers. So: an answer with
a reward missing is an ``error``, which it raises with our words; a batch that takes longer than one
answer is 503, and its retry of the same batch waits on for the same job; the API key may stand in
the URL, ``http://key:API_KEY@HOST``, which it sends as HTTP Basic (RFC 7617).
"""

from __future__ import annotations

import hashlib
from typing import Final

from fastapi import APIRouter, Request
from pydantic import ValidationError

from reward_server.api.intake import (
    Intake,
    check_fields,
    choose_reward,
    json_body,
    parse_json,
    stored_key,
)
from reward_server.api.jobs import view_when_over
from reward_server.api.ops import readyz
from reward_server.api.problems import ApiError, invalid
from reward_server.api.score import accept
from reward_server.api.security import Caller, Requester, Sender, Services
from reward_server.service import Reward, Service
from reward_server.store import jobs
from shared.adapters import TARGETS, no_target
from shared.schema import ImageRef, Job, Json, ScoreItem, ScoreRequest
from shared.schema.flow_factory import ComputeHealth, ComputeRequest, ComputeResult, metadata_of

router: Final = APIRouter(prefix="/flow-factory/{reward}", tags=["flow-factory"])


@router.get("/health", response_model=ComputeHealth)
async def health(reward: str, service: Services, caller: Requester) -> ComputeHealth:
    """Whether this reward can be asked for with this key; the client starts only then."""
    choose_reward(service, reward, None)
    await readyz(service)
    return ComputeHealth()


@router.post("/compute", response_model=ComputeResult, openapi_extra=json_body(ComputeRequest))
async def compute(
    reward: str,
    request: Request,
    service: Services,
    caller: Sender,
) -> ComputeResult:
    """Score a batch; ``error`` if any image has no reward, 503 to ask again if it takes longer."""
    chosen = choose_reward(service, reward, None)
    ask = await parse_json(request, ComputeRequest)
    intake = Intake(_score_request(chosen, ask), {}, request.state.body_bytes)
    check_fields(chosen, intake.request)
    job = await _answered(service, chosen, intake, caller, request)
    return ComputeResult(rewards=job.rewards, error=_error(job), job=job.id)


def _score_request(reward: Reward, ask: ComputeRequest) -> ScoreRequest:
    try:
        targets = _targets(reward, ask)
        pairs = zip(ask.prompt, ask.image, targets, strict=True)
        items = [
            ScoreItem(prompt=prompt, image=ImageRef(b64=image), target=target)
            for prompt, image, target in pairs
        ]
        return ScoreRequest(items=items)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_input=False)) from None
    except ValueError as error:
        raise ApiError(422, str(error)) from None


def _targets(reward: Reward, ask: ComputeRequest) -> list[Json | None]:
    if len(ask.prompt) != len(ask.image):
        raise ValueError(f"{len(ask.prompt)} prompts with {len(ask.image)} images")
    target_of = TARGETS.get(reward.name, no_target)
    return [target_of(*one) for one in zip(ask.prompt, metadata_of(ask), strict=True)]


async def _answered(
    service: Service,
    reward: Reward,
    intake: Intake,
    caller: Caller,
    request: Request,
) -> Job:
    """The batch's job when it is over.

    Raises:
        ApiError: 503, it takes longer; the same batch again waits for the same job.
    """
    # People are known to be asked the same by the request itself.
    key = None if reward.kind == "human" else _key(reward, intake.request)
    job_id, _ = await accept(service, reward, intake, caller, key)
    job = await view_when_over(service, job_id, service.settings.machine_wait_s, request)
    if not job.terminal:
        text = f"job {job_id} is not over yet; the same request again goes on waiting for it"
        raise ApiError(503, text, retry_after=1)
    if key is not None:
        # This was its answer: the same batch from now on is no retry, but the batch anew.
        await service.write(jobs.forget_key, stored_key(caller.name, key), job.id)
    return job


def _key(reward: Reward, request: ScoreRequest) -> str:
    digest = hashlib.sha256(request.model_dump_json().encode()).hexdigest()
    return f"flow-factory:{reward.name}:{digest}"


def _error(job: Job) -> str | None:
    missing = [item for item in job.data if item.reward is None]
    if not missing:
        return None
    causes = dict.fromkeys(item.error.message for item in missing if item.error is not None)
    which = ", ".join(str(item.index) for item in missing[:5])
    return f"{len(missing)} of {len(job.data)} images have no reward ({which}): " + "; ".join(
        list(causes)[:3]
    )
