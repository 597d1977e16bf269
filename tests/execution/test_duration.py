import pytest

from rankwise.execution.duration import DurationPredictor
from rankwise.execution.packing import answer_batches
from rankwise.execution.sizing import size_runs
from rankwise.execution.what_fits import _with_arm
from rankwise.execution.workbench import Workbench
from rankwise.profiling.calibration import Calibration, PassSpeed
from rankwise.study import parse_study
from rankwise.study.plan import report_runs
from rankwise.training.engine import EngineOptions
from tests.execution.conftest import STUDY


def shares(study):
    bench = Workbench()
    rates = {arm.name: arm.train.learning_rates[0] for arm in study.arms}
    runs = size_runs(report_runs(study, rates, bench.fingerprints(study)), bench, EngineOptions())
    predictor = DurationPredictor(bench)
    return runs, predictor.predict_shares_s(runs), predictor.predict_s(runs)


def test_runs_of_the_same_data_share_the_time_of_their_pack_equally(small_study):
    runs, shares_s, pack_s = shares(small_study)
    assert shares_s == pytest.approx([pack_s / len(runs)] * len(runs))


def test_gradient_checkpointing_adds_one_more_forward_pass():
    """At the speed of scoring, whose forward pass it is; the optimizer and scoring itself stay."""
    study, bench = parse_study(STUDY.format(folder="nano"), origin="x.yaml"), Workbench()
    rates = {arm.name: arm.train.learning_rates[0] for arm in study.arms}
    one = size_runs(report_runs(study, rates, bench.fingerprints(study))[:1], bench, EngineOptions())
    train = one[0].planned.run.arm.train.model_copy(update={"gradient_checkpointing": True})
    again = [_with_arm(one[0], one[0].planned.run.arm.model_copy(update={"train": train}))]
    training, scoring = PassSpeed(overhead_s=0.0, flops_per_s=1e6), PassSpeed(overhead_s=0.0, flops_per_s=2e6)
    speed = Calibration(training=training, scoring=scoring, decoding=scoring, params_per_s=1e9)
    predictor = DurationPredictor(bench, calibrate=lambda *_: speed)
    idle = Calibration(
        training=training, scoring=PassSpeed(overhead_s=0.0, flops_per_s=1e30), decoding=scoring, params_per_s=1e9
    )
    training_s = DurationPredictor(bench, calibrate=lambda *_: idle).predict_s(one)
    added_s = predictor.predict_s(again) - predictor.predict_s(one)
    assert 0.2 * training_s < added_s < 0.3 * training_s  # half of the operations, less the head, twice as fast


def test_a_longer_run_is_charged_for_the_steps_that_it_makes_alone(small_model):
    text = STUDY.format(folder=small_model).rsplit("arms:", 1)[0]
    arms = "arms:\n  - uniform\n  - {name: long, strategy: uniform, train: {epochs: 3}}\nseeds: 1\n"
    runs, (short_s, long_s), pack_s = shares(parse_study(text + arms, origin="x.yaml"))
    assert [run.num_steps for run in runs] == [4, 12]
    assert short_s + long_s == pytest.approx(pack_s)
    assert short_s < long_s < 3 * short_s, "three times the steps, and an equal part of scoring"


def test_final_answers_and_general_text_take_time_of_reported_runs(small_model):
    """Each as many passes as the longest answer has tokens; the charge goes to the runs that ask for them."""
    text = STUDY.format(folder=small_model).rsplit("arms:", 1)[0]
    arms = "arms:\n  - uniform\n  - {name: answers, strategy: uniform, evaluate: {generate: true}}\nseeds: 1\n"
    runs, (plain_s, answers_s), _ = shares(parse_study(text + arms, origin="x.yaml"))
    assert [run.writes_answers for run in runs] == [False, True]
    (batch,) = answer_batches(runs)
    assert batch.num_rows == len(runs[1].data.test)
    assert batch.new_tokens == max(example.num_answer_tokens for example in runs[1].data.test)
    assert answers_s - plain_s > batch.new_tokens * runs[1].shape.num_layers * 1e-3, "what a block costs in a pass"
