"""Several comparisons from one study: p-values adjusted so that the family as a whole keeps its error rate.

Letters: M comparisons.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from statsmodels.stats.multitest import multipletests

from rankwise.statistics.inputs import error_rate, finite_array


@dataclass(frozen=True, kw_only=True)
class AdjustedFamily:
    """A declared family of comparisons after adjustment, in the order given."""

    adjusted_p_M: np.ndarray
    """Compare with 1 - level; never below the unadjusted p."""
    rejected_M: np.ndarray
    """Whether "no difference" is rejected, bool (M,)."""
    level: float
    """1 - the probability of one false rejection or more in the whole family, at most."""
    num_comparisons: int
    method: str


def holm(p_M: ArrayLike, *, level: float) -> AdjustedFamily:
    """Holm's step-down adjustment (1979): valid whatever the dependence between comparisons.

    All arms share one baseline, so their comparisons do depend on each other. A comparison that was declared but could
    not be made stays in the family: pass 1.0 for it, or the others would be judged more mildly than was declared.
    """
    p_M = finite_array(p_M, name="p-values", ndim=1)
    if p_M.min() < 0 or p_M.max() > 1:
        raise ValueError(f"p-values must lie between 0 and 1, got {p_M.min():g} to {p_M.max():g}.")
    rejected_M, adjusted_p_M, _, _ = multipletests(p_M, alpha=error_rate(level), method="holm")
    return AdjustedFamily(
        adjusted_p_M=adjusted_p_M,
        rejected_M=rejected_M,
        level=level,
        num_comparisons=len(p_M),
        method=f"Holm over {len(p_M)} comparison" + ("s" if len(p_M) > 1 else ""),
    )
