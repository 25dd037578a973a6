"""Where Ray cannot be reached or started, one line says why."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from raysd.cluster import session
from raysd.errors import UserError

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def apart(monkeypatch):
    """As if this process had not connected yet."""
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return monkeypatch


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://head:8265", r"is the dashboard's address; submit a job to it .*, or give HOST:6379"),
        ("https://head", "is the dashboard's address"),
        ("ray://head:10001", "is Ray Client's address; submit a job"),
        ("localhost", "is no host and port; write it as HOST:6379, or correct it"),
        (":6379", "is no host and port"),
        ("127.0.0.1:1", "no cluster answers there; correct it, or unset it"),
    ],
)
def test_an_address_of_no_cluster_is_refused(apart, address, message):
    apart.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match=f"^RAY_ADDRESS = .*: {message}") as refused:
        session.ensure_ray()
    assert "\n" not in str(refused.value)


def fail(error):
    def init(*args, **options):
        raise error

    return init


def test_auto_without_a_cluster_is_refused(apart):
    apart.setenv("RAY_ADDRESS", "auto")
    apart.setattr("ray.init", fail(ConnectionError("Could not find any running Ray instance. Please\nspecify one.")))
    with pytest.raises(
        UserError, match=r"^RAY_ADDRESS = 'auto': Could not find any running Ray instance.*; correct it"
    ):
        session.ensure_ray()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError("AF_UNIX path length cannot exceed 107 bytes: '/long'"),
            r"TMPDIR = .*too long for Ray's sockets; set",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/tmp/ray"), r"TMPDIR = .*cannot write there \(.*denied"),
        (OSError(errno.ENOSPC, "No space left on device"), r"TMPDIR = .*cannot write there \(.*No space left"),
        (
            RuntimeError("The current node timed out during startup.\nlogs"),
            r"ray = 'local': does not start: The .*startup\.; end other work on this machine, .*logs",
        ),
        (ValueError("Odd"), r"ray = 'local': does not start: Odd; run the same command again, with -v .*logs"),
        (OSError(errno.EMFILE, "Too many open files"), r"ray = 'local': .*ulimit -n"),
    ],
)
def test_where_ray_does_not_start_one_line_says_why(apart, error, message):
    apart.delenv("RAY_ADDRESS", raising=False)
    apart.setattr("ray.init", fail(error))
    with pytest.raises(UserError, match=f"^{message}") as refused:
        session.ensure_ray()
    assert "\n" not in str(refused.value)


def test_a_start_that_took_too_long_is_tried_once_more(apart):
    apart.delenv("RAY_ADDRESS", raising=False)
    starts = []

    def init(*_, **__):
        starts.append(1)
        if len(starts) == 1:
            raise RuntimeError("The current node timed out during startup.")
        raise KeyError("the second start")

    apart.setattr("ray.init", init)
    with pytest.raises(UserError, match="the second start"):
        session.ensure_ray()
    assert len(starts) == 2


@pytest.mark.slow
def test_a_module_of_the_working_folder_with_a_standard_name_does_not_keep_ray_from_starting(tmp_path):
    for name in ("bin", "mine"):
        (tmp_path / name).mkdir()
    (tmp_path / "bin" / "raysd").write_text("from raysd.cli import main\nmain()\n")  # as the installed command
    (tmp_path / "mine" / "random.py").write_text("raise SystemExit('mine')\n")
    words = ["generation.model=dummy", "generation.images_per_class=1", "generation.num_actors=1", "lint=off"]
    finished = subprocess.run(
        [sys.executable, str(tmp_path / "bin" / "raysd"), "generate", f"storage={tmp_path / 'runs'}", *words],
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path / "mine",
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0 and "10 generated now" in finished.stdout, finished.stderr
