"""The page: complete, self-contained, inert, and readable by a real browser."""

import itertools
import re

import pytest
from report_rows import accuracy_row, experiment_rows, setting_of, write_clone, write_experiment, write_search

from raysd.errors import UserError
from raysd.report.page import write_report
from raysd.storage.location import Location
from raysd.storage.rows import ACCURACY, SWEEP, write_row

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def root(tmp_path):
    return Location(str(tmp_path / "root"))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A small sweep without rungs: (sweep, accuracy rows, report)."""
    folder = tmp_path_factory.mktemp("page")
    root = Location(str(folder / "root"))
    return *write_experiment(root, folder / "clones"), write_report(root, Location(str(folder / "out")))


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search that halves: (sweep, results, accuracy rows, report)."""
    folder = tmp_path_factory.mktemp("search")
    root = Location(str(folder / "root"))
    return *write_search(root, folder / "clones"), write_report(root)


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


def test_report_writes_every_file_below_out(written):
    report = written[-1]
    names = set(report.folder.list_files())
    assert {
        "report.html",
        "settings.md",
        "settings.csv",
        "per-class.svg",
        "samples-prompt-name.png",
        "samples-guidance-7.5.png",
    } <= names
    assert (
        sum(name.endswith(".svg") for name in names) == sum(name.endswith(".png") for name in names) - 6
    )  # grids have no SVG
    assert report.html.endswith("/out/report.html")


def test_answer_has_the_best_setting_both_baselines_and_the_gap(written):
    answer = written[-1].summary[0]
    for part in ("variant name, guidance 2:", "69.3 ± 0.3", "83.3 ± 0.3", "18.3 ± 0.3", "closes 78 % ["):
        assert part in answer


def test_every_accuracy_row_and_clone_is_in_the_page(written):
    sweep, rows, report = written
    page = page_of(report)
    assert all(row["fingerprint"] in page for row in rows)
    assert all(clone["folder"] in page and clone["fingerprint"] in page for clone in sweep["clones"])
    assert page.count("raysd evaluate configs/fashion.yaml") == len(rows)


def test_baselines_of_another_run_are_used_when_the_sweep_has_none(root, tmp_path):
    write_experiment(root, tmp_path / "clones", own=("clone",))
    answer = write_report(root).summary[0]
    assert (
        "trained on real images, 100 per class, a baseline from another run: 83.3" in answer
        and "of the gap to real" in answer
    )


def test_classifiers_of_other_sweeps_stay_out(root, tmp_path):
    write_experiment(root, tmp_path / "clones")
    stranger = accuracy_row(99.0, variant="stranger")
    write_row(root, ACCURACY, stranger)
    assert stranger["fingerprint"] not in page_of(write_report(root))


def test_hostile_text_is_inert(root, tmp_path):
    names = (HOSTILE, '"><img src=x onerror=alert(1)>', "coat")
    rows = experiment_rows((HOSTILE, "b"))
    for row in rows:
        row["command"] = HOSTILE
        row["class_names"] = list(names) if row["class_names"] else None
    write_experiment(
        root, tmp_path / "clones", names, HOSTILE, rows, variants=(HOSTILE, "b"), name=HOSTILE, command=HOSTILE
    )
    report = write_report(root)
    page = page_of(report)
    assert "<script" not in page and "<img src=x" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert all("<script" not in report.folder.read(name).decode() for name in report.folder.list_files(".svg"))


def test_the_page_requests_nothing_outside_itself(searched):
    page = page_of(searched[-1])
    sources = re.findall(r"""src\s*=\s*["']([^"']*)["']|url\(([^)]*)\)|<link[^>]*href="([^"]*)\"""", page)
    assert sources and all("".join(pair).startswith("data:") for pair in sources)
    assert "@import" not in page and "<script" not in page and not re.search(r"https?://", page)


@pytest.mark.parametrize("kind", ["written", "searched"])
def test_headings_alt_texts_and_language(kind, request):
    page = page_of(request.getfixturevalue(kind)[-1])
    levels = [int(level) for level in re.findall(r"<h([1-6])", page)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert all(re.search(r'alt="[^"]+"', image) for image in re.findall(r"<img[^>]*>", page))
    assert '<html lang="en">' in page and 'name="viewport"' in page


def test_report_without_transfer_sets_or_baselines(root, tmp_path):
    rows = [
        row for row in experiment_rows(seeds=(0,)) if row["role"] == "test" and row["trained_on"]["kind"] == "clone"
    ]
    write_experiment(root, tmp_path / "clones", rows=rows)
    report = write_report(root)
    assert "Transfer against guidance" not in page_of(report)
    assert "of the gap" not in report.summary[0]


def test_every_file_is_linked_and_every_link_leads_somewhere(searched):
    report = searched[-1]
    links = re.findall(r'<a href="([^"]*)"', page_of(report))
    anchors = {link[1:] for link in links if link.startswith("#")}
    assert anchors and anchors <= set(re.findall(r'id="([^"]*)"', page_of(report)))
    assert {link for link in links if not link.startswith("#")} == set(report.folder.list_files()) - {"report.html"}


def test_a_search_shows_ranking_factors_rungs_proxies_and_cost(searched):
    _, results, _, report = searched
    page, names = page_of(report), set(report.folder.list_files())
    for section in (
        "ranking",
        "factors",
        "scaling",
        "proxies",
        "settings",
        "classes",
        "paper",
        "cost",
        "provenance",
        "files",
    ):
        assert f'<h2 id="{section}">' in page
    assert {
        "scaling.svg",
        "effects.svg",
        "heat-map-25.svg",
        "heat-map-100.svg",
        "accuracy-validation-25.svg",
        "accuracy-test-100.svg",
        "behind.csv",
    } <= names
    assert {"transfer-kmnist-test-5-shots-100.svg"} <= names and not {
        "accuracy-test-25.svg",
        "transfer-kmnist-test-5-shots-25.svg",
    } & names
    assert all(result["fingerprint"] in page and result["clone"] in page for result in results)
    assert [row[2] for row in report.table.rows if row[0].startswith("name_definition")] == [100, 100, 100, 25]


def test_rows_without_a_sweep_are_shown_and_nothing_is_called_best(root, tmp_path):
    rows = experiment_rows()
    pretrained = accuracy_row(95.0, kind="real", classifier="ff", fingerprint="ff")
    pretrained["trained_on"] = {
        "kind": "pretrained",
        "name": "timm/resnet50",
        "fingerprint": "ee",
        "images_per_class": None,
    }
    for row in [*rows, pretrained]:
        write_row(root, ACCURACY, row)
    for row in rows:
        if row["trained_on"]["kind"] == "clone" and not root.child("clones", row["trained_on"]["fingerprint"]).exists(
            "data"
        ):
            write_clone(
                tmp_path / "root" / "clones" / row["trained_on"]["fingerprint"],
                ["boot", "bag", "coat"],
                row["trained_on"]["guidance_scale"],
            )
    report = write_report(root)
    page = page_of(report)
    assert report.folder.uri == root.child("reports", "all").uri
    assert "no sweep chose among them" in report.summary[0] and "best" not in " ".join(report.summary)
    assert (
        '<h2 id="ranking">' not in page
        and '<h2 id="cost">' not in page
        and "(best)" not in page
        and "best clone" not in page
    )
    assert (
        "timm/resnet50" in page
        and all(row["fingerprint"] in page for row in rows)
        and page.count('class="panels"') == 2
    )


def test_rows_without_a_sweep_or_a_clone_make_a_page(root):
    write_row(root, ACCURACY, accuracy_row(10.0, kind="random"))
    report = write_report(root)
    assert report.summary == ("1 measured setting; no sweep chose among them.",)
    assert "no clone can be read" in page_of(report)


def test_one_setting_alone_makes_a_page(root, tmp_path):
    write_search(root, tmp_path / "clones", [setting_of("name", 2.0)], budgets=(25,))
    report = write_report(root)
    assert "heat-map-25.png" not in report.folder.list_files() and "Sample images" in page_of(report)


def test_hostile_text_of_a_search_is_inert(root, tmp_path):
    attack = '"><img src=x onerror=alert(1)></style><script>alert(1)</script>'
    settings = [
        setting_of(variant, scale, **{f"training.{attack}": attack})
        for variant in (attack, "../../b")
        for scale in (1.0, 2.0)
    ]
    sweep, _, rows = write_search(root, tmp_path / "clones", settings, (attack, "bag", "coat"), "{name}", name=attack)
    sweep |= {
        "command": attack,
        "date": attack,
        "skipped_sets": {attack: attack},
        "versions": {attack: attack},
        "objective": {attack: 1.0},
    }
    sweep["failed"] = [{"dataset": attack, "error": attack, "seed": 0, "trained_on": attack}]
    for row in [*sweep["ranking"], *sweep["proxies"]]:
        row |= {"label": attack, "verdict": attack, "proxy": attack, "better": attack, "pick": attack}
    for effect in sweep["effects"]:
        effect["factor"] = effect["values"][0]["value"] = attack
    for clone in sweep["clones"]:
        clone |= {"label": f"{attack}{clone['guidance_scale']}", "short_classes": {attack: 1}}
    for row in rows:
        row |= {"command": attack, "dataset": f"{attack}{row['dataset']}", "backbone": attack, "date": attack}
        row["confusions"] = row["confusions"] and [{"label": attack, "prediction": attack, "count": 3}]
        row["class_names"] = row["class_names"] and [attack, "bag", "coat"]
        write_row(root, ACCURACY, row)
    write_row(root, SWEEP, sweep)
    report = write_report(root)
    page, names = page_of(report), report.folder.list_files()
    assert "<script" not in page and "<img src=x" not in page and page.count("</style>") == 1
    assert all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name) for name in names)
    assert all("<script" not in report.folder.read(name).decode() for name in names if name.endswith(".svg"))
    assert all(
        "<script" not in report.folder.read(name).decode().replace("\\<", "") for name in names if name.endswith(".md")
    )


def test_a_choice_without_accuracy_rows_is_named_and_no_other_takes_its_place(root, tmp_path):
    sweep, results, _ = write_search(root, tmp_path / "clones")
    best = next(result for result in results if result["setting"] == sweep["best"]["setting"] and result["rung"] == 1)
    for name in best["rows"]:
        (tmp_path / "root" / "results" / "accuracy" / f"{name}.json").unlink()
    report = write_report(root)
    assert report.summary[0].startswith(f"The sweep chose {sweep['best']['label']} (") and report.summary[0].endswith(
        "its accuracy rows are missing."
    )
    assert report.summary[
        1
    ] == "Accuracy rows are missing: 1 note below the table of all settings." and "(best)" not in page_of(report)
    assert f"{sweep['best']['label']}: missing 9 of 11 accuracy rows and all rows of 3 classifiers." in page_of(report)


def test_failures_are_counted_in_the_summary_and_said_in_a_note(root, tmp_path):
    failed = [{"dataset": "-", "error": "the loss is not a number", "seed": None, "trained_on": "name, rate 9"}]
    failed += [{"dataset": "usps-test", "error": "no file", "seed": 1, "trained_on": "name, guidance 2"}]
    write_experiment(root, tmp_path / "clones", failed=failed)
    report = write_report(root)
    assert any(line.startswith("Measurements or settings that failed: 2;") for line in report.summary)
    assert "name, rate 9: failed: the loss is not a number" in page_of(
        report
    ) and "name, guidance 2, seed 1: failed on usps-test: no file" in page_of(report)


def test_long_tables_are_cut_in_the_page_and_whole_in_their_files(root, tmp_path, monkeypatch):
    monkeypatch.setattr("raysd.report.page.MOST_ROWS", 5)
    _, rows = write_experiment(root, tmp_path / "clones")
    report = write_report(root)
    assert f'The first 5 of {len(rows)} rows; <a href="rows.csv">' in page_of(report)
    assert len(report.folder.read("rows.csv").decode().splitlines()) == len(rows) + 1


def test_a_page_of_real_classifiers_alone_names_no_generator(root):
    write_row(root, ACCURACY, accuracy_row(90.0, kind="real"))
    assert "generator plots" not in page_of(write_report(root))
