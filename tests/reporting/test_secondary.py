"""Calibration, answers and forgetting in a report: over seeds, and paired against the baseline."""

from dataclasses import replace

import pytest

from rankwise.ledger import open_ledger
from rankwise.reporting.comparison import compare_arms
from rankwise.reporting.secondary_section import _difference, _mean, secondary_section
from rankwise.reporting.values import Estimate, SecondaryScore
from rankwise.testing.sample_ledger import write_sample


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    with open_ledger(str(tmp_path_factory.mktemp("secondary") / "ledger.db")) as ledger:
        write_sample(ledger)
        return ledger.study_results("sample")


def test_scores_are_means_over_seeds_with_paired_differences(results):
    uniform, decay, random = compare_arms(results).arms
    runs = {arm: results.reported(arm) for arm in ("uniform", "linear_decay")}
    forgetting = {arm: [run.scores["forgetting"] for run in found] for arm, found in runs.items()}
    assert uniform.secondary["forgetting"].mean.value == pytest.approx(sum(forgetting["uniform"]) / 3)
    assert uniform.secondary["forgetting"].difference is None
    found = decay.secondary["forgetting"].difference
    pairs = zip(forgetting["linear_decay"], forgetting["uniform"], strict=True)
    assert found.value == pytest.approx(sum(mine - theirs for mine, theirs in pairs) / 3)
    assert found.low < found.value < found.high
    assert decay.secondary["test_exact_match"].mean.value == 0.5
    assert not random.secondary


def test_the_section_shows_both(results):
    text = secondary_section(compare_arms(results))
    lines = text.splitlines()
    assert lines[0] == "### Answers, calibration and forgetting"
    assert lines[2].startswith("| Arm | Calibration error [95%] | Exact match [95%] |")
    mean, difference = (line for line in lines if line.startswith("| linear_decay"))
    assert "| 50.0% [50.0%, 50.0%] |" in mean
    assert "| 0.0 [0.0, 0.0] |" in difference
    assert "%" not in difference
    assert next(line for line in lines if line.startswith("| random")).count("–") == 5


def test_the_interval_of_a_share_ends_at_0_and_1():
    wide = Estimate(value=0.06, low=-0.2, high=1.3, num=2, method="Student's t")
    assert _mean("test_exact_match", SecondaryScore(mean=wide, difference=None)) == "6.0% [0.0%, 100.0%]"
    assert _difference("test_exact_match", SecondaryScore(mean=wide, difference=wide)) == "+6.0 [−20.0, +130.0]"


def test_studies_that_measured_none_have_no_section(results):
    bare = replace(
        results,
        runs=tuple(
            replace(run, scores={k: v for k, v in run.scores.items() if k in ("test_loss", "validation_loss")})
            for run in results.runs
        ),
    )
    assert secondary_section(compare_arms(bare)) == ""
