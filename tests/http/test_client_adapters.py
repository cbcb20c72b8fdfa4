"""Promise: one line makes the server another trainer's reward function; a missing reward is None,
NaN or an error, as that trainer can take it, and never a number.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from shared.adapters import RewardMissing, as_pixels, flow_grpo_reward, trl_reward
from tests.support.server_setup import Server, sign

PROMPTS = ['A sign that says "KBQ"', 'A sign that says "KBX"', 'A sign that says "   "']
REWARDS = [1.0, 1.0 - 1 / 3, None]
CIRCLE = {"tag": "counting", "include": [{"class": "circle", "count": 1}], "prompt": "a circle"}


def signs() -> list[np.ndarray]:
    return [sign("KBQ")] * 3


def test_trl_gets_none_for_what_is_missing(reward_server: Server) -> None:
    with reward_server.client() as client:
        reward = trl_reward(client, "ocr", run_id="trl")
        assert reward.__name__ == "ocr"
        assert reward(prompts=PROMPTS, completions=signs(), trainer_state=None) == REWARDS
        chats = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
        pictures = [Image.fromarray(one) for one in signs()]
        assert reward(prompts=chats, completions=["", "", ""], images=pictures) == REWARDS
        assert client.run_stats("trl").items == 6


def test_trl_passes_geneval_metadata_on(reward_server: Server) -> None:
    blank = np.full((64, 64, 3), 245, np.uint8)
    with reward_server.client() as client:
        reward = trl_reward(client, "counting", options={"mode": "strict"})
        assert reward(prompts=["a circle"], images=[blank], metadata=[CIRCLE]) == [0.0]
        with pytest.raises(ValueError, match="no 'include'"):
            reward(prompts=["a circle"], images=[blank])


def test_flow_grpo_gets_a_reward_for_every_image_or_an_error(reward_server: Server) -> None:
    batch = torch.from_numpy(np.stack(signs())).permute(0, 3, 1, 2).float() / 255
    with reward_server.client() as client:
        reward = flow_grpo_reward(client, "ocr")
        rewards, facts = reward(batch[:2], PROMPTS[:2], [{}, {}])
        assert rewards == REWARDS[:2] and client.job(facts["jobs"][0]).rewards == rewards
        with pytest.raises(RewardMissing, match=r"1 images have no reward \(target.text is empty"):
            reward(batch, PROMPTS, [{}, {}, {}])
        rewards, _ = flow_grpo_reward(client, "ocr", on_missing="nan")(batch, PROMPTS)
    assert rewards[:2] == REWARDS[:2] and math.isnan(rewards[2])


def test_a_batch_beyond_one_request_is_split(reward_server: Server) -> None:
    blank = np.full((300, 64, 64, 3), 245, np.uint8)
    with reward_server.client() as client:
        reward = flow_grpo_reward(client, "counting", options={"mode": "strict"})
        rewards, facts = reward(blank, ["a circle"] * 300, [CIRCLE] * 300)
    assert rewards == [0.0] * 300 and len(facts["jobs"]) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_every_usual_kind_of_image_becomes_the_same_pixels(dtype: torch.dtype) -> None:
    pixels = np.random.default_rng(0).integers(0, 2, (5, 7, 3), dtype=np.uint8) * 255
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    kinds = [pixels, tensor, (tensor / 255).to(dtype), pixels / 255.0, Image.fromarray(pixels)]
    for one in as_pixels(kinds):
        assert one.dtype == np.uint8 and np.array_equal(one, pixels)


def test_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match=r"shape \(4, 8, 8\)"):
        as_pixels([np.zeros((4, 8, 8))])
