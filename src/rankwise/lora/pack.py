"""The adapters of K slots over one frozen model: stored flat, attached, read back, detached.

K = slots, P = adapter parameters of one slot with padding, R = largest rank of any slot at a site.

All weights of a slot are one contiguous row of `weights_KP`, and so are its gradients. An optimizer step, a norm, a
checkpoint or a copy is then one operation per slot instead of two per site.
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
from rankwise.lora.init import initial_down
from rankwise.lora.packed_linear import DropoutMasks, PackedLinear, RowSlots, SiteTensors
from rankwise.records import SiteAllocation


@dataclass(frozen=True, kw_only=True)
class SlotPlan:
    """What one slot is to hold."""

    rank_map: RankMap
    init: str
    seed: int


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
        self._layout = _Layout.of([plan.rank_map for plan in plans])
        device = next(model.parameters()).device
        shape = (len(plans), self._layout.num_params)
        self.weights_KP = torch.zeros(shape, dtype=torch.float32, device=device)
        """Master weights, always float32."""
        self.grads_KP = torch.zeros_like(self.weights_KP)
        self._working_KP = self.weights_KP if compute_dtype == torch.float32 else self.weights_KP.to(compute_dtype)
        # Something that requires grad must enter each packed layer, or autograd would not record the first block.
        anchor = torch.zeros((), device=device, requires_grad=True)
        self._layers: dict[str, PackedLinear] = {}
        for place in self._layout.places:
            base = model.get_submodule(place.site.name)
            site = self._site_tensors(place, compute_dtype)
            self._layers[place.site.name] = PackedLinear(place.site.name, base, site, anchor, self.rows)
        self._draw()
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
        """Copy the master weights into the compute dtype; after every change of `weights_KP`."""
        if self._working_KP is not self.weights_KP:
            self._working_KP.copy_(self.weights_KP)

    def tensors(self, slot: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Per site name the slot's own `down` (r, in) and `up` (out, r) in float32, without padding."""
        found = {}
        for place in self._layout.places:
            rank = self._rank(slot, place.site.name)
            if rank:
                down, up = place.views(self.weights_KP)
                found[place.site.name] = (
                    down[slot, :rank].cpu().numpy().copy(),
                    up[slot, :, :rank].cpu().numpy().copy(),
                )
        return found

    def audit(self) -> list[tuple[SiteAllocation, ...]]:
        """What each slot really holds, read back from the attached modules and compared with the plan.

        Raises:
            AuditError: at the first site whose realised rank, scale or module differs.
        """
        return [tuple(self._audit_slot(slot)) for slot in range(self.num_slots)]

    def detach(self) -> None:
        """Put the base layers back. Their weights were never touched."""
        for name, layer in self._layers.items():
            _set_submodule(self._model, name, layer.base)

    def _attach(self) -> None:
        for name, layer in self._layers.items():
            _set_submodule(self._model, name, layer)

    def _draw(self) -> None:
        for slot, plan in enumerate(self.plans):
            for site, rank in zip(plan.rank_map.sites, plan.rank_map.ranks, strict=True):
                if rank:
                    down, _ = self._layout.place(site.name).views(self.weights_KP)
                    down[slot, :rank] = torch.from_numpy(initial_down(plan.init, site, rank, plan.seed))
        self.refresh()

    def _site_tensors(self, place: "_Place", dtype: torch.dtype) -> SiteTensors:
        gate_KR = torch.zeros(self.num_slots, place.rank, dtype=dtype, device=self.weights_KP.device)
        for slot, plan in enumerate(self.plans):
            gate_KR[slot, : self._rank(slot, place.site.name)] = plan.rank_map.scale_of(place.site.name)
        down, up = place.views(self._working_KP)
        grad_down, grad_up = place.views(self.grads_KP)
        return SiteTensors(down, up, gate_KR, grad_down, grad_up)

    def _rank(self, slot: int, name: str) -> int:
        return self._layout.ranks[slot].get(name, 0)

    def _audit_slot(self, slot: int) -> Iterator[SiteAllocation]:
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
        gate_R = layer.site.gate_KR[slot].float()
        drawn_R = layer.site.down_KRD[slot].ne(0).any(dim=1)
        realised = int((gate_R.ne(0) & drawn_R).sum())
        expected_R = torch.zeros_like(gate_R)
        expected_R[:planned] = torch.tensor(scale, dtype=layer.site.gate_KR.dtype).float()
        if realised != planned or not torch.equal(gate_R, expected_R):
            raise AuditError(
                f"{name}: planned rank {planned} at scale {scale:g}, realised rank {realised} at "
                f"{gate_R[gate_R != 0].unique().tolist()}. The run is not trained."
            )
        return realised


@dataclass(frozen=True)
class _Place:
    """Where one site's matrices lie in a slot's row."""

    site: Site
    rank: int
    offset: int

    def views(self, flat_KP: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`down` (K, R, D) and `up` (K, F, R) as views of the flat rows."""
        down_size = self.rank * self.site.in_features
        up_size = self.rank * self.site.out_features
        down = flat_KP[:, self.offset : self.offset + down_size]
        up = flat_KP[:, self.offset + down_size : self.offset + down_size + up_size]
        num_slots = flat_KP.shape[0]
        return (
            down.view(num_slots, self.rank, self.site.in_features),
            up.view(num_slots, self.site.out_features, self.rank),
        )


@dataclass(frozen=True)
class _Layout:
    """All sites that any slot adapts, each with the largest rank that any slot has there."""

    places: tuple[_Place, ...]
    ranks: tuple[dict[str, int], ...]
    num_params: int

    @classmethod
    def of(cls, rank_maps: Sequence[RankMap]) -> "_Layout":
        ranks = tuple({s.name: r for s, r in zip(m.sites, m.ranks, strict=True)} for m in rank_maps)
        sites = {site.name: site for rank_map in rank_maps for site in rank_map.sites}
        places, offset = [], 0
        for name, site in sites.items():
            widest = max(of_slot.get(name, 0) for of_slot in ranks)
            if widest:
                places.append(_Place(site, widest, offset))
                offset += widest * site.cost
        return cls(tuple(places), ranks, offset)

    def place(self, name: str) -> _Place:
        return next(place for place in self.places if place.site.name == name)


def _set_submodule(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
