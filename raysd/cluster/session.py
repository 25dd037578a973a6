"""The session with Ray: on the cluster that is there, or on one started on this machine."""

import atexit
import contextlib
import errno
import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from raysd.errors import UserError
from raysd.storage.home import can_write

LOCAL_OBJECT_STORE_BYTES = 512 * 2**20
WAVE_SHARDS = 4096  # handed to Ray Data at once, so that the driver's memory does not grow with the clone
# Of scoring, features or reading; generation has its own limit (raysd.generation.actor_pool).
NO_PROGRESS_SECONDS = 4 * 3600
ADDRESS_SECONDS = 10.0  # to wait for a cluster's head
RUN_AGAIN = "run the same command again, with -v to see what Ray says"
TIMED_OUT = "timed out"
START_REMEDIES = {
    TIMED_OUT: "end other work on this machine, and run the same command again",
    "shm": "give /dev/shm more room, in Docker with --shm-size=2g",
    "ddress already in use": "stop the other Ray on this machine (ray stop), or join it with RAY_ADDRESS=auto",
    "annot allocate memory": "free some memory, and run the same command again",
    "Resource temporarily unavailable": "raise the limit of processes (ulimit -u), and run the same command again",
    "Too many open files": "raise the limit of open files (ulimit -n 65536), and run the same command again",
}
"""What to do where Ray does not start, by words of its message."""
CORRECT = "correct it, or unset it to use this machine"
MAX_INIT_DEATHS = 2  # one node whose disk or network fails for a moment does not end a run
# Ray says this on every small machine; the user need not act.
WORKER_WARNING = "PYTHON worker processes have been started"


def ensure_ray() -> None:
    """Connect to Ray once.

    A running cluster is used when `RAY_ADDRESS` names it, as it does in a submitted job. Otherwise a single-node
    cluster is started that ends with this process. Its workers' logs stay in Ray's session folder; set
    `RAYSD_VERBOSE=1` to see them. `RAYSD_DASHBOARD=0` leaves Ray's dashboard out, which takes a third of the start's
    work.

    Raises:
        UserError: `RAY_ADDRESS` names no cluster that answers, or Ray does not start here.
    """
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")  # a short training need not wait for the next one
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # so that paths of an experiment mean the same in a trial
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DATA_PARQUET_FOOTER_NUM_ACTORS", "1")
    verbose = os.environ.get("RAYSD_VERBOSE") == "1"
    if not verbose:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
        os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", WORKER_WARNING)
    import ray

    if not ray.is_initialized():
        with contextlib.nullcontext() if verbose else _muted_stderr():
            _connect(verbose)
    _calm_ray_data(verbose)


def _connect(verbose: bool) -> None:
    import ray

    level = logging.INFO if verbose else logging.ERROR
    if (address := os.environ.get("RAY_ADDRESS", "local")) not in ("", "local"):
        _check_address(address)
        try:
            ray.init(logging_level=level, log_to_driver=verbose)
        except Exception as error:  # Ray raises many kinds where no cluster is found or the versions differ
            raise UserError("RAY_ADDRESS", address, f"{_first_line(error)}; {CORRECT}") from None
        return
    # Nobody takes this machine away; without the watcher each training has one process less.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    has_dashboard = os.environ.get("RAYSD_DASHBOARD") != "0"
    options = {"include_dashboard": has_dashboard, "object_store_memory": LOCAL_OBJECT_STORE_BYTES}
    try:
        _keep_token()
        with _plain_python():
            try:
                context = ray.init(address="local", logging_level=level, log_to_driver=verbose, **options)
            except Exception as error:
                if TIMED_OUT not in str(error):
                    raise
                ray.shutdown()  # on a busy machine the second start is quicker, as the files are in memory
                context = ray.init(address="local", logging_level=level, log_to_driver=verbose, **options)
    except Exception as error:  # as above, and those of the disk and the network
        raise _start_error(error) from None
    # Ray Train looks for its cluster again, and would find another one on a shared machine.
    os.environ["RAY_ADDRESS"] = context.address_info["gcs_address"]
    atexit.register(close_ray)


def _check_address(address: str) -> None:
    """Check that something listens at a `host:port`; Ray itself would try for minutes.

    Raises:
        UserError: nothing does, or the address is of another kind.
    """
    if address == "auto":
        return
    if "://" in address:
        kind = "the dashboard's" if address.startswith("http") else "Ray Client's"
        job = "submit a job to it (ray job submit --address http://HOST:8265 -- python jobs/sweep.py my.yaml)"
        raise UserError("RAY_ADDRESS", address, f"is {kind} address; {job}, or give HOST:6379 on one of its nodes")
    host, _, port = address.rpartition(":")
    if not (port.isascii() and port.isdigit()) or not host:
        raise UserError("RAY_ADDRESS", address, f"is no host and port; write it as HOST:6379, or {CORRECT}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ADDRESS_SECONDS).close()
    except (OSError, UnicodeError, OverflowError):  # names and ports that nothing can have
        raise UserError("RAY_ADDRESS", address, f"no cluster answers there; {CORRECT}") from None


def _start_error(error: Exception) -> UserError:
    """Return in one line why Ray does not start on this machine."""
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    if "AF_UNIX path length" in str(error):
        return UserError("TMPDIR", folder, "is too long for Ray's sockets; set it to a short one, as TMPDIR=/tmp")
    if isinstance(error, PermissionError) or (
        isinstance(error, OSError) and error.errno in (errno.EROFS, errno.ENOSPC)
    ):
        remedy = f"Ray cannot write there ({_first_line(error)}); set TMPDIR to a folder with some free space"
        return UserError("TMPDIR", folder, remedy)
    logs = f"{folder}/ray/session_latest/logs"
    remedy = next((remedy for words, remedy in START_REMEDIES.items() if words in str(error)), RUN_AGAIN)
    return UserError("ray", "local", f"does not start: {_first_line(error)}; {remedy}; its logs are in {logs}")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _keep_token() -> None:
    """Keep the token of the cluster that is started in the environment where Ray cannot write its file."""
    if not can_write(Path.home() / ".ray"):
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(16))


@contextlib.contextmanager
def _plain_python() -> Iterator[None]:
    """Let the processes that are started read and write UTF-8, and not look for modules in the working folder first: a
    `random.py` there would be taken for Python's own."""
    wanted = {"PYTHONSAFEPATH": "1", "PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _muted_stderr() -> Iterator[None]:
    """Hide what Ray's C++ core writes to the process's error stream while it starts; failures come as exceptions."""
    sys.stderr.flush()
    saved, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)


def _calm_ray_data(verbose: bool) -> None:
    import ray.data

    context = ray.data.DataContext.get_current()
    context.execution_no_progress_timeout_s = NO_PROGRESS_SECONDS
    context.max_consecutive_actor_init_deaths = MAX_INIT_DEATHS
    # A pool grows once all its actors have as many tasks as they may.
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
    if not verbose:
        context.enable_progress_bars = False
        for name in ("ray.data", "ray.train", "ray.tune"):
            logging.getLogger(name).setLevel(logging.ERROR)


@contextlib.contextmanager
def kept_interrupts() -> Iterator[None]:
    """Restore the handler of Ctrl-C after a call of Ray Train or Ray Tune, which set their own and leave it."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def close_ray() -> None:
    """End a cluster that this process started."""
    import ray

    if ray.is_initialized():
        ray.shutdown()
        os.environ.pop("RAY_ADDRESS", None)


def cluster_cpus() -> float:
    """Return the number of CPUs of the whole cluster."""
    import ray

    return float(ray.cluster_resources().get("CPU", 1))


def cluster_gpus() -> float:
    """Return the number of GPUs of the whole cluster."""
    import ray

    return float(ray.cluster_resources().get("GPU", 0))
