"""Checkpoints and LoRA weights that cannot be loaded: each is named in one line before a job starts."""

import json
import shutil

import pytest
import tiny_models
import torch
from plans import plan_of, spec_of
from safetensors.torch import load_file, save_file

from raysd.diffusion.inspection import check_checkpoint
from raysd.errors import UserError
from raysd.generation.pipeline import Generator


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Checkpoints that are whole, by family."""
    root, made = tmp_path_factory.mktemp("whole"), {}

    def get(name):
        made[name] = made.get(name) or tiny_models.save_tiny(name, root)
        return made[name]

    return get


def spec_with(folder, **changes):
    return spec_of(model=str(folder), dtype="float32", num_inference_steps=2, **changes)


def tear(file):
    file.write_bytes(file.read_bytes()[:-100])


def point(file):
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 123\n")


def add_safety_checker(folder):
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (folder / "model_index.json").write_text(json.dumps(index))


UNET, TEXT = "unet/diffusion_pytorch_model", "text_encoder/model"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: (folder / f"{TEXT}.safetensors").rename(folder / "text_encoder" / "pytorch_model.bin"),
            "its text_encoder has no safetensors weights, and pickled ones are not loaded; convert it with save_pretr",
        ),
        (lambda folder: (folder / f"{TEXT}.safetensors").unlink(), "its text_encoder has no safetensors weights; copy"),
        (
            lambda folder: tear(folder / f"{UNET}.safetensors"),
            "its unet cannot be loaded: .* is torn: it has .* bytes",
        ),
        (
            lambda folder: point(folder / f"{UNET}.safetensors"),
            "its unet .* is a pointer of Git LFS; run git lfs pull",
        ),
        (lambda folder: (folder / f"{UNET}.safetensors").write_bytes(b"x" * 99), "its unet .* is no safetensors file"),
        (lambda folder: shutil.rmtree(folder / "tokenizer"), "its tokenizer is missing; copy or download"),
        (lambda folder: (folder / "tokenizer" / "tokenizer.json").unlink(), "its tokenizer has no vocabulary"),
        (lambda folder: (folder / "vae" / "config.json").unlink(), r"its vae has no config\.json; copy or download"),
        (
            lambda folder: (folder / "vae" / "config.json").write_text("{"),
            r"its vae has a config\.json that is no JSON",
        ),
        (lambda folder: shutil.rmtree(folder / "scheduler"), "its scheduler is missing"),
        (add_safety_checker, "its safety_checker is missing; .*, or set generation.safety_checker=false"),
    ],
)
def test_a_checkpoint_that_cannot_be_loaded_is_refused_with_what_is_wrong(whole, tmp_path, damage, message):
    folder = shutil.copytree(whole("sd1"), tmp_path / "broken")
    damage(folder)
    with pytest.raises(UserError, match=f"^generation.model = .*: {message}") as refused:
        spec_with(folder)
    assert "\n" not in str(refused.value)


def test_a_checkpoint_without_its_safety_checker_is_loaded_without_it(whole, tmp_path):
    folder = shutil.copytree(whole("sd1"), tmp_path / "unchecked")
    add_safety_checker(folder)
    Generator(spec_with(folder, safety_checker=False))


def test_weights_in_several_files_are_all_looked_at(whole, tmp_path):
    folder = shutil.copytree(whole("sd1"), tmp_path / "shards")
    unet = folder / "unet"
    tensors = load_file(unet / "diffusion_pytorch_model.safetensors")
    names = sorted(tensors)
    first, second = (f"diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2))
    parts = {first: names[:10], second: names[10:]}
    for name, part in parts.items():
        save_file({key: tensors[key] for key in part}, unet / name)
    listing = {"metadata": {}, "weight_map": {key: name for name, part in parts.items() for key in part}}
    (unet / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(listing))
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    spec_with(folder)
    broken = shutil.copytree(folder, tmp_path / "torn")
    tear(broken / "unet" / second)
    with pytest.raises(UserError, match=r"its unet .*-00002-of-00002\.safetensors is torn"):
        spec_with(broken)
    less = shutil.copytree(folder, tmp_path / "less")
    (less / "unet" / first).unlink()
    with pytest.raises(UserError, match=r"its unet lacks .*-00001-of-00002\.safetensors"):
        spec_with(less)


@pytest.fixture(scope="module")
def lora(whole, tmp_path_factory):
    """LoRA weights for the tiny Stable Diffusion, as diffusers saves them."""
    peft = pytest.importorskip("peft")
    from diffusers import StableDiffusionPipeline
    from peft.utils import get_peft_model_state_dict

    folder = tmp_path_factory.mktemp("lora")
    pipeline = StableDiffusionPipeline.from_pretrained(whole("sd1"), safety_checker=None)
    torch.manual_seed(1)
    pipeline.unet.add_adapter(peft.LoraConfig(r=4, target_modules=["to_q", "to_v"], init_lora_weights=False))
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=get_peft_model_state_dict(pipeline.unet))
    return load_file(folder / "pytorch_lora_weights.safetensors")


def write(tmp_path, tensors):
    file = tmp_path / "style.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    return [{"path": str(file)}]


def images_of(spec):
    return Generator(spec).generate(spec, [plan_of(1, 2, spec).image(0)]).pixels


def kohya(name):
    layer, end = name.removeprefix("unet.").split(".lora_")
    side = {"A": "lora_down", "B": "lora_up"}[end[0]]
    return f"lora_unet_{layer.replace('.', '_')}.{side}.weight"


@pytest.mark.parametrize("rename", [kohya, lambda name: name.removeprefix("unet.")], ids=["kohya", "bare"])
def test_lora_weights_with_other_names_are_converted(whole, lora, tmp_path, rename):
    plain = images_of(spec_with(whole("sd1")))
    wanted = images_of(spec_with(whole("sd1"), lora=write(tmp_path, lora)))
    (tmp_path / "other").mkdir()
    renamed = {rename(name): tensor for name, tensor in lora.items()}
    found = images_of(spec_with(whole("sd1"), lora=write(tmp_path / "other", renamed)))
    assert (found == wanted).all() and (found != plain).any()


@pytest.mark.parametrize("prefix", ["transformer", "diffusion_model", "base_model.model", "nonsense"])
def test_lora_weights_for_no_layer_of_the_model_are_refused(whole, lora, tmp_path, prefix):
    renamed = {name.replace("unet", prefix, 1): tensor for name, tensor in lora.items()}
    spec = spec_with(whole("sd1"), lora=write(tmp_path, renamed))
    begin = prefix.split(".")[0]
    with pytest.raises(
        UserError, match=rf"^generation.lora.path = .*: .*{begin}.*; use weights for this model"
    ) as raised:
        Generator(spec)
    assert "\n" not in str(raised.value)


def test_lora_weights_for_a_part_of_the_layers_that_they_hold_are_refused(whole, lora, tmp_path):
    more = {**lora, **{name.replace("attn1", "attn7"): tensor.clone() for name, tensor in lora.items()}}
    spec = spec_with(whole("sd1"), lora=write(tmp_path, more))
    with pytest.raises(UserError, match=r"the model has only \d+ of the \d+ layers that it holds; use weights for"):
        Generator(spec)


def test_lora_weights_of_another_size_are_refused_before_the_model_is_loaded_where_their_names_say_the_layer(
    whole, lora, tmp_path, capfd
):
    larger = {name: torch.cat([tensor, tensor], dim=int("lora_A" in name)) for name, tensor in lora.items()}
    with pytest.raises(UserError, match=r"is for a model of another size: .* takes 64 values there, and"):
        spec_with(whole("sd1"), lora=write(tmp_path, larger))
    renamed = {kohya(name): tensor for name, tensor in larger.items()}
    (tmp_path / "kohya").mkdir()
    spec = spec_with(whole("sd1"), lora=write(tmp_path / "kohya", renamed))
    capfd.readouterr()
    with pytest.raises(UserError, match=r"lora.path = .*: is for a model of another size") as raised:
        Generator(spec)
    assert "\n" not in str(raised.value) and len("".join(capfd.readouterr()).splitlines()) < 3


def test_a_file_that_holds_no_lora_weights_is_refused(whole, tmp_path):
    with pytest.raises(UserError, match="holds no LoRA weights"):
        spec_with(whole("sd1"), lora=write(tmp_path, {"unet.conv_in.weight": torch.zeros(2, 2)}))
    (tmp_path / "style.safetensors").write_bytes(b"weights")
    with pytest.raises(UserError, match=r"style\.safetensors': is no safetensors file; copy or download"):
        spec_with(whole("sd1"), lora=[{"path": str(tmp_path / "style.safetensors"), "scale": 0.5}])


def test_a_variant_is_whole_where_it_is_what_will_be_loaded(whole, tmp_path):
    folder = shutil.copytree(whole("sd1"), tmp_path / "half")
    (folder / f"{UNET}.safetensors").rename(folder / f"{UNET}.fp16.safetensors")
    assert spec_with(folder).model.variant == "fp16"
    check_checkpoint("half", folder, variant="fp16")
    with pytest.raises(UserError, match="of the variant fp16 alone"):
        check_checkpoint("half", folder, variant="bf16")
