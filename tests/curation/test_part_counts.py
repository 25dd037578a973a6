"""Which parts of a score table fit their shards, and how many files are opened to know it."""

import tempfile

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysd.clone.shard import DATA, shard_name
from raysd.curation import part_counts
from raysd.curation.part_counts import PartCounts
from raysd.storage.location import Location
from raysd.storage.tables import num_rows, write_table


@pytest.fixture
def opened(monkeypatch):
    """Names of the files whose footer is read."""
    names = []
    monkeypatch.setattr(part_counts, "num_rows", lambda folder, name: names.append(name) or num_rows(folder, name))
    return names


def write_rows(folder, number, rows):
    return rows, write_table(folder, shard_name(number), pa.table({"x": list(range(rows))}))


class Clone:
    """A clone's shards and parts, as tables of numbers."""

    def __init__(self, folder):
        self.folder = Location(str(folder))
        self.data, self.scores = self.folder.child(DATA), self.folder.child("scores", "a")
        self.parts = self.scores.child("parts")
        self.sizes = {}

    def grow(self, number, rows):
        self.sizes[number] = self.sizes.get(number, 0) + rows
        write_rows(self.data, number, self.sizes[number])

    def score(self, number):
        return write_rows(self.parts, number, self.sizes[number])

    def counts(self):
        return PartCounts(self.folder, self.scores)


def scored_clone(folder, num_shards=6):
    clone = Clone(folder)
    for number in range(num_shards):
        clone.grow(number, 5)
    counts = clone.counts()
    assert counts.missing(range(num_shards)) == list(range(num_shards))
    counts.keep({number: clone.score(number) for number in range(num_shards)})
    return clone


def test_an_unchanged_clone_is_known_without_opening_its_files(tmp_path, opened):
    clone = scored_clone(tmp_path)
    counts = clone.counts()
    assert counts.missing(range(6)) == [] and counts.rows() == {shard_name(number): 5 for number in range(6)}
    assert opened == []


def test_a_grown_shard_is_missing_and_the_others_are_not_opened(tmp_path, opened):
    clone = scored_clone(tmp_path)
    clone.grow(2, 1)
    counts = clone.counts()
    assert counts.missing(range(6)) == [2] and opened == [shard_name(2)] * 2
    counts.keep({2: clone.score(2)})
    opened.clear()
    assert clone.counts().missing(range(6)) == [] and opened == []


def test_parts_without_counts_are_counted_once(tmp_path, opened):
    """As those of a run that was killed."""
    clone = scored_clone(tmp_path)
    clone.scores.delete(part_counts.COUNTS)
    assert clone.counts().missing(range(6)) == [] and len(opened) == 12
    assert clone.counts().missing(range(6)) == [] and len(opened) == 12


def test_a_shard_that_grows_while_it_is_scored_is_looked_at_again(tmp_path):
    clone = scored_clone(tmp_path)
    clone.grow(1, 2)
    counts = clone.counts()
    assert counts.missing(range(6)) == [1]
    scored = clone.score(1)
    clone.grow(1, 2)  # by another driver
    counts.keep({1: scored})
    assert clone.counts().missing(range(6)) == [1]


def test_parts_beyond_the_plan_are_counted_too(tmp_path, opened):
    clone = scored_clone(tmp_path, 3)
    clone.grow(7, 4)
    clone.score(7)
    assert clone.counts().rows() == {
        shard_name(0): 5,
        shard_name(1): 5,
        shard_name(2): 5,
        shard_name(7): 4,
    } and opened == [shard_name(7)]


def test_a_shard_that_is_gone_is_missing(tmp_path):
    clone = scored_clone(tmp_path)
    clone.data.delete(shard_name(3))
    assert clone.counts().missing(range(6)) == [3]


EVENTS = st.one_of(
    st.tuples(st.just("grow"), st.integers(0, 2), st.integers(1, 3)),
    st.tuples(st.just("score"), st.integers(0, 1), st.integers(0, 2)),
    st.tuples(st.just("look"), st.integers(0, 1)),
    st.tuples(st.just("keep"), st.integers(0, 1)),
    st.tuples(st.just("lose the counts")),
)


@settings(max_examples=40)
@given(st.lists(EVENTS, max_size=15))
def test_whatever_two_runs_do_at_a_time_what_is_missing_is_what_the_footers_say(events):
    with tempfile.TemporaryDirectory() as folder:
        clone = Clone(folder)
        for number in range(3):
            clone.grow(number, 2)
        runs, scored = [clone.counts(), clone.counts()], [{}, {}]
        for kind, *arguments in events:
            if kind == "grow":
                clone.grow(*arguments)
            elif kind == "score":
                run, number = arguments
                scored[run][number] = clone.score(number)
            elif kind == "look":
                runs[arguments[0]], scored[arguments[0]] = clone.counts(), {}
                runs[arguments[0]].missing(range(3))
            elif kind == "keep":
                runs[arguments[0]].keep(scored[arguments[0]])
            elif clone.scores.exists(part_counts.COUNTS):
                clone.scores.delete(part_counts.COUNTS)
        parts = clone.parts.list_files()
        truth = [
            number
            for number in range(3)
            if shard_name(number) not in parts or num_rows(clone.parts, shard_name(number)) != clone.sizes[number]
        ]
        assert clone.counts().missing(range(3)) == truth
        assert clone.counts().rows() == {name: num_rows(clone.parts, name) for name in parts}
