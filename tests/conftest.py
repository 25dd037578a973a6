import os
import sys
from functools import partial
from pathlib import Path

import pytest
from hypothesis import settings
from in_process import run_main

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAYSD_DASHBOARD", "0")  # a third of the work of Ray's start
os.environ.setdefault("RAY_worker_niceness", "0")  # or Ray waits while tests beside it compute
settings.register_profile("raysd", deadline=None)  # machines are shared
settings.load_profile("raysd")


@pytest.fixture(scope="session")
def ray_cluster():
    """One real single-node Ray for all tests that need one."""
    from raysd.cluster.session import close_ray, ensure_ray

    ensure_ray()
    yield
    close_ray()


@pytest.fixture(scope="session")
def s3_server():
    """A real S3 server on loopback with the bucket `raysd`; its port."""
    import boto3
    from moto.server import ThreadedMotoServer

    secrets = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
    before = {name: os.environ.get(name) for name in secrets}
    os.environ.update(secrets)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1").create_bucket(Bucket="raysd")
    yield port
    server.stop()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A stand-in for the hub, with an empty cache of its own."""
    from hub_server import serve_hub
    from huggingface_hub import constants

    from raysd.diffusion import checkpoint, earlier_digest

    with serve_hub() as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", served.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", served.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
        for function in (checkpoint.find_on_hub, checkpoint.find_model, earlier_digest.earlier_model):
            function.cache_clear()
        yield served


@pytest.fixture
def run_here(tmp_path):
    """Run the command's entry point in this process; returns exit code and output like a finished process."""
    return partial(run_main, tmp_path)


@pytest.fixture
def run_cli(tmp_path):
    """Run the real command in a process of its own; returns the finished process."""
    import subprocess

    def run(*words: str, timeout: float = 300, **options) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "raysd.cli", *words]
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        environment |= {"PYTHONPATH": str(Path(__file__).parent.parent), **options}
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=tmp_path, env=environment)

    return run
