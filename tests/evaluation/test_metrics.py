"""Letters: E examples."""

import math

import numpy as np
import pytest

from rankwise.data.examples import Example
from rankwise.evaluation.calibration import NUM_BINS
from rankwise.evaluation.forgetting import forgetting
from rankwise.evaluation.generation import Answer
from rankwise.evaluation.held_out import example_scores
from rankwise.evaluation.loss import Scores
from rankwise.evaluation.metrics import METRICS, compare, summarise

NUM = 12
EXAMPLES = [Example("say", str(i), "é" * (1 + i % 3)) for i in range(NUM)]


def scores(shift=0.0):
    tokens_E = 1 + np.arange(NUM) % 4
    loss_E = tokens_E * (1.0 + 0.1 * np.sin(np.arange(NUM)) + shift)
    return Scores(loss_E, tokens_E, tokens_E // 2, 0.1 * np.ones((NUM, NUM_BINS)))


def answers(num_right):
    return [Answer(e.output if i < num_right else "x", 2) for i, e in enumerate(EXAMPLES)]


def test_every_metric_is_what_its_formula_says():
    found = {name: e.value for name, e in summarise(example_scores(scores(), EXAMPLES, answers(3))).items()}
    own = scores()
    loss = own.loss_nats_E.sum() / own.answer_tokens_E.sum()
    assert found["loss_nats"] == pytest.approx(loss)
    assert found["perplexity"] == pytest.approx(math.exp(loss))
    assert found["bits_per_byte"] == pytest.approx(own.loss_nats_E.sum() / math.log(2) / (2 * 24))
    assert found["token_accuracy"] == pytest.approx(own.correct_tokens_E.sum() / own.answer_tokens_E.sum())
    assert found["calibration_error"] == pytest.approx(0.1 * NUM * NUM_BINS / own.answer_tokens_E.sum())
    assert found["exact_match"] == 3 / NUM
    assert found["chrf"] == pytest.approx(3 / NUM)
    assert found["expected_answer_tokens"] == pytest.approx(own.answer_tokens_E.mean())
    assert found["written_answer_tokens"] == 2
    assert set(found) == set(METRICS)


def test_every_estimate_lies_in_its_interval_and_says_how_it_was_made():
    for name, estimate in summarise(example_scores(scores(), EXAMPLES, answers(3))).items():
        assert estimate.interval.low <= estimate.value <= estimate.interval.high, name
        assert estimate.interval.n == NUM
    found = summarise(example_scores(scores(), EXAMPLES, answers(0)))["exact_match"]
    assert (found.value, found.interval.low) == (0, 0)
    assert found.interval.high > 0.2


def test_what_was_not_measured_or_is_not_finite_is_missing():
    found = summarise(example_scores(scores(), EXAMPLES))
    assert {name for name, e in found.items() if e.value is None} == {
        "exact_match",
        "rouge_l",
        "chrf",
        "written_answer_tokens",
    }
    found = summarise(example_scores(scores(math.inf), EXAMPLES))
    assert found["loss_nats"].value is None
    assert found["perplexity"].value is None
    assert found["token_accuracy"].value is not None
    assert summarise(example_scores(scores(1e4), EXAMPLES))["perplexity"].value is None


def test_a_difference_is_paired_by_example():
    mine, first = example_scores(scores(-0.05), EXAMPLES, answers(5)), example_scores(scores(), EXAMPLES, answers(3))
    found = compare(mine, first)
    assert found["loss_nats"].value == pytest.approx(-0.05)
    interval = found["loss_nats"].interval
    assert interval.high - interval.low < 1e-9  # the same shift everywhere: no doubt, although losses differ
    single = summarise(mine)["loss_nats"].interval
    assert single.high - single.low > 0.02
    assert found["exact_match"].value == pytest.approx(2 / NUM)
    assert found["exact_match"].interval.low < 2 / NUM < found["exact_match"].interval.high
    assert compare(mine, example_scores(scores(), EXAMPLES))["exact_match"].value is None


def test_forgetting_is_the_loss_gained_per_token():
    found = forgetting(scores(), scores(0.25))
    assert found.difference_nats.value == pytest.approx(0.25)
    assert found.after_nats - found.before_nats == pytest.approx(0.25)
    assert found.num_passages == NUM
    assert forgetting(scores(), scores(math.nan)).difference_nats.value is None
