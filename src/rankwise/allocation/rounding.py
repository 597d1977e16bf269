"""Real-valued ranks to integer ranks that spend a budget: a shortest deviation over the few distinct costs.

Sites of equal cost form a class. How far a class as a whole moves away from rounding to nearest decides what it spends,
and which of its sites move is then a matter of sorting, so the search runs over classes: every spending that can be
reached within a bound on the deviation, with the least deviation that reaches it.

L = sites. Deviations are squared and counted in 1/UNIT, so that sums are exact integers, ties are ties, and the order
of the sites cannot change a result through rounding errors.
"""

import math
from dataclasses import dataclass

import numpy as np

UNIT = 2**20
"""Resolution of a rank and of a squared deviation: about a millionth of a component."""

_GOLDEN = (math.sqrt(5) - 1) / 2
_UNREACHED = np.iinfo(np.int64).max


@dataclass(frozen=True, kw_only=True)
class _Class:
    """Sites of one cost, and what moving their total away from rounding to nearest adds to the deviation."""

    cost: int
    moves: np.ndarray
    """Components more than in the nearest rounding, ascending."""
    prices: np.ndarray
    """Least extra deviation of each move."""
    removals: np.ndarray
    """Index of the site that loses a component, first loss first."""
    additions: np.ndarray

    def apply(self, move: int, ranks_L: np.ndarray) -> None:
        chosen = self.additions[:move] if move > 0 else self.removals[:-move]
        np.add.at(ranks_L, chosen, np.sign(move))


def near_allowance(num_sites: int) -> int:
    """Extra squared deviation, in 1/UNIT, that spending more may cost.

    With many sites an exact solution is close by: 4 is as if four components lay one site off, and can move a class of
    n sites by about 2 / sqrt(n) components per site. Few sites have few ways to spend, so theirs may lie further away.
    """
    return max(4, 256 // num_sites) * UNIT


def round_to_budget(
    ideal_L: np.ndarray, cost_L: np.ndarray, budget: int, low_L: np.ndarray, high_L: np.ndarray
) -> np.ndarray:
    """Integer ranks near `ideal_L`; what exactly is guaranteed is said at `rankwise.allocation.budget.fit`.

    Needs `low_L <= ideal_L <= high_L` and `sum(low_L * cost_L) <= budget < sum(high_L * cost_L)`.
    """
    unit = int(np.gcd.reduce(cost_L))
    target_L = np.rint(ideal_L * UNIT).astype(np.int64)
    nearest_L = np.clip(-((UNIT - 2 * target_L) // (2 * UNIT)), low_L, high_L)
    overspent = int(nearest_L @ (cost_L // unit)) - budget // unit
    ranks_L = _search(target_L, nearest_L, cost_L // unit, overspent, low_L, high_L)
    return _fill(ranks_L, target_L, cost_L, budget, high_L)


def _search(
    target_L: np.ndarray,
    nearest_L: np.ndarray,
    cost_L: np.ndarray,
    overspent: int,
    low_L: np.ndarray,
    high_L: np.ndarray,
) -> np.ndarray:
    """The ranks of largest spending among those near the target, from small bounds on the deviation to larger ones."""
    bound = UNIT
    while True:
        classes = [
            _build_class(np.flatnonzero(cost_L == cost), int(cost), target_L, nearest_L, low_L, high_L, bound)
            for cost in np.unique(cost_L)
        ]
        stages = _reachable(classes, overspent, bound)
        offsets, deviations = stages[-1]
        if offsets.size:
            limit = int(deviations.min()) + near_allowance(cost_L.size)
            best = offsets[deviations <= limit].max()
            if best == 0 or bound >= limit:
                return _trace(classes, stages, int(best), nearest_L)
            bound = min(4 * bound, limit)
        else:
            bound *= 4


def _build_class(
    sites: np.ndarray,
    cost: int,
    target_L: np.ndarray,
    nearest_L: np.ndarray,
    low_L: np.ndarray,
    high_L: np.ndarray,
    bound: int,
) -> _Class:
    """All moves of one class whose extra deviation is within `bound`."""
    target, nearest = target_L[sites, None], nearest_L[sites, None]
    # k components beyond the nearest rounding add at least k (k - 1) to the squared deviation.
    steps = np.arange(math.isqrt(bound // UNIT) + 2)
    added, removed = nearest + steps + 1, nearest - steps
    additions, up = _cheapest(sites, _price(added, target), -target, added <= high_L[sites, None], bound)
    removals, down = _cheapest(sites, -_price(removed, target), target, removed > low_L[sites, None], bound)
    return _Class(
        cost=cost,
        moves=np.arange(-down.size, up.size + 1),
        prices=np.concatenate([down[::-1], [0], up]),
        removals=removals,
        additions=additions,
    )


def _price(component: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Change of the squared deviation when a site gets its `component`-th: (k - t)^2 - (k - 1 - t)^2."""
    return (2 * component - 1) * UNIT - 2 * target


def _cheapest(
    sites: np.ndarray, price: np.ndarray, second: np.ndarray, allowed: np.ndarray, bound: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sites in the order in which they move, and the running sum of prices, up to `bound`.

    Equal prices are ordered by `second`; what is still equal is spread evenly over the sites (golden-ratio sequence),
    so that a remainder does not gather in the first layers.
    """
    turn = (np.arange(sites.size) * _GOLDEN % 1)[:, None]
    owner, second, turn = (np.broadcast_to(values, price.shape) for values in (sites[:, None], second, turn))
    order = np.lexsort((turn[allowed], second[allowed], price[allowed]))
    total = np.cumsum(price[allowed][order])
    num = int(np.searchsorted(total, bound, side="right"))
    return owner[allowed][order[:num]], total[:num]


def _reachable(classes: list[_Class], start: int, bound: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per number of classes moved: spendings minus budget, ascending, and the least deviation that reaches each.

    The last entry holds only what leaves less than the dearest component unspent, and never more than the budget.
    """
    widest = max(cls.cost for cls in classes)
    stages = [(np.array([start]), np.array([0], dtype=np.int64))]
    for index, cls in enumerate(classes):
        offsets, deviations = stages[-1]
        if not offsets.size:
            return [*stages, stages[-1]]
        lowest = offsets[0] + cls.moves[0] * cls.cost
        table = np.full(offsets[-1] + cls.moves[-1] * cls.cost - lowest + 1, _UNREACHED)
        for move, price in zip(cls.moves, cls.prices, strict=True):
            place = offsets - lowest + move * cls.cost
            table[place] = np.minimum(table[place], deviations + price)
        reached = np.flatnonzero(table <= bound)
        later = classes[index + 1 :]
        fall, rise = (sum(int(c.moves[end]) * c.cost for c in later) for end in (0, -1))
        useful = reached[(reached + lowest + fall <= 0) & (reached + lowest + rise > -widest)]
        stages.append((useful + lowest, table[useful]))
    return stages


def _trace(
    classes: list[_Class], stages: list[tuple[np.ndarray, np.ndarray]], end: int, nearest_L: np.ndarray
) -> np.ndarray:
    """The ranks behind the last stage's entry `end`; among equals each class moves as little as it can."""
    ranks_L = nearest_L.copy()
    here, deviation = end, stages[-1][1][np.searchsorted(stages[-1][0], end)]
    for cls, (offsets, deviations) in zip(classes[::-1], stages[-2::-1], strict=True):
        before = here - cls.moves * cls.cost
        place = np.searchsorted(offsets, before).clip(max=offsets.size - 1)
        fits = np.flatnonzero((offsets[place] == before) & (deviations[place] + cls.prices == deviation))
        step = fits[np.argmin(np.abs(cls.moves[fits]))]
        cls.apply(int(cls.moves[step]), ranks_L)
        here, deviation = int(before[step]), deviations[place[step]]
    return ranks_L


def _fill(ranks_L: np.ndarray, target_L: np.ndarray, cost_L: np.ndarray, budget: int, high_L: np.ndarray) -> np.ndarray:
    """Adds components while any fits. Nothing is left to add unless costs differ widely between few sites."""
    while True:
        can_take_L = (ranks_L < high_L) & (cost_L <= budget - ranks_L @ cost_L)
        if not can_take_L.any():
            return ranks_L
        price_L = np.where(can_take_L, _price(ranks_L + 1, target_L), _UNREACHED)
        ranks_L[np.lexsort((-target_L, cost_L, price_L))[0]] += 1
