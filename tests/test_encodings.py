"""Outputs and locales that lack characters of raysd's, or of a user's."""

import io
import sys

import pytest

from raysd.progress import PlainLines, log, shown_lines, take_any_text

NAMES = ["classes=[Käse,Łódź]", "generation.model=dummy", "generation.image_size=16"]


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", b"78.1 +/- 0.4 ... 'x' \"y\" - K\\xe4se \xff\n"),
        ("latin-1", b"78.1 \xb1 0.4 ... 'x' \"y\" - K\xe4se \xff\n"),
        ("utf-8", "78.1 ± 0.4 … ’x’ “y” – Käse ".encode() + b"\xff\n"),
    ],
)
def test_characters_that_an_output_lacks_are_spelled(encoding, shown, monkeypatch):
    kept = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(kept, encoding=encoding))
    take_any_text()
    print("78.1 ± 0.4 … ’x’ “y” – Käse \udcff", flush=True)
    assert kept.getvalue() == shown


def test_lines_of_progress_are_spelled_too(monkeypatch):
    kept = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(kept, encoding="ascii"))
    take_any_text()
    with shown_lines():
        log.info("“Łódź”")
    assert kept.getvalue() == b'"\\u0141\\xf3d\\u017a"\n' and not any(
        isinstance(each, PlainLines) for each in log.handlers
    )


@pytest.mark.slow
def test_a_command_in_ascii_ends_well(run_cli):
    finished = run_cli("plan", *NAMES, PYTHONIOENCODING="ascii")
    assert finished.returncode == 0 and "K\\xe4se" in finished.stdout, finished.stderr


@pytest.mark.slow
def test_file_names_are_utf_8_in_a_locale_of_c(run_cli, tmp_path):
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    finished = run_cli("plan", *NAMES, "storage=Käse", **locale)
    assert finished.returncode == 0 and str(tmp_path / "Käse") in finished.stdout, finished.stderr
