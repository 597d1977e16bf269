"""The adapters of K slots over one frozen model: stored flat, attached, read back, detached.

K = slots, P = adapter parameters of one slot with padding, R = largest rank of any slot at a site.

The *master weights* of a slot are one contiguous float32 row of `weights_KP`, and so are its gradients: an optimizer
step, a norm, a checkpoint or a copy is one operation per slot instead of two per site. The *compute tensors* are what
the packed layers multiply with and what their backward passes sum into. Where nothing tells them apart (float32, every
component trained) they are views of the master weights and cost nothing; else `refresh` writes them from the master
weights, and `pull_gradients` brings the gradients back (docs/design/0006).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from rankwise.allocation.rank_map import RankMap
from rankwise.allocation.sites import Site
from rankwise.errors import AuditError
from rankwise.lora.compute_tensors import ComputeTensors
from rankwise.lora.gates import Gates, initial_triplets
from rankwise.lora.init import INITS
from rankwise.lora.init.rule import InitialAdapter, initial_adapter
from rankwise.lora.layout import Layout
from rankwise.lora.packed_linear import DropoutMasks, PackedLinear, RowSlots, SiteTensors
from rankwise.records import SiteAllocation


@dataclass(frozen=True, kw_only=True)
class SlotPlan:
    """What one slot is to hold."""

    rank_map: RankMap
    init: str
    seed: int
    initial: InitialAdapter | None = None
    """The matrices themselves, for an `init` that looks at weights or data; None: drawn from `seed`."""
    gate: float | None = None
    """What every component's trained gate starts at (0 with triplets drawn from `seed`); None: no gates."""

    def places(self) -> dict[Site, int]:
        """Components of each site that there is room for."""
        return dict(zip(self.rank_map.sites, self.rank_map.held_ranks, strict=True))

    def ranks(self) -> dict[Site, int]:
        """Trained components of each site."""
        return dict(zip(self.rank_map.sites, self.rank_map.ranks, strict=True))

    def frozen_ranks(self) -> dict[Site, int]:
        """Components of each site that are subtracted and never trained: a copy of the initial ones, or none."""
        return self.ranks() if self.initial is not None and self.initial.subtracted else {}


class AdapterPack:
    """Adapters of several runs on one model. Call `detach` when done: the model is then as it was."""

    def __init__(self, model: nn.Module, plans: Sequence[SlotPlan], *, compute_dtype: torch.dtype) -> None:
        """Attach to `model` (frozen) and draw the initial adapters.

        Raises:
            AuditError: what was attached differs from what was planned.
        """
        self.plans = tuple(plans)
        self.rows = RowSlots()
        self._model = model
        self._ranks = [{site.name: rank for site, rank in plan.ranks().items()} for plan in plans]
        self._num_places = [{site.name: num for site, num in plan.places().items()} for plan in plans]
        layout = Layout.of(plan.places() for plan in plans)
        frozen = Layout.of(plan.frozen_ranks() for plan in plans)
        device = next(model.parameters()).device
        self.weights_KP = torch.zeros(len(plans), layout.num_params, device=device)
        """Master weights, always float32."""
        self.grads_KP = torch.zeros_like(self.weights_KP)
        self.frozen_KP = torch.zeros(len(plans), frozen.num_params, device=device)
        """Subtracted components, in a layout of their own (P counts theirs); empty where no slot has any."""
        self.gates = Gates(len(plans), layout, device) if any(p.gate is not None for p in plans) else None
        """None where no slot has gates."""
        self._active = [
            {site.name: np.arange(num) < plan.ranks()[site] for site, num in plan.places().items()} for plan in plans
        ]
        self._layout, self._frozen_layout = layout, frozen
        self._compute = ComputeTensors(
            self.weights_KP,
            self.grads_KP,
            self.frozen_KP,
            layout=layout,
            frozen_layout=frozen,
            dtype=compute_dtype,
            gates=self.gates,
        )
        # Something that requires grad must enter each packed layer, or autograd would not record the first block.
        anchor = torch.zeros((), device=device, requires_grad=True)
        self._layers: dict[str, PackedLinear] = {}
        for place in layout.places:
            name = place.site.name
            site = self._site_tensors(name, compute_dtype)
            self._layers[name] = PackedLinear(name, model.get_submodule(name), site, anchor, self.rows)
        self._start()
        self._attach()
        self.audit()

    @property
    def num_slots(self) -> int:
        return len(self.plans)

    @contextmanager
    def active_rows(self, slots_N: torch.Tensor, dropout_masks: DropoutMasks | None = None) -> Iterator[None]:
        """Within, each forward pass takes rows that belong to `slots_N` (N,). Outside, the model is the bare base."""
        self.rows.slots_N, self.rows.dropout_masks = slots_N, dropout_masks
        try:
            yield
        finally:
            self.rows.slots_N = self.rows.dropout_masks = None

    def refresh(self) -> None:
        """Write the compute tensors; after every change of `weights_KP`."""
        self._compute.write()

    def pull_gradients(self) -> None:
        """Complete `grads_KP`; once per optimizer step, after all its backward passes."""
        self._compute.pull_gradients()

    def zero_gradients(self) -> None:
        """Forget all gradients; after every optimizer step."""
        self._compute.zero_gradients()

    def gradient_norms(self) -> list[float]:
        """Of each slot's whole gradient, gates included."""
        norms_K = self.grads_KP.norm(dim=1)
        if self.gates is not None:
            gated = [plan.gate is not None for plan in self.plans]
            norms_K[gated] = torch.hypot(norms_K, self.gates.grads_KC.norm(dim=1))[gated]
        found: list[float] = norms_K.tolist()
        return found

    def slot_views(self, slot: int, flat_P: torch.Tensor) -> Iterator[tuple[Site, torch.Tensor, torch.Tensor]]:
        """A row that lies like `weights_KP[slot]` (weights, gradients, an average), site by site in the order of the
        rank map: `down` (r, in) and `up` (out, r) of the slot's own places, as views."""
        for site, num in self.plans[slot].places().items():
            if num:
                down, up = self._layout.place(site.name).views(flat_P[None])
                yield site, down[0, :num], up[0, :, :num]

    def slices(self, slot: int) -> Iterator[tuple[Site, slice, slice]]:
        """The sites of a slot in the order of its row, and where `down` and `up` lie in it, padding included."""
        places = self.plans[slot].places()
        for place in self._layout.places:
            if places.get(place.site):
                yield place.site, *place.slices()

    def gate_views(self, slot: int, flat_C: torch.Tensor) -> Iterator[tuple[Site, torch.Tensor]]:
        """A row that lies like the gates, site by site in the order of `slot_views`: (r,) each."""
        assert self.gates is not None
        for site, num in self.plans[slot].places().items():
            if num:
                yield site, flat_C[self.gates.at(site.name)][:num]

    def active(self, slot: int) -> dict[str, np.ndarray]:
        """Per site name which of the slot's own places hold a component that takes part: bool (r,)."""
        return self._active[slot]

    def set_active(self, slot: int, active: dict[str, np.ndarray]) -> None:
        """Take note of which components take part. What is inactive must have a gate or weights of zero already."""
        self._active[slot] = {name: mask.copy() for name, mask in active.items()}

    def restore(self, weights_KP: torch.Tensor, frozen_KP: torch.Tensor, gates_KC: torch.Tensor | None = None) -> None:
        """Go on from saved `weights_KP`, `frozen_KP` and, where there are any, gates."""
        self.weights_KP.copy_(weights_KP)
        self.frozen_KP.copy_(frozen_KP)
        if self.gates is not None and gates_KC is not None:
            self.gates.values_KC.copy_(gates_KC)
        self._compute.write_frozen()
        self.refresh()

    def trained(self, flat_KP: torch.Tensor) -> Iterator[tuple[Site, torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Per adapted site its trained components in rows that lie as `weights_KP` does, such as `grads_KP`.

        Yields the site, `down` (K, R, D) and `up` (K, F, R) as views, and the scale at every place (K, R) as the packed
        layer has it.
        """
        for place in self._layout.places:
            yield place.site, *place.views(flat_KP), self._layers[place.site.name].site.gate_KR[:, : place.rank]

    def effective_weights(self) -> torch.Tensor:
        """The master weights with every gate multiplied into its `down`: what the packed layers apply, in float32."""
        if self.gates is None:
            return self.weights_KP
        effective_KP = self.weights_KP.clone()
        for place in self._layout.places:
            down, _ = place.views(effective_KP)
            down.copy_(self.gates.apply(place.site.name, down))
        return effective_KP

    def subtracted(self, site: str) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Frozen `down` (K, S, D) and `up` (K, F, S) of a site, S <= R; None where no slot subtracts anything there."""
        return self._frozen_layout.place(site).views(self.frozen_KP) if self._has_frozen(site) else None

    def _has_frozen(self, site: str) -> bool:
        return any(self._num_frozen(slot, site) for slot in range(self.num_slots))

    def tensors(self, slot: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """What the slot's adapter is on the base model: per site name `down` (r, in) and `up` (out, r) in float32.

        Subtracted components stand behind the trained ones, with `up` negated, so that `scale x up · down` is the whole
        change of the layer and r is twice the trained rank. That is the plain adapter that PEFT's
        `path_initial_model_for_weight_conversion` writes for such initialisations. Only components that take part are
        there, `down` times their gate where they have one.
        """
        found = {}
        for site, num in self.plans[slot].places().items():
            active_R = self._active[slot][site.name]
            rank = int(active_R.sum())
            if rank:
                down, up = self._parts(self._layout, self.weights_KP, slot, site.name, num)
                if self.gates is not None:
                    down = down * self.gates.values_KC[slot, self.gates.at(site.name)][:num, None].cpu().numpy()
                down, up = down[active_R], np.ascontiguousarray(up[:, active_R])
                if self._num_frozen(slot, site.name):
                    down_0, up_0 = self._parts(self._frozen_layout, self.frozen_KP, slot, site.name, rank)
                    down, up = np.concatenate([down, down_0]), np.concatenate([up, -up_0], axis=1)
                found[site.name] = (down, up)
        return found

    def audit(self) -> list[tuple[SiteAllocation, ...]]:
        """What each slot really holds, read back from the attached modules and compared with the plan.

        Raises:
            AuditError: at the first site whose realised rank, scale or module differs.
        """
        return [self.audit_slot(slot) for slot in range(self.num_slots)]

    def audit_slot(self, slot: int) -> tuple[SiteAllocation, ...]:
        """The same of one slot."""
        return tuple(self._audited_sites(slot))

    def detach(self) -> None:
        """Put the base layers back. Their weights were never touched."""
        for name, layer in self._layers.items():
            _set_submodule(self._model, name, layer.base)

    def _attach(self) -> None:
        for name, layer in self._layers.items():
            _set_submodule(self._model, name, layer)

    def _start(self) -> None:
        """Put every slot's initial matrices into the master weights, and frozen copies where they are subtracted."""
        for slot, plan in enumerate(self.plans):
            initial = plan.initial or _drawn(plan)
            for site, rank in plan.ranks().items():
                if rank:
                    down, up = initial.tensors[site.name]
                    self._put(self._layout, self.weights_KP, slot, site.name, down, up)
                    if self._num_frozen(slot, site.name):
                        self._put(self._frozen_layout, self.frozen_KP, slot, site.name, down, up)
            if plan.gate is not None:
                self._start_gates(slot, plan.gate)
        self._compute.write_frozen()
        self.refresh()

    def _start_gates(self, slot: int, start: float) -> None:
        """`start` at every component; zero at places that are still free, and at padding."""
        assert self.gates is not None
        self.gates.values_KC[slot] = 0
        for site, gate_R in self.gate_views(slot, self.gates.values_KC[slot]):
            gate_R[torch.from_numpy(self._active[slot][site.name])] = start

    def _put(self, layout: Layout, flat_KP: torch.Tensor, slot: int, name: str, *pair: np.ndarray) -> None:
        (down, up), rank = layout.place(name).views(flat_KP), len(pair[0])
        down[slot, :rank] = torch.from_numpy(pair[0])
        up[slot, :, :rank] = torch.from_numpy(pair[1])

    def _parts(
        self, layout: Layout, flat_KP: torch.Tensor, slot: int, name: str, rank: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The inverse of `_put`."""
        down, up = layout.place(name).views(flat_KP)
        return down[slot, :rank].cpu().numpy().copy(), up[slot, :, :rank].cpu().numpy().copy()

    def _site_tensors(self, name: str, dtype: torch.dtype) -> SiteTensors:
        down, up, grad_down, grad_up = self._compute.views(name)
        gate_KR = torch.stack([self._planned_gate(slot, name, down.shape[1], dtype) for slot in range(self.num_slots)])
        return SiteTensors(down, up, gate_KR.to(down.device), grad_down, grad_up)

    def _planned_gate(self, slot: int, name: str, width: int, dtype: torch.dtype) -> torch.Tensor:
        """The scale at places of trained components, its negative at subtracted ones, zero at padding: (R,)."""
        gate_R = torch.zeros(width, dtype=dtype)
        first, scale = self._compute.num_trained(name), self.plans[slot].rank_map.scale_of(name)
        gate_R[: self._num_places[slot].get(name, 0)] = scale
        gate_R[first : first + self._num_frozen(slot, name)] = -scale
        return gate_R

    def _num_frozen(self, slot: int, name: str) -> int:
        initial = self.plans[slot].initial
        return self._ranks[slot].get(name, 0) if initial is not None and initial.subtracted else 0

    def _audited_sites(self, slot: int) -> Iterator[SiteAllocation]:
        rank_map = self.plans[slot].rank_map
        for site, planned, scale in zip(rank_map.sites, rank_map.ranks, rank_map.scales, strict=True):
            realised = self._realised_rank(slot, site.name, planned, scale)
            yield SiteAllocation(
                site=site.name,
                kind=site.kind,
                layer=site.layer,
                in_features=site.in_features,
                out_features=site.out_features,
                planned_rank=planned,
                realised_rank=realised,
                scale=scale,
                params=realised * site.cost,
            )

    def _realised_rank(self, slot: int, name: str, planned: int, scale: float) -> int:
        layer = self._model.get_submodule(name)
        if not isinstance(layer, PackedLinear):
            if planned:
                raise AuditError(f"{name}: planned rank {planned}, but the layer carries no adapter.")
            return 0  # no slot adapts this site
        gate_R = layer.site.gate_KR[slot].cpu()
        drawn_R = layer.site.down_KRD[slot].ne(0).any(dim=1).cpu()
        first = self._compute.num_trained(name)
        if self.plans[slot].gate is not None:  # a gate of zero hides a component that was drawn
            down, _ = self._layout.place(name).views(self.weights_KP)
            drawn_R[:first] = down[slot].ne(0).any(dim=1).cpu()
        present_R = gate_R.ne(0) & drawn_R
        realised, frozen = int(present_R[:first].sum()), int(present_R[first:].sum())
        expected_R = self._planned_gate(slot, name, len(gate_R), gate_R.dtype)
        if realised != planned or frozen != self._num_frozen(slot, name) or not torch.equal(gate_R, expected_R):
            raise AuditError(
                f"{name}: planned rank {planned} at scale {scale:g}, realised rank {realised} at "
                f"{gate_R[gate_R != 0].float().unique().tolist()}. The run is not trained."
            )
        return realised


def _drawn(plan: SlotPlan) -> InitialAdapter:
    """The first matrices of a slot whose start depends on its seed alone."""
    if plan.gate != 0:
        return initial_adapter(INITS[plan.init], plan.rank_map, plan.seed, {})
    tensors = {site.name: initial_triplets(site, rank, plan.seed) for site, rank in plan.ranks().items() if rank}
    return InitialAdapter(tensors=tensors, subtracted=False)


def _set_submodule(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
