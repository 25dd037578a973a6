"""WordNet 3.0's nouns, read from its own files: definitions and hypernyms for ImageNet's wnids and for a user's names.

Debian's package `wordnet-base` and every download of WordNet 3.0 have the files. WordNet 3.1 numbers its synsets
differently, so wnids would mean other things.
"""

import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from raysd.errors import UserError

PLACES = (
    "/usr/share/wordnet",
    "/usr/local/share/wordnet",
    "/usr/local/WordNet-3.0/dict",
    "~/nltk_data/corpora/wordnet",
)
WNID = re.compile(r"n\d{8}")
REMEDY = (
    "is not on this machine; install the Debian package wordnet-base, or unpack nltk's package wordnet into "
    "~/nltk_data/corpora, or set WNHOME to a folder of WordNet 3.0"
)
HYPERNYM_POINTERS = ("@", "@i")
# Endings of plurals and their singulars, from the man page morphy(7WN).
PLURALS = (
    ("s", ""),
    ("ses", "s"),
    ("xes", "x"),
    ("zes", "z"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("men", "man"),
    ("ies", "y"),
)


@dataclass(frozen=True)
class Synset:
    """One meaning, shared by one or several nouns."""

    wnid: str
    """`n` and the eight digits of the synset's offset, as in ImageNet."""
    lemmas: tuple[str, ...]
    definition: str
    """The gloss without its examples."""
    hypernyms: tuple[str, ...]
    """The wnids of the hypernyms."""


class WordNet:
    """The nouns of WordNet 3.0.

    Args:
        folder: a folder with `index.noun` and `data.noun`.

    Raises:
        UserError: the files are of another version.
    """

    def __init__(self, folder: Path) -> None:
        self._data = (folder / "data.noun").read_bytes()
        if b"WordNet 3.0 Copyright" not in self._data[:4096]:
            raise UserError(
                "wordnet", str(folder), "is not WordNet 3.0, whose numbers ImageNet uses; install that version"
            )
        self._senses: dict[str, list[str]] = {}
        for line in (folder / "index.noun").read_text(encoding="ascii").splitlines():
            if not line.startswith(" "):
                words = line.split()
                self._senses[words[0]] = [f"n{offset}" for offset in words[-int(words[2]) :]]

    def synset(self, wnid: str) -> Synset:
        """Return the synset of a wnid.

        Raises:
            KeyError: no synset begins there.
        """
        start = int(wnid[1:])
        line = self._data[start : self._data.find(b"\n", start)].decode("ascii", "replace")
        if not WNID.fullmatch(wnid) or not line.startswith(f"{wnid[1:]} "):
            raise KeyError(wnid)
        head, _, gloss = line.partition(" | ")
        words = head.split()
        num_lemmas = int(words[3], 16)
        lemmas = tuple(word.replace("_", " ") for word in words[4 : 4 + 2 * num_lemmas : 2])
        pointers = words[5 + 2 * num_lemmas :]
        hypernyms = tuple(
            f"n{pointers[i + 1]}" for i in range(0, len(pointers) - 3, 4) if pointers[i] in HYPERNYM_POINTERS
        )
        return Synset(wnid, lemmas, gloss.split('; "')[0].strip(), hypernyms)

    def senses(self, name: str) -> list[Synset]:
        """Return the meanings of a noun or of its singular, the most frequent first; none for an unknown one."""
        words = "_".join(name.lower().split())
        for spelling in dict.fromkeys((words, words.replace("-", "_"), words.replace("-", ""))):
            singulars = [
                spelling.removesuffix(ending) + singular for ending, singular in PLURALS if spelling.endswith(ending)
            ]
            for form in (spelling, *singulars):
                if form in self._senses:
                    return [self.synset(wnid) for wnid in self._senses[form]]
        return []

    def hypernym_names(self, synset: Synset) -> list[str]:
        """Return the first lemma of each hypernym."""
        return [self.synset(wnid).lemmas[0] for wnid in synset.hypernyms]


@cache
def find_wordnet() -> WordNet:
    """Return WordNet on this machine; `WNHOME` names another folder.

    Raises:
        UserError: WordNet is missing, or of another version.
    """
    home = os.environ.get("WNHOME")
    for place in [*([f"{home}/dict", home] if home else []), *PLACES]:
        folder = Path(place).expanduser()
        if (folder / "index.noun").is_file() and (folder / "data.noun").is_file():
            return WordNet(folder)
    raise UserError("wordnet", home, REMEDY)
