"""The wrapper around a denoiser, without a model."""

import pytest
import torch

from raysd.diffusion.guidance import GuidanceInterval
from raysd.errors import UserError


def wrapped(num_calls=2):
    return GuidanceInterval(lambda sample: (sample,), (0.5, 1.0), 3, lambda: num_calls)


def test_outside_the_interval_the_unconditional_half_equals_the_conditional_one():
    rows = torch.arange(6)
    denoiser = wrapped()
    assert denoiser(rows)[0].tolist() == [3, 4, 5, 3, 4, 5]
    assert denoiser(rows)[0].tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("num_rows", [3, 9])
def test_a_call_without_conditional_and_unconditional_halves_is_refused(num_rows):
    with pytest.raises(UserError, match=r"guidance_interval = \[0.5, 1.0\]: this version of diffusers"):
        wrapped()(torch.zeros(num_rows))


def test_more_calls_than_steps_are_refused():
    denoiser = wrapped(num_calls=1)
    denoiser(torch.zeros(6))
    with pytest.raises(UserError, match="once a step"):
        denoiser(torch.zeros(6))
