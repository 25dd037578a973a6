"""Write the frozen splits that ship with raysd: python tools/make_splits.py

EuroSAT: 30 % of each class for testing, those whose hash (blake2b of `<class>/<number>`) is lowest. The three sets of
digits: the halves that raysd has used from its start, chosen with NumPy's random numbers; they are written down so that
no release of NumPy can change them. Animal-MNIST, which holds many images more than once: half of each class, those
whose hash (blake2b of the image) is lowest, so that equal images of a class are in one half.
"""

import hashlib

import numpy as np

from raysd.data.catalog import OFFLINE_SETS
from raysd.data.splits import ALL, FOLDER, hashed_mask, split_text

HALVES = ("digits", "mnist_5k", "opencv_digits")
EUROSAT = {
    "AnnualCrop": 3000,
    "Forest": 3000,
    "HerbaceousVegetation": 3000,
    "Highway": 2500,
    "Industrial": 2500,
    "Pasture": 2000,
    "PermanentCrop": 2500,
    "Residential": 3000,
    "River": 2500,
    "SeaLake": 3000,
}
TEST_SHARE = 0.3
HALVES_SAY = (
    "Half of each class for testing, as seed 0 of NumPy's default_rng gave it when the set came to raysd; "
    "frozen here, not chosen again."
)
EUROSAT_SAYS = (
    "30 % of each class for testing: the numbers whose blake2b of <class>/<number> is lowest. "
    "Images are <class>_<number>.jpg."
)
ANIMALS_SAY = "Half of each class for testing: the images whose blake2b of their 784 bytes is lowest."


def halves_by_content(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the half of each class whose hashes are lowest, bool [N]; a few more or less where equal images meet at
    the border."""
    hashes = np.array([hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() for image in images])
    is_test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        border = np.sort(hashes[members])[len(members) // 2]
        is_test[members] = hashes[members] < border
    return is_test


def first_halves(labels: np.ndarray) -> np.ndarray:
    """Return the half of each class that raysd has used for testing from its start; bool [N]."""
    rng = np.random.default_rng(0)
    is_test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        is_test[rng.permutation(members)[: len(members) // 2]] = True
    return is_test


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in HALVES:
        labels = OFFLINE_SETS[name].load("train")[1]
        (FOLDER / f"{name}.txt").write_text(split_text({ALL: first_halves(labels)}, HALVES_SAY), encoding="utf-8")
    images, labels = OFFLINE_SETS["animal_mnist"].load("train")
    mask = halves_by_content(images, labels)
    (FOLDER / "animal_mnist.txt").write_text(split_text({ALL: mask}, ANIMALS_SAY), encoding="utf-8")
    masks = {name: hashed_mask(name, count, TEST_SHARE) for name, count in EUROSAT.items()}
    (FOLDER / "eurosat.txt").write_text(split_text(masks, EUROSAT_SAYS), encoding="utf-8")
    for path in sorted(FOLDER.glob("*.txt")):
        print(path, path.stat().st_size)
