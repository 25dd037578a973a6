"""Which files of a model are fetched and loaded, and what its digest covers."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hub_server import COMMIT
from plans import spec_of
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from tiny_models import save_tiny

from raysd.clone.clone import spec_as_begun
from raysd.diffusion.checkpoint import find_model, find_on_hub, find_pipeline, pipeline_mark, plan_model
from raysd.diffusion.earlier_digest import earlier_model
from raysd.diffusion.pipeline_files import choose_variant, list_files, pipeline_digest, weight_files
from raysd.errors import UserError
from raysd.formats import byte_size
from raysd.storage.fingerprint import folder_digest
from raysd.storage.hub import FILES, fetch_model
from raysd.storage.location import Location

UNET, VAE, TEXT = (
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny("sd1", tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def folder(tiny, tmp_path):
    """A copy of a tiny Stable Diffusion 1."""
    return shutil.copytree(tiny, tmp_path / "folder")


def as_fp16(file):
    """Write the fp16 variant of a file beside it."""
    half = {name: value.astype(np.float16) for name, value in load_file(file).items()}
    path = file.with_name(file.name.replace(".safetensors", ".fp16.safetensors"))
    save_file(half, path)
    return path


@pytest.fixture
def repository(folder):
    """What else a repository of Stable Diffusion 1.5 holds."""
    for name in (UNET, VAE, TEXT):
        as_fp16(folder / name)
        (folder / name).with_suffix(".bin").write_bytes(b"pickle")
    shutil.copy(folder / UNET, folder / "unet" / "diffusion_pytorch_model.non_ema.safetensors")
    for name in ("v1-5-pruned.safetensors", "LICENSE.txt", "README.md", "pipeline.py", "unet/code.py"):
        (folder / name).write_text(name)
    for name in ("unet_onnx/config.json", "unet_onnx/model.safetensors", "safety_checker/model.safetensors"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    return folder


@pytest.mark.parametrize(("dtype", "variant"), [("float32", None), ("float16", "fp16"), ("bfloat16", None)])
def test_of_a_hub_model_the_weights_that_diffusers_takes_are_fetched_and_no_others(
    hub, repository, tmp_path, dtype, variant
):
    from diffusers import DiffusionPipeline

    hub.repositories["owner/name"] = repository
    model = find_model("owner/name", dtype=dtype)
    fetched, _ = list(hub.fetched), hub.fetched.clear()
    assert model.variant == variant and model.commit == COMMIT and len(set(fetched)) == len(fetched)
    assert {name for name in fetched if not name.endswith((".json", ".txt"))} == {
        name.replace(".safetensors", f".{variant}.safetensors" if variant else ".safetensors")
        for name in (UNET, VAE, TEXT)
    }
    assert not {"LICENSE.txt", "unet_onnx/config.json"} & set(fetched)
    DiffusionPipeline.download("owner/name", variant=variant, use_safetensors=True, cache_dir=tmp_path / "theirs")
    theirs = {name for name in hub.fetched if not name.endswith((".py", ".json", ".txt"))}
    ours = {name for name in fetched if name.endswith(".safetensors")}
    not_loaded = {"safety_checker/model.safetensors", "unet_onnx/model.safetensors"}  # the index has no such components
    assert ours == theirs - not_loaded
    assert DiffusionPipeline.from_pretrained(
        model.folder, variant=variant, use_safetensors=True, local_files_only=True, safety_checker=None
    )


def test_a_plan_knows_the_model_s_configs_and_the_download_and_fetches_no_weights(hub, repository, run_here):
    hub.repositories["owner/name"] = repository
    words = ["plan", "generation.model=owner/name", "generation.dtype=float16", "generation.images_per_class=2"]
    shown = run_here(*words)
    assert shown.returncode == 0, shown.stderr
    assert hub.fetched and not [name for name in hub.fetched if name.endswith(".safetensors")]
    size = sum((repository / name).with_suffix(".fp16.safetensors").stat().st_size for name in (UNET, VAE, TEXT))
    assert f"owner/name, {byte_size(size)} to be downloaded, float16" in shown.stdout
    assert "its fingerprint is known after the download" in shown.stdout and "clones/unknown" not in shown.stdout
    model = plan_model("owner/name", dtype="float16")
    assert model.digest == "" and model.missing_bytes == size and find_pipeline(model) is None
    whole = find_model("owner/name", dtype="float16")
    assert plan_model("owner/name", dtype="float16") == whole and whole.missing_bytes == 0
    assert find_pipeline(whole) == whole.folder and pipeline_mark(whole, True) == whole.digest
    assert whole.digest in run_here(*words).stdout


def test_what_was_fetched_is_found_again_without_network_and_a_part_of_it_is_not_taken_for_all(
    hub, repository, monkeypatch
):
    hub.repositories["owner/name"] = repository
    model = find_model("owner/name", dtype="float16")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    find_on_hub.cache_clear()
    find_model.cache_clear()
    assert find_model("owner/name", dtype="float16") == model
    with pytest.raises(UserError, match="not whole in this machine's cache, and HF_HUB_OFFLINE is set"):
        find_model("owner/name", dtype="float32")


def test_a_folder_that_all_nodes_see_is_used_on_each_and_another_cache_is_filled(
    hub, repository, tmp_path, monkeypatch
):
    hub.repositories["owner/name"] = repository
    model = find_model("owner/name", dtype="float16")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache of another node"))
    hub.asked.clear()
    assert model.find_here() == find_pipeline(model) == model.folder and hub.asked == []
    (model.folder / VAE.replace("model.", "model.fp16.")).unlink()
    find_on_hub.cache_clear()
    assert find_pipeline(model) is None
    there = model.find_here()
    assert there != model.folder and model.is_whole_in(there) and find_pipeline(model) == there


def test_shards_that_are_missing_are_seen_also_where_the_cache_lists_no_files(tiny, tmp_path):
    index = json.loads((tiny / "model_index.json").read_text())
    names = [name for name in list_files(tiny) if not name.startswith("unet/diff")]
    shards = [f"unet/diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    assert weight_files(index, [*names, *shards], None)["unet"] == shards
    folder = shutil.copytree(tiny, tmp_path / "cut")
    (folder / UNET).rename(folder / shards[0])
    with pytest.raises(UserError, match="has no safetensors weights, or not all, of unet"):
        find_model(str(folder))


def test_a_folder_s_plain_weights_are_taken_and_a_variant_only_where_there_are_none(folder):
    for name in (UNET, VAE, TEXT):
        as_fp16(folder / name)
    assert find_model(str(folder), dtype="float16").variant is None
    (folder / UNET).unlink()
    assert find_model(str(folder), dtype="float32").variant == "fp16"
    index = json.loads((folder / "model_index.json").read_text())
    (folder / VAE.replace("model.", "model.fp16.")).unlink()
    names = list_files(folder)
    assert choose_variant(index, names) == "fp16"  # of the VAE the plain weights, as diffusers does
    assert weight_files(index, names, "fp16")["vae"] == [VAE]
    (folder / VAE).unlink()
    with pytest.raises(UserError, match="of vae"):
        find_model(str(folder))


@pytest.mark.parametrize(
    "name",
    [
        "LICENSE.txt",
        "README.md",
        "v1-5-pruned.safetensors",
        "unet/model.bin",
        "unet_onnx/config.json",
        "tokenizer/code.py",
    ],
)
def test_a_file_that_is_not_loaded_changes_no_digest(folder, name):
    before = pipeline_digest(folder, None)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("more")
    assert pipeline_digest(folder, None) == before


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("unet/config.json", "act_fn", "gelu"),
        ("scheduler/scheduler_config.json", "beta_end", 0.5),
        ("tokenizer/tokenizer_config.json", "model_max_length", 5),
        ("model_index.json", "force_zeros_for_empty_prompt", True),
    ],
)
def test_a_config_that_shapes_images_changes_the_digest_and_one_that_says_where_it_comes_from_does_not(
    folder, name, key, value
):
    before = pipeline_digest(folder, None)
    config = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({"_name_or_path": "x", "_diffusers_version": "0", **config}))
    assert pipeline_digest(folder, None) == before
    (folder / name).write_text(json.dumps(config | {key: value}))
    assert pipeline_digest(folder, None) != before


def test_each_byte_of_the_weights_and_of_the_vocabulary_counts(folder):
    digests = {pipeline_digest(folder, None)}
    for path in (folder / UNET, next((folder / "tokenizer").glob("tokenizer.json"))):
        data = bytearray(path.read_bytes())
        data[-3] ^= 1
        path.write_bytes(data)
        digests.add(pipeline_digest(folder, None))
    tensors = load_file(folder / UNET)
    first, second = list(tensors)[:2]
    tensors[first], tensors[second] = tensors[second], tensors[first]
    save_file(tensors, folder / UNET)
    digests.add(pipeline_digest(folder, None))
    save_file({name: value.astype(np.float64) for name, value in tensors.items()}, folder / UNET)
    digests.add(pipeline_digest(folder, None))
    assert len(digests) == 5


def test_a_pipeline_that_is_saved_again_in_shards_and_from_its_variant_has_the_same_digest(folder, tmp_path):
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.save_pretrained(tmp_path / "again", max_shard_size="100KB")
    assert len(list((tmp_path / "again" / "unet").glob("*.safetensors"))) > 1
    assert find_model(str(tmp_path / "again")).digest == find_model(str(folder)).digest
    pipeline.save_pretrained(tmp_path / "variant", variant="fp16")
    variant = find_model(str(tmp_path / "variant"))
    assert variant.variant == "fp16" and variant.digest == find_model(str(folder)).digest


def test_broken_weights_are_said_in_one_line(folder):
    data = (folder / UNET).read_bytes()
    for content in (data[:-1], data[:5], b"<!DOCTYPE html>" * 9):
        (folder / UNET).write_bytes(content)
        with pytest.raises(UserError, match=r"cannot be read .*; repair or fetch it again") as raised:
            find_model(str(folder))
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        ("model.diffusion_model.input_blocks.0.0.weight", "StableDiffusionPipeline"),
        ("conditioner.embedders.0.transformer.weight", "StableDiffusionXLPipeline"),
        ("model.diffusion_model.joint_blocks.0.weight", "StableDiffusion3Pipeline"),
        ("double_blocks.0.img_attn.proj.weight", "FluxPipeline"),
    ],
)
def test_a_single_file_gets_the_command_that_converts_it(tmp_path, tensor, kind):
    import diffusers

    file = tmp_path / "community.safetensors"
    save_file({tensor: np.zeros(1)}, file)
    with safe_open(file, "np"), pytest.raises(UserError) as raised:
        find_model(str(file))
    text = str(raised.value)
    assert f"from diffusers import {kind}; {kind}.from_single_file('{file}').save_pretrained(" in text
    assert hasattr(getattr(diffusers, kind), "from_single_file") and "\n" not in text
    file.write_bytes(b"<html>" * 9)
    with pytest.raises(UserError, match="is no safetensors file"):
        find_model(str(file))


def spec_of_folder(name, **changes):
    return spec_of(model=str(name), num_inference_steps=1, **changes)


def test_a_variant_is_what_the_pipeline_holds(folder, tmp_path):
    from raysd.generation.pipeline import Generator

    plain = Generator(spec_of_folder(folder, dtype="float16")).pipeline
    for name in (UNET, VAE, TEXT):
        as_fp16(folder / name)
        (folder / name).unlink()
    find_model.cache_clear()
    spec = spec_of_folder(folder, dtype="float16")
    variant = Generator(spec).pipeline
    assert spec.model.variant == "fp16"
    for part in ("unet", "vae", "text_encoder"):
        theirs = getattr(plain, part).state_dict()
        assert all((value == theirs[name]).all() for name, value in getattr(variant, part).state_dict().items())


def as_begun(root, spec):
    """Write the record of a clone that was begun."""
    place = root / "clones" / spec.fingerprint
    place.mkdir(parents=True)
    (place / "clone.json").write_text(json.dumps({"fingerprint": spec.fingerprint}))


def test_a_clone_that_was_begun_with_the_digest_of_version_0_1_0_is_found_and_another_one_is_not(folder, tmp_path):
    root = Location(str(tmp_path / "runs"))
    spec = spec_of_folder(folder)
    assert spec_as_begun(root, spec) is spec
    old = replace(spec, model=replace(spec.model, digest=folder_digest(folder, FILES)))
    assert old.fingerprint != spec.fingerprint
    as_begun(tmp_path / "runs", replace(old, seed=1))
    assert spec_as_begun(root, spec) == spec
    as_begun(tmp_path / "runs", old)
    assert spec_as_begun(root, spec) == old
    as_begun(tmp_path / "runs", spec)
    assert spec_as_begun(root, spec) == spec


@pytest.mark.parametrize("is_here", [True, False])
def test_the_earlier_digest_of_a_hub_model_is_known_without_its_weights_and_its_clone_gets_the_plain_ones(
    hub, repository, tmp_path, monkeypatch, is_here
):
    hub.repositories["owner/name"] = repository
    root = Location(str(tmp_path / "runs"))
    spec = spec_of_folder("owner/name", dtype="float16")
    assert spec.model.variant == "fp16"
    if is_here:
        fetch_model("generation.model", "owner/name", COMMIT)  # all that version 0.1.0 fetched
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    as_begun(tmp_path / "runs", replace(spec, model=replace(spec.model, digest=folder_digest(repository, FILES))))
    hub.fetched.clear()
    begun = spec_as_begun(root, spec)
    assert begun.model.digest == folder_digest(repository, FILES) and begun.model.variant is None
    assert not [name for name in hub.fetched if name.endswith(".safetensors")]
    assert (begun.model.missing_bytes == 0) == is_here
    begun.model.find_here()
    fetched = [name for name in hub.fetched if name.endswith(".safetensors")]
    assert sorted(fetched) == ([] if is_here else sorted([UNET, VAE, TEXT]))


def test_a_model_that_ships_keeps_its_digest():
    assert find_model("embedded").digest == "d963fad4ecdfa13e" and earlier_model(find_model("embedded")) is None
