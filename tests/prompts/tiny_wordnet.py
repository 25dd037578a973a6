"""A few nouns of WordNet 3.0 in WordNet's own files, each synset where the whole WordNet has it: at the byte of its
wnid.

WordNet's license stands at the head of both files, as in WordNet.
"""

from pathlib import Path

from raysd.prompts.table import BUILT_IN

NOUNS = (
    "bus",
    "crane",
    "hoof",
    "hot_dog",
    "hotdog",
    "lawn_mower",
    "papillon",
    "tench",
    "vase",
    "waffle",
)  # index.noun has these and no others
SYNSETS = [  # all senses of the nouns, the most frequent first, then some hypernyms: wnid, lemmas, some pointers, gloss
    (
        "n02924116",
        "bus autobus coach charabanc double-decker jitney motorbus motorcoach omnibus passenger_vehicle",
        "@n04019101 ~n04212467",
        'a vehicle carrying many passengers; used for public transport; "he always rode the bus to work"',
    ),
    (
        "n05730591",
        "bus_topology bus",
        "@n05730365",
        "the topology of a network whose components are connected by a busbar",
    ),
    (
        "n02924713",
        "busbar bus",
        "@n03088707 #pn03996655",
        "an electrical conductor that makes a common connection between several circuits",
    ),
    (
        "n02924554",
        "bus jalopy heap",
        "@n02958343 @n06605396",
        'a car that is old and unreliable; "the fenders had fallen off that old bus"',
    ),
    ("n10914447", "Crane Stephen_Crane", "@in10794014", "United States writer (1871-1900)"),
    ("n10914331", "Crane Hart_Crane Harold_Hart_Crane", "@in10444194", "United States poet (1899-1932)"),
    ("n09295455", "Grus Crane", "@in09252970", "a small constellation in the southern hemisphere near Phoenix"),
    (
        "n03126707",
        "crane",
        "@n03664675 ~n03164929",
        (
            "lifts and moves heavy objects; lifting tackle is suspended from a pivoted boom that rotates around "
            "a vertical axis"
        ),
    ),
    (
        "n02012849",
        "crane",
        "@n02000954 #mn02012715 ~n02013177",
        "large long-necked wading bird of marshes and plains in many parts of the world",
    ),
    ("n02153959", "hoof", "@n02153445", "the foot of an ungulate mammal"),
    ("n02154133", "hoof", "@n05581514", "the horny covering of the end of the foot in ungulate mammals"),
    (
        "n10187710",
        "hotdog hot_dog",
        "@n10070711",
        "someone who performs dangerous stunts to attract attention to himself",
    ),
    ("n07697537", "hotdog hot_dog red_hot", "@n07695965 %pn07676602", "a frankfurter served hot on a bun"),
    (
        "n07676602",
        "frank frankfurter hotdog hot_dog dog wiener wienerwurst weenie",
        "@n07675627 #pn07697537",
        "a smooth-textured sausage of minced beef or pork usually smoked; often served on a bread roll",
    ),
    ("n03649909", "lawn_mower mower", "@n03418242 %pn02848216", "garden tool for mowing grass on lawns"),
    (
        "n02086910",
        "papillon",
        "@n02086346",
        "small slender toy spaniel with erect ears and a black-spotted brown to white coat",
    ),
    (
        "n01440764",
        "tench Tinca_tinca",
        "@n01439121 #mn01440655",
        "freshwater dace-like game fish of Europe and western Asia noted for ability to survive outside water",
    ),
    ("n04522168", "vase", "@n03593526", "an open jar of glass or porcelain used as an ornament or to hold flowers"),
    ("n07641699", "waffle", "@n07628870", "pancake batter baked in a waffle iron"),
    (
        "n01439121",
        "cyprinid cyprinid_fish",
        "@n01438208",
        "soft-finned mainly freshwater fishes typically having toothless jaws and cycloid scales",
    ),
    (
        "n02000954",
        "wading_bird wader",
        "@n01844917",
        "any of many long-legged birds that wade in water in search of food",
    ),
    ("n02086346", "toy_spaniel", "@n02085374", "a very small spaniel"),
    (
        "n02958343",
        "car auto automobile machine motorcar",
        "@n03791235",
        (
            'a motor vehicle with four wheels; usually propelled by an internal combustion engine; "he needs a '
            'car to get to work"'
        ),
    ),
    ("n03664675", "lifting_device", "@n03183080", "a device for lifting heavy loads"),
    (
        "n06605396",
        "dysphemism",
        "@n07151380",
        "an offensive or disparaging expression that is substituted for an inoffensive one",
    ),
    (
        "n10794014",
        "writer author",
        "@n09610660",
        "writes (books or stories or articles or the like) professionally (for pay)",
    ),
]


def write_tiny_wordnet(folder: Path) -> None:
    """Write `data.noun` and `index.noun`; between two synsets the former has a hole."""
    license_lines = (BUILT_IN / "WORDNET_LICENSE").read_text().splitlines()
    head = "".join(f"  {number} {line}  \n" for number, line in enumerate(license_lines, 1))
    (folder / "index.noun").write_text(head + "".join(map(_index_line, NOUNS)))
    with (folder / "data.noun").open("wb") as file:
        file.write(head.encode())
        for wnid, lemmas, pointers, gloss in SYNSETS:
            file.seek(int(wnid[1:]))
            file.write(_data_line(wnid, lemmas.split(), pointers.split(), gloss).encode())


def _index_line(noun: str) -> str:
    senses = [wnid[1:] for wnid, lemmas, _, _ in SYNSETS if noun in lemmas.lower().split()]
    return f"{noun} n {len(senses)} 1 @ {len(senses)} 0 {' '.join(senses)}  \n"


def _data_line(wnid: str, lemmas: list[str], pointers: list[str], gloss: str) -> str:
    words = " ".join(f"{lemma} 0" for lemma in lemmas)
    others = " ".join(pointer.replace("n", " ") + " n 0000" for pointer in pointers)
    return f"{wnid[1:]} 03 n {len(lemmas):02x} {words} {len(pointers):03d} {others} | {gloss}  \n"
