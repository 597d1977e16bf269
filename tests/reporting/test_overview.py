"""One figure of many recorded studies, and that the one in docs/results is of the reports beside it."""

import csv
import json
import re
from pathlib import Path

import pytest

from rankwise.errors import ReportError
from rankwise.reporting.comparison import compare_arms
from rankwise.reporting.numbers import comparison_json
from rankwise.reporting.overview import equal_arms, write_overview
from rankwise.reporting.recorded import read_comparison

RESULTS = Path(__file__).parents[2] / "docs" / "results"


@pytest.fixture(scope="module")
def folders(build_study, tmp_path_factory):
    found = []
    for name, num_seeds in (("one", 3), ("two", 1), ("none", 3)):
        study = build_study(num_seeds=num_seeds, num_layers=1)
        document = json.loads(comparison_json(compare_arms(study))) | {"study": name}
        if name == "none":
            document["arms"] = document["arms"][:2]  # the baseline, and an arm of another budget
        folder = tmp_path_factory.mktemp(name)
        (folder / "comparison.json").write_text(json.dumps(document))
        found.append(folder)
    return found


def rows(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_comparisons_at_equal_conditions_are_in_it_controls_last(folders, tmp_path):
    drawn = write_overview(folders, tmp_path / "out")
    assert drawn.png.read_bytes().startswith(b"\x89PNG")
    assert drawn.pdf.read_bytes().startswith(b"%PDF")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "overview.csv",
        "overview.pdf",
        "overview.png",
    ]
    assert "of 2 studies" in drawn.caption
    found = rows(drawn.csv)
    assert [row["study"] for row in found] == ["one"] * 4 + ["two"] * 4
    assert [row["arm"] for row in found][:4] == ["empirical", "attention_heavy", "linear_decay", "random"]
    comparison = read_comparison(folders[0])
    for row in found[:4]:
        difference = comparison.arm(row["arm"]).difference
        assert float(row["difference_nats"]) == difference.estimate.value
        assert (float(row["low_nats"]), float(row["high_nats"])) == (difference.estimate.low, difference.estimate.high)
        assert (row["outcome"], int(row["num_seeds"])) == (difference.outcome, 3)
    assert {row["low_nats"] for row in found[4:]} == {""}, "one seed has no interval"


def test_reports_without_such_a_comparison_or_that_cannot_be_read_are_refused(folders, tmp_path):
    with pytest.raises(ReportError, match=r"none of the reports in .* compares arms at equal conditions"):
        write_overview(folders[2:], tmp_path / "out")
    with pytest.raises(ReportError, match="cannot be read"):
        write_overview([folders[0], tmp_path / "nowhere"], tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match="the overview cannot be written"):
        write_overview(folders[:1], tmp_path / "file")
    assert not (tmp_path / "out").exists()


def test_the_recorded_overview_is_of_the_recorded_reports():
    command = re.search(
        r"rankwise report docs/results/\{(.*?)\} --overview docs/results", (RESULTS / "README.md").read_text()
    )
    studies = [read_comparison(RESULTS / name) for name in command[1].split(",")]
    wanted = [
        (study.study, arm.name, arm.difference.estimate.value, arm.difference.outcome)
        for study in studies
        for arm in equal_arms(study)
    ]
    found = [
        (row["study"], row["arm"], float(row["difference_nats"]), row["outcome"])
        for row in rows(RESULTS / "overview.csv")
    ]
    assert found == wanted, f"draw it again: {command[0]}"
