"""Prompt embeddings, computed once per distinct prompt or negative prompt and kept."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch

from raysd.diffusion.family import EMBEDDINGS

KEPT_BYTES = 2**29

Key = tuple[str, bool]
"""A text, and whether it is a negative prompt."""
Values = dict[str, torch.Tensor]


class PromptEmbeddings:
    """Cache of prompt embeddings: the last 512 MB. Prompts are encoded one by one, so none depends on its neighbors.

    That is 196 prompts of Stable Diffusion 3 in half precision (333 tokens x 4096). Where a clone has more, each is
    encoded once in a row of equal ones; a shard is generated in such rows.

    Args:
        pipeline: a diffusers pipeline of a family in `EMBEDDINGS`.
    """

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.names = EMBEDDINGS[type(pipeline).__name__]
        self.has_negative = any(map(_is_negative, self.names))
        self.kept: OrderedDict[Key, Values] = OrderedDict()
        self.num_bytes = 0

    def batch(self, prompts: Sequence[str], negative_prompts: Sequence[str], guided: bool) -> Values:
        """Return the arguments of the pipeline's call for a batch: tensors [B, ...]."""
        guided = guided and self.has_negative
        pairs = zip(prompts, negative_prompts, strict=True)
        rows = [
            {**self._one((prompt, False)), **(self._one((negative, True)) if guided else {})}
            for prompt, negative in pairs
        ]
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    def _one(self, key: Key) -> Values:
        if key in self.kept:
            self.kept.move_to_end(key)
            return self.kept[key]
        text, is_negative = key
        encoded = self._encode("", text, True) if is_negative else self._encode(text, "", False)
        values = self.kept[key] = {name: value for name, value in encoded.items() if _is_negative(name) == is_negative}
        self.num_bytes += _num_bytes(values)
        while self.num_bytes > KEPT_BYTES and len(self.kept) > 1:
            _, dropped = self.kept.popitem(last=False)
            self.num_bytes -= _num_bytes(dropped)
        return values

    def _encode(self, prompt: str, negative_prompt: str, guided: bool) -> Values:
        accepted = encode_parameters(self.pipeline)
        options: dict[str, Any] = {
            "prompt": prompt,
            "device": self.pipeline._execution_device,
            "num_images_per_prompt": 1,
        }
        options |= {name: None for name in ("prompt_2", "prompt_3") if name in accepted}
        if "do_classifier_free_guidance" in accepted:
            options["do_classifier_free_guidance"] = guided
        if guided and negative_prompt:  # without one each family has its own way to say "no prompt"
            options["negative_prompt"] = negative_prompt
        for name in ("clean_caption", "complex_human_instruction"):
            if name in accepted:
                options[name] = None
        outputs = self.pipeline.encode_prompt(**options)
        return {
            name: output
            for name, output in zip(self.names, outputs, strict=True)
            if name is not None and output is not None
        }


def encode_parameters(pipeline: Any) -> set[str]:
    """Return the names of the parameters of a pipeline's `encode_prompt`."""
    from inspect import signature

    return set(signature(pipeline.encode_prompt).parameters)


def _is_negative(name: str | None) -> bool:
    return name is not None and name.startswith("negative")


def _num_bytes(values: Values) -> int:
    return sum(tensor.nbytes for tensor in values.values())
