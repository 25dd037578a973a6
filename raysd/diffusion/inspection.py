"""Whether a checkpoint and LoRA weights can be loaded, as far as their files say: configs, and headers of weights.

No weight is read, so this takes milliseconds, and what is missing or torn is named before a job starts.
"""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from raysd.diffusion.checkpoint import SHIPPED, Lora, Model
from raysd.errors import UserError

FIELD = "generation.model"
CONVERT = "convert it with save_pretrained(safe_serialization=True)"
LFS = b"version https://git-lfs"
MODELS = ("unet", "transformer", "vae", "text_encoder", "image_encoder", "safety_checker")  # begin names of components
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model")
WITHOUT_VOCABULARY = "ByT5"  # its tokens are bytes
WEIGHTS = ("diffusion_pytorch_model", "model")
LORA_INPUT = re.compile(r"[._](lora_A|lora_down|lora\.down|lora_linear_layer\.down)(\.[^.]+)?\.weight$")
"""Ends the name of the first matrix of a layer's LoRA weights, in each form that diffusers reads."""
UNET_FIRST = "conv_in.weight"
LORA_WORDS = ("lora", "lokr_", "hada_")

Header = dict[str, Any]
FLOW = ("transformer", "vae", "scheduler")
NEEDED = {
    "StableDiffusionPipeline": ("unet", "vae", "text_encoder", "tokenizer", "scheduler"),
    "LatentConsistencyModelPipeline": ("unet", "vae", "text_encoder", "tokenizer", "scheduler"),
    "StableDiffusionXLPipeline": ("unet", "vae", "scheduler"),
    **dict.fromkeys(("StableDiffusion3Pipeline", "FluxPipeline", "PixArtAlphaPipeline", "PixArtSigmaPipeline"), FLOW),
    **dict.fromkeys(("SanaPipeline", "SanaSprintPipeline"), FLOW),
}
"""Components without which a pipeline cannot be called; diffusers leaves out those that the index does not name."""


class CheckpointError(UserError):
    """A checkpoint, or LoRA weights, that no node can load: the files are at fault, and not the node."""


def check_checkpoint(name: str, folder: Path, safety_checker: bool = True, variant: str | None = None) -> None:
    """Check that a checkpoint has the files that its `model_index.json` names, and that they are whole.

    Args:
        name: of the model, for errors.
        folder: of the model on this machine.
        safety_checker: whether its safety checker will be loaded, if it has one.
        variant: of the weights that will be loaded, as `fp16`; components without it are loaded without.

    Raises:
        UserError: what is missing, torn, or in a form that is not loaded.
    """
    if name not in SHIPPED and (problem := _checkpoint_problem(folder, safety_checker, variant)) is not None:
        raise UserError(FIELD, name, problem)


def _checkpoint_problem(folder: Path, safety_checker: bool, variant: str | None) -> str | None:
    index = _read_json(folder / "model_index.json")
    if index is None:
        return "its model_index.json cannot be read; copy or download it again"
    if lacking := [part for part in NEEDED.get(str(index.get("_class_name")), ()) if not _is_named(index.get(part))]:
        return f"its model_index.json names no {lacking[0]}; copy or download it again"
    for name, entry in index.items():
        if not _is_named(entry) or (name == "safety_checker" and not safety_checker):
            continue
        if (problem := _component_problem(folder / name, name, str(entry[1]), variant)) is not None:
            hint = ", or set generation.safety_checker=false" if name == "safety_checker" else ""
            return f"its {name} {problem}{hint}"
    return None


def _is_named(entry: object) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and None not in entry


def _component_problem(folder: Path, name: str, kind: str, variant: str | None) -> str | None:
    if not folder.is_dir():
        return "is missing; copy or download the folder again, whole"
    if "Tokenizer" in kind:
        if kind.startswith(WITHOUT_VOCABULARY):
            return None
        there = any(path.is_file() for pattern in VOCABULARIES for path in folder.glob(pattern))
        return None if there else f"has no vocabulary ({', '.join(VOCABULARIES)}); copy or download it again"
    if name == "scheduler":
        return _config_problem(folder / "scheduler_config.json")
    if not name.startswith(MODELS):
        return None
    return _config_problem(folder / "config.json") or _weights_problem(folder, variant) or _first_layer_problem(folder)


def _first_layer_problem(folder: Path) -> str | None:
    """Return that a U-Net's weights are of another model, if its first layer is not among them."""
    config = _read_json(folder / "config.json") or {}
    if config.get("_class_name") != "UNet2DConditionModel":
        return None
    there = any(UNET_FIRST in (read_header(file) or {}) for file in _weight_files(folder))
    return None if there else f"has weights of another model: there is no {UNET_FIRST}; copy or download them again"


def _config_problem(file: Path) -> str | None:
    if not file.is_file():
        return f"has no {file.name}; copy or download it again"
    return None if _read_json(file) is not None else f"has a {file.name} that is no JSON; copy or download it again"


def _weights_problem(folder: Path, variant: str | None) -> str | None:
    """Return what is wrong with a component's weights. Only those in safetensors, and of this variant, are loaded."""
    for end in [*([f".{variant}"] if variant else []), ""]:
        for name in WEIGHTS:
            if (file := folder / f"{name}{end}.safetensors").is_file():
                return _named(file_problem(file))
            if (listing := folder / f"{name}.safetensors.index{end}.json").is_file():
                return _shards_problem(folder, listing)
    variants = sorted({path.name.split(".")[1] for path in folder.glob("*.*.safetensors")})
    if variants:
        return f"has weights of the variant {variants[0]} alone; save it without a variant: save_pretrained(folder)"
    if any(folder.glob("*.bin")) or any(folder.glob("*.ckpt")):
        return f"has no safetensors weights, and pickled ones are not loaded; {CONVERT}"
    return f"has no safetensors weights; copy or download them, or {CONVERT}"


def _shards_problem(folder: Path, listing: Path) -> str | None:
    index = _read_json(listing)
    if index is None or not isinstance(index.get("weight_map"), dict):
        return f"has a {listing.name} that cannot be read; copy or download it again"
    for name in sorted(set(index["weight_map"].values())):
        if not (folder / name).is_file():
            return f"lacks {name}; copy or download it again"
        if (problem := _named(file_problem(folder / name))) is not None:
            return problem
    return None


def _named(problem: str | None) -> str | None:
    return None if problem is None else f"cannot be loaded: {problem}"


def file_problem(file: Path) -> str | None:
    """Return what is wrong with a safetensors file, as a clause; None where it is whole."""
    with file.open("rb") as stream:
        if stream.read(len(LFS)) == LFS:
            return f"{file.name} is a pointer of Git LFS; run git lfs pull"
    header = read_header(file)
    if header is None:
        return f"{file.name} is no safetensors file; copy or download it again"
    with file.open("rb") as stream:
        begin = 8 + int.from_bytes(stream.read(8), "little")
    wanted, size = begin + max((each["data_offsets"][1] for each in header.values()), default=0), file.stat().st_size
    if size == wanted:
        return None
    return f"{file.name} is torn: it has {size:,} bytes, and its header says {wanted:,}; copy or download it again"


def read_header(file: Path) -> Header | None:
    """Return the tensors of a safetensors file by name, with their shapes; None where it cannot be read."""
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if not 0 < size <= file.stat().st_size:
                return None
            header = json.loads(stream.read(size))
        return {name: each for name, each in header.items() if name != "__metadata__" and each["data_offsets"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def check_lora(lora: Lora, model: Model, denoiser: str) -> None:
    """Check that a file holds whole LoRA weights and, where its names say which layers they are for, that the model has
    these layers in this size.

    Args:
        lora: the weights.
        name: of the model, for errors.
        folder: of the model on this machine.
        denoiser: the folder of the model's denoiser.

    Raises:
        UserError: they cannot be used.
    """
    if (problem := _lora_problem(lora, None if model.is_dummy else model.folder / denoiser)) is not None:
        raise UserError(lora.field, lora.name, problem)


@cache
def _lora_problem(lora: Lora, denoiser: Path | None) -> str | None:
    file = lora.file
    if (problem := file_problem(file)) is not None:
        return problem.removeprefix(f"{file.name} ")
    header = read_header(file) or {}
    if not any(word in name for name in header for word in LORA_WORDS):
        return "holds no LoRA weights; name a file that does"
    if denoiser is None:
        return None
    sizes = {name: shape for each in _weight_files(denoiser) for name, shape in _shapes(each)}
    for name, shape in _shapes(file):
        if not name.startswith(f"{denoiser.name}.") or not (end := LORA_INPUT.search(name)):
            continue
        layer = name[: end.start()].removeprefix(f"{denoiser.name}.")
        if (found := sizes.get(f"{layer}.weight")) is not None and shape[1:2] != found[1:2]:
            return f"is for a model of another size: {layer} takes {shape[1]} values there, and {found[1]} in the model"
    return None


def _weight_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.safetensors") if path.name.startswith(WEIGHTS))


def _shapes(file: Path) -> Iterator[tuple[str, list[int]]]:
    """Yield the names and shapes of the tensors that have at least two dimensions."""
    for name, each in (read_header(file) or {}).items():
        if len(each["shape"]) > 1:
            yield name, each["shape"]


def _read_json(path: Path) -> dict[str, Any] | None:
    """Return a JSON object; None where there is none that can be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
