"""A lock between threads and processes, which ends with its process."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from raysd.storage.location import Location
from raysd.storage.lock import held


def test_one_process_at_a_time_holds_the_lock_and_no_file_is_left(tmp_path):
    folder, inside, most = Location(str(tmp_path)), [], []

    def work(_):
        with held(folder, "x"):
            inside.append(1)
            most.append(len(inside))
            inside.pop()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(400)))
    assert len(most) == 400 and max(most) == 1 and not list(tmp_path.iterdir())


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    script = "import sys, time; from raysd.storage.location import Location; from raysd.storage.lock import held\n"
    script += f"with held(Location({str(tmp_path)!r}), 'x'): print('held', flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    taken = threading.Event()

    def take():
        with held(Location(str(tmp_path)), "x"):
            taken.set()

    waiter = threading.Thread(target=take)
    waiter.start()
    assert not taken.wait(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    waiter.join(timeout=60)
    assert taken.is_set()


def test_a_disk_that_cannot_be_written_to_is_not_locked_and_nothing_is_raised():
    with held(Location("/proc/none"), "x"):
        pass


def test_a_folder_that_does_not_exist_yet_can_be_locked(tmp_path):
    with held(Location(str(tmp_path / "a" / "b")), "x"):
        assert (tmp_path / "a" / "b" / ".x.lock").exists()
