"""What a run ended with, read back and held against what was planned, before anybody is given it.

The ledger of guarantees is only as good as its last entry: an allocator that never ran, a component that leaked from a
neighbour, a scale that was lost on the way to the file (peers of this project have shipped all three) would leave a run
that looks finished. So the tensors that will be stored are compared with the pack that was trained, and both with the
plan. L = sites of the run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rankwise.allocation.rank_map import RankMap
from rankwise.errors import AuditError
from rankwise.lora.pack import AdapterPack
from rankwise.records import RanksRevised, RunAudited, SiteOutcome

Tensors = Mapping[str, tuple[np.ndarray, np.ndarray]]


@dataclass
class RankHistory:
    """The ranks that a run is to have by now, and how they came about."""

    ranks: list[int]
    """Active components of each site (L,)."""
    costs: list[int]
    """Parameters of one component (L,)."""
    num_revisions: list[int] = field(default_factory=list)
    """Revisions that changed the site (L,)."""
    held_params: int = 0
    """The most that were active at once."""

    @classmethod
    def of(cls, rank_map: RankMap) -> "RankHistory":
        costs = [site.cost for site in rank_map.sites]
        return cls(list(rank_map.ranks), costs, [0] * len(costs), rank_map.params)

    def revise(self, record: RanksRevised) -> None:
        for index, (old, new) in enumerate(zip(self.ranks, record.ranks, strict=True)):
            self.num_revisions[index] += old != new
        self.ranks = list(record.ranks)
        self.held_params = max(self.held_params, self.params)

    @property
    def params(self) -> int:
        return sum(rank * cost for rank, cost in zip(self.ranks, self.costs, strict=True))

    def to_state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"ranks": self.ranks, "num_revisions": self.num_revisions, "held_params": self.held_params}

    def restore(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


def audit_run(pack: AdapterPack, slot: int, run_id: str, tensors: Tensors, history: RankHistory) -> RunAudited:
    """The outcome of one slot whose adapter is to be stored as `tensors`.

    Raises:
        AuditError: the pack, the tensors and the plan do not say the same; the run has no result.
    """
    if not any(history.num_revisions):
        pack.audit_slot(slot)
    plan = pack.plans[slot]
    found = {
        site.name: _Site(down_KRD[slot].cpu().numpy(), up_KFR[slot].cpu().numpy(), gate_KR[slot].float().cpu().numpy())
        for site, down_KRD, up_KFR, gate_KR in pack.trained(pack.effective_weights())
    }
    outcomes = []
    for index, (site, scale) in enumerate(zip(plan.rank_map.sites, plan.rank_map.scales, strict=True)):
        rank = history.ranks[index]
        trained = found[site.name].only(pack.active(slot)[site.name]) if site.name in found else None
        frozen = _frozen(pack, slot, site.name, rank)
        _compare(site.name, rank, scale, trained, frozen, tensors.get(site.name))
        stored = 2 * rank if frozen else rank
        outcomes.append(
            SiteOutcome(
                site=site.name,
                rank=stored,
                scale=scale,
                params=stored * site.cost,
                num_unmoved=trained.num_unmoved(_initial(pack, slot, site.name, frozen)) if trained else 0,
                num_revisions=history.num_revisions[index],
            )
        )
    if history.params > plan.rank_map.budget_params:
        raise AuditError(
            f"the adapter has {history.params:,} trained parameters, more than the budget of "
            f"{plan.rank_map.budget_params:,}. {_NOT_KEPT}"
        )
    params = sum(outcome.params for outcome in outcomes)
    return RunAudited(run_id=run_id, sites=tuple(outcomes), params=params, held_params=history.held_params)


_NOT_KEPT = "The run has failed and its adapter is not kept."


@dataclass(frozen=True)
class _Site:
    """One site of one slot as the pack has it: `down` (R, D), `up` (F, R), `gate` (R,)."""

    down_RD: np.ndarray
    up_FR: np.ndarray
    gate_R: np.ndarray

    def only(self, active_r: np.ndarray) -> "_Site":
        """Its components that take part: of the slot's own places (r,) the active ones that the layer lets through."""
        chosen = self.gate_R != 0
        chosen[: len(active_r)] &= active_r
        return _Site(self.down_RD[chosen], self.up_FR[:, chosen], self.gate_R[chosen])

    def num_unmoved(self, initial: tuple[np.ndarray, np.ndarray] | None) -> int:
        """Components whose product is what it was before the first step; `up` was zero where `initial` is None."""
        nothing_R = ~(self.down_RD.any(axis=1) & self.up_FR.any(axis=0))
        if initial is None or len(initial[0]) != len(self.down_RD):
            return int(nothing_R.sum())
        down_RD, up_FR = initial
        same_R = (self.down_RD == down_RD).all(axis=1) & (self.up_FR == up_FR).all(axis=0)
        return int((same_R | nothing_R & ~(down_RD.any(axis=1) & up_FR.any(axis=0))).sum())

    def apply(self, x_D: np.ndarray) -> np.ndarray:
        """gate x up · down · x, in float64: (F,)."""
        return np.asarray(self.up_FR.astype(np.float64) @ (self.gate_R * (self.down_RD.astype(np.float64) @ x_D)))


def _frozen(pack: AdapterPack, slot: int, name: str, rank: int) -> _Site | None:
    """What is subtracted for good at one site of one slot."""
    if name not in {site.name for site in pack.plans[slot].frozen_ranks()} or not rank:
        return None
    pair = pack.subtracted(name)
    assert pair is not None
    down_RD, up_FR = pair[0][slot, :rank].cpu().numpy(), pair[1][slot, :, :rank].cpu().numpy()
    return _Site(down_RD, up_FR, np.full(rank, -pack.plans[slot].rank_map.scale_of(name)))


def _initial(pack: AdapterPack, slot: int, name: str, frozen: _Site | None) -> tuple[np.ndarray, np.ndarray] | None:
    """The matrices that the site began with, where `up` was not zero."""
    if frozen is not None:
        return frozen.down_RD, frozen.up_FR
    initial = pack.plans[slot].initial
    return initial.tensors.get(name) if initial is not None else None


def _compare(
    name: str,
    rank: int,
    scale: float,
    trained: _Site | None,
    frozen: _Site | None,
    stored: tuple[np.ndarray, np.ndarray] | None,
) -> None:
    """Ranks, then what the layer adds to one arbitrary input: of the pack that was trained, and of what is stored."""
    in_pack = len(trained.gate_R) if trained else 0
    in_file = len(stored[0]) if stored else 0
    wanted_in_file = 2 * rank if frozen else rank
    if in_pack != rank or in_file != wanted_in_file:
        raise AuditError(
            f"{name}: planned rank {rank}, {in_pack} components active in the trained layer, {in_file} in the adapter "
            f"to be stored (expected {wanted_in_file}). {_NOT_KEPT}"
        )
    if not trained or not stored:
        return
    x_D = np.cos(np.arange(trained.down_RD.shape[1]))
    layer_F = trained.apply(x_D) + (frozen.apply(x_D) if frozen else 0)
    adapter_F = _Site(*stored, np.full(in_file, scale)).apply(x_D)
    size = np.abs(trained.apply(x_D)).max(initial=0.0)
    # Gates may be bfloat16 (8 bits); a run that ends in values that are not finite has diverged, which others report.
    if np.isfinite(size) and np.abs(layer_F - adapter_F).max(initial=0.0) > 0.01 * size:
        raise AuditError(
            f"{name}: the adapter to be stored, at scale {scale:g}, does not do what the trained layer does: outputs "
            f"differ by up to {np.abs(layer_F - adapter_F).max():.3g} where the layer adds up to {size:.3g}. "
            + _NOT_KEPT
        )
