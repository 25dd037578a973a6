"""Make the class tables of ImageNet from WordNet 3.0 (Debian package wordnet-base) and timm's order of the labels.

python jobs/make_class_tables.py [FOLDER]
"""

import csv
import sys
from pathlib import Path

from timm.data import ImageNetInfo

from raysd.prompts.table import BUILT_IN
from raysd.prompts.wordnet import find_wordnet

HUNDRED = BUILT_IN / "imagenet100_wnids.txt"
COLUMNS = ("label", "key", "name", "synonyms", "definition", "hypernym", "senses")


def write_table(path: Path, wnids: list[str]) -> None:
    """One row per wnid, in this order."""
    wordnet = find_wordnet()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for label, wnid in enumerate(wnids):
            synset = wordnet.synset(wnid)
            name, *synonyms = synset.lemmas
            hypernyms = "|".join(wordnet.hypernym_names(synset))
            writer.writerow([label, wnid, name, "|".join(synonyms), synset.definition, hypernyms, len(wordnet.senses(name))])


if __name__ == "__main__":
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else BUILT_IN
    write_table(out / "imagenet1k.csv", ImageNetInfo("imagenet-1k").label_names())
    write_table(out / "imagenet100.csv", HUNDRED.read_text().split())
