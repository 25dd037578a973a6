"""Plain training loops to compare with; nothing of raysd's loop is in them.

`python benchmarks/plain_training.py cifar10 SEED EPOCHS` trains on CIFAR-10 with the settings of raysd's `timm` recipe
and prints the top-1 on the test images after each epoch, of the averaged weights.
"""

import io
import math
import os
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import timm
import torch
import torch.distributed as dist
import torch.multiprocessing
from PIL import Image
from timm.data.mixup import Mixup
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
from torchvision.transforms import v2

BATCH, RATE, LAST_RATE, DECAY, WARM_UP = 128, 0.04 * 128 / 2048, 1e-6, 0.02, 0.15


class Images(torch.utils.data.Dataset):
    """CIFAR-10 from a Parquet file."""

    def __init__(self, path, transform):
        table = pq.read_table(path)
        self.images = [Image.open(io.BytesIO(image["bytes"])).convert("RGB") for image in table["image"].to_pylist()]
        self.labels, self.transform = table["label"].to_pylist(), transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.transform(self.images[i]), self.labels[i]


def small_resnet(channels):
    """A timm ResNet whose stem is one 3x3 convolution of stride 2."""
    model = timm.create_model("resnet18", num_classes=10, layers=[1, 1, 1, 1], channels=channels)
    model.conv1 = torch.nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
    model.maxpool = torch.nn.Identity()
    return model


def rate_at(step, num_steps, peak, last):
    warm_up = round(num_steps * WARM_UP)
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return last + (peak - last) * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (num_steps - warm_up)))


def train_cifar10(folder, seed, num_epochs):
    torch.manual_seed(seed)
    np.random.seed(seed)
    torch.set_num_threads(os.cpu_count())
    last = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]
    changes = [v2.Pad(2, padding_mode="edge"), v2.RandomCrop(32), v2.RandomHorizontalFlip(), v2.RandAugment(2, 21)]
    train, test = (
        Images(f"{folder}/train.parquet", v2.Compose(changes + last)),
        Images(f"{folder}/test.parquet", v2.Compose(last)),
    )
    loader = torch.utils.data.DataLoader(
        train, BATCH, shuffle=True, drop_last=True, num_workers=2, persistent_workers=True
    )
    model = small_resnet([32, 64, 128, 256]).to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(model, opt="lamb", lr=RATE, weight_decay=DECAY)
    average, mixup = (
        ModelEmaV3(model, decay=0.99, use_warmup=True),
        Mixup(0.1, 1.0, label_smoothing=0.1, num_classes=10),
    )
    step, num_steps = 0, num_epochs * len(loader)
    for _ in range(num_epochs):
        model.train()
        for images, labels in loader:
            for group in optimizer.param_groups:
                group["lr"] = rate_at(step, num_steps, RATE, LAST_RATE)
            images, targets = mixup(images.to(memory_format=torch.channels_last), labels)
            loss = torch.nn.functional.cross_entropy(model(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()  # timm's LAMB cuts gradients longer than 1 itself
            step += 1
            average.update(model, step=step)
        correct = 0
        with torch.inference_mode():
            for images, labels in torch.utils.data.DataLoader(test, 500):
                correct += int((average.module.eval()(images).argmax(1) == labels).sum())
        print(100 * correct / len(test), flush=True)


def _ddp_process(rank, images, settings, num_steps, address, rates):
    from raysd.classifier.model import normalize
    from raysd.data.images import decode_all
    from raysd.training.augmentation import augment
    from raysd.training.recipe import Recipe

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    arrays, recipe = decode_all(images, 32), Recipe(crop="shift")
    images, labels = torch.from_numpy(arrays.images), torch.from_numpy(arrays.labels)
    torch.manual_seed(0)
    model = small_resnet(settings["backbone_options"]["channels"]).to(memory_format=torch.channels_last)
    parallel = torch.nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=0.004, weight_decay=0.05)
    share, order, half = settings["batch_size"] // 2, torch.randperm(len(labels)), settings["bfloat16"]
    began = time.monotonic()
    for step in range(num_steps):
        first = (2 * step + rank) * share % (len(labels) - share)
        chosen = order[first : first + share]
        (view,) = augment(images[chosen], recipe, torch.Generator().manual_seed(step), 32)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = parallel(normalize(view)).float()
        loss = torch.nn.functional.cross_entropy(logits, labels[chosen], label_smoothing=0.1)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()
    rates[rank] = num_steps * settings["batch_size"] / (time.monotonic() - began)
    dist.destroy_process_group()


def ddp_rate(images, settings, num_steps):
    """Images per second of a bare DDP loop of two processes with a thread each."""
    import socket

    from raysd.device import cpu_has_bfloat16

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    rates = torch.zeros(2).share_memory_()
    settings = {**settings, "bfloat16": cpu_has_bfloat16()}
    torch.multiprocessing.spawn(_ddp_process, (images, settings, num_steps, address, rates), nprocs=2)
    return float(rates.min())


if __name__ == "__main__":
    train_cifar10(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
