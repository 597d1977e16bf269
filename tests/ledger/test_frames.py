"""A ledger as data frames: the same values as the read model has, with one type a column."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rankwise.errors import LedgerError
from rankwise.ledger.flat import RUN_COLUMNS, metric_series, run_cells, run_columns
from rankwise.ledger.scores import SCORE_NAMES
from rankwise.testing.sample_ledger import RATES, sample_runs, sample_study, write_sample


@pytest.fixture
def sample(ledger):
    write_sample(ledger)
    return ledger


def test_every_run_is_a_row_with_its_values(sample):
    frame = sample.to_pandas()
    runs = {run.id: run for run in sample.study_results("sample").runs}
    assert [name for name in frame.columns if name in RUN_COLUMNS] == list(RUN_COLUMNS)
    assert set(frame.columns) - set(RUN_COLUMNS) == set(SCORE_NAMES) - set(RUN_COLUMNS)
    assert set(frame["id"]) == set(runs)
    finished = frame[frame["status"] == "finished"]
    for row in finished.to_dict("records"):
        run = runs[row["id"]]
        assert (row["arm"], row["seed"], row["params"], row["wall_s"]) == (run.arm, run.seed, 128, 12.5)
        assert row["validation_loss"] == run.scores["validation_loss"]
        assert row["finished_at"].timestamp() == pytest.approx(run.finished_at, abs=1e-6)


def test_columns_have_one_type_and_missing_is_missing(sample):
    frame = sample.to_pandas().set_index("id")
    assert {str(frame[name].dtype) for name in ("seed", "params", "peak_memory_bytes")} == {"Int64"}
    assert {str(frame[name].dtype) for name in ("test_loss", "wall_s", "learning_rate")} == {"float64"}
    assert str(frame["finished_at"].dtype) == "datetime64[us, UTC]"
    pending = frame[frame["status"] == "pending"].iloc[0]
    assert pending["params"] is pd.NA
    assert pending["finished_at"] is pd.NaT
    assert math.isnan(pending["test_loss"])
    assert frame.loc[frame["status"] == "failed", "error"].item() == "OutOfMemoryError: 43.1 GiB wanted"


def test_the_means_of_arms_are_one_line(sample):
    frame = sample.to_pandas("sample")
    mean = frame[frame["purpose"] == "report"].groupby("arm")["test_loss"].mean()
    scores = [run.scores["test_loss"] for run in sample.study_results("sample").reported("uniform")]
    assert mean["uniform"] == pytest.approx(np.mean(scores))
    assert math.isnan(mean["random"])


def test_settings_are_columns_with_the_names_of_model_and_data(sample):
    frame = sample.to_pandas(settings=True)
    assert set(frame["arm.base.model"]) == {"nano"}
    assert set(frame["arm.data.source"]) == {"skills"}
    assert frame["arm.train.batch_size"].notna().all()
    assert frame.columns.is_unique
    assert set(frame["learning_rate"]) == set(RATES)


def test_a_shared_run_is_there_once_a_study_and_its_metrics_once(sample):
    other = sample_study("other", arms=["uniform"])
    sample.register_study(other, sample_runs(other))
    assert sample.to_pandas()["id"].value_counts().max() == 2
    metrics = sample.metrics_to_pandas()
    assert not metrics.duplicated(["id", "step"]).any()
    with pytest.raises(LedgerError, match="no study 'smaple'"):
        sample.to_pandas("smaple")


def test_metrics_by_step(sample):
    frame = sample.metrics_to_pandas()
    run = sample.study_results("sample").reported("linear_decay")[0]
    mine = frame[frame["id"] == run.id].set_index("step")
    assert list(mine.index) == list(range(9))
    assert mine["training_loss"].dropna().to_dict() == {point.step: point.value for point in run.training_curve}
    assert mine["validation_loss"].dropna().to_dict() == {point.step: point.value for point in run.validation_curve}
    assert mine.loc[3, "update_norm/attention.early"] == pytest.approx(0.2 / 3)
    assert mine["rank/model.layers.0.self_attn.q_proj"].dropna().to_dict() == {0: 6, 2: 5, 4: 6}


def test_an_empty_ledger_has_empty_frames_with_columns(ledger):
    frame = ledger.to_pandas(settings=True)
    assert list(frame.columns) == list(RUN_COLUMNS)
    assert len(frame) == 0
    assert list(ledger.metrics_to_pandas().columns) == ["id", "step"]


def test_a_score_of_another_name_gets_a_column(sample):
    run = sample.study_results("sample").reported("uniform")[0]
    scored = replace(run, scores={**run.scores, "test_squad": 0.5})
    columns = run_columns([run, scored])
    assert list(columns)[list(columns).index("steps") - 1] == "test_squad"
    assert run_cells("sample", scored, columns)["test_squad"] == 0.5
    assert run_cells("sample", run, columns)["test_squad"] is None


def test_a_run_that_never_began_has_no_series(sample):
    pending = next(run for run in sample.study_results("sample").runs if run.status == "pending")
    assert metric_series(pending) == {}
