"""The lines that a job log gets while something takes long."""

import re

import pytest

from raysd.progress import Progress


@pytest.fixture(autouse=True)
def a_line_for_each_step(monkeypatch):
    monkeypatch.setattr("raysd.progress.LINE_SECONDS", 0.0)


def test_a_line_says_how_fast_it_goes_and_how_long_it_still_takes(capsys):
    with Progress("generated", 40) as progress:
        progress.advance(10, ", actors 90% busy", rate=5.0)
    assert capsys.readouterr().out == "generated: 10/40 images, 5.0 images/s, 6 s left, actors 90% busy\n"


def test_before_anything_is_done_no_remaining_time_is_estimated(capsys):
    with Progress("measured", 10, "trials") as progress:
        progress.advance(0, ", 500 images generated")
        progress.advance(2)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "measured: 0/10 trials, 500 images generated"
    assert re.fullmatch(r"measured: 2/10 trials, [\d.]+ trials/s, \d+ s left", second)
