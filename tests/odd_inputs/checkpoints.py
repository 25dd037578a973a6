"""What people name as the generator."""

import json
import shutil
from functools import cache

import numpy as np
from odd_inputs.doing import HERE, planned, put
from odd_inputs.row import accepted, known_to_fail, refused
from safetensors.numpy import save

from raysd.diffusion.checkpoint import EMBEDDED

FIELD = "generation.model"
WEIGHTS = "diffusion_pytorch_model.safetensors"
PICKLE = b"\x80\x04K\x01."


@cache
def tensors(name="weight", shape=(4, 4)):
    """Return a safetensors file with one tensor."""
    return save({name: np.zeros(shape, np.float32)})


def model(files, name="m", **generation):
    """Plan a clone with a model made of these files."""
    return planned(
        files={f"m/{each}": content for each, content in files.items()},
        generation={"model": f"{HERE}/{name}", **generation},
        lint="off",
    )


def changed(change, **generation):
    """Plan a clone with a copy of the embedded model that somebody changed."""

    def do(folder):
        shutil.copytree(EMBEDDED, folder / "m")
        change(folder / "m")
        return planned(generation={"model": f"{HERE}/m", **generation}, lint="off")(folder)

    return do


def edit(name, **changes):
    """Change values of a JSON file; None takes one out."""

    def do(folder):
        values = json.loads((folder / name).read_text()) | changes
        put(folder, {name: json.dumps({key: value for key, value in values.items() if value is not None})})

    return do


def write(name, content):
    return lambda folder: put(folder, {name: content})


def index(kind, **components):
    return {"model_index.json": json.dumps({"_class_name": kind, "_diffusers_version": "0.30.0", **components})}


def lora(content, name="l.safetensors", **more):
    """Plan a clone with LoRA weights of this content."""
    return planned(files={name: content}, generation={"lora": [{"path": f"{HERE}/{name}", **more}]}, lint="off")


SD = {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}


def of_class(name, **generation):
    """Plan a clone with a model whose index names another class."""
    return changed(edit("model_index.json", _class_name=name), **generation)


ROWS = [
    accepted(
        "a copy of the embedded model",
        changed(lambda folder: None, image_size=32),
        lambda plan: plan.clone.spec.image_size == 32,
    ),
    refused(
        "a folder that is empty",
        planned(files={"m/x": None}, generation={"model": f"{HERE}/m"}),
        FIELD,
        "model_index.json",
    ),
    refused(
        "a folder of a language model",
        model({"config.json": '{"model_type": "clip"}', "model.safetensors": tensors()}),
        FIELD,
        "model_index.json",
    ),
    refused(
        "the U-Net alone",
        model({"config.json": '{"_class_name": "UNet2DConditionModel"}', WEIGHTS: tensors()}),
        FIELD,
        "model_index.json",
    ),
    refused(
        "a ControlNet",
        model({"config.json": '{"_class_name": "ControlNetModel"}', WEIGHTS: tensors()}),
        FIELD,
        "model_index.json",
    ),
    refused(
        "LoRA weights in a folder", model({"pytorch_lora_weights.safetensors": tensors()}), FIELD, "generation.lora"
    ),
    refused(
        "LoRA weights in a file",
        model(
            {"l.safetensors": tensors("unet.x.lora_A.weight")},
            name="m/l.safetensors",
        ),
        FIELD,
        "generation.lora",
    ),
    refused("an IP adapter", model({"ip-adapter_sd15.bin": PICKLE}, name="m/ip-adapter_sd15.bin"), FIELD),
    refused("a single file", model({"sd15.safetensors": tensors()}, name="m/sd15.safetensors"), FIELD, "single file"),
    refused("a single file, pickled", model({"sd15.ckpt": PICKLE}, name="m/sd15.ckpt"), FIELD, "single file"),
    refused("weights of GGUF", model({"flux.gguf": b"GGUF"}, name="m/flux.gguf"), FIELD, "single file"),
    refused(
        "a page of the hub",
        planned(generation={"model": "https://huggingface.co/runwayml/stable-diffusion-v1-5"}),
        FIELD,
        "runwayml/stable-diffusion-v1-5",
    ),
    refused("a name without an owner", planned(generation={"model": "stable-diffusion"}), FIELD, "owner/name"),
    refused("a blank at the end of a name", planned(generation={"model": "owner/name "}), FIELD, "owner/name"),
    refused("a name of nothing", planned(generation={"model": ""}), FIELD),
    refused("a home that is nobody's", planned(generation={"model": "~nobody_of_this_name/m"}), FIELD, "~nobody"),
    refused("a name longer than names are", planned(generation={"model": "x" * 300}), FIELD),
    refused("an index that is empty", model({"model_index.json": ""}), FIELD, "model_index.json"),
    refused("an index that is a list", model({"model_index.json": "[]"}), FIELD, "model_index.json"),
    refused("an index that is no text", model({"model_index.json": b"\xff\xfe"}), FIELD, "model_index.json"),
    refused("an index without a class", model({"model_index.json": "{}"}), FIELD),
    refused("an index whose class is a number", model({"model_index.json": '{"_class_name": 3}'}), FIELD),
    refused(
        "a class that diffusers does not have",
        of_class("MyOwnPipeline"),
        FIELD,
        "MyOwnPipeline",
    ),
    refused(
        "a class that starts from an image",
        of_class("StableDiffusionImg2ImgPipeline"),
        FIELD,
        "StableDiffusionImg2ImgPipeline",
    ),
    refused(
        "a class that fills in",
        of_class("StableDiffusionInpaintPipeline"),
        FIELD,
        "StableDiffusionInpaintPipeline",
    ),
    refused(
        "a class for video",
        of_class("CogVideoXPipeline"),
        FIELD,
        "CogVideoXPipeline",
    ),
    refused(
        "a class for sound",
        of_class("AudioLDM2Pipeline"),
        FIELD,
        "AudioLDM2Pipeline",
    ),
    refused(
        "a class for depth",
        of_class("MarigoldDepthPipeline"),
        FIELD,
        "MarigoldDepthPipeline",
    ),
    refused("a class without text", of_class("DDPMPipeline"), FIELD, "DDPMPipeline"),
    refused(
        "a class of one's own, in a file",
        changed(edit("model_index.json", _class_name=["pipeline", "MyPipeline"])),
        FIELD,
    ),
    refused("an index that names folders that are not there", model(index("KolorsPipeline", **SD)), FIELD, "unet"),
    refused(
        "an index whose component is elsewhere",
        model(index("StableDiffusionPipeline", **{"../unet": SD["unet"]})),
        FIELD,
    ),
    refused("no U-Net in the index", changed(edit("model_index.json", unet=None)), FIELD, "unet"),
    refused(
        "no text encoder in the index",
        changed(edit("model_index.json", text_encoder=None, tokenizer=None)),
        FIELD,
        "text_encoder",
    ),
    refused("no VAE in the index", changed(edit("model_index.json", vae=None)), FIELD, "vae"),
    refused("a U-Net of no byte", changed(write(f"unet/{WEIGHTS}", b"")), FIELD, "unet"),
    refused("a U-Net without a tensor", changed(write(f"unet/{WEIGHTS}", save({}))), FIELD, "again"),
    refused("a U-Net whose header has no end", changed(write(f"unet/{WEIGHTS}", b"\xff" * 8 + b"{")), FIELD, "unet"),
    refused(
        "a list of shards, none of which is there",
        changed(
            lambda folder: (
                (folder / "unet" / WEIGHTS).unlink(),
                put(folder, {f"unet/{WEIGHTS}.index.json": '{"weight_map": {"a": "x-00001-of-00002.safetensors"}}'}),
            )
        ),
        FIELD,
        "unet",
        "x-00001-of-00002",
    ),
    refused(
        "a list of shards that is empty",
        changed(
            lambda folder: (
                (folder / "unet" / WEIGHTS).unlink(),
                put(folder, {f"unet/{WEIGHTS}.index.json": '{"weight_map": {}}'}),
            )
        ),
        FIELD,
        "unet",
    ),
    refused("weights of another U-Net", changed(write(f"unet/{WEIGHTS}", tensors())), FIELD, "unet"),
    refused(
        "weights in a form of their own",
        changed(lambda folder: (folder / "unet" / WEIGHTS).rename(folder / "unet" / "diffusion_pytorch_model.msgpack")),
        FIELD,
        "unet",
        "safetensors",
    ),
    refused("a config that is empty", changed(write("unet/config.json", "")), FIELD, "unet"),
    refused("a config that is a list", changed(write("unet/config.json", "[]")), FIELD, "unet"),
    refused(
        "a config without numbers",
        changed(write("unet/config.json", '{"_class_name": "UNet2DConditionModel"}')),
        "generation.image_size",
        "does not say its size",
    ),
    refused(
        "a scheduler that is a text", changed(write("scheduler/scheduler_config.json", '"ddim"')), FIELD, "scheduler"
    ),
    refused(
        "a scheduler that diffusers does not have",
        planned(generation={"scheduler": "MyScheduler"}),
        "generation.scheduler",
        "'MyScheduler'",
    ),
    refused(
        "a class of diffusers that is no scheduler",
        planned(generation={"scheduler": "AutoencoderKL"}),
        "generation.scheduler",
        "'AutoencoderKL'",
    ),
    refused(
        "a name for a sampler as other tools have it",
        planned(generation={"scheduler": "Euler a"}),
        "generation.scheduler",
        "'Euler a'",
    ),
    known_to_fail(
        refused(
            "a revision of a folder", changed(lambda folder: None, revision="main"), "generation.revision", "'main'"
        ),
        "one revision may be set for several models, some of which are folders",
    ),
    refused(
        "LoRA weights that are not there", planned(generation={"lora": [{"path": "l.safetensors"}]}), "lora", "'l.safe"
    ),
    refused("LoRA weights of no byte", lora(b""), "lora", "safetensors"),
    refused("LoRA weights without a tensor", lora(save({})), "lora", "no LoRA weights"),
    refused("LoRA weights that are a whole model", lora(tensors("conv_in.weight")), "lora", "no LoRA weights"),
    refused("LoRA weights, pickled", lora(PICKLE, "l.bin"), "lora", "safetensors"),
    refused("an embedding for a word as LoRA", lora(tensors("emb_params", (1, 32))), "lora", "no LoRA weights"),
    refused(
        "LoRA weights of the hub",
        planned(generation={"lora": [{"path": "latent-consistency/lcm-lora-sdv1-5"}]}),
        "lora",
        "latent-consistency",
        "safetensors",
    ),
    refused("LoRA as a text", planned(generation={"lora": "l.safetensors"}), "generation.lora", "list"),
    refused("a scale of LoRA that is huge", lora(tensors(), scale=1e9), "lora.0.scale", "10"),
]
