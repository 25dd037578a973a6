"""A causal language model of transformers, in this process."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from raysd.captions.checks import THOUGHTS_BEGIN
from raysd.captions.settings import CaptionSettings
from raysd.diffusion.checkpoint import Model, check_tokenizers
from raysd.errors import UserError
from raysd.storage.address import local_path
from raysd.storage.fingerprint import file_digest, fingerprint
from raysd.storage.hub import FILES, Repository, fetch_files, find_repository, is_hub_id

FIELD = "captions.model"
MODEL_FILES = (*FILES, "*.jinja")  # the last says how the model's conversations are written
TOLD = {"enable_thinking": False, "date_string": "26 Jul 2024"}
"""Of templates that know these: thoughts would take the room of the caption, and today's date would change it."""
SAME_WEIGHTS = "consolidated"  # begin the names of files with the same weights in another form


def find_language_model(name: str, revision: str | None = None) -> Model:
    """Resolve a causal language model of transformers to a folder here; a hub id is fetched, safetensors only.

    Raises:
        UserError: no such folder, a failed download, or a model that transformers cannot run without foreign code.
    """
    folder, commit = local_path(FIELD, name, "a model").resolve(), None
    files: tuple[str, ...] = ()
    if not folder.is_dir():
        if not is_hub_id(name):
            raise UserError(FIELD, name, "no such folder; use a folder that transformers wrote, or a hub id")
        repository = find_repository(FIELD, name, revision)
        commit, files = repository.commit, _needed(repository)
        folder = fetch_files(FIELD, repository, list(files))
    if not list(folder.glob("*.safetensors")):
        raise UserError(FIELD, name, "has no safetensors weights; convert it with save_pretrained")
    _check_kind(name, folder)
    check_tokenizers(FIELD, name, folder)
    names = files or tuple(path.name for pattern in MODEL_FILES for path in folder.glob(pattern))
    digest = fingerprint({file: file_digest(folder / file) for file in _read(names)})
    return Model(name, revision, folder, digest, commit, files=files, is_pipeline=False)


def model_folder(model: Model) -> Path:
    """Return the folder of a language model on this node, which may differ from the node that resolved it.

    Raises:
        UserError: this node does not see the folder.
    """
    if model.commit is None or (model.folder.is_dir() and model.is_whole_in(model.folder)):
        return model.find_here(FIELD)
    repository = find_repository(FIELD, model.name, model.commit)
    return fetch_files(FIELD, repository, list(model.files))


def _needed(repository: Repository) -> tuple[str, ...]:
    """Return the files of a repository that transformers reads."""
    return _read(repository.matching(MODEL_FILES))


def _read(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({name for name in names if "/" not in name and not name.startswith(SAME_WEIGHTS)}))


def _check_kind(name: str, folder: Path) -> None:
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(FIELD, name, f"transformers cannot read it without code of its own ({reason})") from None
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise UserError(FIELD, name, f"is a {config.model_type}, no causal language model; use one, as Llama or Qwen")


class LocalModel:
    """A language model that answers one instruction at a time, so that no answer depends on others.

    Each token is chosen by a generator with the answer's own seed, on the CPU.

    Args:
        folder: the model's folder.
        settings: how tokens are chosen.
    """

    def __init__(self, folder: Path, settings: CaptionSettings) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        from raysd.device import find_device

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.settings, self.device = settings, find_device()
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, **options)
        loaded = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, dtype="auto", **options)
        self.model: Any = loaded.eval().to(self.device)
        ends = [self.tokenizer.eos_token_id, getattr(self.model.generation_config, "eos_token_id", None)]
        self.ends = {end for each in ends for end in (each if isinstance(each, list) else [each])} - {None}

    def write(self, instruction: str, seed: int) -> str:
        """Return the model's answer to an instruction, a function of both arguments alone.

        Raises:
            UserError: an instruction that leaves no room for an answer.
        """
        text = self._told(instruction)
        told = self.tokenizer(text, add_special_tokens=self.tokenizer.chat_template is None)["input_ids"]
        answer: str = self.tokenizer.decode(list(self._tokens(list(told), seed)), True)
        return THOUGHTS_BEGIN + answer if text.rstrip().endswith(THOUGHTS_BEGIN) else answer

    def _told(self, instruction: str) -> str:
        """Return what the model reads, in the form of a conversation where it knows such."""
        if self.tokenizer.chat_template is None:
            return instruction + "\n"
        turns = [{"role": "user", "content": instruction}]
        told: str = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **TOLD)
        return told

    def _tokens(self, told: list[int], seed: int) -> Iterator[int]:
        """Yield the tokens of an answer."""
        import torch

        settings = self.settings
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        room = settings.max_new_tokens if limit is None else min(settings.max_new_tokens, limit - len(told))
        if room < 1:
            remedy = f"is {len(told)} tokens long, and {settings.model} takes {limit} with its answer; shorten it"
            raise UserError("captions.instruction", settings.instruction, remedy)
        generator, given, known = torch.Generator().manual_seed(seed), told, None
        for _ in range(room):
            with torch.inference_mode():
                output = self.model(
                    input_ids=torch.tensor([given], device=self.device), past_key_values=known, use_cache=True
                )
            token = _chosen(output.logits[0, -1].float().cpu(), settings, generator)
            if token in self.ends:
                return
            yield token
            given, known = [token], output.past_key_values


def _chosen(logits: Any, settings: CaptionSettings, generator: Any) -> int:
    """Return the next token: the likeliest, or one of those that share the probability `top_p`.

    Args:
        logits: of all tokens, float32 [V].
        settings: temperature and `top_p`.
        generator: on the CPU.
    """
    import torch

    if settings.temperature == 0:
        return int(logits.argmax())
    probabilities, tokens = (logits.double() / settings.temperature).softmax(0).sort(descending=True, stable=True)
    probabilities = probabilities.where(probabilities.cumsum(0) - probabilities < settings.top_p, 0)
    return int(tokens[torch.multinomial(probabilities, 1, generator=generator)])
