"""Calibration: of the tokens that a model is p sure of, is a share p right?

Expected calibration error of Guo et al., "On Calibration of Modern Neural Networks" (arXiv:1706.04599, equation 3),
over answer tokens given the expected ones before them. With the tokens in B equal-width bins by the probability of the
most probable token, ECE = sum over bins of |bin| / n x |accuracy - mean confidence|, which is the sum over bins of
|sum of (confidence - correct)|, divided by n. So one number per example and bin is all that has to be kept.

M = tokens, E = examples, B = bins.
"""

import numpy as np

NUM_BINS = 15
"""As in the paper's tables."""


def confidence_gaps(confidence_M: np.ndarray, correct_M: np.ndarray, row_M: np.ndarray, num_rows: int) -> np.ndarray:
    """Sum of confidence - correctness of each row's tokens in each bin: (num_rows, B) float64.

    Bin b holds confidences in (b / B, (b + 1) / B]. NaN confidences give NaN in the first bin, so that they are seen.
    """
    sure_M = np.nan_to_num(confidence_M, nan=0.0)
    bin_M = np.clip(np.ceil(sure_M * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)
    gaps = np.bincount(row_M * NUM_BINS + bin_M, weights=confidence_M - correct_M, minlength=num_rows * NUM_BINS)
    return gaps.reshape(num_rows, NUM_BINS)


def calibration_error(sums_X: np.ndarray) -> np.ndarray:
    """ECE of totals (..., B + 1): the gaps of all bins, and the number of tokens behind them."""
    return np.abs(sums_X[..., :-1]).sum(axis=-1) / sums_X[..., -1]
