"""A run of a pipeline's own code on fake tensors, which have shapes and no data, to count the memory that it takes, or
its floating-point operations.

1. The pipeline's models are made from the checkpoint's configs. Weights are not read.
2. The pipeline runs as in an actor, with its tokenizers and a scheduler. Each call of a model is made with fake
   tensors, and answered with zeros.
3. The bytes of all fake tensors that live at once are counted.

What a kernel needs within one operation is not counted. Attention counts as torch's fused kernels, which never hold the
matrix of its weights.
"""

import json
import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from raysd.clone.guiding import Guiding
from raysd.clone.plan import ImageCounts, Plan
from raysd.clone.spec import CloneSpec
from raysd.generation.pipeline import WHOLE, Generator

PLAIN: dict[str, Any] = {
    "compile": False,
    "loras": (),
    "guidance_interval": WHOLE,
    "guiding": Guiding(),
    "entropy_guide": None,
    "exemplar_guide": None,
    "num_inference_steps": 2,
}
"""What a run on fake tensors leaves out; a model runs once for all calls of the same shapes."""
CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # of which torch's counter does not know


def run_on_fake_tensors(spec: CloneSpec, batch_size: int) -> tuple[int, dict[str, int]]:
    """Count the bytes of a pipeline's weights, and those that each of its models takes beside them for a batch of
    `batch_size` images.

    Raises:
        Exception: of any kind, where a pipeline's code asks for the values of its tensors.
    """
    spec = replace(spec, **PLAIN)
    models = _FakeModels()
    generator = Generator(spec, models.make(spec))
    weights = models.memory.live
    plan = Plan(spec, ImageCounts(len(spec.table), math.ceil(batch_size / len(spec.table))), batch_size)
    with suppress(_DecodedError):
        generator.generate(spec, [plan.image(position) for position in range(batch_size)])
    return weights, {name: peak - weights for name, peak in models.peaks.items()}


def count_flops(spec: CloneSpec) -> tuple[int, int]:
    """Count the floating-point operations of one step of the denoiser for one image, guided where the clone is, and of
    decoding the image.

    Raises:
        Exception: of any kind, where a pipeline's code asks for the values of its tensors.
    """
    spec = replace(spec, **PLAIN)
    models = _FakeModels(counts_flops=True)
    generator = Generator(spec, models.make(spec))
    with suppress(_DecodedError):
        generator.generate(spec, [Plan(spec, ImageCounts(len(spec.table), 1), 1).image(0)])
    return models.flops[spec.family.denoiser], models.flops.get("vae", 0)


class _DecodedError(Exception):
    """The images are there; what follows needs their values."""


class _LiveMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that operations return, as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        return output

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self.known:
            return
        self.known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.live -= size


class _FakeModels:
    """Models with fake weights, whose calls are counted."""

    def __init__(self, counts_flops: bool = False) -> None:
        self.fake, self.memory, self.counts_flops = FakeTensorMode(), _LiveMemory(), counts_flops
        self.peaks: dict[str, int] = {}
        self.flops: dict[str, int] = {}  # of one call of each model
        self.inputs: dict[str, Any] = {}  # of each model's last call; the pipeline holds them too
        self.answers: dict[Any, Any] = {}

    def make(self, spec: CloneSpec) -> dict[str, nn.Module]:
        """Return the models of a pipeline, by component."""
        folder, models = spec.model.find_configs_here(), {}
        for name, value in json.loads((folder / "model_index.json").read_text(encoding="utf-8")).items():
            is_wanted = (
                isinstance(value, list) and value[0] is not None and (name != "safety_checker" or spec.safety_checker)
            )
            if is_wanted and issubclass(kind := _class(*value), nn.Module):
                models[name] = self._model(name, kind, folder / name, getattr(torch, spec.dtype))
        return models

    def _model(self, name: str, kind: Any, folder: Path, dtype: torch.dtype) -> nn.Module:
        with self.fake, self.memory:
            config = (
                kind.config_class.from_pretrained(folder) if hasattr(kind, "config_class") else kind.load_config(folder)
            )
            model: nn.Module = (kind if hasattr(kind, "config_class") else kind.from_config)(config).eval()
        self._cast(model, dtype=dtype, kept=getattr(model, "_keep_in_fp32_modules", None) or ())
        changes: dict[str, Any] = {"to": partial(self._cast, model)}
        changes |= {
            method: partial(self._call, name, method, getattr(model, method))
            for method in ("forward", "decode")
            if hasattr(model, method)
        }
        for method, function in changes.items():
            setattr(model, method, function)
        return model

    def _cast(
        self, model: nn.Module, *places: Any, dtype: torch.dtype | None = None, kept: Sequence[str] = (), **_: Any
    ) -> nn.Module:
        """Cast fake weights, in place of `model.to`, which cannot change them. Some models keep parts in float32 where
        the others are float16."""
        dtype = dtype or next((place for place in places if isinstance(place, torch.dtype)), None)
        made: dict[int, Any] = {}  # some weights are used in two places
        with self.fake, self.memory:
            for path, part in model.named_modules():
                wanted = torch.float32 if dtype == torch.float16 and set(path.split(".")) & set(kept) else dtype
                for tensors in (part._parameters, part._buffers):
                    for name, old in tensors.items():
                        if wanted is not None and old is not None and old.is_floating_point() and old.dtype != wanted:
                            new = torch.empty_like(old, dtype=wanted)
                            tensors[name] = made.setdefault(
                                id(old),
                                nn.Parameter(new, requires_grad=False) if isinstance(old, nn.Parameter) else new,
                            )
        return model

    def _call(self, name: str, method: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        shapes = (
            (leaf.shape, leaf.dtype) if isinstance(leaf, torch.Tensor) else str(leaf)
            for leaf in tree_leaves((args, kwargs))
        )
        if (key := (name, method, *shapes)) not in self.answers:
            with self.fake, self.memory, self._counting(name):
                args, kwargs = self.inputs[name] = tree_map_only(torch.Tensor, _fake_of, (args, kwargs))
                self.memory.peak = self.memory.live
                output = function(*args, **kwargs)
                if method == "decode":
                    tree_map_only(
                        torch.Tensor, lambda image: (image * 0.5 + 0.5).clamp(0, 1), output
                    )  # what image processors do next
                self.peaks[name] = max(self.peaks.get(name, 0), self.memory.peak)
            if method == "decode":
                raise _DecodedError
            self.answers[key] = tree_map_only(torch.Tensor, _zeros_of, output)
        return self.answers[key]

    @contextmanager
    def _counting(self, name: str) -> Iterator[None]:
        """Count the operations of one call, where they are asked for."""
        if not self.counts_flops:
            yield
            return
        with FlopCounterMode(display=False, custom_mapping={CPU_ATTENTION: _attention_flops}) as counter:
            yield
        self.flops[name] = counter.get_total_flops()


def _class(library: str, name: str) -> Any:
    return getattr(
        import_module(library if library in ("diffusers", "transformers") else f"diffusers.pipelines.{library}"), name
    )


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _fake_of(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)


def _zeros_of(tensor: torch.Tensor) -> torch.Tensor:
    """Return real zeros; they take memory only once they are written to."""
    num_bytes = tensor.numel() * tensor.element_size()
    return torch.from_numpy(np.zeros(num_bytes, dtype=np.uint8)).view(tensor.dtype).view(tensor.shape)
