"""The page: complete, self-contained, inert, and readable by a real browser."""

import itertools
import re
import shutil
import subprocess

import pytest
from report_rows import accuracy_row, digest, experiment_rows, write_experiment

from raysd.errors import UserError
from raysd.report.page import write_report
from raysd.storage.location import Location
from raysd.storage.results import write_result

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def root(tmp_path):
    return Location(str(tmp_path / "root"))


def page_of(report):
    return report.folder.read("report.html").decode()


def test_root_without_results_gives_a_remedy(root):
    with pytest.raises(UserError, match="raysd sweep"):
        write_report(root)


def test_unknown_sweep_names_those_that_are_there(root, tmp_path):
    sweep, _ = write_experiment(root, tmp_path / "clones")
    with pytest.raises(UserError, match=sweep["fingerprint"]):
        write_report(root, sweep="abc")


def test_sweep_without_accuracy_rows_gives_a_remedy(root, tmp_path):
    write_experiment(root, tmp_path / "clones", rows=[])
    with pytest.raises(UserError, match="run the sweep again"):
        write_report(root)


def test_newest_sweep_is_reported(root, tmp_path):
    write_experiment(root, tmp_path / "a")
    newer, _ = write_experiment(root, tmp_path / "b", variants=("other",), date="2026-05-01T00:00:00Z")
    assert write_report(root).folder.uri.endswith(newer["fingerprint"])


def test_report_writes_every_file_below_out(root, tmp_path):
    write_experiment(root, tmp_path / "clones")
    report = write_report(root, Location(str(tmp_path / "out")))
    names = set(report.folder.list_files())
    assert {"report.html", "table.md", "table.csv", "per-class.svg", "samples-name.png", "samples-multiple.png"} <= names
    assert sum(name.endswith(".svg") for name in names) == 4
    assert report.html == str(tmp_path / "out" / "report.html")


def test_answer_has_the_best_setting_both_baselines_and_the_gap(root, tmp_path):
    write_experiment(root, tmp_path / "clones")
    answer = write_report(root).summary[0]
    for part in ("variant name, guidance 2:", "69.3 ± 0.3", "83.3 ± 0.3", "18.3 ± 0.3", "78 % of the gap to real"):
        assert part in answer


def test_every_accuracy_row_and_clone_is_in_the_page(root, tmp_path):
    sweep, rows = write_experiment(root, tmp_path / "clones")
    page = page_of(write_report(root))
    assert all(row["fingerprint"] in page for row in rows)
    assert all(clone["folder"] in page and clone["fingerprint"] in page for clone in sweep["clones"])
    assert page.count("raysd evaluate configs/fashion.yaml") == len(rows)


def test_baselines_of_another_run_are_used_when_the_sweep_has_none(root, tmp_path):
    rows = experiment_rows()
    write_experiment(root, tmp_path / "clones", rows=rows, classifiers=[row["classifier"] for row in rows if row["trained_on"]["kind"] == "clone"])
    assert "of the gap to real" in write_report(root).summary[0]


def test_classifiers_of_other_sweeps_stay_out(root, tmp_path):
    write_experiment(root, tmp_path / "clones")
    stranger = accuracy_row(99.0, variant="stranger")
    write_result(root, "accuracy", stranger)
    assert stranger["fingerprint"] not in page_of(write_report(root))


def test_hostile_text_is_inert(root, tmp_path):
    names = (HOSTILE, '"><img src=x onerror=alert(1)>', "coat")
    rows = experiment_rows((HOSTILE, "b"))
    for row in rows:
        row["command"] = HOSTILE
        row["class_names"] = list(names) if row["class_names"] else None
    write_experiment(root, tmp_path / "clones", names, HOSTILE, rows, variants=(HOSTILE, "b"), name=HOSTILE, command=HOSTILE)
    report = write_report(root)
    page = page_of(report)
    assert "<script" not in page and "<img src=x" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert all("<script" not in report.folder.read(name).decode() for name in report.folder.list_files(".svg"))


def test_page_asks_for_nothing_outside_itself(root, tmp_path):
    write_experiment(root, tmp_path / "clones")
    page = page_of(write_report(root))
    sources = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)["']|url\(([^)]*)\)""", page)
    assert sources and all("".join(pair).startswith("data:") for pair in sources)
    assert "@import" not in page and not re.search(r"https?://", page)


def test_headings_alt_texts_and_language(root, tmp_path):
    write_experiment(root, tmp_path / "clones")
    page = page_of(write_report(root))
    levels = [int(level) for level in re.findall(r"<h([1-6])", page)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert all(re.search(r'alt="[^"]+"', image) for image in re.findall(r"<img[^>]*>", page))
    assert '<html lang="en">' in page and 'name="viewport"' in page


def test_report_without_transfer_sets_baselines_or_seconds(root, tmp_path):
    rows = [row for row in experiment_rows(seeds=(0,)) if row["role"] == "test" and row["trained_on"]["kind"] == "clone"]
    write_experiment(root, tmp_path / "clones", rows=rows, seconds={})
    report = write_report(root)
    assert "Transfer against guidance" not in page_of(report)
    assert "of the gap" not in report.summary[0]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_page_opens_in_chromium_without_console_messages(root, tmp_path):
    write_experiment(root, tmp_path / "clones")
    report = write_report(root)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--v=0"]
    done = subprocess.run(["chromium", *flags, "--dump-dom", f"file://{report.html}"], capture_output=True, text=True, timeout=120, check=True)
    assert "All settings" in done.stdout and digest("clone", "name", 2.0) in done.stdout
    assert "CONSOLE" not in done.stderr
