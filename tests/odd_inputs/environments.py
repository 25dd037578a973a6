"""The environment that a command is started in."""

import os
import subprocess
import sys
from pathlib import Path

from odd_inputs.doing import overrides, put, with_environment
from odd_inputs.row import accepted, long, refused

from raysd.cluster import session
from raysd.config import load_experiment

ROOT = Path(__file__).parent.parent.parent


def address(text):
    """Look for the cluster at an address."""
    return lambda folder: session._check_address(text)


def process(*words, files=None, **environment):
    """Run the command in a process of its own."""

    def do(folder):
        put(folder, files or {})
        given = {name: value for name, value in {**os.environ, **environment}.items() if value is not None}
        given["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [environment.get("PYTHONPATH")])])
        given.pop("RAY_ADDRESS", None)
        return subprocess.run(
            [sys.executable, "-m", "raysd.cli", *words],
            capture_output=True,
            text=True,
            cwd=folder,
            env=given,
            timeout=100,
            encoding="utf-8",
            errors="replace",
        )

    return do


def works(*pieces):
    return lambda done: done.returncode == 0 and all(piece in done.stdout for piece in pieces)


PLAN = ("plan", "storage=runs")

ROWS = [
    refused("a port beyond all ports", address("head:99999"), "RAY_ADDRESS = 'head:99999'", "no cluster answers"),
    refused("a port of other digits", address("head:²"), "RAY_ADDRESS", "HOST:6379"),
    refused("blanks around an address", address(" head:6379 "), "RAY_ADDRESS"),
    refused("a host that is no name", address("he ad:6379"), "RAY_ADDRESS"),
    refused("a host longer than names are", address("x" * 300 + ":6379"), "RAY_ADDRESS"),
    refused("a host of an empty label", address("head..cluster:6379"), "RAY_ADDRESS"),
    refused("two addresses", address("head:6379,other:6379"), "RAY_ADDRESS"),
    refused("port 0", address("127.0.0.1:0"), "RAY_ADDRESS"),
    refused("an address of six", address("[::1]:1"), "RAY_ADDRESS", "no cluster answers"),
    accepted(
        "no home",
        with_environment(lambda folder: load_experiment(storage="runs"), HOME=None),
        lambda x: x.storage.endswith("runs"),
    ),
    accepted(
        "a home that is not there",
        with_environment(overrides("storage=~/runs"), HOME="/nowhere/at/all"),
        lambda x: x.storage == "/nowhere/at/all/runs",
    ),
    accepted("a number of threads that is none", process(*PLAN, OMP_NUM_THREADS="abc"), works("1,000")),
    long(accepted("devices that are none", process(*PLAN, CUDA_VISIBLE_DEVICES="abc"), works("1,000"))),
    long(
        accepted(
            "a folder for temporary files that is not there", process(*PLAN, TMPDIR="/nowhere/at/all"), works("1,000")
        )
    ),
    accepted(
        "a locale without letters",
        process(*PLAN, "classes=[Größe,ネコ]", LC_ALL="C", PYTHONIOENCODING=None, PYTHONUTF8=None),
        works("200"),
    ),
    long(
        accepted(
            "modules named as those that raysd needs",
            process(
                *PLAN,
                files={
                    f"{name}.py": "raise SystemExit('taken for the other')\n"
                    for name in ("datasets", "types_", "evaluate")
                },
            ),
            works("1,000"),
        )
    ),
    long(accepted("warnings that are errors", process(*PLAN, PYTHONWARNINGS="error::UserWarning"), works("1,000"))),
    long(accepted("a hub without a network", process(*PLAN, HF_HUB_OFFLINE="yes please"), works("1,000"))),
]
