"""Successive halving: many arms for a short training, the best third for one three times as long, and so on.

Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", arXiv:1502.07943; the
factor 3 is that of Hyperband (Li et al., arXiv:1603.06560).

Every rung trains its arms from scratch, with a full schedule at the rung's own length. To continue the runs of the rung
before would be cheaper by less than half, but would compare losses in the middle of a learning-rate schedule, where the
arm with the smaller rate looks better than it is going to be.

Two groups are halved apart: uniform arms, which differ in where adapters go and how many parameters they have, and
uneven ones. A strategy that has its merits must not lose its place to a uniform arm with twice the parameters.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rankwise.execution.recommend.candidates import is_uniform
from rankwise.study.config import Arm

ETA = 3
MIN_STEPS = 8
"""A rung of fewer optimizer steps would rank arms by their warm-up; it is left out."""
RATE_FACTOR = 2.0
"""Between neighbouring learning rates, where the range is left."""


@dataclass(frozen=True, kw_only=True)
class ArmScore:
    """What an arm reached on validation data in one rung, at each learning rate."""

    arm: Arm
    losses: dict[float, float]
    """Mean validation loss over the rung's seeds, nats per answer token; inf where a run diverged or failed."""
    error: str | None = None
    """Of the first run that did not end well."""

    @property
    def rate(self) -> float:
        """The best learning rate; the smallest of equally good ones."""
        return min(self.losses, key=lambda rate: (self.losses[rate], rate))

    @property
    def loss(self) -> float:
        return self.losses[self.rate]

    @property
    def is_at_edge(self) -> bool:
        """Whether the best rate is an end of several: a better one may lie beyond."""
        return len(self.losses) > 1 and self.rate in (min(self.losses), max(self.losses))

    @property
    def is_usable(self) -> bool:
        return math.isfinite(self.loss)


def rung_epochs(full_epochs: float, *, steps_per_epoch: int, num_arms: int, num_finalists: int) -> tuple[float, ...]:
    """Length of each rung in epochs, the last one full: as many short ones as halving by 3 brings arms to finalists."""
    num_short = max(1, math.floor(math.log(max(1, num_arms / num_finalists), ETA) + 1e-9))
    lengths = [full_epochs / ETA**power for power in range(num_short, 0, -1)]
    long_enough = [round(length, 4) for length in lengths if math.ceil(length * steps_per_epoch) >= MIN_STEPS]
    return (*long_enough, full_epochs)


def halve(scores: Sequence[ArmScore]) -> list[ArmScore]:
    """The best third of the uniform and of the uneven arms, rounded up, in the order of the list."""
    kept: list[ArmScore] = []
    for uniform in (True, False):
        group = sorted((s for s in scores if s.is_usable and is_uniform(s.arm) == uniform), key=lambda s: s.loss)
        kept += group[: math.ceil(len(group) / ETA)]
    return [score for score in scores if score in kept]


def next_rates(score: ArmScore, *, may_leave: bool) -> tuple[float, ...]:
    """The best learning rate and its two neighbours, beyond the range where its edge is best.

    A longer training wants another rate than a short one, mostly a smaller, so a single rate would be a choice made too
    early.
    """
    rates = sorted(score.losses)
    place = rates.index(score.rate)
    below = rates[place - 1] if place else score.rate / RATE_FACTOR
    above = rates[place + 1] if place + 1 < len(rates) else score.rate * RATE_FACTOR
    near = [float(f"{below:.2g}"), score.rate, float(f"{above:.2g}")]
    return tuple(near) if may_leave and len(rates) > 1 else tuple(rate for rate in near if rate in rates)


def choose_finalists(scores: Sequence[ArmScore], num_finalists: int) -> list[ArmScore]:
    """The best arm of each group, so that whether uniform is as good is decided on test data; then the best others.

    In the order of the list.
    """
    usable = sorted((score for score in scores if score.is_usable), key=lambda score: score.loss)
    of_group = [[score for score in usable if is_uniform(score.arm) == uniform][:1] for uniform in (True, False)]
    first = [score for group in of_group for score in group]
    kept = (first + [score for score in usable if score not in first])[:num_finalists]
    return [score for score in scores if score in kept]
