"""How one optimizer step moves each group of sites: what tells a stable run from one that is about to break.

A group is a kind of site in a third of the depth (`attention.early`, ..., `mlp.late`; `other` outside both). What moves
the model is not `up` or `down` but the change of the layer's weight that they make together,

    W = sum over components of gate x up · down,      gate = the site's scale where a component is active

so the step is measured there, without ever forming an (F, D) matrix. With U, D after the step and dU, dD its change,

    W after - W before = U · D - (U - dU) · (D - dD) = dU · (D - dD) + U · dD

whose squared norm is a sum of products of (R, R) Gram matrices. The difference is taken before the product: that of two
nearly equal products would lose all its digits.

K = slots, G = groups, R = components of a site, D = inputs, F = outputs, P = adapter parameters of one slot.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rankwise.allocation.sites import Site, site_group
from rankwise.lora.pack import AdapterPack
from rankwise.records import StepTrace

MAX_TRACED = 200
"""About how many steps of a run are measured: all of a short run, every n-th of a longer one: ledgers stay small.
Measuring took 1.1 to 1.9% of the processor time of a step (embedded model, 8 and 16 slots of rank 8, batches of 4)."""


def is_traced(step: int, num_steps: int) -> bool:
    """Whether `step` (from 1) of `num_steps` is measured: evenly spaced ones, the first and the last."""
    return step in (1, num_steps) or step % -(-num_steps // MAX_TRACED) == 0


@dataclass(frozen=True)
class Groups:
    """The groups of one run's sites, in forward order of their first site."""

    of_site: dict[str, str]
    """Site name -> group."""

    @classmethod
    def of(cls, sites: Sequence[Site]) -> "Groups":
        num_layers = 1 + max((site.layer for site in sites), default=0)
        return cls({site.name: site_group(site.kind, site.layer, num_layers) for site in sites})

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.of_site.values()))

    def norms(self, squares: dict[str, float]) -> tuple[float, ...]:
        """From squared norms of sites to norms of groups; a site that is not there counts as 0."""
        total: dict[str, float] = defaultdict(float)
        for site, group in self.of_site.items():
            total[group] += squares.get(site, 0.0)
        # Rounding may leave a square just below zero; what is not a number stays so.
        return tuple(0.0 if total[name] < 0 else total[name] ** 0.5 for name in self.names)


class Tracer:
    """Measures steps of a pack: `before` and `after` around one, then `trace` for each slot that made it.

    In between it holds a copy of the pack's weights. No activations are held then, so the peak of memory stays that of
    the backward passes.
    """

    def __init__(self, pack: AdapterPack) -> None:
        self._pack = pack
        self._groups = [Groups.of(plan.rank_map.sites) for plan in pack.plans]
        self._old_KP: torch.Tensor | None = None
        self._grad_squares: list[dict[str, float]] = []
        self._update_squares: list[dict[str, float]] = []
        self._weight_squares: list[dict[str, float]] = []

    def before(self) -> None:
        """With complete gradients, before anything clips them or changes a weight."""
        squares = {
            site.name: _square(down_KRD) + _square(up_KFR)
            for site, down_KRD, up_KFR, _ in self._pack.trained(self._pack.grads_KP)
        }
        self._grad_squares = _by_slot(squares, self._pack.num_slots)
        self._old_KP = self._pack.effective_weights().clone()

    def after(self) -> None:
        """When every slot has stepped."""
        assert self._old_KP is not None, "`before` was not called"
        new_KP = self._pack.effective_weights()
        step_KP = torch.sub(new_KP, self._old_KP, out=self._old_KP)
        self._old_KP = None
        updates, weights = {}, {}
        new, steps = self._pack.trained(new_KP), self._pack.trained(step_KP)
        for (site, down_KRD, up_KFR, gate_KR), (_, down_step_KRD, up_step_KFR, _) in zip(new, steps, strict=True):
            grams = _Grams.of(down_KRD, up_KFR, down_step_KRD, up_step_KFR, gate_KR.float())
            updates[site.name] = grams.change_K()
            weights[site.name] = self._whole_change_K(site, down_KRD, up_KFR, gate_KR.float(), grams)
        self._update_squares = _by_slot(updates, self._pack.num_slots)
        self._weight_squares = _by_slot(weights, self._pack.num_slots)

    def _whole_change_K(
        self, site: Site, down_KRD: torch.Tensor, up_KFR: torch.Tensor, gate_KR: torch.Tensor, grams: "_Grams"
    ) -> torch.Tensor:
        """|U · D - U0 · D0|²: what is added to the base; U0 and D0 are subtracted for good, or zero."""
        frozen = self._pack.subtracted(site.name)
        if frozen is None:
            return grams.product_K()
        down_step_KRD, up_step_KFR = down_KRD.clone(), up_KFR.clone()
        num_frozen = frozen[0].shape[1]
        down_step_KRD[:, :num_frozen] -= frozen[0]
        up_step_KFR[:, :, :num_frozen] -= frozen[1]
        return _Grams.of(down_KRD, up_KFR, down_step_KRD, up_step_KFR, gate_KR).change_K()

    def trace(self, slot: int, run_id: str, step: int) -> StepTrace:
        groups = self._groups[slot]
        return StepTrace(
            run_id=run_id,
            step=step,
            groups=groups.names,
            grad_norms=groups.norms(self._grad_squares[slot]),
            update_norms=groups.norms(self._update_squares[slot]),
            weight_norms=groups.norms(self._weight_squares[slot]),
        )


@dataclass(frozen=True)
class _Grams:
    """Products of `up` with gates, of `down`, and of their steps, each with each: (K, R, R)."""

    up: torch.Tensor
    up_step: torch.Tensor
    step_step: torch.Tensor
    down: torch.Tensor
    down_step: torch.Tensor
    down_step_step: torch.Tensor

    @classmethod
    def of(
        cls,
        down_KRD: torch.Tensor,
        up_KFR: torch.Tensor,
        down_step_KRD: torch.Tensor,
        up_step_KFR: torch.Tensor,
        gate_KR: torch.Tensor,
    ) -> "_Grams":
        gates_KRR = gate_KR[:, :, None] * gate_KR[:, None, :]
        return cls(
            torch.bmm(up_KFR.mT, up_KFR) * gates_KRR,
            torch.bmm(up_KFR.mT, up_step_KFR) * gates_KRR,
            torch.bmm(up_step_KFR.mT, up_step_KFR) * gates_KRR,
            torch.bmm(down_KRD, down_KRD.mT),
            torch.bmm(down_KRD, down_step_KRD.mT),
            torch.bmm(down_step_KRD, down_step_KRD.mT),
        )

    def product_K(self) -> torch.Tensor:
        """|U · D|² of each slot."""
        return (self.up * self.down).sum((1, 2))

    def change_K(self) -> torch.Tensor:
        """|dU · (D - dD) + U · dD|² of each slot."""
        old_down = self.down - self.down_step - self.down_step.mT + self.down_step_step
        mixed = self.down_step - self.down_step_step  # (D - dD) · dDᵀ
        square = self.step_step * old_down + 2 * self.up_step.mT * mixed + self.up * self.down_step_step
        return square.sum((1, 2))


def _square(matrices: torch.Tensor) -> torch.Tensor:
    """Squared norm of each slot's matrix, in float64 (a diverging gradient squared leaves float32): (K,)."""
    return torch.linalg.vector_norm(matrices, dim=(1, 2)).double().square()


def _by_slot(squares: dict[str, torch.Tensor], num_slots: int) -> list[dict[str, float]]:
    """Site -> (K,) as one dictionary a slot, fetched from the device at once."""
    if not squares:
        return [{} for _ in range(num_slots)]
    values_SK = torch.stack([square.double() for square in squares.values()]).tolist()
    return [dict(zip(squares, column, strict=True)) for column in zip(*values_SK, strict=True)]
