"""The lines that a job log gets while something takes long."""

import contextlib
import io
import logging
import re
import sys
import types

import pytest

from raysd.progress import Progress, be_quiet, say, shown_lines


@pytest.fixture(autouse=True)
def a_line_for_each_step(monkeypatch):
    monkeypatch.setattr("raysd.progress.LINE_SECONDS", 0.0)
    with shown_lines():
        yield


def test_a_line_says_how_fast_it_goes_and_how_long_it_still_takes(capsys):
    with Progress("generated", 40) as progress:
        progress.advance(10, ", actors 90% busy", rate=5.0)
    assert capsys.readouterr().out == "generated: 10/40 images, 5.0 images/s, 6 seconds left, actors 90% busy\n"


def test_more_than_was_planned_leaves_no_time_and_not_less_than_none(capsys):
    with Progress("scored", 6) as progress:
        progress.advance(7, rate=5.0)
    assert capsys.readouterr().out == "scored: 7/7 images, 5.0 images/s, 0 seconds left\n"


def test_before_anything_is_done_no_remaining_time_is_estimated(capsys):
    with Progress("measured", 10, "trials") as progress:
        progress.advance(0, ", 500 images generated")
        progress.advance(2)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "measured: 0/10 trials, 500 images generated"
    assert re.fullmatch(r"measured: 2/10 trials, [\d.]+ trials/s, [\d.e-]+ seconds left", second)


def test_a_notice_goes_to_the_output_and_a_warning_to_the_error_stream(capsys):
    say("100 % there")
    logging.getLogger("raysd.somewhere").warning("look out")
    assert capsys.readouterr() == ("100 % there\n", "look out\n")


def test_a_logger_is_left_as_it_was_found():
    log = logging.getLogger("raysd")
    before = log.level, log.propagate, list(log.handlers)
    with shown_lines():
        assert (log.level, log.propagate) == (logging.INFO, False)
    assert (log.level, log.propagate, list(log.handlers)) == before


def test_a_worker_process_of_ray_shows_its_lines_and_no_other_program_does(ray_cluster, capsys):
    import ray

    def shown():
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            say("from here")
        return out.getvalue()

    assert ray.get(ray.remote(num_cpus=0)(shown).remote()) == "from here\n"
    logging.getLogger("raysd").setLevel(logging.NOTSET)  # as in a program that does not ask for lines
    assert shown() == ""


@pytest.fixture
def notebook(monkeypatch):
    """A kernel's display, as IPython offers it; returns what is shown below the cell, in its order."""
    shown = []

    class Handle:
        def update(self, data, raw):
            shown.append(data["text/plain"])

    display = types.SimpleNamespace(display=lambda data, raw, display_id: Handle())
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr("raysd.progress.NOTEBOOK_SECONDS", 0.0)
    return shown


def test_in_a_notebook_one_line_is_replaced_as_work_goes_on(notebook, capsys):
    with Progress("generated", 40) as progress:
        progress.advance(10, rate=5.0)
        progress.advance(30, rate=5.0)
    first, last = notebook
    assert first.split(" ", 1)[1] == "generated: 10/40 images, 5.0 images/s, 6 seconds left"
    assert (first.count("\u2588"), last.count("\u2588"), last.count("\u2591")) == (7, 30, 0)
    assert capsys.readouterr().out == ""


def test_a_quiet_notebook_and_a_plain_shell_of_ipython_get_no_such_line(notebook, monkeypatch):
    be_quiet()
    with Progress("generated", 1) as progress:
        progress.advance(1)
    monkeypatch.setattr("raysd.progress._has_bars", True)
    sys.modules["IPython"].get_ipython().kernel = None
    with Progress("generated", 1) as progress:
        progress.advance(1)
    assert notebook == []
