"""The actor's work on one shard, without Ray and with a stand-in for the pipeline."""

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import pytest
from plans import TABLE
from stand_in import StandIn, drawer_of, job_of

from raysd.clone.drawer import ShardDrawer
from raysd.clone.generate import PoolUse
from raysd.clone.scan import check_shards
from raysd.clone.shard import read_shard


def rows(job, shard=0):
    return read_shard(job.folder, shard, job.plan.spec).table.to_pylist()


def test_batches_keep_one_shape_and_each_picture_is_stored_once(tmp_path):
    job, stand_in = job_of(tmp_path), StandIn()
    statistics = drawer_of(job, stand_in).draw_shard(job, 1)
    assert [len(batch) for batch in stand_in.batches] == [4] * 4
    assert statistics["drawn"] == 15 and statistics["flagged"] == statistics["dropped"] == 0
    assert 0 < statistics["busy"] <= 1 and statistics["gpu_bytes"] == 0
    assert [row["index"] * 10 + row["label"] for row in rows(job, 1)] == list(range(15, 30))


def test_one_thread_loads_the_model_and_draws_all_shards(tmp_path):
    threads = []

    class Watched(StandIn):
        def __init__(self, spec):
            super().__init__()
            threads.append(threading.get_ident())

        def draw(self, spec, images):
            threads.append(threading.get_ident())
            return super().draw(spec, images)

    job = job_of(tmp_path)
    drawer = ShardDrawer(job.plan.spec, 4, 1, Watched)
    with ThreadPoolExecutor(2) as callers:
        list(callers.map(lambda shard: drawer.draw_shard(job, shard), range(2)))
    assert len(threads) == 9 and len(set(threads)) == 1


def test_the_progress_line_says_how_busy_the_actors_are():
    use = PoolUse("GPUs", deque(maxlen=2))
    use.note({"busy": 0.1, "gpu_bytes": 3_000_000_000})
    use.note({"busy": 1.0, "gpu_bytes": 2_000_000_000})
    assert use.note({"busy": 0.5, "gpu_bytes": 0}) == ", GPUs 75% busy at 3.0 GB"
    assert PoolUse("actors", deque(maxlen=2)).note({"busy": 0.9, "gpu_bytes": 0}) == ", actors 90% busy"


def test_a_flagged_picture_is_drawn_again_with_another_seed(tmp_path):
    job, stand_in = job_of(tmp_path), StandIn({3: 1, 7: 2})
    statistics = drawer_of(job, stand_in).draw_shard(job, 0)
    redrawn = {row["index"] * 10 + row["label"]: row for row in rows(job) if row["redraws"]}
    assert {position: row["redraws"] for position, row in redrawn.items()} == {3: 1, 7: 2}
    assert redrawn[3]["seed"] == job.plan.image(3, 1).seed != job.plan.image(3).seed
    assert statistics["dropped"] == 0 and len(rows(job)) == 15


def test_redraws_are_bounded_and_the_class_is_listed_as_short(tmp_path):
    job, stand_in = job_of(tmp_path, images_per_class=1, max_redraws=2), StandIn({3: 99})
    statistics = drawer_of(job, stand_in).draw_shard(job, 0)
    assert statistics["dropped"] == 1 and len(rows(job)) == 9
    assert max(redraw for batch in stand_in.batches for position, redraw in batch) == 2
    assert check_shards(job).short_classes(TABLE.keys) == {TABLE.keys[3]: 1}


@pytest.mark.parametrize(("policy", "num_rows", "flags"), [("keep", 10, ["unsafe"]), ("drop", 9, [])])
def test_flagged_pictures_are_kept_with_their_flag_or_dropped(tmp_path, policy, num_rows, flags):
    job, stand_in = job_of(tmp_path, images_per_class=1, flagged=policy), StandIn({4: 1})
    drawer_of(job, stand_in).draw_shard(job, 0)
    assert len(rows(job)) == num_rows and [row["flag"] for row in rows(job) if row["flag"]] == flags
    assert {position for batch in stand_in.batches for position, redraw in batch if redraw} == set()


def test_a_grown_shard_keeps_its_pictures_and_is_as_if_drawn_at_once(tmp_path):
    small, large, at_once = job_of(tmp_path / "a", 1), job_of(tmp_path / "a", 3), job_of(tmp_path / "b", 3)
    drawer_of(small, StandIn()).draw_shard(small, 0)
    stand_in = StandIn()
    assert drawer_of(large, stand_in).draw_shard(large, 0)["drawn"] == 5
    assert {position for batch in stand_in.batches for position, _ in batch} == set(range(10, 15))
    drawer_of(at_once, StandIn()).draw_shard(at_once, 0)
    shards = [tmp_path / name / "data" / "train-000000.parquet" for name in "ab"]
    assert shards[0].read_bytes() == shards[1].read_bytes()


def test_what_was_dropped_is_not_drawn_again_when_the_clone_grows(tmp_path):
    small, large = job_of(tmp_path, 1, flagged="drop"), job_of(tmp_path, 3, flagged="drop")
    drawer_of(small, StandIn({4: 1})).draw_shard(small, 0)
    stand_in = StandIn()
    drawer_of(large, stand_in).draw_shard(large, 0)
    assert 4 not in {position for batch in stand_in.batches for position, _ in batch}
    assert check_shards(large).num_dropped == 1


def test_two_calls_at_a_time_never_draw_at_a_time(tmp_path):
    import threading

    job, inside, most = job_of(tmp_path, 12), [], []

    class Watching(StandIn):
        def draw(self, spec, images):
            inside.append(1)
            most.append(len(inside))
            batch = super().draw(spec, images)
            inside.pop()
            return batch

    drawer = drawer_of(job, Watching())
    threads = [threading.Thread(target=drawer.draw_shard, args=(job, shard)) for shard in range(job.plan.num_shards)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and check_shards(job).broken == []
