"""Stand-ins at real seams: a random-weight SD3 folder, and a reward that is a function.

The folder is made of the stock classes with the stock layout, small enough to build in a second.
"""

from __future__ import annotations

import json
import string
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import diffusers
import httpx
import torch
from pydantic import BaseModel
from transformers import (
    ByT5Tokenizer,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
)

from shared.client import RewardClient
from shared.images import Pixels, decode, from_b64
from shared.schema import (
    Counts,
    ItemError,
    ItemErrorCode,
    ItemResult,
    ItemStatus,
    Job,
    JobStatus,
    ScoreItem,
    ScoreRequest,
    WaitRequest,
    WaitResult,
)
from shared.schema.ops import Info, Limits, RewardInfo, Traffic

Score = Callable[[str, Pixels], float | None]
UNTYPED: Any = diffusers  # the library carries no types
CLIP_WIDTH = 16
TEXT_LENGTH = 24


def char_tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIPTokenizer whose tokens are single characters."""
    characters = string.ascii_lowercase + string.digits + "'\",.-!?"
    words = list(characters) + [c + "</w>" for c in characters]
    vocab = {w: i for i, w in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=TEXT_LENGTH
    )


def _clip(vocab: int, projection: int) -> CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=vocab,
        hidden_size=CLIP_WIDTH,
        intermediate_size=32,
        projection_dim=projection,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TEXT_LENGTH,
        bos_token_id=vocab - 2,
        eos_token_id=vocab - 1,
        pad_token_id=vocab - 1,
    )
    return CLIPTextModelWithProjection(config)


def build_sd3_folder(folder: Path, *, t5: bool = False, seed: int = 0) -> Path:
    """Writes a random-weight SD3 folder: 32 px images, 4 x 8 x 8 latents, 2 layers."""
    torch.manual_seed(seed)
    tokenizer = char_tokenizer(folder.parent / f"{folder.name}-vocabulary")
    joint = 40 if t5 else 2 * CLIP_WIDTH
    transformer = UNTYPED.SD3Transformer2DModel(
        sample_size=8,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=joint,
        caption_projection_dim=16,
        pooled_projection_dim=2 * CLIP_WIDTH,
        pos_embed_max_size=8,
    )
    with (
        torch.no_grad()
    ):  # the stock initialisation of the output is zero: give it something to say
        torch.nn.init.normal_(transformer.proj_out.weight, std=0.3)
    vae = UNTYPED.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
        scaling_factor=1.3,
        shift_factor=0.2,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    t5_encoder = _t5(joint) if t5 else None
    pipeline = UNTYPED.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=UNTYPED.FlowMatchEulerDiscreteScheduler(shift=2.0),
        vae=vae,
        text_encoder=_clip(len(tokenizer), CLIP_WIDTH),
        tokenizer=tokenizer,
        text_encoder_2=_clip(len(tokenizer), CLIP_WIDTH),
        tokenizer_2=tokenizer,
        text_encoder_3=t5_encoder,
        tokenizer_3=ByT5Tokenizer() if t5 else None,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline.save_pretrained(str(folder))
    return folder


def _t5(width: int) -> T5EncoderModel:
    config = T5Config(
        vocab_size=384, d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2, use_cache=False
    )
    return T5EncoderModel(config)


class Hurry:
    """A clock on which pauses take a hundredth of their time, so that budgets run out soon."""

    def __init__(self) -> None:
        self._skipped = 0.0

    def clock(self) -> float:
        """Seconds, as a client counts them."""
        return time.monotonic() + self._skipped

    def sleep(self, seconds: float) -> None:
        """Counts all of a pause and takes a little of it."""
        time.sleep(seconds / 100)
        self._skipped += seconds


class FunctionServer:
    """A reward server that is a function of a prompt and an image: `score(prompt, pixels)`.

    Speaks the wire types through real HTTP messages at the seam of httpx: use `client()`. None is
    an image that could not be scored. Groups named in `held` stay unanswered until released; `down`
    refuses connections, `refusals` so many of them; `forget()` loses every job, as a server
    restored from an old backup would. `others` are further rewards with functions of their own.
    """

    def __init__(
        self,
        score: Score,
        rewards: Sequence[str] = ("brightness",),
        others: Mapping[str, Score] = MappingProxyType({}),
    ) -> None:
        self.score = score
        self.rewards = [*rewards, *others]
        self.others = others
        self.requests: list[ScoreRequest] = []
        self.acked: list[str] = []
        self.held: set[str] = set()
        self.down = False
        self.refusals = 0
        self._jobs: dict[str, tuple[ScoreRequest, Job]] = {}
        self._by_key: dict[str, str] = {}
        self._lock = threading.Lock()

    def client(self, budget_s: float = 30.0) -> RewardClient:
        """A real client whose transport ends here."""
        hurry = Hurry()
        return RewardClient(
            transport=httpx.MockTransport(self._handle),
            budget_s=budget_s,
            clock=hurry.clock,
            sleep=hurry.sleep,
        )

    def forget(self) -> None:
        """Loses all jobs."""
        with self._lock:
            self._jobs.clear()
            self._by_key.clear()

    def _handle(self, request: httpx.Request) -> httpx.Response:
        if self.down or self.refusals > 0:
            self.refusals -= 1
            raise httpx.ConnectError("nothing listens here", request=request)
        path = request.url.path
        with self._lock:
            if path == "/info":
                return _answer(self._info())
            if path == "/score":
                return _answer(self._accept(request))
            if path.endswith("/ack"):
                self.acked.append(path.split("/")[2])
                return _answer(self._jobs[self.acked[-1]][1])
            if path != "/jobs/wait":
                raise AssertionError(f"unexpected request: {request.method} {path}")
            result = self._wait(WaitRequest.model_validate_json(request.content))
        if not result.jobs and not result.unknown:
            time.sleep(0.01)  # the real server holds the request
        return _answer(result)

    def _accept(self, http: httpx.Request) -> Job:
        request = ScoreRequest.model_validate_json(http.content)
        key = http.headers["Idempotency-Key"]
        if key not in self._by_key:
            self._by_key[key] = f"job_{len(self._by_key)}_{len(self.requests)}"
            self.requests.append(request)
        job = self._job(self._by_key[key], request)
        self._jobs[job.id] = (request, job)
        return job

    def _wait(self, ask: WaitRequest) -> WaitResult:
        known = [i for i in ask.ids if i in self._jobs]
        jobs = [self._job(i, self._jobs[i][0]) for i in known]
        return WaitResult(
            jobs=[j for j in jobs if j.terminal],
            pending=[j.id for j in jobs if not j.terminal],
            unknown=[i for i in ask.ids if i not in self._jobs],
        )

    def _job(self, job_id: str, request: ScoreRequest) -> Job:
        waiting = request.group_id in self.held
        rewards = [None if waiting else self._reward(request, item) for item in request.items]
        valid = [r is not None for r in rewards]
        human = request.reward == "human"
        missing: ItemStatus = "pending" if waiting else "incomplete" if human else "error"
        code: ItemErrorCode = "too_few_votes" if human else "scorer_failed"
        error = None if waiting else ItemError(code=code, message="the function gave none")
        data = [
            ItemResult(index=i, status=missing, error=error)
            if reward is None
            else ItemResult(index=i, status="ok", reward=reward)
            for i, reward in enumerate(rewards)
        ]
        done: JobStatus = "succeeded" if all(valid) else "partial" if any(valid) else "failed"
        lost = len(valid) - sum(valid)
        return Job(
            id=job_id,
            reward=request.reward or "",
            status="running" if waiting else done,
            rev=1,
            run_id=request.run_id,
            group_id=request.group_id,
            rewards=rewards,
            valid=valid,
            data=data,
            counts=Counts(
                ok=sum(valid), pending=lost if waiting else 0, error=0 if waiting else lost
            ),
            model="function/1",
            created_at=0.0,
        )

    def _reward(self, request: ScoreRequest, item: ScoreItem) -> float | None:
        score = self.others.get(request.reward or "", self.score)
        return score(item.prompt, decode(from_b64(item.image.b64 or "")))

    def _info(self) -> Info:
        infos = [
            RewardInfo(name=n, kind="human" if n == "human" else "machine", model="function/1")
            for n in self.rewards
        ]
        limits = Limits(
            max_items=256,
            max_body_bytes=1 << 26,
            max_side_px=4096,
            max_pixels=1 << 24,
            max_wait_s=60.0,
            max_pending_machine=10_000,
            max_pending_human=10_000,
            settle_s=5.0,
            results_kept_s=1e6,
        )
        return Info(
            api_version="1",
            server_version="test",
            rewards=infos,
            limits=limits,
            traffic=Traffic(),
            pending={},
            uptime_s=0.0,
        )


def brightness(prompt: str, pixels: Pixels) -> float | None:
    """A reward any image has: its mean brightness."""
    return float(pixels.mean()) / 255


def _answer(body: BaseModel) -> httpx.Response:
    return httpx.Response(200, json=body.model_dump(mode="json"))
