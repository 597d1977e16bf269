"""Studies of more arms and runs than a figure or a page can hold. The times are of the processor."""

import csv
import time
from dataclasses import replace

import pytest

from rankwise.ledger import open_ledger
from rankwise.reporting.comparison import compare_arms
from rankwise.reporting.figures import FIGURES, crowd
from rankwise.reporting.figures.crowd import MOST_ARMS, crowd_note, shown_arms
from rankwise.reporting.page import render
from rankwise.reporting.page.render import render_page
from rankwise.reporting.style import FigureFiles
from rankwise.reporting.write import write_report
from rankwise.testing.large_ledger import write_large
from tests.reporting.conftest import ARMS, make_study


def test_every_figure_that_grows_with_the_arms_has_a_limit():
    assert set(MOST_ARMS) <= set(FIGURES)
    assert set(FIGURES) - set(MOST_ARMS) == {"quantization_error", "predictions"}


def test_the_baseline_and_the_lowest_losses_are_shown(full_study, monkeypatch):
    comparison = compare_arms(full_study)
    names = [arm["name"] for arm in ARMS]
    assert shown_arms(comparison, "tuning", names) == set(names)
    assert crowd_note(comparison, "tuning") == ""
    monkeypatch.setattr(crowd, "MOST_ARMS", {"tuning": 3})
    assert shown_arms(comparison, "tuning", names) == {"uniform", "uniform-r16", "empirical"}
    assert shown_arms(comparison, "tuning", ["random", "linear_decay"]) == {"random", "linear_decay"}
    assert "At most 3 of the 6 arms" in crowd_note(comparison, "tuning")
    unscored = replace(comparison, arms=tuple(replace(arm, test_loss=None) for arm in comparison.arms))
    assert shown_arms(unscored, "tuning", names) == set(names[:3])


@pytest.mark.parametrize("name", ["rank_maps", "learning_curves", "stability", "tuning", "differences"])
def test_what_is_not_drawn_is_in_the_data(name, tmp_path, monkeypatch):
    study = make_study(num_seeds=2, num_layers=1)
    monkeypatch.setattr(crowd, "MOST_ARMS", dict.fromkeys(MOST_ARMS, 2))
    files = FIGURES[name](study, compare_arms(study), tmp_path)
    assert "At most 2 of the 6 arms are shown" in files.caption
    with files.csv.open() as stream:
        named = {row["arm"] for row in csv.DictReader(stream)}
    assert named >= {arm["name"] for arm in ARMS} - {"uniform"}


def test_a_picture_that_does_not_fit_the_page_is_left_out_and_named(full_study, tmp_path, monkeypatch):
    (tmp_path / "new.png").write_bytes(bytes(40_000))
    figure = FigureFiles(name="new", caption="What is new.", folder=tmp_path)
    markdown = "# t\n\n## Part\n\n![new](figures/new.png)\n\n*What is new.*\n"
    comparison = compare_arms(full_study)
    whole = render_page(full_study, comparison, markdown, [figure], comparison_text="{}")
    assert "Left out" not in whole
    monkeypatch.setattr(render, "MOST_BYTES", 1000)
    smaller = render_page(full_study, comparison, markdown, [figure], comparison_text="{}")
    assert "What is new. Left out, because the page would be too large to mail: figures/new.png beside it." in smaller
    assert len(smaller) < len(whole) - 40_000


def test_hundreds_of_runs_are_reported_in_seconds(tmp_path, monkeypatch):
    """3,000 full ones took 39 s (docs/log.md)."""
    monkeypatch.setattr(crowd, "MOST_ARMS", dict.fromkeys(MOST_ARMS, 4))
    with open_ledger(str(tmp_path / "large.db")) as ledger:
        name = write_large(ledger, num_arms=25, num_seeds=18).name
        start = time.process_time()
        results = ledger.study_results(name)
        assert len(ledger.to_pandas()) == len(results.runs) == 500
    files = write_report(results, tmp_path / "out")
    assert time.process_time() - start < 30
    assert files.page.stat().st_size < 6_000_000
    assert "At most 4 of the 25 arms are shown" in files.results.read_text(encoding="utf-8")
