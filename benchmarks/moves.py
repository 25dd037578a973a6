"""What a move of the latents along a gradient costs, in guided steps: python benchmarks/moves.py

- Of large models: floating-point operations of decoding and of its gradient, over those of both passes of the denoiser,
  counted on models without weights; and of a pass of the denoiser with its gradient, which `through_denoiser` adds.
- Of the embedded generator: CPU seconds, guided by the entropy of the demo's classifier, on one core.
"""

import tempfile
import time
from dataclasses import replace

import record
import torch
from diffusers import AutoencoderDC, AutoencoderKL, SanaTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from raysd.classifier.architecture import Architecture
from raysd.classifier.model import build_classifier, save_classifier
from raysd.clone.plan import ImageCounts, Plan
from raysd.config import load_experiment
from raysd.generation.pipeline import Generator
from raysd.resolve import clone_spec_of
from raysd.storage.location import Location

COMMAND = "python benchmarks/moves.py"
ARCHITECTURE = Architecture("resnet18", {"layers": [1, 1, 1, 1], "channels": [16, 32, 64, 128]}, 10, 32, 2)
NUM_IMAGES, NUM_STEPS, REPEATS = 32, 5, 3
BLOCKS = {"DC": ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3, "widths": (128, 256, 512, 512, 1024, 1024)}


def zeros(*shape):
    return torch.zeros(*shape, device="meta")


def usual_decoder(channels):
    sides = {
        f"{way}_block_types": (f"{name}Block2D",) * 4 for way, name in (("down", "DownEncoder"), ("up", "UpDecoder"))
    }
    return AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=channels, **sides)


def models():
    """Name, denoiser, decoder, shape of the latents, and the denoiser's other arguments, of each family."""
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    prompt = {"timestep": torch.tensor(1), "encoder_hidden_states": zeros(1, 77, 768)}
    yield "sd1", unet, usual_decoder(4), (4, 64), prompt
    unet = UNet2DConditionModel(
        sample_size=128,
        cross_attention_dim=2048,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, 2, 10],
        attention_head_dim=[5, 10, 20],
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    added = {"text_embeds": zeros(1, 1280), "time_ids": zeros(1, 6)}
    prompt = {"timestep": torch.tensor(1), "encoder_hidden_states": zeros(1, 77, 2048), "added_cond_kwargs": added}
    yield "sdxl", unet, usual_decoder(4), (4, 128), prompt
    transformer = SD3Transformer2DModel(
        sample_size=128,
        num_layers=24,
        num_attention_heads=24,
        caption_projection_dim=1536,
        joint_attention_dim=4096,
        pooled_projection_dim=2048,
        pos_embed_max_size=192,
    )
    prompt = {"timestep": zeros(1), "encoder_hidden_states": zeros(1, 333, 4096), "pooled_projections": zeros(1, 2048)}
    yield "sd3", transformer, usual_decoder(16), (16, 128), prompt
    ends = {
        f"{part}_{name}": value
        for part, layers in (("encoder", (2, 2, 2, 3, 3, 3)), ("decoder", (3,) * 6))
        for name, value in (
            ("block_types", BLOCKS["DC"]),
            ("block_out_channels", BLOCKS["widths"]),
            ("layers_per_block", layers),
            ("qkv_multiscales", ((), (), (), (5,), (5,), (5,))),
        )
    }
    prompt = {"timestep": zeros(1), "encoder_hidden_states": zeros(1, 300, 2304)}
    yield "sana", SanaTransformer2DModel(sample_size=32), AutoencoderDC(latent_channels=32, **ends), (32, 32), prompt


def count(call):
    """Floating-point operations of a call, and what it returned."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        found = call()
    return counter.get_total_flops(), found


def count_both(call, latents):
    """Operations of a call, and of its gradient."""
    forward, found = count(lambda: call(latents))
    return forward, count(lambda: torch.autograd.grad(found.sum(), latents))[0]


def count_operations():
    with torch.device("meta"):
        for name, denoiser, decoder, (channels, side), prompt in models():
            for model in (denoiser, decoder):
                model.requires_grad_(False)
            latents = zeros(1, channels, side, side).requires_grad_()
            passes = count_both(lambda given, model=denoiser, more=prompt: model(given, **more)[0], latents)
            decoded = count_both(lambda given, model=decoder: model.decode(given, return_dict=False)[0], latents)
            about = f"both passes of the denoiser: {2 * passes[0]:.3g} operations"
            for what, done in (("", decoded), ("_through", passes)):
                yield metric(f"move_{name}{what}", sum(done) / (2 * passes[0]), about)


def measure_embedded():
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        save_classifier(Location(folder), build_classifier(ARCHITECTURE), ARCHITECTURE, {})

        def spec_of(through):
            guidance = {"classifier": folder, "every": 1, "through_denoiser": through}
            return clone_spec_of(
                load_experiment({"generation": {"num_inference_steps": NUM_STEPS, "entropy_guidance": guidance}})
            )

        generator = Generator(spec_of(False))

        def seconds(spec):
            plan, found = Plan(spec, ImageCounts(len(spec.table), NUM_IMAGES), NUM_IMAGES), []
            for _ in range(REPEATS + 1):
                began = time.process_time()
                generator.generate(spec, [plan.image(position) for position in range(NUM_IMAGES)])
                found.append(time.process_time() - began)
            return min(found[1:])

        plain = replace(spec_of(False), entropy_guide=None)
        base = seconds(plain)
        step = (seconds(replace(plain, num_inference_steps=2 * NUM_STEPS)) - base) / NUM_STEPS
        moves = [(seconds(spec_of(through)) - base) / (NUM_STEPS - 1) / step for through in (False, True)]
    about = f"a guided step takes {1000 * step / NUM_IMAGES:.2g} ms of an image"
    return [metric("move_embedded", moves[0], about), metric("move_embedded_through", moves[1] - moves[0], about)]


def metric(name, value, about):
    return record.metric(name, value, "guided steps", "lower", COMMAND, about, [value])


if __name__ == "__main__":
    record.write("moves", [*count_operations(), *measure_embedded()])
