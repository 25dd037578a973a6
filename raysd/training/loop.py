"""What each Ray Train worker runs: one classifier per seed, with checkpoints that resume to the step.

With pictures in memory, batches, augmentation and weights are functions of (seed, step, rank), so a worker that is killed and replaced
ends with the weights of an undisturbed run. When pictures are streamed, a resumed run goes on with its weights and step, and with other
batches.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train.torch import get_device, prepare_model
from timm.optim import create_optimizer_v2

from raysd.storage.location import Location
from raysd.training.augment import augment
from raysd.training.checkpoint import load_state, save_state
from raysd.training.classifier import Architecture, build_classifier, normalise, save_classifier
from raysd.training.ingest import memory_batches, read_into_memory, stream_batches
from raysd.training.recipe import Recipe
from raysd.training.schedule import cosine_factor
from raysd.versions import versions

CHECKPOINT_STEPS = 400
PROGRESS_SECONDS = 5.0
GRADIENT_NORM = 5.0


def train_worker(config: dict[str, Any]) -> None:
    """Train all seeds in turn; rank 0 writes the classifiers into `config["root"]`."""
    torch.set_num_threads(config["num_threads"])
    shard = ray.train.get_dataset_shard("train")
    arrays = read_into_memory(shard) if config["in_memory"] else None
    resumed = _resumed_state()
    for number, seed in enumerate(config["seeds"]):
        if resumed is not None and resumed["seed"] != seed:
            continue  # the checkpoint is from a later seed, so this one is done
        _train_seed(config, number, seed, arrays, shard, resumed)
        resumed = None


def _resumed_state() -> dict[str, Any] | None:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        state: dict[str, Any] = load_state(Path(folder))
    return state


def _train_seed(config: dict[str, Any], number: int, seed: int, arrays: Any, shard: Any, resumed: dict[str, Any] | None) -> None:
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    recipe, architecture = Recipe(**config["recipe"]), Architecture(**config["architecture"])
    num_steps, batch_size, device = config["num_steps"], config["batch_size"], get_device()
    torch.manual_seed(seed)
    model = build_classifier(architecture).to(device, memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(model, opt=recipe.optimizer, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, momentum=0.9)
    step = 0
    if resumed is not None:
        model.load_state_dict(resumed["model"])
        optimizer.load_state_dict(resumed["optimizer"])
        step = resumed["step"]
    parallel = prepare_model(model, parallel_strategy_kwargs={"broadcast_buffers": False})
    half = config["bfloat16"]
    loss_function = torch.nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    if arrays is not None:
        batches = memory_batches(arrays, step, num_steps, config["steps_per_epoch"], batch_size, rank, world_size, seed)
    else:
        batches = stream_batches(shard, num_steps - step, batch_size // world_size, seed)
    began, last_progress, first, total = time.monotonic(), 0.0, step, 0.0
    for images, labels in batches:
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * cosine_factor(step, num_steps, round(num_steps * recipe.warmup_share))
        generator = torch.Generator().manual_seed(((seed * 1_000_003 + step) * 1009 + rank) % 2**63)
        torch.manual_seed(generator.initial_seed())
        inputs = normalise(augment(images, recipe, generator).to(device))
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            logits = parallel(inputs)
        loss = loss_function(logits.float(), labels.to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
        optimizer.step()
        optimizer.zero_grad()
        total += loss.item()
        step += 1
        images_per_s = (step - first) * batch_size / (time.monotonic() - began)
        if rank == 0 and (time.monotonic() - last_progress > PROGRESS_SECONDS or step == num_steps):
            last_progress = time.monotonic()
            _write_progress(config, number * num_steps + step, total / (step - first), images_per_s)
        if step % CHECKPOINT_STEPS == 0 and step < num_steps:
            _report(seed, step, model, optimizer, total / (step - first), rank)
    if rank == 0:
        record = {**config["record"], "seed": seed, "fingerprint": config["fingerprints"][number], "loss": total / max(1, step - first)}
        record |= {"images_per_s": images_per_s, "device": device.type, "bfloat16": half, "versions": versions()}
        save_classifier(Location(config["root"]).child("classifiers", record["fingerprint"]), model, architecture, record)
    ray.train.report({"seed": seed, "step": step, "loss": total / max(1, step - first)})


def _report(seed: int, step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer, loss: float, rank: int) -> None:
    """All workers report; the first one brings the checkpoint."""
    metrics = {"seed": seed, "step": step, "loss": loss}
    if rank != 0:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        save_state(Path(folder), {"seed": seed, "step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()})
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _write_progress(config: dict[str, Any], step: int, loss: float, images_per_s: float) -> None:
    """Tell the driver how far training is, through the storage that both see."""
    progress = {"step": step, "loss": loss, "images_per_s": images_per_s}
    Location(config["root"]).child("runs", config["run"]).write("progress.json", json.dumps(progress).encode())
