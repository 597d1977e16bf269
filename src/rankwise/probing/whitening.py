"""The spectrum of a gradient when its inputs are made alike in all directions: singular values of G C^(-1/2).

A layer whose inputs lie in few directions has a gradient of few directions whatever the task asks for. Dividing out the
second moment of the inputs, C = mean of x x^T over tokens, leaves what the outputs are asked to do. For a linear layer
with a squared loss the values are exactly those of the best weight change, seen through its inputs (Lin, "Early
Gradient Spectra and Useful Low-Rank Adaptation", 2026, github.com/GoGoKo699/early-gradient-spectra-lora).

Cost: C of every distinct input is held in float64, D x D, and factorised once; one decomposition per site.

M = rows, D = inputs, F = outputs.
"""

from dataclasses import dataclass

import numpy as np
import torch

from rankwise.probing.inputs import InputStatistics

RIDGE = 1e-3
"""Added to C, as a share of its mean eigenvalue, so that it can be inverted: the published `ridge_scale`."""


@dataclass(frozen=True, eq=False)
class SecondMoment:
    """Sum of x x^T, not centred, and how many rows it is of."""

    sum_DD: torch.Tensor
    num_rows: int


def second_moments() -> InputStatistics[SecondMoment]:
    """Of all tokens that are not padding: a prompt's tokens, too, carry gradient."""
    return InputStatistics(_add, lambda batch: batch.real_NT)


def _add(before: SecondMoment | None, rows_MD: torch.Tensor) -> SecondMoment:
    rows_MD = rows_MD.double()
    sum_DD = rows_MD.T @ rows_MD
    if before is None:
        return SecondMoment(sum_DD, len(rows_MD))
    return SecondMoment(sum_DD.add_(before.sum_DD), before.num_rows + len(rows_MD))


def whitened_singular_values(gradient_FD: torch.Tensor, factor_DD: torch.Tensor) -> np.ndarray:
    """Singular values of G C^(-1/2), largest first, float64; `factor_DD` from `factorise`."""
    whitened_DF = torch.linalg.solve_triangular(factor_DD, gradient_FD.double().T, upper=False)
    return torch.linalg.svdvals(whitened_DF).cpu().numpy()


def factorise(moment: SecondMoment) -> torch.Tensor:
    """Lower triangular R with R R^T = C + ridge. G R^(-T) has the singular values of G C^(-1/2), for less work.

    Both R and C^(1/2) are square roots of one matrix, so they differ by a rotation from the right.
    """
    covariance_DD = moment.sum_DD / moment.num_rows
    ridge = RIDGE * float(covariance_DD.diagonal().mean())
    identity = torch.eye(len(covariance_DD), dtype=torch.float64, device=covariance_DD.device)
    return torch.linalg.cholesky(covariance_DD + max(ridge, torch.finfo(torch.float64).tiny) * identity)
