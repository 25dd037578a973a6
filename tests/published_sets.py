"""Real data sets as their publishers lay them out, with an image or two of each class, for tests."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 12


class Painter:
    """Writes images of which no two are equal."""

    def __init__(self):
        self.count = 0

    def __call__(self, *files):
        for file in files:
            self.count += 1
            pixels = np.random.default_rng(self.count).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)


def lay_out_imagenet(folder, wnids, learnt, paint):
    """`train` and `val`, each with a folder of each WordNet id; `train` has only those in `learnt`."""
    for number, wnid in enumerate(wnids, 1):
        paint(folder / "val" / wnid / f"ILSVRC2012_val_{number:08d}.JPEG")
    for wnid in learnt:
        paint(*(folder / "train" / wnid / f"{wnid}_{number}.JPEG" for number in (3, 10)))


def lay_out_variants(folder, wnids, in_r, in_a, paint):
    """ImageNet-V2, -Sketch, -R and -A, under the names of their archives."""
    for part in ("matched-frequency", "threshold0.7", "top-images"):
        for number in range(len(wnids)):
            paint(folder / f"imagenetv2-{part}-format-val" / str(number) / "0af3f1b55de7.jpeg")
    for wnid in wnids:
        paint(folder / "sketch" / wnid / "sketch_0.JPEG")
    for name, keys, suffix in (("imagenet-r", in_r, "art_0.jpg"), ("imagenet-a", in_a, "0.000116_digital clock.jpg")):
        for wnid in keys:
            paint(folder / name / wnid / suffix)
        (folder / name / "README.txt").write_text("n01443537 goldfish\n")


def lay_out_objectnet(folder, class_map, paint):
    """ObjectNet and a class map beside it: the folders are in `objectnet-1.0/images`."""
    for name in class_map:
        paint(folder / "objectnet-1.0" / "images" / name / "0a8f9e7b1d3c4a2.png")
    (folder / "objectnet-1.0" / "mappings").mkdir()
    (folder / "objectnet_to_wnid.json").write_text(json.dumps(class_map))


def lay_out_cog(folder, wnids, paint):
    """The five levels of ImageNet-CoG, each with `train` and `test`."""
    for level in range(1, 6):
        for wnid in wnids:
            base = folder / "cog" / f"l{level}"
            paint(*(base / "train" / wnid / f"{wnid}_{number}.JPEG" for number in range(2)))
            paint(base / "test" / wnid / f"{wnid}_9.JPEG")


def lay_out_inaturalist(folder, paint):
    """iNaturalist 2018 and 2019: images by group and species, and lists in COCO's form."""
    for year in (2018, 2019):
        base = folder / f"inat{year}"
        for part, count in (("train", 2), ("val", 1)):
            images, annotations = [], []
            for species in range(3):
                for number in range(count):
                    place = len(images)
                    name = f"train_val{year}/Aves/{species}/{part}{number}.jpg"
                    paint(base / name)
                    images.append({"id": place, "file_name": name, "width": SIDE, "height": SIDE, "license": 0})
                    annotations.append({"id": place, "image_id": place, "category_id": species})
            categories = [{"id": number, "name": f"species {number}", "supercategory": "Aves"} for number in range(3)]
            listed = {"images": images, "annotations": annotations, "categories": categories, "licenses": []}
            (base / f"{part}{year}.json").write_text(json.dumps(listed))


def lay_out_torchvision(folder, paint):
    """The sets that torchvision fetches, each in its own folder; EuroSAT has 10 images of each class."""
    base = folder / "fgvc-aircraft-2013b" / "data"
    paint(*(base / "images" / f"{number:07d}.jpg" for number in range(9)))
    variants = ["707-320", "727-200", "A300B4"]
    (base / "variants.txt").write_text("".join(f"{name}\n" for name in variants))
    for split, numbers in (("trainval", range(6)), ("test", range(6, 9))):
        lines = (f"{number:07d} {variants[number % 3]}\n" for number in numbers)
        (base / f"images_variant_{split}.txt").write_text("".join(lines))

    base = folder / "dtd" / "dtd"
    for place, split in enumerate(("train", "val", "test")):
        files = [f"{name}/{name}_{place:04d}.jpg" for name in ("banded", "zigzagged")]
        paint(*(base / "images" / file for file in files))
        (base / "labels").mkdir(exist_ok=True)
        (base / "labels" / f"{split}1.txt").write_text("".join(f"{file}\n" for file in files))

    base = folder / "oxford-iiit-pet"
    (base / "annotations" / "trimaps").mkdir(parents=True)
    for split, numbers in (("trainval", (1, 2)), ("test", (3,))):
        breeds = {"Abyssinian": 1, "beagle": 2}
        rows = [(f"{name}_{number}", label) for name, label in breeds.items() for number in numbers]
        paint(*(base / "images" / f"{name}.jpg" for name, _ in rows))
        (base / "annotations" / f"{split}.txt").write_text("".join(f"{name} {label} 1 1\n" for name, label in rows))

    base = folder / "food-101"
    (base / "meta").mkdir(parents=True)
    for split, numbers in (("train", (1, 2)), ("test", (3,))):
        listed = {name: [f"{name}/{number}" for number in numbers] for name in ("apple_pie", "waffles")}
        paint(*(base / "images" / f"{file}.jpg" for files in listed.values() for file in files))
        (base / "meta" / f"{split}.json").write_text(json.dumps(listed))

    for name in EUROSAT:
        paint(*(folder / "eurosat" / "2750" / name / f"{name}_{number}.jpg" for number in range(1, 11)))
    _lay_out_flowers(folder / "flowers-102", paint)


EUROSAT = ["AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial"]
EUROSAT += ["Pasture", "PermanentCrop", "Residential", "River", "SeaLake"]


def _lay_out_flowers(base, paint):
    from scipy.io import savemat

    paint(*(base / "jpg" / f"image_{number:05d}.jpg" for number in range(1, 9)))
    savemat(base / "imagelabels.mat", {"labels": np.array([[1, 1, 1, 1, 2, 2, 2, 2]])})
    savemat(base / "setid.mat", {"trnid": [[1, 5]], "valid": [[2, 6]], "tstid": [[3, 4, 7, 8]]})


def lay_out_hub_sets(folder, paint):
    """Stanford Cars and SUN397 as the files of their hub repositories; the cars' has distorted splits, too."""
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageColumn

    for name, splits in (("cars196", ("train", "test", "contrast")), ("sun397", ("train", "test"))):
        features = Features({"image": ImageColumn(), "label": ClassLabel(names=["a", "b"])})
        for split in splits:
            files = [folder / f"{name}_{split}_{number}.png" for number in range(4)]
            paint(*files)
            rows = {"image": [{"bytes": file.read_bytes(), "path": None} for file in files], "label": [0, 0, 1, 1]}
            (folder / name / "data").mkdir(parents=True, exist_ok=True)
            data = Dataset.from_dict(rows, features=features)
            data.to_parquet(folder / name / "data" / f"{split}-00000-of-00001.parquet")


def lay_out(folder: Path, wnids, in_r, in_a, class_map):
    """All sets that the shipped configurations name."""
    paint = Painter()
    lay_out_imagenet(folder / "imagenet", wnids, wnids[:3], paint)
    lay_out_variants(folder, wnids, in_r, in_a, paint)
    lay_out_objectnet(folder, class_map, paint)
    lay_out_cog(folder, ["n00004475", "n00006024", "n00006269"], paint)
    lay_out_inaturalist(folder, paint)
    lay_out_torchvision(folder / "torchvision", paint)
    lay_out_hub_sets(folder, paint)
