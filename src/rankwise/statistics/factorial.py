"""Main effects and interactions of factors that arms vary at once (Fisher, The Design of Experiments, 1935).

An arm is one cell: one level of each factor. The main effect of a level is the mean, over seeds and over the cells of
the other factors, of the loss at that level minus the loss at the factor's reference level, everything else equal:

    effect[s] = mean over cells c that both levels have of  loss[level, c, s] - loss[reference, c, s]

In a full factorial this is the coefficient of ordinary least squares with a block per seed; the tests say so. In a part
of one, only cells with a partner count, so a factor is never compared across different company.

Letters: A arms, S seeds on which every arm in use finished.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import ArrayLike

from rankwise.statistics.inputs import finite_array
from rankwise.statistics.intervals import Interval, bootstrap_mean_interval

Cell = tuple[str, ...]
"""One level of each factor, in the order of the factors."""


@dataclass(frozen=True, kw_only=True)
class FactorEffect:
    """What a level costs or gains against the reference level of its factor, averaged over the other factors."""

    factor: str
    level: str
    reference: str
    effect: float
    effect_S: np.ndarray
    """The effect on each seed."""
    num_cells: int
    """Combinations of the other factors that both levels have."""
    num_all_cells: int
    """Combinations of the other factors that the design has with any level of this one."""
    interval: Interval

    @property
    def is_complete(self) -> bool:
        """Whether the level and its reference meet every combination of the others; else the effect is of a part."""
        return self.num_cells == self.num_all_cells


@dataclass(frozen=True, kw_only=True)
class Interaction:
    """How much the effect of one factor's level changes when another factor moves from its reference to a level."""

    factors: tuple[str, str]
    levels: tuple[str, str]
    effect: float
    num_cells: int
    """Combinations of the remaining factors in which all four cells exist."""
    interval: Interval


def main_effects(
    loss_AS: ArrayLike,
    levels_of: Mapping[str, Sequence[str]],
    reference: Mapping[str, str],
    *,
    level: float,
    rng: np.random.Generator,
) -> tuple[FactorEffect, ...]:
    """One effect per factor and level other than the reference; none where no cell has both.

    Args:
        loss_AS: losses of the arms on the seeds that all of them finished.
        levels_of: per factor the level of each arm (A).
        reference: per factor the level that its others are compared with.
        level: of the intervals, over seeds.

    Raises:
        ValueError: two arms are the same cell, or losses are not finite.
    """
    design = _Design.of(loss_AS, levels_of)
    found = []
    for index, factor in enumerate(design.factors):
        others = sorted({_without(cell, index) for cell in design.loss_of})
        for value in design.levels(index):
            pairs = [(_with(rest, index, value), _with(rest, index, reference[factor])) for rest in others]
            pairs = [pair for pair in pairs if all(cell in design.loss_of for cell in pair)]
            if value == reference[factor] or not pairs:
                continue
            effect_S = np.mean([design.loss_of[mine] - design.loss_of[theirs] for mine, theirs in pairs], axis=0)
            found.append(
                FactorEffect(
                    factor=factor,
                    level=value,
                    reference=reference[factor],
                    effect=float(effect_S.mean()),
                    effect_S=effect_S,
                    num_cells=len(pairs),
                    num_all_cells=len(others),
                    interval=bootstrap_mean_interval(effect_S, level=level, rng=rng),
                )
            )
    return tuple(found)


def interactions(
    loss_AS: ArrayLike,
    levels_of: Mapping[str, Sequence[str]],
    reference: Mapping[str, str],
    *,
    level: float,
    rng: np.random.Generator,
) -> tuple[Interaction, ...]:
    """Of every two factors and levels other than the references: (both - first alone) - (second alone - neither).

    Zero where the two effects add up. Arguments and errors as in `main_effects`.
    """
    design = _Design.of(loss_AS, levels_of)
    found = []
    for first, second in combinations(range(len(design.factors)), 2):
        names = design.factors[first], design.factors[second]
        for values in product(design.levels(first), design.levels(second)):
            if values[0] == reference[names[0]] or values[1] == reference[names[1]]:
                continue
            effects = [
                design.contrast(rest, (first, second), values, (reference[names[0]], reference[names[1]]))
                for rest in sorted({_without(_without(cell, second), first) for cell in design.loss_of})
            ]
            present = [effect_S for effect_S in effects if effect_S is not None]
            if present:
                effect_S = np.mean(present, axis=0)
                interval = bootstrap_mean_interval(effect_S, level=level, rng=rng)
                found.append(
                    Interaction(
                        factors=names, levels=values, effect=float(effect_S.mean()), num_cells=len(present),
                        interval=interval,
                    )
                )  # fmt: skip
    return tuple(found)


@dataclass(frozen=True)
class _Design:
    factors: tuple[str, ...]
    loss_of: dict[Cell, np.ndarray]
    """Losses over seeds (S,) of each cell that an arm stands for."""

    @classmethod
    def of(cls, loss_AS: ArrayLike, levels_of: Mapping[str, Sequence[str]]) -> "_Design":
        loss_AS = finite_array(loss_AS, name="losses", ndim=2)
        cells: list[Cell] = list(zip(*levels_of.values(), strict=True))
        if len(cells) != len(loss_AS):
            raise ValueError(f"{len(loss_AS)} arms have losses, {len(cells)} have levels.")
        if len(set(cells)) < len(cells):
            twice = next(cell for cell in cells if cells.count(cell) > 1)
            raise ValueError(f"two arms are the same combination of levels: {', '.join(twice)}.")
        return cls(tuple(levels_of), dict(zip(cells, loss_AS, strict=True)))

    def levels(self, factor: int) -> tuple[str, ...]:
        """In the order in which arms first have them."""
        return tuple(dict.fromkeys(cell[factor] for cell in self.loss_of))

    def contrast(
        self, rest: Cell, factors: tuple[int, int], values: tuple[str, str], references: tuple[str, str]
    ) -> np.ndarray | None:
        """The interaction in one combination of the remaining factors; None where a cell is missing."""
        corners = [
            _with(_with(rest, factors[0], first), factors[1], second)
            for first, second in product((values[0], references[0]), (values[1], references[1]))
        ]
        if any(cell not in self.loss_of for cell in corners):
            return None
        both, first_alone, second_alone, neither = (self.loss_of[cell] for cell in corners)
        return np.asarray(both - first_alone - second_alone + neither)


def _without(cell: Cell, index: int) -> Cell:
    return cell[:index] + cell[index + 1 :]


def _with(rest: Cell, index: int, level: str) -> Cell:
    return (*rest[:index], level, *rest[index:])
