"""Running statistics of what enters each site: one object per site that every batch replaces by an updated one.

Layers that read the same tensor (q, k and v; gate and up) have the same statistics. Updates are functions from a state
and an input to a new state, so the layers behind the first are recognised by identity and share its work and memory.

N = rows, T = tokens, M = chosen positions of a batch, D = inputs of a site.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from rankwise.probing.batch import ProbeBatch

State = TypeVar("State")


class InputStatistics(Generic[State]):
    """Folds the rows that enter each site into its state."""

    def __init__(
        self,
        update: Callable[[State | None, torch.Tensor], State],
        choose: Callable[[ProbeBatch], torch.Tensor],
    ) -> None:
        """`update` takes a state (None at first) and rows (M, D) in float32; `choose` says which positions count."""
        self.states: dict[str, State] = {}
        self.wall_s = 0.0
        """Spent on updates so far."""
        self._update = update
        self._choose = choose
        self._last: tuple[State | None, torch.Tensor, State] | None = None

    def see(self, name: str, x: torch.Tensor, batch: ProbeBatch) -> None:
        """One call of the site `name` with input `x` (..., D)."""
        started = time.perf_counter()
        self._see(name, x, batch)
        self.wall_s += time.perf_counter() - started

    def _see(self, name: str, x: torch.Tensor, batch: ProbeBatch) -> None:
        before = self.states.get(name)
        if self._last is None or self._last[0] is not before or self._last[1] is not x:
            rows_MD = _rows(x.detach(), self._choose(batch))
            after = self._update(before, rows_MD) if len(rows_MD) else before
            if after is None:
                return
            self._last = (before, x, after)
        self.states[name] = self._last[2]

    def end_batch(self) -> None:
        """Lets go of the last input."""
        self._last = None


@contextmanager
def watched_inputs(
    modules: dict[str, nn.Module], statistics: Sequence[InputStatistics[Any]], batch: ProbeBatch
) -> Iterator[None]:
    """Within, each call of a module is shown to all `statistics`."""

    def watch(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def before_forward(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            for statistic in statistics:
                statistic.see(name, args[0], batch)

        return before_forward

    hooks = [module.register_forward_pre_hook(watch(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for statistic in statistics:
            statistic.end_batch()


def _rows(x: torch.Tensor, chosen_NT: torch.Tensor) -> torch.Tensor:
    """The chosen positions of `x` (N, T, D), or (N * T, D) as OPT's feed-forward layers read it.

    Of an input with fewer rows, an output head's or an expert's, all count.
    """
    rows = x.flatten(0, -2)
    return (rows[chosen_NT.flatten()] if len(rows) == chosen_NT.numel() else rows).float()
