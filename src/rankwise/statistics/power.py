"""How small a difference a number of seeds can show, and how many seeds a difference needs.

Both answers are for the test that is reported: the sign-flip test of `paired`, judged at Holm's strictest step, which
allows (1 - level) / comparisons. n seeds give only multiples of 2 / 2^n as p, so the level that the test truly has is
the largest such multiple within the allowed one; below `smallest_decidable_n` it is zero, and nothing can be shown.
Power is for normal differences, in the direction of the true one. At the smallest decidable number all seeds must
agree, and it is exact; beyond, it is that of the paired t test at the attained level. Simulated, the sign-flip test's
own power is 0.71 to 0.77 one seed above that number, where 0.80 is stated, and within 0.03 from three seeds above it.
"""

import math
from dataclasses import dataclass

from scipy import optimize, special
from statsmodels.stats.power import ttest_power

from rankwise.statistics.inputs import error_rate
from rankwise.statistics.paired import MAX_EXACT_PAIRS, smallest_p

_METHOD = "paired t test at the level that the sign-flip test with Holm attains; exact where all seeds must agree"


@dataclass(frozen=True, kw_only=True)
class DetectableDifference:
    """The smallest true difference that a study of this size finds with the stated power."""

    difference: float | None
    """In the unit of the standard deviation. None: with so few seeds no difference, however large, can be shown."""
    sd_of_differences: float
    n: int
    num_comparisons: int
    level: float
    power: float
    method: str


@dataclass(frozen=True, kw_only=True)
class SeedsNeeded:
    """The fewest seeds that find a true difference with the stated power."""

    n: int
    difference: float
    sd_of_differences: float
    num_comparisons: int
    level: float
    power: float
    method: str


def smallest_decidable_n(num_comparisons: int, level: float) -> int:
    """Fewest seeds with which the sign-flip test can reject at all under Holm: 2 / 2^n <= (1 - level) / comparisons.

    Raises ValueError for a family so large that not even the random patterns beyond 16 seeds reach the level.
    """
    allowed_p = _allowed_p(num_comparisons, level)
    for n in range(1, MAX_EXACT_PAIRS + 2):
        if smallest_p(n) <= allowed_p:
            return n
    raise ValueError(
        f"{num_comparisons:,} comparisons at level {level} need p <= {allowed_p:.2g}, and the sign-flip test cannot go "
        f"below {smallest_p(MAX_EXACT_PAIRS + 1):.2g}; declare fewer comparisons."
    )


def minimum_detectable_difference(
    sd_of_differences: float, n: int, *, level: float, power: float = 0.8, num_comparisons: int = 1
) -> DetectableDifference:
    """The difference that n seeds show with probability `power`, given the spread of paired differences."""
    _check(sd_of_differences, power)
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}.")
    decidable = n >= smallest_decidable_n(num_comparisons, level)
    effect = _smallest_effect(n, _allowed_p(num_comparisons, level), power) if decidable else None
    return DetectableDifference(
        difference=None if effect is None else sd_of_differences * effect,
        sd_of_differences=sd_of_differences,
        n=n,
        num_comparisons=num_comparisons,
        level=level,
        power=power,
        method=_METHOD,
    )


def seeds_needed(
    sd_of_differences: float, difference: float, *, level: float, power: float = 0.8, num_comparisons: int = 1
) -> SeedsNeeded:
    """The seeds that show a difference of this size, of either sign, with probability `power`."""
    _check(sd_of_differences, power)
    if not (math.isfinite(difference) and difference != 0):
        raise ValueError(f"difference must be finite and not zero, got {difference}.")
    return SeedsNeeded(
        n=_fewest_seeds(sd_of_differences, abs(difference), level, power, num_comparisons),
        difference=difference,
        sd_of_differences=sd_of_differences,
        num_comparisons=num_comparisons,
        level=level,
        power=power,
        method=_METHOD,
    )


def _fewest_seeds(sd: float, difference: float, level: float, power: float, num_comparisons: int) -> int:
    """Bisection: the attained level does not fall as seeds are added, so neither does the power."""
    enough, allowed_p = smallest_decidable_n(num_comparisons, level), _allowed_p(num_comparisons, level)
    if sd == 0:
        return enough
    too_few, effect = enough - 1, difference / sd
    while _power(effect, enough, allowed_p) < power:
        too_few, enough = enough, 2 * enough
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if _power(effect, middle, allowed_p) >= power else (middle, enough)
    return enough


def _smallest_effect(n: int, allowed_p: float, power: float) -> float:
    """Difference in standard deviations at which the power is reached."""
    upper = 1.0
    while _power(upper, n, allowed_p) < power:
        upper *= 2
    return float(optimize.brentq(lambda effect: _power(effect, n, allowed_p) - power, 0.0, upper))


def _power(effect: float, n: int, allowed_p: float) -> float:
    """Probability that n normal differences with a mean of `effect` standard deviations reject in its direction."""
    num_admissible = math.floor(allowed_p / smallest_p(n))
    if num_admissible == 1:
        return float(special.ndtr(effect) ** n)
    # One tail at half the level: a rejection in the wrong direction is no success (and underflows to nan in scipy).
    return float(ttest_power(effect, n, num_admissible * smallest_p(n) / 2, alternative="larger"))


def _allowed_p(num_comparisons: int, level: float) -> float:
    if num_comparisons < 1:
        raise ValueError(f"num_comparisons must be at least 1, got {num_comparisons}.")
    return error_rate(level) / num_comparisons


def _check(sd_of_differences: float, power: float) -> None:
    if not (math.isfinite(sd_of_differences) and sd_of_differences >= 0):
        raise ValueError(f"sd_of_differences must be finite and not negative, got {sd_of_differences}.")
    if not 0.5 <= power < 1:
        raise ValueError(f"power must be at least 0.5 and below 1, such as 0.8, got {power}.")
