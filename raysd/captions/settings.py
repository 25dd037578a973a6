"""The caption settings of an experiment file."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from raysd.clone.settings import Seed
from raysd.errors import UserError
from raysd.settings import Section, Unit

NUMBER = "{number}"
INSTRUCTION = (
    "Write one short caption for a photo of {name}. Say what it looks like and where it is, in at most 20 words, and "
    'use the words "{name}". Answer with the caption alone.'
)
HERE = ("localhost", "127.0.0.1", "::1")
"""Hosts that are this machine."""


class CaptionSettings(Section):
    """The language model that writes captions, what it is told, and which of its answers are taken."""

    model: str | None = None
    """Language model that writes the captions: a causal model of transformers, as a folder or a hub id, with weights in
    safetensors; with `server`, the name that the server has for it."""
    revision: str | None = None
    """Branch, tag or commit of a hub model; its default branch when null."""
    server: str | None = None
    """Address of an OpenAI-compatible server that runs the model, as `http://localhost:8000/v1`; when null, the model
    runs in actors on this machine or cluster."""
    key_variable: str | None = None
    """Environment variable that holds the key for the server, as `OPENAI_API_KEY`; no key is sent when null."""
    num_requests: Annotated[int, Field(ge=1, le=256), Unit("requests")] = 8
    """Requests that a server gets at the same time, each for another class."""
    instruction: Annotated[str, Field(min_length=1)] = INSTRUCTION
    """What the model is told: a template over the columns of the class table, as `{name}`, `{definition}` and
    `{hypernym}`, and over `{number}`, the number of the caption from 1."""
    captions_per_class: Annotated[int, Field(ge=1, le=100_000), Unit("captions")] = 20
    """Captions of each class; a larger number later adds to those that are there."""
    max_new_tokens: Annotated[int, Field(ge=1, le=4096), Unit("tokens")] = 48
    """Tokens after which an answer is cut off."""
    temperature: Annotated[float, Field(ge=0, le=10)] = 0.8
    """Temperature of the choice among next tokens; with 0 it is always the likeliest one, so that one instruction gives
    one caption."""
    top_p: Annotated[float, Field(gt=0, le=1), Unit("probability")] = 0.95
    """Probability that the likeliest tokens share among which the next one is chosen; 1 leaves all."""
    seed: Seed = 0
    """Seed of the captions; each has another one of its own."""
    max_attempts: Annotated[int, Field(ge=1, le=10_000), Unit("attempts")] = 8
    """How often the model is asked for a caption, until one names its class, is short enough, and is new."""

    @field_validator("server")
    @classmethod
    def _address(cls, server: str | None) -> str | None:
        if server is None:
            return None
        if "@" in server or "?" in server or "#" in server:
            remedy = "must hold no login and no query; name the variable that holds a key in key_variable"
            raise UserError("server", "...", remedy)  # which is not shown
        try:
            parts = urlsplit(server)
            _ = parts.port
        except ValueError:
            raise ValueError("is no address; write it as http://localhost:8000/v1") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", server):
            raise ValueError("is no address; write it as http://localhost:8000/v1")
        return server.rstrip("/")

    @field_validator("key_variable")
    @classmethod
    def _names_a_variable(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            remedy = "is no name of an environment variable; name one, as OPENAI_API_KEY, and keep the key in it"
            raise UserError("key_variable", "...", remedy)  # it may be the key itself
        return name

    @model_validator(mode="after")
    def _agrees(self) -> "CaptionSettings":
        if self.key_variable and self.server is None:
            raise ValueError("key_variable is for a server; leave it out, or name the server")
        if self.key_variable and self.server and not _is_safe(self.server):
            raise ValueError("a key would cross the network unencrypted; use https, or leave key_variable out")
        if self.temperature == 0 and self.captions_per_class > 1 and NUMBER not in self.instruction:
            raise ValueError(
                "temperature 0 gives the same caption each time; raise it, set captions_per_class to 1, or write "
                f"{NUMBER} into the instruction"
            )
        return self


def _is_safe(server: str) -> bool:
    parts = urlsplit(server)
    return parts.scheme == "https" or parts.hostname in HERE
