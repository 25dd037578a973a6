"""The loop of each worker: one classifier per seed, with checkpoints that resume at the exact step.

Batches, augmentation and dropout are functions of (seed, step, rank), and a checkpoint holds the rest: weights, their
average, optimizer, scaler, the epoch's sums so far, and the position. So a killed and replaced worker or driver ends,
on CPU, with the weights of an undisturbed run. Where fewer workers go on, a step still takes the same number of images,
and each image counts the same.
"""

import contextlib
import json
import math
import time
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from timm.optim import create_optimizer_v2
from timm.utils import AverageMeter, ModelEmaV3, accuracy
from torch.nn.functional import cross_entropy

from raysd.classifier.architecture import load_record
from raysd.classifier.model import (
    build_classifier,
    compute_small_in_float32,
    lone_norms,
    normalize,
    running_statistics,
    save_classifier,
    synchronize_norms,
)
from raysd.data.images import ImageArrays, decode_part
from raysd.device import keep_freed_memory
from raysd.errors import UserError
from raysd.storage.location import Location
from raysd.training.augmentation import augment, fractals
from raysd.training.augmentation.ahead import Prepared, one_ahead, to_device
from raysd.training.checkpoint import begin_at, check_same, keep_end, pack, unpack
from raysd.training.loader import Batch
from raysd.training.logs import open_log
from raysd.training.losses.contrastive import WithProjections, contrastive_loss
from raysd.training.losses.soft_labels import mixup_of, soft_loss, softened
from raysd.training.precision import agreed_precision
from raysd.training.recipe import cosine_factor, size_at
from raysd.training.run import LoopConfig
from raysd.training.workers import Workers, mean_over_workers, resume_meter, totals_over_workers
from raysd.versions import versions


def equal_parts(count: int, most: int, largest: int = 0) -> list[slice]:
    """Return the fewest stretches of 0..count-1 with at most `most` items each; sizes differ by at most one.

    As many as a share of `largest` items needs, if that is more: synchronized batch norm waits for all workers in each
    forward pass, so those with one image less must take as many.
    """
    num_parts = min(count, -(-max(count, largest) // most))
    ends = [count * part // num_parts for part in range(num_parts + 1)]
    return [slice(start, stop) for start, stop in pairwise(ends)]


def part_of(view: torch.Tensor, count: int, part: slice) -> torch.Tensor:
    """Return the crops of some images of a view [L * count, 3, S, S] that holds L crops of each image."""
    if part.start == 0 and part.stop == count:
        return view
    return view.unflatten(0, (-1, count))[:, part].flatten(0, 1)


PROGRESS_SECONDS = 2.0
LOG_SECONDS = 10.0  # each write sends the whole history, which would slow short epochs down
VALIDATION_BATCH = 250
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
NOISE_STRIDE = 1_000_003  # between the seeds of trainings that go on, so that no order and no augmentation comes again
# timm's names, by optimizer and Nesterov momentum
OPTIMIZERS = {
    ("sgd", False): "momentum",
    ("sgd", True): "sgd",
    ("adamw", False): "adamw",
    ("lamb", False): "lamb",
}


def train_seeds(loop: LoopConfig, workers: Workers) -> None:
    """Train all seeds in turn; rank 0 writes the classifiers into the storage root."""
    keep_freed_memory()
    torch.set_num_threads(loop.num_threads)
    arrays = workers.read_once(loop.ingest) if loop.ingest.in_memory else None
    validation = None
    if loop.validation is not None and loop.validate_epochs:
        validation = decode_part(loop.validation, loop.architecture.image_size, workers.rank, workers.world_size)
    resumed = workers.resume()
    if resumed is not None and "precision" in resumed:
        loop = replace(loop, precision=resumed["precision"])
    loop = replace(loop, precision=agreed_precision(loop.precision, workers, loop.precision_note))
    if resumed is not None and resumed["seed"] not in loop.seeds:
        resumed = None  # its classifier is done
    for number, seed in enumerate(loop.seeds):
        is_earlier = resumed is not None and resumed["seed"] != seed
        if is_earlier and loop.is_done(seed):
            continue  # the checkpoint is from a later seed
        SeedTraining(loop, workers, seed, number, validation).run(arrays, None if is_earlier else resumed)
        resumed = resumed if is_earlier else None


class SeedTraining:
    """The training of one classifier, on one worker.

    Args:
        config: the run's configuration.
        workers: the workers that train together.
        seed: the seed of the weights, the order and the augmentation.
        number: number of seeds before this one, for the progress.
        validation: this worker's part of the validation images.
    """

    def __init__(
        self, config: LoopConfig, workers: Workers, seed: int, number: int, validation: ImageArrays | None
    ) -> None:
        self.config, self.workers, self.seed, self.number, self.validation = config, workers, seed, number, validation
        self.rank, self.world_size, self.device = workers.rank, workers.world_size, workers.device
        recipe = self.recipe = config.recipe
        torch.manual_seed(seed)
        self.model = build_classifier(config.architecture).to(self.device, memory_format=torch.channels_last)
        if self.device.type == "cpu" and config.precision == "bfloat16":
            compute_small_in_float32(self.model)
        if recipe.sync_batch_norm and self.device.type == "cuda":
            self.model = synchronize_norms(self.model)
        scale = config.ingest.batch_size / recipe.reference_batch if recipe.reference_batch else 1
        self.peak_rate = recipe.learning_rate * scale
        name = OPTIMIZERS[recipe.optimizer, recipe.nesterov and recipe.optimizer == "sgd"]
        # LAMB would clip by itself, beside `clip_norm`.
        options = {"max_grad_norm": None} if recipe.optimizer == "lamb" else {"fused": True}
        self.optimizer = create_optimizer_v2(
            self.model,
            opt=name,
            lr=self.peak_rate,
            weight_decay=recipe.weight_decay,
            momentum=recipe.momentum,
            **options,
        )
        self.ema = (
            ModelEmaV3(self.model, decay=recipe.ema_decay, use_warmup=True) if recipe.ema_decay is not None else None
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "float16")
        self.mixup = mixup_of(recipe, config.architecture.num_classes)
        size = config.architecture.image_size
        self.mixing = (
            torch.from_numpy(fractals(recipe.num_fractals, size, recipe.fractal_seed)).to(self.device)
            if recipe.pixmix_rounds
            else None
        )
        self.lone_norms: dict[tuple[torch.Size, ...], list[torch.nn.Module]] = {}
        names = ["loss", *(["train_top1"] if self.mixup is None else [])]
        names += ["contrastive_loss", "with_positive"] if recipe.contrastive_weight else []
        self.meters = {name: AverageMeter() for name in names}
        self.history: list[dict[str, float]] = []
        self.resumed_at: list[int] = []
        self.sizes: list[list[int]] = [[0, self.world_size]]
        log = {**config.record, "seed": seed}
        self.log = (
            open_log(config.logger, Location(config.root), config.fingerprints[seed], log) if self.rank == 0 else None
        )
        self.step = 0
        average = None if self.ema is None else self.ema.module
        self.learners = {
            "model": self.model,
            "optimizer": self.optimizer,
            "scaler": self.scaler,
            "ema": average,
        }
        start = config.starts.get(seed)
        self.steps_before = 0 if start is None else begin_at(start, self.learners)
        self.noise_seed = seed + NOISE_STRIDE * self.steps_before

    def run(self, arrays: list[ImageArrays] | None, resumed: dict[str, Any] | None) -> None:
        """Train to the end, from the checkpoint if there is one."""
        config = self.config
        if resumed is not None:
            self._load(resumed)
        called = WithProjections(self.model) if self.recipe.contrastive_weight else self.model
        parallel = self.workers.wrap(torch.compile(called) if config.compile else called)
        self.began, self.first_step, self.last_progress, self.last_log = time.monotonic(), self.step, 0.0, 0.0
        steps, place = range(self.step, config.num_steps), (self.rank, self.world_size, self.noise_seed)
        batches = (
            config.ingest.stream_batches(steps, *place)
            if arrays is None
            else config.ingest.memory_batches(arrays, steps, *place)
        )
        for prepared in one_ahead(enumerate(batches, self.step), self._prepare, self.device):
            self._train_step(parallel, prepared)
            self.step += 1
            if self.step % config.steps_per_epoch == 0 or self.step == config.num_steps:
                self._end_epoch()
            self._write_progress()
            if self.step % config.checkpoint_steps == 0 and self.step < config.num_steps:
                self._save()
        if self.rank == 0:
            self._finish()
        self.workers.report(self._reported())

    @property
    def images_per_s(self) -> float:
        """Images per second over all workers since this process began."""
        return (self.step - self.first_step) * self.config.ingest.batch_size / (time.monotonic() - self.began)

    def _rate(self) -> float:
        recipe, num_steps = self.recipe, self.config.num_steps
        floor = min(1.0, recipe.final_learning_rate / self.peak_rate)
        warmup = round(num_steps * recipe.warmup_share)
        decay = None if recipe.decay_share is None else round(num_steps * recipe.decay_share)
        return self.peak_rate * cosine_factor(self.step, num_steps, warmup, floor, decay)

    def _size(self, step: int) -> int:
        return size_at(
            step, self.config.num_steps, self.config.architecture.image_size, self.recipe.smallest_size_share
        )

    def _generator(self, step: int) -> torch.Generator:
        return torch.Generator().manual_seed(((self.noise_seed * 1_000_003 + step) * 1009 + self.rank) % 2**63)

    def _prepare(self, item: tuple[int, Batch]) -> Prepared:
        """Return the views, the labels, any soft targets and any groups of a step's batch, on the device."""
        step, batch = item
        images, labels, *others = (to_device(values, self.device) for values in batch)
        groups = others.pop() if self.config.ingest.grouping is not None else None
        views = augment(images, self.recipe, self._generator(step), self._size(step), self.mixing)
        targets = [
            softened(each, self.config.architecture.num_classes, self.recipe.soft_temperature) for each in others
        ]
        return Prepared([normalize(view) for view in views], labels, targets[0] if targets else None, groups)

    def _train_step(self, parallel: torch.nn.Module, prepared: Prepared) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        generator = self._generator(self.step)
        self._seed_dropout(generator.initial_seed())
        views, labels, soft, groups = prepared
        targets, count = labels, len(labels)
        if self.mixup is not None:
            np.random.seed(generator.initial_seed() % 2**32)
            # Mixup pairs the images; of an odd number the first one comes twice.
            even = torch.arange(count + count % 2, device=self.device) % count
            views[0], targets = (mixed[:count] for mixed in self.mixup(views[0][even], labels[even]))
            soft = None if soft is None else self.mixup.mix(soft[even])[:count]
        weight = count * self.world_size / self.config.ingest.batch_size  # 1 where all workers have equal shares
        largest = -(-self.config.ingest.batch_size // self.world_size)
        for part in equal_parts(count, self.config.forward_size or largest, largest):
            is_last = part.stop == count
            with contextlib.nullcontext() if is_last or self.world_size == 1 else parallel.no_sync():
                self._backward(
                    parallel,
                    [part_of(view, count, part) for view in views],
                    targets[part],
                    labels[part],
                    weight * (part.stop - part.start) / count,
                    None if soft is None else soft[part],
                    groups,
                )
        if self.recipe.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update(self.model, step=self.steps_before + self.step + 1)

    def _seed_dropout(self, seed: int) -> None:
        """Seed this worker's device alone; `torch.manual_seed` would seed all kinds of devices in every step."""
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _backward(
        self,
        parallel: torch.nn.Module,
        views: list[torch.Tensor],
        targets: torch.Tensor,
        labels: torch.Tensor,
        share: float,
        soft: torch.Tensor | None,
        groups: torch.Tensor | None,
    ) -> None:
        """Add the gradients of a part of the batch; the loss is the mean over all views. With groups the part is the
        whole batch."""
        precision = self.config.precision
        with (
            running_statistics(self._lone_norms(views) if len(labels) == 1 else []),
            torch.autocast(self.device.type, DTYPES[precision], enabled=precision != "float32"),
        ):
            logits, projections = parallel(*views) if groups is not None else (parallel(*views), None)
            logits = logits.float()
        smoothing = self.recipe.label_smoothing if self.mixup is None else 0.0  # Mixup smooths the targets itself
        repeats = len(logits) // len(labels)
        loss = cross_entropy(logits, targets.repeat(repeats, *[1] * (targets.ndim - 1)), label_smoothing=smoothing)
        if soft is not None:
            weight = self.recipe.soft_weight
            taught = soft_loss(logits, soft.repeat(repeats, 1), self.recipe.soft_temperature)
            loss = (1 - weight) * loss + weight * taught
        if groups is not None and projections is not None:
            loss = loss + self.recipe.contrastive_weight * self._contrast(projections, groups.repeat(repeats))
        self.scaler.scale(loss * share).backward()
        self.meters["loss"].update(loss.detach(), len(labels))
        if "train_top1" in self.meters:
            self.meters["train_top1"].update(*accuracy(logits[: len(labels)].detach(), labels), len(labels))

    def _contrast(self, projections: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
        """Return the contrastive loss of this worker's views; all workers take part."""
        shares = self.config.ingest.shares_of_batch(self.world_size)
        views = len(projections) // shares[self.rank]
        counts = [views * share for share in shares]
        temperature = self.recipe.contrastive_temperature
        loss, share = contrastive_loss(projections, groups, counts, self.rank, temperature, views)
        self.meters["contrastive_loss"].update(loss.detach(), shares[self.rank])
        self.meters["with_positive"].update(share, shares[self.rank])
        return loss

    def _lone_norms(self, views: list[torch.Tensor]) -> list[torch.nn.Module]:
        """Return the batch norms that cannot normalize these views of one image."""
        shapes = tuple(view.shape for view in views)
        if shapes not in self.lone_norms:
            self.lone_norms[shapes] = lone_norms(self.model, views)
        return self.lone_norms[shapes]

    def _end_epoch(self) -> None:
        row = {"step": self.step, "epoch": self.step / self.config.steps_per_epoch}
        for name, meter in self.meters.items():
            row[name] = round(mean_over_workers(meter, self.device), 4)
            meter.reset()
        if not math.isfinite(row["loss"]):
            why = f"the loss is no number any more before step {self.step}"
            remedy = f"{why}; use a lower rate, or training.precision=float32"
            raise UserError("training.recipe_options.learning_rate", self.recipe.learning_rate, remedy)
        if row.get("with_positive") == 0 and not any(earlier["with_positive"] for earlier in self.history):
            why = f"no image had another one of its {self.recipe.contrastive_groups} in its batch"
            remedy = f"{why}; use larger batches, fewer prompts, or contrastive_groups=class"
            raise UserError("training.recipe_options.contrastive_weight", self.recipe.contrastive_weight, remedy)
        row |= {
            "learning_rate": self._rate(),
            "image_size": self._size(self.step),
            "images_per_s": self.images_per_s,
            "time": time.time(),
        }
        epoch, every = round(row["epoch"]), self.config.validate_epochs
        if self.validation is not None and every and (epoch % every == 0 or self.step == self.config.num_steps):
            row["validation_top1"] = self._validate(self.validation)
        self.history.append(row)
        if self.log is not None and (
            time.monotonic() - self.last_log > LOG_SECONDS or self.step == self.config.num_steps
        ):
            self.log.write(self.history)
            self.last_log = time.monotonic()

    @torch.inference_mode()
    def _validate(self, images: ImageArrays) -> float:
        """Return top-1 in percent over the parts of all workers; all of them measure rank 0's model."""
        model = (self.ema.module if self.ema is not None else self.model).eval()
        if self.world_size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)
        top1 = AverageMeter()
        for start in range(0, len(images.labels), VALIDATION_BATCH):
            chosen = slice(start, start + VALIDATION_BATCH)
            batch = normalize(torch.from_numpy(images.images[chosen]).to(self.device))
            top1.update(
                *accuracy(model(batch).float(), torch.from_numpy(images.labels[chosen]).to(self.device)), len(batch)
            )
        self.model.train()
        return round(mean_over_workers(top1, self.device), 4)

    def _reported(self) -> dict[str, Any]:
        return {"seed": self.seed, "step": self.step, **(self.history[-1] if self.history else {})}

    def _save(self) -> None:
        """Report from all workers; the first one adds the checkpoint."""
        totals = {name: totals_over_workers(meter, self.device) for name, meter in self.meters.items()}
        if self.rank != 0:
            self.workers.report(self._reported())
            return
        state = {
            "seed": self.seed,
            "step": self.step,
            "history": self.history,
            "totals": totals,
            "resumed_at": self.resumed_at,
            "sizes": self.sizes,
            "precision": self.config.precision,
        }
        self.workers.report(self._reported(), state | pack(self.learners))

    def _load(self, state: dict[str, Any]) -> None:
        unpack(state, self.learners)
        if self.rank == 0:  # the sums of all workers
            for name, meter in self.meters.items():
                resume_meter(meter, state["totals"][name])
        self.step, self.history = state["step"], state["history"]
        self.resumed_at = [*state["resumed_at"], self.step]
        self.sizes = (
            state["sizes"]
            if state["sizes"][-1][1] == self.world_size
            else [*state["sizes"], [self.step, self.world_size]]
        )

    def _write_progress(self) -> None:
        """Write the progress of the training for the driver, to the storage that both can read."""
        is_last = self.step == self.config.num_steps
        if self.rank != 0 or (time.monotonic() - self.last_progress < PROGRESS_SECONDS and not is_last):
            return
        self.last_progress = time.monotonic()
        progress = {
            "step": self.number * self.config.num_steps + self.step,
            "images_per_s": self.images_per_s,
            "last": self.history[-1:],
        }
        Location(self.config.root).child("runs", self.config.run).write("progress.json", json.dumps(progress).encode())

    def _finish(self) -> None:
        config, model = self.config, self.ema.module if self.ema is not None else self.model
        record = {
            **config.record,
            "seed": self.seed,
            "fingerprint": config.fingerprints[self.seed],
            "history": self.history,
        }
        record |= {"loss": self.history[-1]["loss"], "images_per_s": self.images_per_s, "device": self.device.type}
        record |= {
            "precision": config.precision,
            "num_steps": config.num_steps,
            "resumed_at": self.resumed_at,
            "workers": self.sizes,
            "versions": versions(),
        }
        folder = Location(config.root).child("classifiers", record["fingerprint"])
        if self.seed in config.starts:
            start = config.starts[self.seed].path.rpartition("/")[2]
            record |= {"start": start, "steps_before": self.steps_before}
        is_there = load_record(folder) is not None  # and only its state was gone
        if is_there:
            check_same(folder, model.backbone.state_dict())
        if config.keeps_state:  # before the weights lose their layout
            keep_end(folder, self.learners, self.steps_before + self.step)
        if not is_there:
            save_classifier(folder, model, config.architecture, record)
        if self.log is not None:
            self.log.close()
