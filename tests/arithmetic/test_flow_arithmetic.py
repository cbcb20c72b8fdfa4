"""Flow matching: conventions, grids and re-noising mean what the paper means."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trainer.arithmetic.flow import (
    interpolate,
    mixed_noise,
    renoise,
    renoise_scales,
    time_grid,
    velocity_to_noise,
    velocity_to_x0,
)

times = st.floats(0.01, 0.99)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_the_students_grid_is_the_shifted_one() -> None:
    assert time_grid(4, 2.0) == pytest.approx((1.0, 6 / 7, 2 / 3, 0.4, 0.0))
    assert time_grid(4, 1.0) == pytest.approx((1.0, 0.75, 0.5, 0.25, 0.0))
    assert time_grid(4, 3.0) == pytest.approx((1.0, 0.9, 0.75, 0.5, 0.0))


@pytest.mark.parametrize(("steps", "shift"), [(0, 2.0), (4, 0.0)])
def test_an_impossible_grid_is_refused(steps: int, shift: float) -> None:
    with pytest.raises(ValueError, match="steps >= 1 and shift > 0"):
        time_grid(steps, shift)


@given(times)
def test_velocity_gives_back_data_and_noise(time: float) -> None:
    x0, eps, t = normal(3, 2, 4), normal(3, 2, 4, seed=1), torch.full((3,), time).double()
    x_t = interpolate(x0, eps, t)
    torch.testing.assert_close(velocity_to_x0(x_t, eps - x0, t), x0)
    torch.testing.assert_close(velocity_to_noise(x_t, eps - x0, t), eps)


@given(times, st.floats(0.0, 1.0))
def test_renoising_equals_mixing_at_the_endpoints(s_: float, share: float) -> None:
    x0, eps, e = (normal(5, 3, seed=i) for i in range(3))
    s = torch.full((5,), s_).double()
    t = s + share * (1 - s) * 0.999
    x_s = interpolate(x0, eps, s)
    mixed = interpolate(x0, mixed_noise(eps, e, s, t), t)
    torch.testing.assert_close(renoise(x_s, e, s, t), mixed)


@given(times, times)
def test_renoising_twice_has_the_variance_of_renoising_once(a: float, b: float) -> None:
    s, u, t = (torch.tensor([v]).double() for v in sorted((a / 2, a, a + (1 - a) * b)))
    a1, b1 = renoise_scales(s, u)
    a2, b2 = renoise_scales(u, t)
    a3, b3 = renoise_scales(s, t)
    torch.testing.assert_close(a2 * a1, a3)
    torch.testing.assert_close((a2 * b1) ** 2 + b2**2, b3**2)


def test_from_clean_data_renoising_is_the_forward_process() -> None:
    zero, t = torch.zeros(4).double(), torch.linspace(0.1, 0.9, 4).double()
    x0, e = normal(4, 2), normal(4, 2, seed=1)
    torch.testing.assert_close(renoise(x0, e, zero, t), interpolate(x0, e, t))
    torch.testing.assert_close(mixed_noise(x0, e, zero, t), e)
