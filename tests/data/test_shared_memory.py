"""Memory that processes share has no name, and is gone with the last of them."""

import os
import signal
import subprocess
import sys

import pytest

from raysd.data import shared_memory

MAKER = """
import sys, time
from raysd.data import shared_memory
made = shared_memory.create(1000)
made.bytes[:] = 7
print(*made.address, flush=True)
time.sleep(600)
"""


def test_what_one_process_made_another_reads_until_it_ends_though_the_first_was_killed():
    with subprocess.Popen([sys.executable, "-c", MAKER], stdout=subprocess.PIPE, text=True) as maker:
        pid, file = map(int, maker.stdout.readline().split())
        seen = shared_memory.attach((pid, file), 1000)
        with pytest.raises(OSError):
            shared_memory.attach((pid, file), 100_000)
        maker.send_signal(signal.SIGKILL)
    assert seen.bytes.tolist() == [7] * 1000 and not seen.bytes.flags.writeable
    assert os.readlink(f"/proc/self/fd/{seen.file}") == "/memfd:raysd (deleted)"
    with pytest.raises(OSError):
        shared_memory.attach((pid, file), 1000)


def test_more_than_is_free_is_an_error_that_can_be_caught(monkeypatch):
    monkeypatch.setattr(shared_memory, "free_bytes", lambda: 999)
    with pytest.raises(OSError, match="memory are free"):
        shared_memory.create(1000)


def test_a_system_without_such_memory_is_an_error_that_can_be_caught(monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    with pytest.raises(OSError, match="cannot share"):
        shared_memory.create(1000)
