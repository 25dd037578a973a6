"""The pool on real Ray: what becomes of shards whose actor fails, hangs or is lost."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest
import stand_in
from plans import SPEC, plan_of
from stand_in import StandIn, actor_class

from raysd.clone.clone import Clone
from raysd.clone.scan import check_shards
from raysd.clone.settings import GenerationSettings
from raysd.errors import UserError
from raysd.generation.actor_pool import ActorPool
from raysd.generation.generate import generate_clones
from raysd.generation.placement import PoolShape
from raysd.generation.shared_pool import GenerationQueue
from raysd.prompts.variant import PromptVariant
from raysd.storage.location import Location

pytestmark = pytest.mark.slow
SETTINGS = GenerationSettings(batch_size=5, num_actors=2, cpus_per_actor=0.1)


class Failing(StandIn):
    """Fails in the first processes that come; each of them leaves its number in a file."""

    def __init__(self, folder, num_bad, fail, spec):
        super().__init__()
        self.fail, self.is_bad = fail, False
        for number in range(num_bad):
            with_number = Path(folder, f"{number}.pid")
            try:
                with open(with_number, "x") as file:
                    file.write(str(os.getpid()))
            except FileExistsError:
                continue
            self.is_bad = True
            break

    def generate(self, spec, images):
        if self.is_bad:
            self.fail()
        time.sleep(0.05)  # so that the others have a share
        return super().generate(spec, images)


@pytest.fixture(scope="module", autouse=True)
def by_value():
    """Ray's processes do not see the folder of the tests."""
    from ray import cloudpickle

    for module in (stand_in, sys.modules[__name__]):
        cloudpickle.register_pickle_by_value(module)


def cuda_error():
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def hang():
    time.sleep(10_000)


def die():
    os._exit(1)


def no_such_argument():
    raise TypeError("unexpected keyword argument")


def job_of(folder, images_per_class=20):
    return Clone.of(plan_of(images_per_class, 10), Location(str(folder)))


@contextmanager
def pool_of(job, make, settings=SETTINGS):
    with patch("raysd.generation.actor_pool.GenerationActor", actor_class(make)):
        pool = ActorPool(job.spec, settings, PoolShape(settings.num_actors, settings.cpus_per_actor, 0.0))
        try:
            yield pool
        finally:
            pool.close()


@pytest.mark.parametrize(("fail", "num_bad"), [(cuda_error, 2), (die, 3)])
def test_an_actor_whose_device_fails_leaves_and_its_shards_go_to_others(ray_cluster, tmp_path, fail, num_bad):
    job = job_of(tmp_path / "clone")
    with pool_of(job, partial(Failing, str(tmp_path), num_bad, fail)) as pool:
        rows = dict(pool.generate((job, shard) for shard in range(job.num_shards)))
    assert sorted(row["shard"] for row in rows.values()) == list(range(20)) and not check_shards(job).broken
    for number in range(num_bad):
        assert not alive(int((tmp_path / f"{number}.pid").read_text()))


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def test_a_device_that_fails_again_and_again_ends_the_job_in_one_line_where_it_is_the_only_one(
    ray_cluster, tmp_path, monkeypatch
):
    job = job_of(tmp_path / "clone", 2)
    failing = actor_class(partial(Failing, str(tmp_path), 99, cuda_error))
    monkeypatch.setattr("raysd.generation.actor_pool.GenerationActor", failing)
    with pytest.raises(UserError, match=r"^node = .*RuntimeError: CUDA error: an illegal memory access") as caught:
        generate_clones([job], GenerationSettings(**{**SETTINGS.model_dump(), "num_actors": 1}))
    assert "\n" not in str(caught.value) and len(list(tmp_path.glob("*.pid"))) == 3


def test_an_error_of_the_program_ends_the_job_at_once(ray_cluster, tmp_path):
    job = job_of(tmp_path / "clone", 2)
    with (
        pool_of(job, partial(Failing, str(tmp_path), 99, no_such_argument)) as pool,
        pytest.raises(TypeError, match="unexpected keyword"),
    ):
        list(pool.generate((job, shard) for shard in range(job.num_shards)))


class Unloadable(StandIn):
    """Cannot be made; each process that tries leaves a file."""

    def __init__(self, folder, fail, spec):
        Path(folder, f"{os.getpid()}.pid").touch()
        fail()


def torn():
    raise ValueError("header too large\nmore of it")


@pytest.mark.parametrize(
    ("fail", "tries", "is_shared", "message"),
    [
        (torn, 2, False, "^generation.model = .*: cannot be loaded: ValueError: header too large; copy or download"),
        (torn, 2, True, "^generation.model = .*: cannot be loaded: ValueError: header too large; copy or download"),
        (die, 6, True, "an actor died there"),
    ],
)
def test_a_model_that_no_actor_can_load_ends_the_job_after_few_tries_in_one_line(
    ray_cluster, tmp_path, monkeypatch, capfd, fail, tries, is_shared, message
):
    job, make = job_of(tmp_path / "clone"), partial(Unloadable, str(tmp_path), fail)
    monkeypatch.setattr("raysd.generation.actor_pool.GenerationActor", actor_class(make))
    with pytest.raises(UserError, match=message) as caught:
        if is_shared:
            shape = PoolShape(SETTINGS.num_actors, SETTINGS.cpus_per_actor, 0.0)
            GenerationQueue(SETTINGS, shape).grow(job)
        else:
            generate_clones([job], SETTINGS)
    assert "\n" not in str(caught.value) and len(list(tmp_path.glob("*.pid"))) <= tries + SETTINGS.num_actors
    assert fail is die or "Traceback" not in "".join(capfd.readouterr())


def test_an_actor_that_hangs_is_replaced(ray_cluster, tmp_path, monkeypatch):
    for name, seconds in (("WATCH_SECONDS", 0.2), ("HANG_SECONDS", 5.0), ("FIRST_BATCH_SECONDS", 5.0)):
        monkeypatch.setattr(f"raysd.generation.actor_pool.{name}", seconds)
    job = job_of(tmp_path / "clone", 4)
    with pool_of(job, partial(Failing, str(tmp_path), 1, hang)) as pool:
        assert len(list(pool.generate((job, shard) for shard in range(job.num_shards)))) == 4
    assert not check_shards(job).broken and "no batch ended in" in str(pool.failures.last)


def test_the_bytes_that_go_with_a_shard_do_not_grow_with_the_captions(ray_cluster, tmp_path, monkeypatch):
    import ray.actor
    from ray._private.worker import global_worker

    sent, call = {}, ray.actor.ActorMethod._remote

    def watched(self, args=None, kwargs=None, **options):
        if self._method_name.startswith("try_shard"):
            sent[size].append(global_worker.get_serialization_context().serialize((args, kwargs)).total_bytes)
        return call(self, args, kwargs, **options)

    monkeypatch.setattr(ray.actor.ActorMethod, "_remote", watched)
    for size in (1, 20_000):
        sent[size] = []
        captions = PromptVariant(
            templates=["{name}, {caption}"],
            fields={"caption": [f"the caption of number {number}" for number in range(size)]},
        )
        job = Clone.of(plan_of(5, 10, replace(SPEC, variant=captions)), Location(f"{tmp_path}/{size}"))
        assert len(ray.cloudpickle.dumps(job)) > 25 * size
        with pool_of(job, partial(Failing, str(tmp_path), 0, hang)) as pool:
            assert len(list(pool.generate((job, shard) for shard in range(5)))) == 5
        assert len(sent[size]) == 5
    assert max(sent[20_000]) < max(sent[1]) + 100 < 8_000


CLUSTER = """
import json, sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1, resources={name: 1}) for name in ("good", "bad")]
import os
os.environ["RAY_ADDRESS"] = cluster.address
from raysd.cluster.session import ensure_ray
ensure_ray()
from test_actor_pool import *
job = job_of(sys.argv[1])
settings = GenerationSettings(**{**SETTINGS.model_dump(), "cpus_per_actor": 1})
with pool_of(job, partial(OnNode, nodes[1].node_id, sys.argv[2]), settings) as pool:
    rows = []
    for place, row in pool.generate((job, shard) for shard in range(job.num_shards)):
        rows.append(row["shard"])
        if len(rows) == 5 and sys.argv[2] == "start":
            late = cluster.add_node(num_cpus=1, resources={"late": 1})
    avoided = {nodes[1].node_id: "bad", nodes[0].node_id: "good"}
    places = [avoided.get(node) for node in pool.failures.avoided]
    print(json.dumps({"shards": sorted(rows), "avoided": places, "lines": pool.failures.lines(pool.nodes)}))
import ray
ray.shutdown()
cluster.shutdown()
"""


class OnNode(StandIn):
    """Fails on one node: when it is loaded, or when it generates."""

    def __init__(self, node, when, spec):
        import ray

        super().__init__()
        self.is_bad, self.when = ray.get_runtime_context().get_node_id() == node, when
        if self.is_bad and when == "start":
            raise UserError("generation.model", "me/model", "cannot be fetched from the hub")

    def generate(self, spec, images):
        if self.is_bad:
            cuda_error()
        time.sleep(0.3)  # the shards must last for three failures
        return super().generate(spec, images)


@pytest.mark.parametrize("when", ["start", pytest.param("device", marks=pytest.mark.soak)])
def test_a_node_that_fails_is_avoided_and_named_and_the_others_do_all(tmp_path, when):
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).parent), str(Path(__file__).parent.parent), str(Path(__file__).parents[2])]
    )
    run = subprocess.run(
        [sys.executable, "-c", CLUSTER, str(tmp_path / "clone"), when],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["shards"] == list(range(20)) and found["avoided"] == ["bad"]
    (line,) = found["lines"]
    assert ("cannot be fetched from the hub" if when == "start" else "CUDA error") in line
