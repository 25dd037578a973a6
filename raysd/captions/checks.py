"""What is wrong with a caption, and what of an answer is one."""

import re
from collections.abc import Iterable

from raysd.prompts.lint import MARKUP, PLACEHOLDERS, Tokenizer
from raysd.prompts.table import ClassRow, split_cell

THOUGHTS_BEGIN, THOUGHTS_END = "<think>", "</think>"
AGREES = r"(?:sure|okay|ok|certainly|of course|absolutely)(?: thing)?\s*[,!.]+\s*"
LEAD = re.compile(
    rf"^(?:(?:[-*•#>]+|\d+[.)])\s+|{AGREES}|(?:(?:here is|here's|here’s|here are)[^:]*|caption)\s*:\s*)", re.IGNORECASE
)
QUOTES = "\"'`*“”‘’«»"
ENDING = r"(?:s|es)?"  # of several


def cleaned(answer: str) -> str:
    """Return the caption of an answer on one line, without thoughts, quotes, a bullet, `Caption:` or a line that leads
    to it; empty if there is none."""
    told = answer.rpartition(THOUGHTS_END)[2].partition(THOUGHTS_BEGIN)[0]
    lines = [" ".join(line.split()) for line in told.splitlines()]
    for line in (line for line in lines if line and not line.strip(QUOTES).endswith(":")):
        text, before = line, ""
        while text != before:
            before, text = text, LEAD.sub("", text.strip(QUOTES)).strip()
        if text:
            return text
    return ""


def names_of(row: ClassRow) -> list[str]:
    """Return the name of a class and its synonyms."""
    return [row["name"], *split_cell(row.get("synonyms", ""))]


def names_class(caption: str, row: ClassRow) -> bool:
    """Return whether the name or a synonym of a class occurs in a caption, in any case, also as several."""
    return any(_occurs(name, caption) for name in names_of(row))


def _occurs(name: str, caption: str) -> bool:
    words = re.findall(r"\w+", name)
    if not words or not name.isascii():  # scripts without blanks between words
        return name.casefold() in caption.casefold()
    pattern = r"(?<!\w)" + r"[\W_]+".join(map(re.escape, words)) + ENDING + r"(?!\w)"
    return re.search(pattern, caption, re.IGNORECASE) is not None


def find_problem(caption: str, row: ClassRow, tokenizers: Iterable[Tokenizer]) -> str:
    """Return what is wrong with a caption of a class; empty where all is well."""
    if not caption or caption.lower() in PLACEHOLDERS:
        return "say nothing"
    if not names_class(caption, row):
        return "do not name the class"
    if MARKUP.search(caption):
        return "hold markup"
    for tokenizer in tokenizers:
        if tokenizer.count([caption])[0] > tokenizer.limit:
            return f"are over the {tokenizer.limit} tokens of {tokenizer.encoder}"
    return ""
