"""Attempts of one job: they are numbered, and two that run at the same time notice each other."""

import subprocess
import sys
import threading

import pytest

from raysd.storage import attempts
from raysd.storage.attempts import Attempt
from raysd.storage.location import Location


@pytest.fixture
def said(monkeypatch):
    lines, changed = [], threading.Condition()

    def say(line):
        with changed:
            lines.append(line)
            changed.notify_all()

    def wait(count):
        with changed:
            assert changed.wait_for(lambda: len(lines) >= count, 30), lines
        return lines

    monkeypatch.setattr(attempts, "say", say)
    return wait


def test_two_attempts_at_the_same_time_notice_each_other_once(tmp_path, said):
    root = Location(str(tmp_path))
    with Attempt(root, "clone ab", 0.02) as first, Attempt(root, "clone ab", 0.02) as second:
        assert (first.number, second.number) == (1, 2)
        lines = said(2)
        with Attempt(root, "clone cd", 0.02) as other:
            assert other.number == 1
    assert {line.partition(";")[0] for line in lines} == {
        "clone ab: attempt 2 runs at the same time as this one, attempt 1",
        "clone ab: attempt 1 runs at the same time as this one, attempt 2",
    }
    assert len(lines) == 2


def test_a_killed_attempt_counts_and_is_not_taken_for_one_that_runs(tmp_path, said, monkeypatch):
    code = (
        "import os, signal; from raysd.storage.attempts import Attempt; from raysd.storage.location import Location\n"
        f"with Attempt(Location({str(tmp_path)!r}), 'sweep ab'): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    monkeypatch.setattr(attempts, "DEAD_BEATS", 3)
    with Attempt(Location(str(tmp_path)), "sweep ab", 0.02) as second:
        assert second.number == 2
        for _ in range(500):
            if set(second._seen) == set() and second._thread.is_alive():
                break
            threading.Event().wait(0.02)
    assert not said(0)
    with Attempt(Location(str(tmp_path)), "sweep ab", 0.02) as third:
        assert third.number == 3
