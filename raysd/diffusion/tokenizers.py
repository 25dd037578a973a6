"""The tokenizers of a model's text encoders, which say how long a prompt is and which of its words they know."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysd.diffusion.checkpoint import Model
from raysd.diffusion.family import read_family
from raysd.diffusion.pipeline_files import read_index
from raysd.errors import UserError
from raysd.prompts.resolve import built_in_variants
from raysd.prompts.table import load_class_table

FOLDERS = ("tokenizer", "tokenizer_2", "tokenizer_3")
LONGEST = 10_000  # a tokenizer without a limit names a huge number


@dataclass(frozen=True)
class PromptTokenizer:
    """One tokenizer of transformers."""

    tokenizer: Any
    limit: int
    encoder: str
    """The component that reads its tokens, with its class: `text_encoder_2 (T5EncoderModel)`."""
    vocabulary: frozenset[str] | None = None
    """All words that the model was trained on, where they are known."""

    def count(self, prompts: list[str]) -> list[int]:
        """Return the tokens of each prompt, with those at its start and end."""
        return [len(ids) for ids in self.tokenizer(prompts, truncation=False, verbose=False)["input_ids"]]

    def unknown(self, prompts: list[str]) -> list[list[str]]:
        """Return the words of each prompt that the model does not know; none where the tokenizer spells them out."""
        if self.vocabulary is not None:
            return [[word for word in _words(prompt) if word not in self.vocabulary] for prompt in prompts]
        unknown, special = (
            self.tokenizer.unk_token_id,
            (self.tokenizer.eos_token_id, self.tokenizer.bos_token_id, self.tokenizer.pad_token_id),
        )
        if unknown is None or unknown in special:
            return [[] for _ in prompts]
        words = {word for prompt in prompts for word in prompt.split()}
        known = {word: unknown not in self.tokenizer(word, add_special_tokens=False)["input_ids"] for word in words}
        return [[word for word in prompt.split() if not known[word]] for prompt in prompts]


def prompt_tokenizers(model: Model) -> list[PromptTokenizer]:
    """Return the tokenizers in a model's folder, without those that have no limit."""
    folder, found = model.find_configs_here(), []
    for name in FOLDERS:
        if (folder / name).is_dir():
            try:
                tokenizer = _load_tokenizer(folder, name)
            except Exception as error:  # tokenizers raise many kinds on files that are broken
                reason = (str(error) or type(error).__name__).splitlines()[0]
                raise UserError(
                    "generation.model", model.name, f"its {name} cannot be read ({reason}); repair the model's folder"
                ) from None
            limit = tokenizer.model_max_length
            if "CLIP" not in type(tokenizer).__name__:  # other encoders take as many tokens as the pipeline sets
                limit = min(limit, _pipeline_limit(folder))
            if limit < LONGEST:
                words = _embedded_words() if model.is_embedded else None
                found.append(PromptTokenizer(tokenizer, limit, _encoder(folder, name), words))
    return found


def _encoder(folder: Path, tokenizer: str) -> str:
    name = tokenizer.replace("tokenizer", "text_encoder")
    kind = (read_index(folder).get(name) or [None, None])[1]
    return f"{name} ({kind})" if kind else name


def _load_tokenizer(folder: Path, name: str) -> Any:
    """Load a tokenizer with the class that `model_index.json` names, as diffusers does.

    The `AutoTokenizer` of transformers would load torch, which takes seconds.
    """
    import transformers

    kind = (read_index(folder).get(name) or [None, None])[1]
    return (getattr(transformers, str(kind), None) or transformers.AutoTokenizer).from_pretrained(folder / name)


def _pipeline_limit(folder: Path) -> int:
    """Return the tokens that a pipeline's large text encoder takes of a prompt; `LONGEST` where it does not say."""
    from inspect import signature

    import diffusers

    encode = getattr(getattr(diffusers, read_family(folder).pipeline, None), "encode_prompt", None)
    parameter = signature(encode).parameters.get("max_sequence_length") if encode is not None else None
    return int(parameter.default) if parameter is not None and isinstance(parameter.default, int) else LONGEST


def _embedded_words() -> frozenset[str]:
    """Return the words that the embedded model was trained on: cells of its class table and fields of `attributes`."""
    cells = [cell for row in load_class_table("fashion_mnist").rows for cell in row.values()]
    fields = [
        choice
        for choices in built_in_variants()["attributes"].fields.values()
        if isinstance(choices, list)
        for choice in choices
    ]
    return frozenset(word for text in [*cells, *fields] for word in _words(text.replace("|", " ")))


def _words(text: str) -> list[str]:
    return re.findall(r"[\w'-]+", text.lower())
