"""The cost of a model that nobody measured, from its floating-point operations."""

import pytest
import tiny_models
import torch
from plans import plan_of, spec_of
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from raysd.commands.cost import cost_lines
from raysd.config import load_experiment
from raysd.generation.cost import estimate_rates
from raysd.generation.fake_run import count_flops
from raysd.generation.pipeline import Generator
from raysd.resolve import clone_of


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("checkpoints"), {}
    return lambda name: made.get(name) or made.setdefault(name, tiny_models.save_tiny(name, root))


def spec_for(folder, **changes):
    return spec_of(**{"model": str(folder), "dtype": "float32", "num_inference_steps": 2, **changes})


@pytest.mark.parametrize("name", ["sd1", "pixart"])
def test_operations_are_those_of_a_real_step_and_of_decoding(checkpoint, name):
    spec, found = spec_for(checkpoint(name)), {}
    generator = Generator(spec)

    def watch(part, name, method):
        function = getattr(part, method)

        def call(*args, **kwargs):
            with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
                output = function(*args, **kwargs)
            found[name] = counter.get_total_flops()
            return output

        setattr(part, method, call)

    watch(generator.denoiser, "denoiser", "forward")
    watch(generator.pipeline.vae, "vae", "decode")
    generator.generate(spec, [plan_of(1, 1, spec).image(0)])
    assert count_flops(spec) == (found["denoiser"], found["vae"])
    assert all(found.values())


def test_an_estimate_goes_with_the_gpus_speed_and_the_work(checkpoint):
    def seconds(**changes):
        spec = spec_for(checkpoint("sd1"), **changes)
        return {rate.device: rate.seconds_per_image(spec) for rate in estimate_rates(spec)}

    guided, unguided = seconds(num_inference_steps=250), seconds(num_inference_steps=250, guidance_scale=1)
    assert guided["V100"] / guided["A100"] == pytest.approx(312 / 125)
    assert guided["A100"] == pytest.approx(2 * unguided["A100"], rel=0.02)
    assert seconds(num_inference_steps=500)["A100"] == pytest.approx(2 * guided["A100"], rel=0.02)


@pytest.mark.parametrize("broken", [False, True])
def test_plan_names_hours_and_says_that_they_are_an_estimate(checkpoint, tmp_path, monkeypatch, broken):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if broken:  # a pipeline whose code wants the values of its tensors
        monkeypatch.setattr("raysd.generation.fake_run.count_flops", lambda spec: torch.ones(1, device="meta").item())
    words = [f"storage={tmp_path}", f"generation.model={checkpoint('pixart')}"]
    experiment = load_experiment(None, words)
    lines = cost_lines(experiment, [clone_of(experiment)])
    if broken:
        assert lines == ["unknown for this model and these devices; raysd benchmark measures it"]
    else:
        assert all(" of one " in line and line.endswith("(estimated from FLOPs)") for line in lines)
        assert any("one H100" in line for line in lines)


def test_what_is_known_needs_no_estimate(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("raysd.generation.cost.estimate_rates", lambda spec: pytest.fail("estimated"))
    experiment = load_experiment(None, [f"storage={tmp_path}"])
    assert "CPU core" in cost_lines(experiment, [clone_of(experiment)])[0]
