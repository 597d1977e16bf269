import numpy as np
import pytest

from rankwise.errors import LedgerError
from rankwise.ledger import open_ledger
from rankwise.ledger.scores import SCORE_NAMES, score_array
from rankwise.testing.sample_ledger import write_sample


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    with open_ledger(str(tmp_path_factory.mktemp("scores") / "ledger.db")) as ledger:
        return ledger.study_results(write_sample(ledger).name)


def test_axes_are_arms_and_reported_seeds_in_the_order_of_the_study(results):
    scores = score_array(results, "test_loss")
    assert (scores.arms, scores.seeds) == (("uniform", "linear_decay", "random"), (0, 1, 2))
    for arm in ("uniform", "linear_decay"):
        expected = [run.scores["test_loss"] for run in results.reported(arm)]
        np.testing.assert_array_equal(scores.of(arm), expected)


def test_what_did_not_finish_is_missing_even_where_it_scored_something(results):
    assert np.isnan(score_array(results, "test_loss").of("random")).all()
    assert np.isnan(score_array(results, "initial_validation_loss").of("random")).all()


@pytest.mark.parametrize("score", SCORE_NAMES)
def test_every_known_score_is_there_for_finished_runs(results, score):
    assert np.isfinite(score_array(results, score).of("uniform")).all()


def test_an_unknown_score_names_the_known_ones(results):
    with pytest.raises(LedgerError, match="study sample: 'loss' is not a score; known are test_loss, "):
        score_array(results, "loss")
