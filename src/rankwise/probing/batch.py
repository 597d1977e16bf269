"""One batch that a probe runs the model on.

N = rows, T = padded length.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class ProbeBatch:
    """A forward pass, and which of its positions count."""

    loss: Callable[[], torch.Tensor]
    """Runs the model on the batch and returns the mean loss of its answer tokens."""
    real_NT: torch.Tensor
    """bool: where there is a token, as opposed to padding."""
    answer_NT: torch.Tensor
    """bool: where that token belongs to an answer."""
