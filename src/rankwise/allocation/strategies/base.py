"""What every allocation strategy is: a frozen, pure function from what it may see to what it wants.

A static strategy gives preferences once, before training. A dynamic one also says, after optimizer steps, which
components take part from there on. What such a rule needs over time (moving averages of sensitivity, gates) is kept by
the engine, checkpointed with the run, and handed in through the view, so that rules stay pure functions.

L = sites in forward order, R = places for components at the roomiest site.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Protocol

import numpy as np
from pydantic import BaseModel

from rankwise.allocation.rank_view import RankView
from rankwise.allocation.sites import Signal, SiteSignal, SiteView
from rankwise.errors import AllocationError


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

    def rank_bounds(self, sites: SiteView) -> tuple[int, int | None]:
        """Smallest and largest rank of any site where the published rule has such bounds; None: no largest.

        They hold beside those of the budget, which come first, and as far as the budget can be spent within them.
        """
        return 0, None

    def required_signals(self) -> frozenset[Signal]:
        """`needs`, and those of a wrapped strategy where there is one."""
        return self.needs

    def site_signal(self, sites: SiteView) -> SiteSignal | None:
        """What the rule goes by at each site, as one number that its ranks can be shown against; None where there is
        no such number.

        Here: the signal in `needs`, where it is the only one and no spectrum. A rule that reads a spectrum says what it
        makes of it.
        """
        if len(self.needs) != 1:
            return None
        (signal,) = self.needs
        if signal.is_spectrum:
            return None
        return SiteSignal(name=signal.in_words, values_L=np.asarray(sites.signals[signal], dtype=np.float64))

    def mover(self) -> "RankMover | None":
        """What moves ranks while training; None for a static strategy, whose ranks stay."""
        return None


class Phases(NamedTuple):
    """When ranks may move: after step t with first < t <= last."""

    first: int
    """Optimizer steps before ranks may move."""
    last: int
    """The step after which ranks are final."""


@dataclass(frozen=True, kw_only=True)
class Mechanics:
    """What the engine keeps and does for a strategy that moves ranks. Defaults: nothing but plain LoRA."""

    importance: Literal["sensitivity", "gate", "singular_value"]
    """What `RankView.importance_LR` holds. `sensitivity`: of a triplet, smoothed |w · dLoss/dw| times its uncertainty,
    the gate's plus the mean of `down`'s row plus the mean of `up`'s column (arXiv:2303.10512, equations 7 to 11);
    `gate`: the size of its gate; `singular_value`: of scale · up · down, whose singular vectors then replace the
    components."""
    start_factor: float = 1.0
    """Parameters at the first step, as a multiple of the budget."""
    room_factor: float = 1.0
    """Most components that a site may hold, as a multiple of those that it starts with."""
    gate: float | None = None
    """Start of a trained factor per component, ΔW = scale · up · diag(gate) · down; None: there are no gates. At 0,
    `down` and `up` both start as normal draws of standard deviation 0.02, as AdaLoRA's do."""
    beta_sensitivity: float = 0.85
    beta_uncertainty: float = 0.85
    """Averaging factors of the smoothed sensitivity and of its uncertainty."""
    orthogonality: float = 0.0
    """Weight of the mean of |down · downᵀ - 1| and |upᵀ · up - 1| (Frobenius) over all sites in the loss."""
    shrinkage: float = 0.0
    """What the proximal step takes off every gate's size per optimizer step before `Phases.last`, as a multiple of the
    step's learning rate."""
    keeps_inactive: bool = False
    """Inactive components go on training and may come back; otherwise they are cleared, and one that is made active is
    a new component at gate 0."""


class RankMover(Protocol):
    """Moves ranks while training: a dynamic strategy, or a control of one."""

    def mechanics(self) -> Mechanics: ...

    def phases(self, num_steps: int) -> Phases: ...

    def revise(self, view: RankView) -> np.ndarray | None:
        """Which components are active from here on, bool (L, R); None: all stay as they are.

        Called after every optimizer step of the phase in which ranks may move. At `Phases.last` the answer must spend
        the budget: active parameters within it, and less than the cheapest component left.
        """
        ...


class DynamicStrategy(Strategy):
    """A strategy that starts uniform and moves ranks while training."""

    def ideal_ranks(self, sites: SiteView) -> np.ndarray:
        return np.ones(len(sites.sites))

    def mover(self) -> "RankMover":
        return self

    def mechanics(self) -> Mechanics:
        raise NotImplementedError

    def phases(self, num_steps: int) -> Phases:
        raise NotImplementedError

    def revise(self, view: RankView) -> np.ndarray | None:
        raise NotImplementedError


def check_steps(mover: RankMover, name: str, num_steps: int) -> None:
    """Makes sure that a run is long enough for its strategy's schedule.

    Raises:
        AllocationError: it is too short; says how many optimizer steps are needed.
    """
    if _is_long_enough(mover, num_steps):
        return
    needed = next((steps for steps in range(num_steps + 1, 100_000) if _is_long_enough(mover, steps)), None)
    phases = mover.phases(num_steps)
    wanted = f"at least {needed} steps are needed" if needed else "no number of steps would do with these settings"
    raise AllocationError(
        f"{name}: a run of {num_steps} optimizer steps is too short for its schedule (ranks would move after step "
        f"{phases.first} and be final after step {phases.last}, with measurements before that); {wanted}. Raise "
        f"train.epochs, lower train.batch_size, or change the strategy's shares of the run."
    )


def _is_long_enough(mover: RankMover, num_steps: int) -> bool:
    """Ranks may move after at least one step, and before they are final something was measured of weights that moved:
    the first step of a warm-up moves nothing."""
    first, last = mover.phases(num_steps)
    least = 1 if mover.mechanics().importance == "singular_value" else 3
    return max(first + 1, least) <= last <= num_steps


def relative_to_largest(values_L: np.ndarray) -> np.ndarray:
    """Preferences proportional to `values_L`, at most 1; equal where all values are zero and say nothing."""
    largest = values_L.max()
    return values_L / largest if largest > 0 else np.ones_like(values_L)
