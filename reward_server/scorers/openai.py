"""Asks any OpenAI-compatible vision endpoint, e.g. vLLM with a UnifiedReward-style judge.

The judge is shown the image and a text, and its answer is searched for a score. Whoever runs the
server chooses endpoint, model, text and pattern, by environment variables (see ``Judge``); requests
choose nothing, so that no stranger can point the server at an address or a costly pattern. Not in
the default registry: ``--scorer judge=reward_server.scorers.openai:OpenAIScorer``.
"""

from __future__ import annotations

import random
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Final, Self

import httpx
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from reward_server.domain.outcomes import Failed, Outcome, Scored
from reward_server.scorers import ScorerItem, UnknownScorer
from shared.exchange import is_loopback
from shared.images import encode_png, to_b64

PREFIX: Final = "REWARD_OPENAI_"
TEMPLATE: Final = (
    "You are shown an image that was generated for this prompt:\n\n{prompt}\n\n"
    "Judge how well the image shows what the prompt asks for, from 0 (not at all) to 10 "
    "(perfectly). End your answer with a line of the form: Score: NUMBER"
)
AT_ONCE: Final = 32
"""Requests in flight: a whole batch, which an inference engine batches better than we could."""
FIRST_PAUSE_S: Final = 0.5
SHOWN: Final = 200
"""Characters of an answer that are kept in ``detail`` or named in an error."""


class Judge(BaseSettings):
    """``REWARD_OPENAI_URL`` (up to and including ``/v1``), ``_MODEL``, ``_API_KEY``, and so on.

    ``template`` holds ``{prompt}``; the last match of ``pattern`` gives the score in its first
    group, which ``low`` and ``high`` map to rewards of 0 and 1. ``budget_s`` bounds all tries for
    one image, in seconds, and stays below the lease of a batch.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    url: str
    model: str
    api_key: SecretStr | None = None
    template: str = TEMPLATE
    pattern: str = r"[Ss]core:\s*\**\s*(-?\d+(?:\.\d+)?)"
    low: float = 0.0
    high: float = 10.0
    max_tokens: int = Field(default=512, ge=1)
    budget_s: float = Field(default=60.0, gt=0, le=100)

    @field_validator("pattern")
    @classmethod
    def _one_group(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        if groups != 1:
            raise ValueError(f"{pattern!r} needs exactly one group: the score")
        return pattern

    @model_validator(mode="after")
    def _low_is_lower(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}")
        return self


def _judge() -> Judge:
    try:
        return Judge()
    except ValidationError as error:
        wrong = [
            f"{PREFIX}{''.join(str(part) for part in one['loc']).upper()}: {one['msg']}"
            for one in error.errors(include_input=False)
        ]
        text = f"the openai scorer is set up by environment variables: {'; '.join(wrong)}"
        raise UnknownScorer(text) from None


class Nothing(BaseModel):
    """No fields: the judge sees prompt and image only."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OpenAIScorer:
    """One chat completion per image, a batch at a time."""

    judge: ClassVar[Judge] = _judge()
    name: ClassVar[str] = "openai"
    model: ClassVar[str] = f"openai/{judge.model}"
    target = Nothing
    options = Nothing

    def __init__(self) -> None:
        key = self.judge.api_key
        headers = {} if key is None else {"Authorization": f"Bearer {key.get_secret_value()}"}
        url = self.judge.url
        self._http = httpx.Client(base_url=url, headers=headers, trust_env=not is_loopback(url))
        self._threads = ThreadPoolExecutor(AT_ONCE)

    def score(self, batch: list[ScorerItem[Nothing, Nothing]]) -> list[Outcome]:
        """One outcome per item; ``detail`` has the score as given and the end of the answer."""
        return list(self._threads.map(self._score, batch))

    def _score(self, item: ScorerItem[Nothing, Nothing]) -> Outcome:
        try:
            text = self._ask(item)
        except (httpx.HTTPError, LookupError, TypeError, ValueError) as error:
            return Failed(f"{self.judge.url}: {type(error).__name__}: {error}")
        return reward_of(text, self.judge)

    def _ask(self, item: ScorerItem[Nothing, Nothing]) -> str:
        image = f"data:image/png;base64,{to_b64(encode_png(item.image))}"
        content = [
            {"type": "text", "text": self.judge.template.replace("{prompt}", item.prompt)},
            {"type": "image_url", "image_url": {"url": image}},
        ]
        body = {
            "model": self.judge.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0.0,
            "max_tokens": self.judge.max_tokens,
        }
        return str(self._post(body)["choices"][0]["message"]["content"])

    def _post(self, body: dict[str, Any]) -> Any:
        until = time.monotonic() + self.judge.budget_s
        pause = FIRST_PAUSE_S
        while True:
            left = max(until - time.monotonic(), 0.1)
            try:
                answer = self._http.post("chat/completions", json=body, timeout=left)
                return answer.raise_for_status().json()
            except (httpx.HTTPStatusError, httpx.TransportError) as error:
                if not _worth_a_retry(error) or time.monotonic() + pause >= until:
                    raise
            time.sleep(random.uniform(0.5, 1.0) * pause)
            pause *= 2


def _worth_a_retry(error: httpx.HTTPError) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in (408, 429) or error.response.status_code >= 500
    return not isinstance(error, httpx.UnsupportedProtocol)


def reward_of(text: str, judge: Judge) -> Outcome:
    """The reward in a judge's answer: its last score, mapped to [0, 1]; Failed without one."""
    found = re.findall(judge.pattern, text)
    if not found:
        return Failed(f"no score like {judge.pattern!r} in the answer {text[-SHOWN:]!r}")
    score = float(found[-1])
    if not judge.low <= score <= judge.high:
        return Failed(f"score {score:g} is not between {judge.low:g} and {judge.high:g}")
    reward = (score - judge.low) / (judge.high - judge.low)
    return Scored(reward, {"score": score, "answer": text[-SHOWN:]})
