from dataclasses import replace

import pytest

from rankwise.reporting.paper.sources import read_sources
from rankwise.reporting.paper.warnings_table import warnings_table

UNEQUAL = (
    "have a different budget than the baseline: their differences are not the effect of where the ranks are alone."
)


@pytest.fixture
def source(recorded):
    return read_sources([(recorded, None)])[0]


def with_warnings(source, study, *warnings):
    return replace(source, comparison=replace(source.comparison, study=study, warnings=warnings))


def test_a_warning_is_said_once_with_its_studies_and_their_arms(source):
    one = (
        "uniform-r16 has a different budget than the baseline: its difference is not the effect of where the ranks are "
    )
    table = warnings_table(
        [
            with_warnings(
                source, "a", one + "alone.", "empirical: its rate is an edge.", "random: its rate is an edge."
            ),
            with_warnings(source, "b", f"uniform; uniform-r16; random {UNEQUAL}", "No control."),
            with_warnings(source, "c", "uniform, linear_decay: its rate is an edge.", "uniformly bad: a sentence."),
        ]
    )
    assert dict(table.rows) == {
        f"They {UNEQUAL}": "a (1 arm), b (3 arms)",
        "Its rate is an edge.": "a (2 arms), c (2 arms)",
        "No control.": "b",
        "uniformly bad: a sentence.": "c",
    }


def test_without_warnings_there_is_no_table(source):
    assert warnings_table([with_warnings(source, "a")]) is None
