"""The files of a pipeline in diffusers format: which of a folder or a repository it loads, and a digest of them.

diffusers loads the components that `model_index.json` names, each from the folder of its name. A folder may hold the
weights more than once: plain, and in variants as `model.fp16.safetensors`. What else lies beside them is not loaded:
single files at the root, weights without averaging, formats of other programs, licenses.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import Any

from raysd.storage.fingerprint import DIGEST_BYTES, tensor_digests

INDEX = "model_index.json"
SMALL = (".json", ".txt", ".model", ".jinja")
WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|pytorch_model|model)"
    r"(?:\.(?P<variant>\w+))?(?P<shard>-\d{5}-of-(?P<shards>\d{5}))?(?:\.(?P<old_variant>\w+))?\.safetensors"
)
WEIGHTLESS = re.compile("Tokenizer|Scheduler|Processor|Extractor")  # in a component's class
VARIANTS = {"float16": "fp16", "bfloat16": "bf16"}
# Entries of configs that say where a model comes from and which version wrote it, and how weights lay on disk.
PROVENANCE = {
    "_name_or_path",
    "name_or_path",
    "_commit_hash",
    "_diffusers_version",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "special_tokens_map_file",
    "tokenizer_file",
}
MOST_THREADS = 8


def read_index(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's `model_index.json`.

    Raises:
        ValueError: it is no JSON object.
    """
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    if not isinstance(index, dict):
        raise ValueError(f"{INDEX} holds no JSON object")
    return index


def list_files(folder: Path) -> list[str]:
    """Return the paths below a folder that can be files of a pipeline."""
    paths = [path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_file()]
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def small_files(index: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Return the configs and tokenizer files, by which a pipeline is known before its weights are here."""
    components = _components(index, names)
    return [INDEX, *(name for files in components.values() for name in files if name.endswith(SMALL))]


def choose_variant(index: Mapping[str, Any], names: Iterable[str], dtype: str | None = None) -> str | None:
    """Return the variant of the weights that a pipeline loads; None for the plain ones.

    Args:
        index: the content of `model_index.json`.
        names: all files.
        dtype: the precision to load; its own variant is then preferred, which is half as large. Without it the plain
            weights are, and a variant is chosen only where there are none.
    """
    components = _components(index, names)
    stored = [{_variant(name) for name in files if _is_weights(name)} for files in components.values()]
    stored = [variants for variants in stored if variants]
    own = VARIANTS.get(dtype or "")
    for variant in dict.fromkeys([*([own] if own else []), None, *VARIANTS.values()]):
        if all({variant, None} & variants for variants in stored) and any(variant in variants for variants in stored):
            return variant
    return None


def weight_files(index: Mapping[str, Any], names: Iterable[str], variant: str | None) -> dict[str, list[str]]:
    """Return the safetensors files that are loaded of each component: those of the variant, or else the plain ones."""
    chosen = {}
    for component, files in _components(index, names).items():
        weights = [name for name in files if _is_weights(name)]
        own = [name for name in weights if _variant(name) == variant] or [
            name for name in weights if _variant(name) is None
        ]
        # Shards of a variant had another form of name once; where both are there, diffusers loads the one of today.
        chosen[component] = [name for name in own if not _has_old_form(name)] or own
    return {component: weights for component, weights in chosen.items() if weights}


def unweighted(index: Mapping[str, Any], names: Iterable[str], variant: str | None) -> list[str]:
    """Return the models of a pipeline whose weights are missing, or lack shards."""
    names = list(names)
    weights = weight_files(index, names, variant)
    components = [component for component in _components(index, names) if not WEIGHTLESS.search(str(index[component]))]
    models = [component for component in components if f"{component}/config.json" in names]
    return [component for component in models if not _is_whole(weights.get(component, []))]


def pipeline_files(index: Mapping[str, Any], names: Iterable[str], variant: str | None) -> list[str]:
    """Return all files that a pipeline loads."""
    names = list(names)
    weights = [name for files in weight_files(index, names, variant).values() for name in files]
    return sorted([*small_files(index, names), *weights])


def pipeline_digest(folder: Path, variant: str | None) -> str:
    """Return 16 hex digits over what a pipeline loads from a folder.

    These are the tensors of its weights by name, whatever files they are in, and its configs and tokenizer files. In
    configs the order of keys does not count, nor do entries of `PROVENANCE`.

    Raises:
        ValueError: a safetensors file that is broken.
    """
    index, names = read_index(folder), list_files(folder)
    components = _components(index, names)
    weights = weight_files(index, names, variant)
    present = {key: value for key, value in index.items() if not _is_absent(value)}
    digest = blake2b(_plain(present), digest_size=DIGEST_BYTES, person=b"raysd pipeline")
    with ThreadPoolExecutor(MOST_THREADS) as pool:  # hashing does not hold Python's lock
        paths = [folder / name for files in weights.values() for name in files]
        tensors = dict(zip(paths, pool.map(tensor_digests, paths), strict=True))
    for component, files in sorted(components.items()):
        for name in files:
            if name.endswith(SMALL) and ".index." not in name:
                digest.update(b"\0file " + name.encode() + b"\0" + blake2b(_content(folder / name)).digest())
        of_component = [item for name in weights.get(component, []) for item in tensors[folder / name].items()]
        for tensor, value in sorted(of_component):
            digest.update(b"\0tensor " + f"{component}/{tensor}".encode() + b"\0" + value)
    return digest.hexdigest()


def _components(index: Mapping[str, Any], names: Iterable[str]) -> dict[str, list[str]]:
    """Return the files of each component that the pipeline has."""
    wanted = {key for key, value in index.items() if isinstance(value, list) and not _is_absent(value)}
    components: dict[str, list[str]] = {}
    for name in sorted(names):
        component, _, file = name.partition("/")
        if component in wanted and file and "/" not in file:
            components.setdefault(component, []).append(name)
    return components


def _is_absent(value: Any) -> bool:
    return isinstance(value, list) and value[:1] == [None]


def _content(path: Path) -> bytes:
    data = path.read_bytes()
    try:
        value = json.loads(data) if path.name.endswith("config.json") else None
    except ValueError:
        value = None
    return _plain(value) if isinstance(value, dict) else data


def _plain(value: Mapping[str, Any]) -> bytes:
    kept = {key: entry for key, entry in value.items() if key not in PROVENANCE}
    return json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()


def _matched(name: str) -> re.Match[str] | None:
    return WEIGHTS.fullmatch(name.rpartition("/")[2])


def _is_weights(name: str) -> bool:
    return _matched(name) is not None


def _variant(name: str) -> str | None:
    found = _matched(name)
    return None if found is None else found["variant"] or found["old_variant"]


def _has_old_form(name: str) -> bool:
    found = _matched(name)
    return found is not None and found["old_variant"] is not None


def _is_whole(files: list[str]) -> bool:
    """Return whether there are weights: a single file, or all shards."""
    found = [match for match in map(_matched, files) if match is not None]
    shards = Counter(int(match["shards"] or 1) for match in found)
    return any(count == found for count, found in shards.items())
