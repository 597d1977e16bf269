"""What reported runs measure beside their loss: answers, calibration, general text before and after."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from rankwise.data.examples import Example
from rankwise.evaluation.loss import score_slots
from rankwise.records import Answered, Evaluated, StepDone
from rankwise.training import scoring
from rankwise.training.engine import EngineOptions, _PackTraining, train_pack
from tests.evaluation.test_generation import tokenizer
from tests.tiny import allocated, tiny_base, tiny_data, tiny_examples, tiny_runs

__all__ = ["tokenizer"]

ARMS = (
    "{name: one, strategy: uniform, evaluate: {generate: true}}",
    "{name: two, strategy: linear_decay, evaluate: {generate: true}, train: {epochs: 3}}",
    "{name: three, strategy: random, evaluate: {generate: true}}",
    "{name: silent, strategy: random, draw: 2}",
)
GENERAL = tiny_examples(4, 9)


@pytest.fixture
def base(tokenizer):
    return replace(tiny_base(), tokenizer=tokenizer)


@pytest.fixture
def runs(base, tokenizer):
    data = tiny_data()
    texts = tuple(
        Example("say", tokenizer.decode(e.input_ids[: e.num_prompt_tokens]), tokenizer.decode(e.input_ids[e.num_prompt_tokens :]))
        for e in data.test
    )  # fmt: skip
    found = allocated(base, tiny_runs(ARMS), replace(data, examples={"test": texts}))
    return [replace(run, general=GENERAL) for run in found]


def train(base, runs):
    return list(itertools.chain(*train_pack(base, runs)))


def of(records, kind, run, **values):
    found = [r for r in records if isinstance(r, kind) and r.run_id == run.run.id]
    return [r for r in found if all(getattr(r, name) == value for name, value in values.items())]


def test_a_pack_answers_as_each_run_alone(base, runs):
    together = train(base, runs)
    for run in runs[:3]:
        [answered] = of(together, Answered, run)
        assert [answered] == of(train(base, [run]), Answered, run)
        assert (answered.split, answered.data_fingerprint) == ("test", run.data.fingerprint)
        assert answered.step == of(together, StepDone, run)[-1].step
        assert [a.question.split("\n")[0] for a in answered.answers] == ["say"] * len(run.data.test)
        assert [a.exact_match for a in answered.answers] == [a.written == a.expected for a in answered.answers]
        assert all(0 < a.num_tokens <= 12 for a in answered.answers)
    assert not of(together, Answered, runs[3])
    assert len({tuple(r.answers) for r in together if isinstance(r, Answered)}) > 1


def test_general_text_is_scored_before_and_after(base, runs):
    records = train(base, runs[:2])
    bare = score_slots(base.model, None, {0: GENERAL}, max_tokens=4096)[0].to_record("", "general", 0)
    for run in runs[:2]:
        before, after = of(records, Evaluated, run, split="general")
        assert (before.step, before.loss_nats) == (0, bare.loss_nats)
        assert after.step == of(records, StepDone, run)[-1].step
        assert after.loss_nats != before.loss_nats
        assert before.num_examples == len(GENERAL)


def test_every_pass_of_scoring_is_charged_to_the_runs_that_it_is_for(base, runs, monkeypatch):
    passes = []

    def counted(*args, **options):
        passes.append(args)
        return score_slots(*args, **options)

    monkeypatch.setattr(scoring, "score_slots", counted)
    monkeypatch.setattr(scoring, "time", SimpleNamespace(monotonic=lambda: float(len(passes))))  # a pass takes a second
    training = _PackTraining(base, [*runs[:2], replace(runs[3], general=())], EngineOptions())
    training.begin()
    training.close()
    assert len(passes) == 2
    assert [slot.wall_s for slot in training.slots] == pytest.approx([1 / 3 + 1 / 2, 1 / 3 + 1 / 2, 1 / 3])


def test_runs_that_tune_measure_none_of_it(base, runs):
    tuning = replace(runs[0], run=runs[0].run.model_copy(update={"scores_test": False}))
    records = train(base, [tuning])
    assert not of(records, Answered, tuning)
    assert not of(records, Evaluated, tuning, split="general")


def test_measuring_changes_no_loss(base, runs):
    plain = replace(runs[0], general=(), run=runs[0].run.model_copy(update={"arm": _silent(runs[0].run.arm)}))
    measured, unmeasured = train(base, [runs[0]]), train(base, [plain])
    losses = [
        [r.loss_nats for r in of(records, StepDone, run)] for records, run in ((measured, runs[0]), (unmeasured, plain))
    ]
    assert losses[0] == losses[1]


def _silent(arm):
    return arm.model_copy(update={"evaluate": type(arm.evaluate)()})


def test_calibration_is_part_of_every_evaluation(base, runs):
    [test] = of(train(base, [runs[0]]), Evaluated, runs[0], split="test")
    assert 0 < test.calibration_error < 1


def test_plain_text_has_nothing_to_answer(base, runs):
    texts = tuple(Example("", "", example.output) for example in runs[0].data.examples["test"])
    plain = replace(runs[0], data=replace(runs[0].data, examples={"test": texts}))
    assert not of(train(base, [plain]), Answered, plain)
    assert np.isfinite(of(train(base, [plain]), Evaluated, plain, split="test")[0].loss_nats)
