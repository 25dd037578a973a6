"""The cost of a clone, and the command that measures it."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from raysd.commands.answers.rows import ResultRows
from raysd.config import Experiment, ExperimentLike, load_experiment
from raysd.errors import UserError
from raysd.formats import duration, short
from raysd.storage.row_types.rates import RateRow
from raysd.storage.rows import RATE, write_row

if TYPE_CHECKING:
    from raysd.clone.clone import Clone
    from raysd.generation.cost import CostEstimate, Pool


def benchmark(experiment: ExperimentLike = None, search: bool = False, **values: Any) -> ResultRows[RateRow]:
    """Measure how fast the cluster's devices generate with the experiment's generator, and keep the row for `plan`.

    Args:
        experiment: an experiment, the path of its file, or a mapping; the defaults when None.
        search: whether to double the batch size as long as that is faster and fits; the row of the best is kept.
        values: keys of the experiment file, merged into `experiment`.

    Raises:
        UserError: what is wrong with the experiment, or the cluster has no room for an actor.
    """
    from raysd.cluster.preflight import check_cluster
    from raysd.cluster.session import ensure_ray
    from raysd.generation.throughput import measure_rates
    from raysd.resolve import clone_spec_of

    experiment = load_experiment(experiment, **values)
    spec = clone_spec_of(experiment)
    experiment.root.check_writable()
    ensure_ray()
    check_cluster(experiment.root, experiment.cluster, spec.weights)
    rows = measure_rates(spec, experiment.generation, searches=search)
    row = max(rows, key=lambda row: row["images_per_second"])
    write_row(experiment.root, RATE, row)
    return ResultRows((row,), experiment.root.child("results", RATE.name).uri)


def cost_lines(experiment: Experiment, clones: "Sequence[Clone]", with_time: bool = True) -> list[str]:
    """Return what generating an experiment's whole clones costs, a line per known device: those of the running cluster,
    or else all.

    Args:
        experiment: validated settings.
        clones: to be generated.
        with_time: whether to say how long it takes on the running cluster, and whether that has room; clones that are
            generated one after the other take longer than all at once.
    """
    from raysd.cluster.resources import check_room, cluster_nodes
    from raysd.cluster.session import ensure_ray
    from raysd.generation import cost
    from raysd.generation.placement import request_actors

    settings = experiment.generation
    rates = cost.find_rates(clones[0].spec, cost.read_rates(experiment.root), settings.batch_size)
    lines, pool = [], None
    accelerators, gpus = None, 1.0
    if os.environ.get("RAY_ADDRESS"):
        ensure_ray()
        nodes = cluster_nodes()
        request = request_actors(settings, nodes)
        accelerators, gpus = {node.accelerator for node in nodes if node.accelerator is not None}, request.gpus
        rates = [rate for rate in rates if cost.runs_on(rate, accelerators, gpus)]
        num_shards = sum(clone.num_shards for clone in clones)
        if with_time:
            pool = cost.Pool(min(request.count, num_shards), cost.devices_per_actor(request.cpus, gpus))
            try:
                check_room(nodes, [request])
            except UserError as error:
                lines.append(f"no room: {error}")
    if not rates and gpus:
        estimates = cost.estimate_rates(clones[0].spec)
        rates = [rate for rate in estimates if accelerators is None or cost.runs_on(rate, accelerators, gpus)]
    if not rates:
        return [*lines, "unknown for this model and these devices; raysd benchmark measures it"]
    prices = experiment.cost.price_per_hour
    costs = [[cost.estimate_cost(clone, rate, settings.batch_size, prices) for clone in clones] for rate in rates]
    return [*lines, *(_described(_total(own), pool) for own in costs)]


def confirmation_lines(experiment: Experiment) -> list[str]:
    """Return what the confirmation of an experiment's sweep generates and trains beside the search, and what that costs
    by the first setting of the space, which need not be a finalist; nothing without `sweep.confirm`."""
    from raysd.resolve import clones_of
    from raysd.sweep.confirm import confirmed_experiment
    from raysd.sweep.space import first_setting

    if (wanted := experiment.sweep.confirm) is None:
        return []
    clones = clones_of(confirmed_experiment(experiment, first_setting(experiment)), fetch=False)
    images = wanted.settings * sum(map(len, clones))
    what = f"{wanted.settings} settings x {wanted.seeds} fresh seeds: {images:,} images and"
    lines = [line for line in cost_lines(experiment, clones * wanted.settings) if not line.startswith("no room")]
    return [f"{what} {wanted.settings * wanted.seeds} trainings beside the search of a sweep", *lines]


def _total(costs: "Sequence[CostEstimate]") -> "CostEstimate":
    """Return the cost of several clones on one kind of device."""
    price = None if costs[0].price is None else sum(cost.price or 0.0 for cost in costs)
    return replace(costs[0], device_seconds=sum(cost.device_seconds for cost in costs), price=price)


def _described(cost: "CostEstimate", pool: "Pool | None") -> str:
    time = "" if pool is None else f", {duration(cost.wall_seconds(pool))} with {pool.num_actors} actors"
    price = "" if cost.price is None else f", {short(cost.price)} at your price"
    return f"about {duration(cost.device_seconds)} of one {cost.rate.device}{time}{price} ({cost.rate.source})"
