"""Cut the real sample that ships with raysd from the full Fashion-MNIST: python tools/make_fashion_sample.py"""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

import raysd
from raysd.data.catalog import CLASS_NAMES, load_fashion_mnist
from raysd.data.real_datasets import encode_png, image_table

PER_CLASS = 200

if __name__ == "__main__":
    for split in ("train", "test"):
        images, labels = load_fashion_mnist(split)
        chosen = np.concatenate([np.flatnonzero(labels == label)[:PER_CLASS] for label in range(len(CLASS_NAMES))])
        table = image_table([encode_png(image) for image in images[chosen]], labels[chosen], CLASS_NAMES)
        path = Path(raysd.__file__).parent / "assets" / "fashion_mnist" / f"{split}.parquet"
        pq.write_table(table, path, compression="none", row_group_size=1024)
        print(path, path.stat().st_size)
