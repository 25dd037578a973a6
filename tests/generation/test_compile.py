"""One compiled denoiser for all clones of a pipeline."""

from functools import partial

import numpy as np
import pytest
import tiny_models
import torch
from plans import plan_of, spec_of

from raysd.diffusion import family
from raysd.errors import UserError
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
    config = torch._dynamo.config
    limits = {name: getattr(config, name) for name in ("recompile_limit", "accumulated_recompile_limit")}
    with config.patch(**limits):  # a generator raises them
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
    guiders = [{"guidance_range": (1, 5)}, {"cads": {"scale": 1.0}}]
    for change in [*changes, {"guidance_scale": 1}, *guiders]:
        pixels = generated(compiled, spec_for(checkpoint, compile=True, **change))
        assert np.array_equal(pixels, generated(plain, spec_for(checkpoint, **change))), change
    assert graphs == [[(4, 4, 8, 8)], [(2, 4, 8, 8)]]


@pytest.mark.slow
def test_a_weak_model_is_compiled_too(checkpoint, graphs):
    change = {"weak_model": str(checkpoint)}
    pixels = generated(
        Generator(spec_for(checkpoint, compile=True, **change)), spec_for(checkpoint, compile=True, **change)
    )
    assert np.array_equal(pixels, generated(Generator(spec_for(checkpoint, **change)), spec_for(checkpoint, **change)))
    assert [(2, 4, 8, 8)] in graphs and all(shapes == [(2, 4, 8, 8)] for shapes in graphs)


@pytest.mark.soak
def test_each_of_many_image_sizes_has_a_graph_of_its_own(checkpoint, graphs):
    generator, sizes = Generator(spec_for(checkpoint, compile=True)), range(16, 96, 8)
    for size in sizes:
        generated(generator, spec_for(checkpoint, compile=True, image_size=size))
    assert graphs == [[(4, 4, size // 2, size // 2)] for size in sizes]


@pytest.mark.slow
def test_blocks_of_one_kind_share_a_graph_and_other_clones_find_it(checkpoint, graphs):
    compiled, plain = Generator(spec_for(checkpoint, compile="regional")), Generator(spec_for(checkpoint))
    blocks = [
        block for block in compiled.denoiser.modules() if type(block).__name__ in family.REGIONS["UNet2DConditionModel"]
    ]
    pixels = generated(compiled, spec_for(checkpoint, compile="regional"))
    assert np.array_equal(pixels, generated(plain, spec_for(checkpoint)))
    count = len(graphs)
    assert 0 < count < len(blocks)
    generated(compiled, spec_for(checkpoint, compile="regional", num_inference_steps=3, guidance_scale=5))
    assert len(graphs) == count
    pixels = generated(compiled, spec_for(checkpoint, compile="regional", guidance_interval=(0.0, 0.5)))
    assert np.array_equal(pixels, generated(plain, spec_for(checkpoint, guidance_interval=(0.0, 0.5))))
    assert len(graphs) == 2 * count, "those of unguided steps"


@pytest.mark.soak
@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux", "pixart", "sana"])
def test_the_blocks_of_each_known_family_are_found(tmp_path, graphs, name):
    folder, changes = tiny_models.save_tiny(name, tmp_path), {"image_size": 32}
    compiled = Generator(spec_for(folder, compile="regional", **changes))
    assert np.array_equal(
        generated(compiled, spec_for(folder, compile="regional", **changes)),
        generated(Generator(spec_for(folder, **changes)), spec_for(folder, **changes)),
    )
    assert graphs


def test_a_model_whose_blocks_are_not_known_is_refused_and_other_clones_keep_their_fingerprints(tmp_path, monkeypatch):
    plain, whole, regional = (spec_of(compile=how) for how in (False, True, "regional"))
    assert len({spec.fingerprint for spec in (plain, whole, regional)}) == 3
    assert len({spec.pipeline_key for spec in (plain, whole, regional)}) == 3
    assert (plain.identity()["compile"], whole.identity()["compile"]) == (False, True)
    monkeypatch.setattr(family, "REGIONS", {})
    folder = tiny_models.save_tiny("sd1", tmp_path)
    with pytest.raises(UserError, match="not known to have repeated blocks; set it to true"):
        spec_for(folder, compile="regional")
