"""Convolutions whose kernel is larger than what it sees, in bfloat16 on a CPU."""

import copy

import pytest
import torch
from torch import nn

from raysd.classifier.model import SmallConv2d, compute_small_in_float32


def dtype_of(conv, *size):
    model = nn.Sequential(conv)
    compute_small_in_float32(model)
    with torch.autocast("cpu", torch.bfloat16):
        return model(torch.ones(2, conv.in_channels, *size)).dtype


@pytest.mark.parametrize(
    ("options", "size", "is_exact"),
    [
        ({"padding": 1}, (1, 1), True),
        ({"padding": 1}, (4, 1), True),
        ({"padding": 1, "stride": 2}, (2, 2), True),  # its one place never gets to the first tap
        ({"padding": 1}, (2, 2), False),
        ({"padding": 1, "stride": 2}, (4, 4), False),
        ({"padding": 2, "dilation": 2}, (2, 2), True),
        ({"padding": "same"}, (1, 1), True),
        ({"padding": "same"}, (3, 3), False),
        ({"padding": "same", "dilation": 2}, (2, 2), True),
        ({"padding": "valid"}, (3, 3), False),
    ],
)
def test_taps_that_see_only_padding_make_a_convolution_compute_in_float32(options, size, is_exact):
    assert dtype_of(nn.Conv2d(3, 4, 3, **options), *size) == (torch.float32 if is_exact else torch.bfloat16)


def test_weights_names_and_copies_stay():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1))
    names, images = list(model.state_dict()), torch.randn(2, 3, 1, 1)
    before = model(images)
    compute_small_in_float32(model)
    assert list(model.state_dict()) == names and type(model[0]) is SmallConv2d and type(model[1]) is nn.Conv2d
    assert torch.equal(model(images), before) and torch.equal(copy.deepcopy(model)(images), before)
