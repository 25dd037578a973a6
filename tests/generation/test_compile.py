"""One compiled denoiser for all clones of a pipeline."""

from functools import partial

import numpy as np
import pytest
import tiny_models
import torch
from plans import plan_of, spec_of

from raysd.generation.pipeline import Generator


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_models.save_tiny("sd1", tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture
def graphs(monkeypatch):
    """The shape of the samples of each graph that was traced. A graph runs as it is: making code of it would take
    most of a minute."""
    found = []

    def keep(graph, inputs):
        found.append(
            [
                tuple(tensor.shape)
                for tensor in filter(torch.is_tensor, inputs)
                if tensor.ndim == 4 and not isinstance(tensor, torch.nn.Parameter)
            ]
        )
        return graph

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=keep))
    with torch._dynamo.config.patch(recompile_limit=torch._dynamo.config.recompile_limit):  # a generator raises it
        yield found
    torch._dynamo.reset()


def generated(generator, spec):
    plan = plan_of(10, 16, spec)
    return generator.generate(spec, [plan.image(position) for position in range(2)]).pixels


def spec_for(checkpoint, **changes):
    return spec_of(model=str(checkpoint), dtype="float32", **{"image_size": 16, "num_inference_steps": 2, **changes})


@pytest.mark.slow
def test_a_graph_for_guided_steps_and_one_for_the_others_serve_all_clones(checkpoint, graphs):
    compiled, plain = Generator(spec_for(checkpoint, compile=True)), Generator(spec_for(checkpoint))
    changes = [
        {"num_inference_steps": steps, "guidance_interval": (0.0, end)} for steps in (2, 3) for end in (0.5, 0.7)
    ]
    for change in [*changes, {"guidance_scale": 1}]:
        pixels = generated(compiled, spec_for(checkpoint, compile=True, **change))
        assert np.array_equal(pixels, generated(plain, spec_for(checkpoint, **change))), change
    assert graphs == [[(4, 4, 8, 8)], [(2, 4, 8, 8)]]


@pytest.mark.soak
def test_each_of_many_image_sizes_has_a_graph_of_its_own(checkpoint, graphs):
    generator, sizes = Generator(spec_for(checkpoint, compile=True)), range(16, 96, 8)
    for size in sizes:
        generated(generator, spec_for(checkpoint, compile=True, image_size=size))
    assert graphs == [[(4, 4, size // 2, size // 2)] for size in sizes]
