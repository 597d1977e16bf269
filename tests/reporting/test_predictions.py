from dataclasses import replace

import pytest

from rankwise.reporting.comparison import compare_arms
from rankwise.reporting.document import render_results
from rankwise.reporting.predictions import memory_prediction, time_prediction

MIB = 2**20


@pytest.fixture(scope="module")
def sample(build_study):
    return next(run for run in build_study(num_seeds=1, num_layers=1).runs if run.purpose == "report")


def ran(sample, run_id, pack_id, *, wall_s, predicted_s, peak=100, predicted=100, probe_s=0.0, status="finished"):
    return replace(
        sample,
        id=run_id,
        pack_id=pack_id,
        status=status,
        wall_s=wall_s,
        probe_wall_s=probe_s,
        predicted_wall_s=predicted_s,
        peak_memory_bytes=peak * MIB,
        predicted_memory_bytes=predicted * MIB,
    )


def test_errors_are_over_packs(sample):
    runs = [
        ran(sample, "a", "one", wall_s=6.0, predicted_s=4.0, probe_s=1.0, peak=180, predicted=220),  # 8 of 10 s,
        ran(sample, "b", "one", wall_s=5.0, predicted_s=4.0, peak=200, predicted=220),  # and 220 of 200 MiB
        ran(sample, "c", "two", wall_s=10.0, predicted_s=11.0, peak=400, predicted=380),
        ran(sample, "d", "three", wall_s=20.0, predicted_s=10.0, peak=100, predicted=100),
    ]
    time, memory = time_prediction(runs), memory_prediction(runs)
    assert (time.num_packs, memory.num_packs) == (3, 3)
    assert (time.median_frac, time.largest_frac) == (pytest.approx(0.2), pytest.approx(-0.5))
    assert (memory.median_frac, memory.largest_frac) == (pytest.approx(0.05), pytest.approx(0.1))
    assert time.study_frac == pytest.approx(29 / 40 - 1)
    assert memory.study_frac == pytest.approx(380 / 400 - 1)


def test_a_run_that_two_arms_share_counts_once(sample):
    run = ran(sample, "a", "one", wall_s=10.0, predicted_s=9.0)
    other = ran(sample, "b", "one", wall_s=20.0, predicted_s=21.0)
    assert time_prediction([run, replace(run, arm="copy"), other]).study_frac == pytest.approx(0.0)


def test_runs_that_diverged_and_packs_that_nobody_predicted_do_not_count(sample):
    kept = ran(sample, "a", "one", wall_s=10.0, predicted_s=9.0)
    diverged = ran(sample, "b", "one", wall_s=1.0, predicted_s=9.0, status="diverged")
    unknown = replace(ran(sample, "c", None, wall_s=1.0, predicted_s=9.0), predicted_memory_bytes=None)
    unpredicted = replace(ran(sample, "d", "two", wall_s=1.0, predicted_s=9.0), predicted_wall_s=None)
    assert time_prediction([kept, diverged, unknown, unpredicted]).num_packs == 1
    assert time_prediction([diverged, unknown, unpredicted]) is None
    assert memory_prediction([unknown]) is None


def test_what_was_not_predicted_stays_missing_in_the_report(build_study):
    study = build_study(num_seeds=2, num_layers=1)
    runs = tuple(replace(run, predicted_wall_s=None, pack_id=None) for run in study.runs)
    comparison = compare_arms(replace(study, runs=runs))
    assert (comparison.time_prediction, comparison.arm("uniform").predicted_wall_s) == (None, None)
    assert "tuning included): memory –; time –." in render_results(study, comparison, (), command=None)
