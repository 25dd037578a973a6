"""The actor's work on one shard, without Ray and with a stand-in for the pipeline."""

import json
import tempfile
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from plans import TABLE, plan_of, spec_of
from stand_in import StandIn, actor_class, actor_of, job_of

import raysd.generation.actor as actor_module
from raysd.clone.clone import Clone
from raysd.clone.scan import check_shards, missing_shards
from raysd.clone.shard import PARTS, read_shard, shard_name
from raysd.errors import UserError
from raysd.generation.generate import PoolUse
from raysd.storage.location import Location


def rows(job, shard=0):
    return read_shard(job.folder, shard, job.spec).table.to_pylist()


def test_batches_keep_one_shape_and_each_image_is_stored_once(tmp_path):
    job, stand_in = job_of(tmp_path), StandIn()
    statistics = actor_of(job, stand_in).generate_shard(job, 1)
    assert [len(batch) for batch in stand_in.batches] == [4] * 4
    assert statistics["generated"] == 15 and statistics["flagged"] == statistics["dropped"] == 0
    assert 0 < statistics["busy"] <= 1 and statistics["gpu_bytes"] == 0
    assert [row["index"] * 10 + row["label"] for row in rows(job, 1)] == list(range(15, 30))


def test_one_thread_loads_the_model_and_generates_all_shards(tmp_path):
    threads = []

    class Watched(StandIn):
        def __init__(self, spec):
            super().__init__()
            threads.append(threading.get_ident())

        def generate(self, spec, images):
            threads.append(threading.get_ident())
            return super().generate(spec, images)

    job = job_of(tmp_path)
    actor = actor_class(Watched)(job.spec, 4, 1)
    with ThreadPoolExecutor(2) as callers:
        list(callers.map(lambda shard: actor.generate_shard(job, shard), range(2)))
    assert len(threads) == 9 and len(set(threads)) == 1


def test_the_progress_line_says_how_busy_the_actors_are():
    use = PoolUse("GPUs", deque(maxlen=2))
    use.note({"busy": 0.1, "gpu_bytes": 3_000_000_000})
    use.note({"busy": 1.0, "gpu_bytes": 2_000_000_000})
    assert use.note({"busy": 0.5, "gpu_bytes": 0}) == ", GPUs 75% busy at 3.0 GB"
    assert PoolUse("actors", deque(maxlen=2)).note({"busy": 0.9, "gpu_bytes": 0}) == ", actors 90% busy"


def test_a_flagged_image_is_generated_again_with_another_seed(tmp_path):
    job, stand_in = job_of(tmp_path), StandIn({3: 1, 7: 2})
    statistics = actor_of(job, stand_in).generate_shard(job, 0)
    redrawn = {row["index"] * 10 + row["label"]: row for row in rows(job) if row["redraws"]}
    assert {position: row["redraws"] for position, row in redrawn.items()} == {3: 1, 7: 2}
    assert redrawn[3]["seed"] == job.image(3, 1).seed != job.image(3).seed
    assert statistics["dropped"] == 0 and len(rows(job)) == 15


def test_a_prompt_is_encoded_once_in_a_shard_of_more_prompts_than_are_kept(tmp_path, monkeypatch):
    import torch

    from raysd.diffusion import prompt_embeddings as embeddings

    calls = []

    class StableDiffusionPipeline:
        _execution_device = "cpu"

        def encode_prompt(
            self, prompt, device, num_images_per_prompt, do_classifier_free_guidance, negative_prompt=None
        ):
            calls.append((prompt, do_classifier_free_guidance))
            return (torch.zeros(1, 4), torch.ones(1, 4) if do_classifier_free_guidance else None)

    class Encoding(StandIn):
        encoded = embeddings.PromptEmbeddings(StableDiffusionPipeline())

        def generate(self, spec, images):
            values = self.encoded.batch(
                [image.prompt for image in images], [image.negative_prompt for image in images], guided=True
            )
            assert values["prompt_embeds"].shape == values["negative_prompt_embeds"].shape == (len(images), 4)
            return super().generate(spec, images)

    monkeypatch.setattr(embeddings, "KEPT_BYTES", 4 * 4 * 4)  # four of eleven
    job = Clone.of(plan_of(5, 50, spec_of()), Location(str(tmp_path / "encoded")))
    actor_of(job, Encoding({3: 1})).generate_shard(job, 0)
    assert sorted(prompt for prompt, is_guided in calls if not is_guided) == sorted(
        [*TABLE.names, job.image(3).prompt]
    )  # position 3 again in its redraw
    assert [prompt for prompt, is_guided in calls if is_guided] == [""]
    plain = Clone.of(job, Location(str(tmp_path / "plain")))
    actor_of(plain, StandIn({3: 1}), batch_size=1).generate_shard(plain, 0)
    assert rows(job) == rows(plain) and [row["index"] * 10 + row["label"] for row in rows(job)] == list(range(50))


def test_redraws_are_bounded_and_the_class_is_listed_as_short(tmp_path):
    job, stand_in = job_of(tmp_path, images_per_class=1, max_redraws=2), StandIn({3: 99})
    statistics = actor_of(job, stand_in).generate_shard(job, 0)
    assert statistics["dropped"] == 1 and len(rows(job)) == 9
    assert max(redraw for batch in stand_in.batches for position, redraw in batch) == 2
    assert check_shards(job).short_classes(TABLE.keys) == {TABLE.keys[3]: 1}


@pytest.mark.parametrize(("policy", "num_rows", "flags"), [("keep", 10, ["unsafe"]), ("drop", 9, [])])
def test_flagged_images_are_kept_with_their_flag_or_dropped(tmp_path, policy, num_rows, flags):
    job, stand_in = job_of(tmp_path, images_per_class=1, flagged=policy), StandIn({4: 1})
    actor_of(job, stand_in).generate_shard(job, 0)
    assert len(rows(job)) == num_rows and [row["flag"] for row in rows(job) if row["flag"]] == flags
    assert {position for batch in stand_in.batches for position, redraw in batch if redraw} == set()


def test_a_grown_shard_has_the_bytes_of_one_generated_at_once(tmp_path):
    small, large, at_once = job_of(tmp_path / "a", 1), job_of(tmp_path / "a", 3), job_of(tmp_path / "b", 3)
    actor_of(small, StandIn()).generate_shard(small, 0)
    stand_in = StandIn()
    assert actor_of(large, stand_in).generate_shard(large, 0)["generated"] == 5
    assert {position for batch in stand_in.batches for position, _ in batch} == set(range(10, 15))
    actor_of(at_once, StandIn()).generate_shard(at_once, 0)
    shards = [tmp_path / name / "data" / "train-000000.parquet" for name in "ab"]
    assert shards[0].read_bytes() == shards[1].read_bytes()


@settings(max_examples=30)
@example([3, 1], ["another begins"])
@given(
    st.lists(st.integers(1, 4), min_size=2, max_size=3),
    st.lists(st.sampled_from(["go on", "go on", "another begins", "kill"]), max_size=30),
)
def test_drivers_of_any_counts_whose_shards_overlap_in_time_end_with_the_union(counts, events):
    """Each driver looks at the shard, generates, and commits; while one generates, others may do all of that. Some
    are killed before they commit."""
    with tempfile.TemporaryDirectory() as folder:
        waiting = [(number, job_of(folder, number)) for number in counts]
        committed, event = [], iter(events)

        class Interrupted(StandIn):
            def generate(self, spec, images):
                what = next(event, "go on")
                if what == "another begins" and waiting:
                    run(*waiting.pop())
                if what == "kill":
                    raise InterruptedError
                return super().generate(spec, images)

        def run(number, job):
            actor = actor_of(job, Interrupted())
            for shard in range(job.num_shards):
                with suppress(InterruptedError):
                    actor.generate_shard(job, shard)
                    committed.append((job, shard))

        while waiting:
            run(*waiting.pop())
        for job, shard in committed:  # nothing that was committed once is lost, whoever came later
            there = read_shard(job.folder, shard, job.spec).covered(job.counts.num_classes)
            assert set(job.positions(shard).tolist()) <= set(there.tolist())
        largest, at_once = job_of(folder, max(counts)), job_of(f"{folder}/at_once", max(counts))
        for job in (largest, at_once):  # the killed ones again
            for shard in range(job.num_shards):
                actor_of(job, StandIn()).generate_shard(job, shard)
        for name in at_once.folder.child("data").list_files():
            assert largest.folder.child("data").read(name) == at_once.folder.child("data").read(name)


def test_a_smaller_driver_that_commits_last_takes_nothing_away(tmp_path):
    small, large = job_of(tmp_path, 1), job_of(tmp_path, 3)

    class Slow(StandIn):
        def generate(self, spec, images):
            if not rows_of(large):
                actor_of(large, StandIn()).generate_shard(large, 0)
            return super().generate(spec, images)

    def rows_of(job):
        shard = read_shard(job.folder, 0, job.spec)
        return [] if shard is None else shard.table["index"].to_pylist()

    actor_of(small, Slow()).generate_shard(small, 0)
    assert len(rows_of(large)) == 15 and not [
        path for path in (tmp_path / "data").iterdir() if path.name.startswith(".")
    ]


def test_what_was_dropped_is_not_generated_again_when_the_clone_grows(tmp_path):
    small, large = job_of(tmp_path, 1, flagged="drop"), job_of(tmp_path, 3, flagged="drop")
    actor_of(small, StandIn({4: 1})).generate_shard(small, 0)
    stand_in = StandIn()
    actor_of(large, stand_in).generate_shard(large, 0)
    assert 4 not in {position for batch in stand_in.batches for position, _ in batch}
    assert check_shards(large).num_dropped == 1


def test_two_calls_at_a_time_never_generate_at_a_time(tmp_path):
    import threading

    job, inside, most = job_of(tmp_path, 12), [], []

    class Watching(StandIn):
        def generate(self, spec, images):
            inside.append(1)
            most.append(len(inside))
            batch = super().generate(spec, images)
            inside.pop()
            return batch

    actor = actor_of(job, Watching())
    threads = [threading.Thread(target=actor.generate_shard, args=(job, shard)) for shard in range(job.num_shards)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and check_shards(job).broken == []


def test_a_shard_that_takes_long_is_kept_in_parts_which_the_next_actor_takes_over(tmp_path, monkeypatch):
    job, at_once = job_of(tmp_path / "parts"), job_of(tmp_path / "at_once")
    actor_of(at_once, StandIn()).generate_shard(at_once, 0)
    saved = threading.Event()
    monkeypatch.setattr("raysd.generation.actor.PART_SECONDS", 0.0)
    keep = actor_module._save_part
    monkeypatch.setattr(actor_module, "_save_part", lambda *arguments: (keep(*arguments), saved.set()))

    class Lost(StandIn):
        def generate(self, spec, images):
            if len(self.batches) == 2:
                assert saved.wait(60)
                raise InterruptedError
            return super().generate(spec, images)

    lost = actor_of(job, Lost())
    with pytest.raises(InterruptedError):
        lost.generate_shard(job, 0)
    lost.encoders.shutdown()  # the last part may be on its way
    assert read_shard(job.folder, 0, job.spec) is None and missing_shards(job).tolist() == [
        0,
        1,
    ]  # a shard has its name only when it is whole
    num_kept = len(read_shard(job.folder, 0, job.spec, place=PARTS).table)
    assert num_kept in (4, 8)
    assert actor_of(job, StandIn()).generate_shard(job, 0)["generated"] == 15 - num_kept
    assert read_bytes(job) == read_bytes(at_once) and not job.folder.child(PARTS).list_files()


def read_bytes(job):
    return job.folder.child("data").read(shard_name(0))


def test_what_a_device_fails_with_is_told_apart_from_errors_of_the_program(tmp_path):
    job = job_of(tmp_path)

    class Raising(StandIn):
        def __init__(self, error):
            super().__init__()
            self.error = error

        def generate(self, spec, images):
            raise self.error

    for error in (
        RuntimeError("CUDA error: an illegal memory access was encountered\nmore"),
        OSError(5, "Input/output error"),
        MemoryError(),
    ):
        row = actor_of(job, Raising(error)).try_shard(job, 0)
        assert (
            row["failure"].startswith(type(error).__name__)
            and "\n" not in row["failure"]
            and not row["error"]
            and row["generated"] == 0
        )
    row = actor_of(job, Raising(UserError("storage", "x", "the disk is full"))).try_shard(job, 0)
    assert json.loads(row["error"]) == ["storage", "x", "the disk is full"] and not row["failure"]
    with pytest.raises(ValueError, match="of the program"):
        actor_of(job, Raising(ValueError("of the program"))).try_shard(job, 0)


def test_an_actor_that_waited_for_work_did_not_hang(tmp_path):
    job, paces = job_of(tmp_path), []

    class Paced(StandIn):
        def generate(self, spec, images):
            paces.append(actor.pace()[0])
            return super().generate(spec, images)

    actor = actor_of(job, Paced())
    actor.moved -= 10_000  # it was idle for hours
    assert actor.pace() == (0.0, 0.0)
    actor.try_shard(job, 0)
    assert max(paces) < 100 and actor.pace()[0] == 0.0 and actor.pace()[1] > 0


def test_a_part_that_is_not_of_its_shard_is_not_taken_over(tmp_path):
    job, at_once = job_of(tmp_path / "a"), job_of(tmp_path / "b")
    actor_of(at_once, StandIn()).generate_shard(at_once, 1)
    parts = job.folder.child(PARTS)
    parts.write(shard_name(0), at_once.folder.child("data").read(shard_name(1)))
    actor_of(at_once, StandIn()).generate_shard(at_once, 0)
    assert actor_of(job, StandIn()).generate_shard(job, 0)["generated"] == 15 and read_bytes(job) == read_bytes(at_once)
