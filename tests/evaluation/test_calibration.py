import numpy as np
import pytest
import torch

from rankwise.evaluation.calibration import NUM_BINS, calibration_error, confidence_gaps
from rankwise.models.answer_loss import answer_token_losses
from tests.families import family


def tokens(num, seed=0):
    rng = np.random.default_rng(seed)
    confidence_M = rng.uniform(0.02, 1.0, num)
    return confidence_M, (rng.uniform(size=num) < confidence_M**2).astype(float), rng.integers(0, 9, num)


def totals(confidence_M, correct_M, row_M):
    gaps = confidence_gaps(confidence_M, correct_M, row_M, 9)
    return np.concatenate([gaps.sum(axis=0), [len(confidence_M)]])


def test_the_error_is_that_of_the_papers_formula():
    confidence_M, correct_M, row_M = tokens(500)
    expected = 0.0
    for low in np.arange(NUM_BINS) / NUM_BINS:
        inside = (confidence_M > low) & (confidence_M <= low + 1 / NUM_BINS)
        if inside.any():
            expected += inside.sum() / 500 * abs(correct_M[inside].mean() - confidence_M[inside].mean())
    assert calibration_error(totals(confidence_M, correct_M, row_M)) == pytest.approx(expected)
    assert expected > 0.05


def test_the_error_is_that_of_torchmetrics():
    classification = pytest.importorskip("torchmetrics.functional.classification")
    confidence_M, correct_M, row_M = tokens(400)
    expected = classification.binary_calibration_error(
        torch.from_numpy(confidence_M), torch.from_numpy(correct_M).long(), n_bins=NUM_BINS, norm="l1"
    )
    assert calibration_error(totals(confidence_M, correct_M, row_M)) == pytest.approx(float(expected), abs=1e-6)


def test_each_row_keeps_its_own_tokens_and_a_sure_one_is_in_the_last_bin():
    gaps = confidence_gaps(np.array([1.0, 1 / 15, 0.5]), np.array([0.0, 1.0, 0.0]), np.array([2, 0, 0]), 3)
    assert gaps.shape == (3, NUM_BINS)
    assert gaps[2, -1] == 1.0
    assert gaps[0, 0] == pytest.approx(1 / 15 - 1)
    assert gaps[0, 7] == 0.5
    assert not gaps[1].any()


def test_a_confidence_that_is_not_a_number_is_seen():
    gaps = confidence_gaps(np.array([np.nan, 0.5]), np.array([0.0, 1.0]), np.array([0, 0]), 1)
    assert np.isnan(gaps).sum() == 1


def test_confidence_is_the_largest_probability():
    model, ids = family("llama"), torch.randint(3, 64, (3, 7), generator=torch.Generator().manual_seed(0))
    answer = torch.zeros(3, 7, dtype=torch.bool)
    answer[:, 3:] = True
    with torch.no_grad():
        found = answer_token_losses(model, ids, answer).confidence_M
        expected = model(input_ids=ids).logits[:, 2:-1].softmax(dim=-1).max(dim=-1).values
    torch.testing.assert_close(found, expected.reshape(-1), rtol=1e-5, atol=1e-6)
