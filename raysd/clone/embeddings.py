"""Prompt embeddings, computed once per distinct prompt and kept."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch

from raysd.clone.family import EMBEDDINGS

KEPT_BYTES = 2**29

Key = tuple[str, str, bool]
Values = dict[str, torch.Tensor]


class PromptEmbeddings:
    """Encodes prompts one at a time, so that an embedding does not depend on its neighbours, and keeps the last 512 MB.

    Args:
        pipeline: a diffusers pipeline of a family in `EMBEDDINGS`.
    """

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.names = EMBEDDINGS[type(pipeline).__name__]
        self.kept: OrderedDict[Key, Values] = OrderedDict()
        self.num_bytes = 0

    def batch(self, prompts: Sequence[str], negative_prompts: Sequence[str], guided: bool) -> Values:
        """Arguments of the pipeline's call for a batch: tensors [B, ...]."""
        rows = [self._one((prompt, negative if guided else "", guided)) for prompt, negative in zip(prompts, negative_prompts, strict=True)]
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    def _one(self, key: Key) -> Values:
        if key in self.kept:
            self.kept.move_to_end(key)
            return self.kept[key]
        values = self.kept[key] = self._encode(*key)
        self.num_bytes += _num_bytes(values)
        while self.num_bytes > KEPT_BYTES and len(self.kept) > 1:
            _, dropped = self.kept.popitem(last=False)
            self.num_bytes -= _num_bytes(dropped)
        return values

    def _encode(self, prompt: str, negative_prompt: str, guided: bool) -> Values:
        accepted = encode_parameters(self.pipeline)
        options: dict[str, Any] = {"prompt": prompt, "device": self.pipeline._execution_device, "num_images_per_prompt": 1}
        options |= {name: None for name in ("prompt_2", "prompt_3") if name in accepted}
        if "do_classifier_free_guidance" in accepted:
            options["do_classifier_free_guidance"] = guided
        if guided and negative_prompt:  # without one each family has its own way to say "no prompt"
            options["negative_prompt"] = negative_prompt
        for name in ("clean_caption", "complex_human_instruction"):
            if name in accepted:
                options[name] = None
        outputs = self.pipeline.encode_prompt(**options)
        return {name: output for name, output in zip(self.names, outputs, strict=True) if name is not None and output is not None}


def encode_parameters(pipeline: Any) -> set[str]:
    """Names of the parameters of a pipeline's `encode_prompt`."""
    from inspect import signature

    return set(signature(pipeline.encode_prompt).parameters)


def _num_bytes(values: Values) -> int:
    return sum(tensor.nbytes for tensor in values.values())
