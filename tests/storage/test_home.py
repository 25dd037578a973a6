import os
import stat
from pathlib import Path

import pytest

from raysd.cluster.session import _keep_token
from raysd.data.hub_readers import _downloads
from raysd.storage import home

NAMES = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TRITON_HOME", "HF_HOME", "HF_HUB_CACHE", "HF_TOKEN_PATH")
NO_HOME = "/dev/null/x"


@pytest.fixture
def clean(monkeypatch, tmp_path):
    """An environment of its own, whose temporary folder is empty."""
    for name in (*NAMES, "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "")  # to be put back
        monkeypatch.delenv(name)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    return monkeypatch


def read_only(monkeypatch, folder):
    """Let a folder look as if nothing could be written to it; the superuser may write anywhere."""
    real = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: not str(path).startswith(str(folder)) and bool(real(path, mode))
    )


def test_a_home_that_can_be_written_to_stays(clean, tmp_path):
    clean.setenv("HOME", str(tmp_path))
    assert home.place_caches() is None
    assert not {*NAMES} & {*os.environ} - {"HOME"}


def test_a_home_that_is_missing_is_replaced_by_a_folder_of_the_users_own(clean, tmp_path):
    clean.setenv("HOME", NO_HOME)
    line = home.place_caches()
    place = Path(os.environ["HOME"])
    assert place.parent == tmp_path / "tmp" and NO_HOME in line and str(place) in line and "\n" not in line
    assert stat.S_IMODE(place.stat().st_mode) == 0o700 and Path(os.environ["XDG_CACHE_HOME"]).parent == place
    assert home.place_caches() is None  # as in the processes that this one starts


def test_without_a_name_the_home_is_that_of_the_users_entry(clean, tmp_path):
    clean.setenv("HOME", "")
    clean.setattr(home.pwd, "getpwuid", lambda uid: type("Entry", (), {"pw_dir": str(tmp_path)}))
    assert home.place_caches() is None and os.environ["HOME"] == str(tmp_path)


def test_what_a_read_only_home_holds_stays_in_use(clean, tmp_path):
    own = tmp_path / "home"
    (own / ".cache" / "huggingface" / "hub").mkdir(parents=True)
    (own / ".cache" / "huggingface" / "token").write_text("secret")
    (own / ".cache" / "torchvision" / "EuroSAT").mkdir(parents=True)
    clean.setenv("HOME", str(own))
    read_only(clean, own)
    assert str(own) in home.place_caches()
    assert os.environ["HOME"] == str(own)
    assert os.environ["HF_HUB_CACHE"] == str(own / ".cache" / "huggingface" / "hub")
    assert os.environ["HF_TOKEN_PATH"] == str(own / ".cache" / "huggingface" / "token")
    others = Path(os.environ["XDG_CACHE_HOME"])
    assert home.can_write(others) and others.is_relative_to(tmp_path / "tmp")
    assert _downloads("EuroSAT") == own / ".cache" / "torchvision" and _downloads("Other") == others / "torchvision"


def test_a_folder_that_another_made_is_not_taken(clean, tmp_path):
    taken = tmp_path / "tmp" / f"raysd-home-{os.getuid()}"
    taken.symlink_to(tmp_path)
    clean.setenv("HOME", NO_HOME)
    home.place_caches()
    assert Path(os.environ["HOME"]) != taken and Path(os.environ["HOME"]).parent == tmp_path / "tmp"


def test_the_token_of_an_own_cluster_needs_no_home(clean, tmp_path):
    clean.setenv("HOME", str(tmp_path))
    _keep_token()
    assert "RAY_AUTH_TOKEN" not in os.environ
    clean.setenv("HOME", NO_HOME)
    _keep_token()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 32


@pytest.mark.slow
def test_a_command_says_once_that_its_home_is_missing_and_works(run_cli, tmp_path):
    finished = run_cli("plan", "generation.model=dummy", "classes=[cat]", HOME=NO_HOME, TMPDIR=str(tmp_path))
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.count("cannot be written to") == 1 and len(finished.stderr.splitlines()) == 1


@pytest.mark.soak
def test_ray_starts_without_a_home(run_cli, monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE")
    finished = run_cli("doctor", "generation.model=dummy", "classes=[cat]", HOME=NO_HOME)
    assert finished.returncode == 0, finished.stdout + finished.stderr
