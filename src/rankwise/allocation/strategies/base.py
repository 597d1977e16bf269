"""What every allocation strategy is: a frozen, pure function from sites and signals to preferences."""

from typing import ClassVar

import numpy as np
from pydantic import BaseModel

from rankwise.allocation.sites import Signal, SiteView


class Strategy(BaseModel, frozen=True, extra="forbid"):
    """One rule for distributing ranks. Its fields are its settings, with the published values as defaults.

    Pure: the same view gives the same answer, and the view is left as it was. Randomness, where a strategy has any,
    comes from a setting (`draw`), never from global state.
    """

    needs: ClassVar[frozenset[Signal]] = frozenset()
    """Signals that the probe must measure first."""
    is_control: ClassVar[bool] = False
    """Whether the strategy exists to be beaten: what any arbitrary map would reach at the same budget."""

    def ideal_ranks(self, sites: SiteView) -> np.ndarray:
        """Preferences (L,): non-negative, finite, not all zero. Only their ratios matter; `fit` spends the budget."""
        raise NotImplementedError

    def required_signals(self) -> frozenset[Signal]:
        """`needs`, and those of a wrapped strategy where there is one."""
        return self.needs
