"""How many directions a spectrum is spread over, as a real number between 1 and the number of its values.

L = sites, K = singular values, largest first.
"""

import numpy as np


def effective_rank(values_LK: np.ndarray, *, power: int) -> np.ndarray:
    """exp of the entropy of each row's values to the `power`, taken as probabilities: (L,); 0 for a row of zeros.

    `power` 1 is the effective rank of Roy and Vetterli ("The effective rank", EUSIPCO 2007), 2 that of the energy.
    """
    shares_LK = (values_LK / _largest(values_LK)) ** power
    total_L1 = shares_LK.sum(axis=1, keepdims=True)
    shares_LK = shares_LK / np.where(total_L1 > 0, total_L1, 1)
    logs_LK = np.log(np.where(shares_LK > 0, shares_LK, 1))
    return np.where(total_L1[:, 0] > 0, np.exp(-(shares_LK * logs_LK).sum(axis=1)), 0.0)


def stable_rank(values_LK: np.ndarray) -> np.ndarray:
    """Squared Frobenius norm over squared spectral norm (Rudelson and Vershynin, arXiv:math/0503442): (L,)."""
    return ((values_LK / _largest(values_LK)) ** 2).sum(axis=1)


def _largest(values_LK: np.ndarray) -> np.ndarray:
    """(L, 1), with 1 where all values are zero; dividing by it first keeps squares within range."""
    largest_L1 = values_LK.max(axis=1, keepdims=True)
    return np.where(largest_L1 > 0, largest_L1, 1)
