"""Ranks that move while a run trains: what the engine measures and keeps for a dynamic strategy, and how it obeys it.

All of it happens inside the optimizer step, so nobody can forget to call it (huggingface/peft#432, #3373). What a rule
needs over time lies here and in the checkpoint; the rule itself is a pure function of a `RankView`.

L = sites in forward order, R = places of the roomiest site, P = a slot's weights, C = its gates, D = inputs,
F = outputs, r = places of one site.
"""

from collections.abc import Iterator

import numpy as np
import torch

from rankwise.allocation.rank_map import RankMap
from rankwise.allocation.rank_view import RankView
from rankwise.allocation.sites import Site
from rankwise.allocation.strategies.base import RankMover
from rankwise.errors import AllocationError
from rankwise.lora.gates import new_triplet
from rankwise.lora.pack import AdapterPack
from rankwise.lora.truncation import AdapterSpectrum
from rankwise.records import RanksRevised
from rankwise.streams import stream
from rankwise.training.sensitivity import Sensitivity
from rankwise.training.slot import Slot

_ROUNDING = 1e-6
"""Of a sum of float32 products near 1."""


class MovingRanks:
    """One slot's ranks under a mover. Call `add_penalty` on complete gradients, `after_update` after each step."""

    def __init__(self, mover: RankMover, slot: Slot, rank_map: RankMap, pack: AdapterPack) -> None:
        self._mover = mover
        self._mechanics = mover.mechanics()
        self._slot = slot
        self._rank_map = rank_map
        self._pack = pack
        self._phases = mover.phases(slot.num_steps)
        self._sensitivity: Sensitivity | None = None
        if self._mechanics.importance == "sensitivity":
            self._sensitivity = Sensitivity(
                pack, slot.number, self._mechanics.beta_sensitivity, self._mechanics.beta_uncertainty
            )

    def add_penalty(self) -> None:
        """Add to the gradients what the orthogonality penalty contributes; see `orthogonality_gradient`."""
        weight = self._mechanics.orthogonality
        if not weight:
            return
        weights, grads = self._pack.weights_KP[self._slot.number], self._pack.grads_KP[self._slot.number]
        active = self._pack.active(self._slot.number)
        of_weights = list(self._pack.slot_views(self._slot.number, weights))
        of_grads = self._pack.slot_views(self._slot.number, grads)
        share = weight / (2 * len(of_weights))
        for (site, down_RD, up_FR), (_, grad_down_RD, grad_up_FR) in zip(of_weights, of_grads, strict=True):
            there_R = None if self._mechanics.keeps_inactive else torch.from_numpy(active[site.name]).to(down_RD.device)
            grad_down_RD.add_(orthogonality_gradient(down_RD, there_R), alpha=share)
            grad_up_FR.add_(orthogonality_gradient(up_FR.T, there_R).T, alpha=share)

    def after_update(self, step: int) -> Iterator[RanksRevised]:
        """What follows the optimizer step number `step`, from 1: measure, shrink, revise.

        Raises:
            AllocationError: the mover broke its contract.
        """
        first, last = self._phases
        if self._sensitivity is not None and step < last:
            self._sensitivity.measure()
        if self._mechanics.shrinkage and step < last:
            self._shrink(self._slot.learning_rate * self._mechanics.shrinkage)
        if first < step <= last:
            yield from self._revise(step)
        if self._mechanics.keeps_inactive and step >= last:
            self._close_gates()

    def tensors(self) -> dict[str, torch.Tensor]:
        """What was measured so far, for a checkpoint."""
        return {} if self._sensitivity is None else self._sensitivity.tensors()

    def to_state(self) -> dict[str, list[bool]]:
        """Which components are active, for a checkpoint."""
        return {name: mask.tolist() for name, mask in self._pack.active(self._slot.number).items()}

    def restore(self, tensors: dict[str, torch.Tensor], state: dict[str, list[bool]]) -> None:
        """The inverse of `tensors` and `to_state`; weights and gates are restored with the pack."""
        if self._sensitivity is not None:
            self._sensitivity.restore(tensors)
        active = {name: np.array(mask, dtype=bool) for name, mask in state.items()}
        self._pack.set_active(self._slot.number, active)

    def _revise(self, step: int) -> Iterator[RanksRevised]:
        spectrum = None
        if self._mechanics.importance == "singular_value":
            scales = {site.name: self._rank_map.scale_of(site.name) for site in self._rank_map.sites}
            spectrum = AdapterSpectrum.of(self._pack.tensors(self._slot.number), scales)
        view = self._view(step, spectrum)
        answer_LR = self._mover.revise(view)
        if answer_LR is None:
            return
        _check(answer_LR, view, is_last=step == self._phases.last)
        if spectrum is not None:
            self._replace_by(spectrum, answer_LR)
        elif self._mechanics.keeps_inactive:
            self._note(answer_LR)
            self._close_gates()
        else:
            self._clear(view.exists_LR & ~answer_LR)
            self._add(answer_LR & ~view.active_LR, view.active_LR & answer_LR, step)
        self._note(answer_LR)
        if (answer_LR != view.active_LR).any():
            ranks = tuple(int(rank) for rank in answer_LR.sum(axis=1))
            yield RanksRevised(run_id=self._slot.run.id, step=step, ranks=ranks)

    def _view(self, step: int, spectrum: AdapterSpectrum | None) -> RankView:
        sites, budget = self._rank_map.sites, self._slot.run.arm.budget
        places_L = np.array(self._rank_map.held_ranks)
        shape = (len(sites), int(places_L.max()))
        active_LR, importance_LR = np.zeros(shape, dtype=bool), np.zeros(shape)
        active = self._pack.active(self._slot.number)
        importance = self._importance(spectrum)
        for row, site in enumerate(sites):
            active_LR[row, : places_L[row]] = active[site.name]
            if site.name in importance:
                importance_LR[row, : importance[site.name].size] = importance[site.name]
        return RankView(
            sites=sites,
            step=step,
            num_steps=self._slot.num_steps,
            budget_params=self._rank_map.budget_params,
            start_params=self._rank_map.params,
            min_rank=budget.min_rank,
            max_rank_L=np.array([min(site.max_rank, budget.max_rank or site.max_rank) for site in sites]),
            places_L=places_L,
            active_LR=active_LR,
            importance_LR=importance_LR,
        )

    def _importance(self, spectrum: AdapterSpectrum | None) -> dict[str, np.ndarray]:
        """Per site name one number per place."""
        if spectrum is not None:
            return {name: site.values for name, site in spectrum.sites.items()}
        if self._sensitivity is not None:
            return self._sensitivity.importance()
        return {site.name: gate_R.abs().cpu().numpy() for site, gate_R in self._gates()}

    def _gates(self) -> Iterator[tuple[Site, torch.Tensor]]:
        assert self._pack.gates is not None
        return self._pack.gate_views(self._slot.number, self._pack.gates.values_KC[self._slot.number])

    def _shrink(self, threshold: float) -> None:
        """The proximal step of threshold x |gate|: SoRA, arXiv:2311.11696, equation 8."""
        for _, gate_R in self._gates():
            gate_R.copy_(gate_R.sign() * (gate_R.abs() - threshold).clamp_min(0))

    def _close_gates(self) -> None:
        active = self._pack.active(self._slot.number)
        for site, gate_R in self._gates():
            gate_R[torch.from_numpy(~active[site.name]).to(gate_R.device)] = 0

    def _note(self, active_LR: np.ndarray) -> None:
        rows = zip(self._rank_map.sites, self._rank_map.held_ranks, active_LR, strict=True)
        self._pack.set_active(self._slot.number, {site.name: row[:places] for site, places, row in rows})

    def _clear(self, cleared_LR: np.ndarray) -> None:
        """Zero everything about components that do not take part. All their gradients are zero from here on: no
        momentum moves them, and nothing measured of them is left for a later one in the same place."""
        of_weights, of_gates = self._slot.averages()
        measured = self.tensors()
        of_weights = [self._pack.weights_KP[self._slot.number], *of_weights]
        of_gates = [*self._gate_rows(), *of_gates]
        for name, tensor in measured.items():
            (of_gates if name.startswith("gates.") else of_weights).append(tensor)
        row_of = {site.name: row for row, site in enumerate(self._rank_map.sites)}
        for flat_P in of_weights:
            for site, down_RD, up_FR in self._pack.slot_views(self._slot.number, flat_P):
                cleared_R = torch.from_numpy(cleared_LR[row_of[site.name], : len(down_RD)]).to(down_RD.device)
                down_RD[cleared_R] = 0
                up_FR[:, cleared_R] = 0
        for flat_C in of_gates:
            for site, gate_R in self._pack.gate_views(self._slot.number, flat_C):
                gate_R[torch.from_numpy(cleared_LR[row_of[site.name], : len(gate_R)]).to(gate_R.device)] = 0

    def _gate_rows(self) -> list[torch.Tensor]:
        return [] if self._pack.gates is None else [self._pack.gates.values_KC[self._slot.number]]

    def _add(self, born_LR: np.ndarray, kept_LR: np.ndarray, step: int) -> None:
        """New components at gate zero, so the model's output stays what it is."""
        row_of = {site.name: row for row, site in enumerate(self._rank_map.sites)}
        weights = self._pack.weights_KP[self._slot.number]
        for site, down_RD, up_FR in self._pack.slot_views(self._slot.number, weights):
            there = np.flatnonzero(kept_LR[row_of[site.name]]).tolist()
            for place in np.flatnonzero(born_LR[row_of[site.name]]).tolist():
                rng = stream(self._slot.run.seed, "grow", site.name, step, place)
                down_RD[place], up_FR[:, place] = new_triplet(down_RD[there], up_FR[:, there], rng)
                there.append(place)

    def _replace_by(self, spectrum: AdapterSpectrum, kept_LR: np.ndarray) -> None:
        """Singular components in the places of trained ones; a place that keeps none is zero."""
        weights = self._pack.weights_KP[self._slot.number]
        row_of = {site.name: row for row, site in enumerate(self._rank_map.sites)}
        for site, down_RD, up_FR in self._pack.slot_views(self._slot.number, weights):
            kept_R = kept_LR[row_of[site.name], : len(down_RD)]
            down, up = spectrum.sites[site.name].components(kept_R)
            down_RD.zero_()
            up_FR.zero_()
            down_RD[torch.from_numpy(kept_R)] = torch.from_numpy(down).to(down_RD.device)
            up_FR[:, torch.from_numpy(kept_R)] = torch.from_numpy(up).to(up_FR.device)


def orthogonality_gradient(rows_RD: torch.Tensor, there_R: torch.Tensor | None = None) -> torch.Tensor:
    """The gradient of |A · Aᵀ - 1| (Frobenius) with respect to A (R, D): 2 (A · Aᵀ - 1) · A / |A · Aᵀ - 1|.

    Zhang et al., arXiv:2303.10512, equation 4, with the norm unsquared as in their code and in PEFT. `there_R` says
    which rows there are; the others count for nothing.

    An excess that float32 cannot tell from zero is zero: a new component is orthonormal up to rounding, and AdamW would
    make steps out of that rounding, other ones in every pack.
    """
    excess_RR = rows_RD @ rows_RD.T - torch.eye(len(rows_RD), device=rows_RD.device)
    excess_RR = torch.where(excess_RR.abs() < _ROUNDING, 0.0, excess_RR)
    if there_R is not None:
        excess_RR = excess_RR * there_R[:, None] * there_R[None, :]
    return 2 * (excess_RR @ rows_RD) / excess_RR.norm().clamp_min(torch.finfo(torch.float32).tiny)


def _check(answer_LR: np.ndarray, view: RankView, *, is_last: bool) -> None:
    """What the engine can hold a mover to at the moment it answers."""
    if answer_LR.shape != view.active_LR.shape or answer_LR.dtype != bool or (answer_LR & ~view.exists_LR).any():
        raise AllocationError(
            f"step {view.step}: the strategy answered {answer_LR.dtype} of shape {answer_LR.shape}; it must choose "
            f"among the places that exist, as bool of shape {view.active_LR.shape}."
        )
    rank_L = answer_LR.sum(axis=1)
    residual = view.budget_params - int(rank_L @ view.costs_L)
    open_costs = view.costs_L[rank_L < np.minimum(view.places_L, view.max_rank_L)]
    if is_last and not 0 <= residual < min(open_costs, default=np.inf):
        raise AllocationError(
            f"step {view.step}: the strategy's last revision leaves {residual:,} of {view.budget_params:,} parameters; "
            "it must spend the budget up to less than one component."
        )
