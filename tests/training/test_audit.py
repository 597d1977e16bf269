"""The last audit: what a run ended with is what was planned, or the run has failed and its neighbours go on."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from rankwise.allocation.rank_map import Scaling
from rankwise.errors import AuditError
from rankwise.lora.init.rule import InitialAdapter
from rankwise.lora.pack import AdapterPack, SlotPlan
from rankwise.records import AdapterTrained, RanksRevised, Record, RunAllocated, RunAudited, RunFailed, RunFinished
from rankwise.training.audit import RankHistory, audit_run
from rankwise.training.engine import train_pack
from tests.families import mixed_rank_map
from tests.tiny import allocated, tiny_base, tiny_llama, tiny_runs

ARMS = ("uniform", "{strategy: linear_decay, scaling: {rule: rslora, alpha: 3.0}}", "{strategy: random, targets: mlp}")


def train() -> tuple[list[Any], list[Record]]:
    base = tiny_base()
    runs = allocated(base, tiny_runs(ARMS))
    return runs, [record for records in train_pack(base, runs) for record in records]


def test_every_site_ends_as_it_was_planned_and_every_component_moved() -> None:
    runs, records = train()
    for run in runs:
        (audited,) = (r for r in records if isinstance(r, RunAudited) and r.run_id == run.run.id)
        (began,) = (r for r in records if isinstance(r, RunAllocated) and r.run_id == run.run.id)
        assert [site.site for site in audited.sites] == [site.site for site in began.sites]
        assert [site.rank for site in audited.sites] == list(run.rank_map.ranks)
        assert [site.scale for site in audited.sites] == list(run.rank_map.scales)
        assert {(site.num_unmoved, site.num_revisions) for site in audited.sites} == {(0, 0)}
        assert audited.params == audited.held_params == began.params == run.rank_map.params


def drop_a_component(pack: AdapterPack, tensors: dict[str, Any]) -> None:
    name, (down, up) = next(iter(tensors.items()))
    tensors[name] = (down[1:], up[:, 1:])


def forget_a_site(pack: AdapterPack, tensors: dict[str, Any]) -> None:
    del tensors[next(iter(tensors))]


def take_a_neighbours_weights(pack: AdapterPack, tensors: dict[str, Any]) -> None:
    name, (down, up) = next(iter(tensors.items()))
    tensors[name] = (down, up[:, ::-1] + 1)


def change_a_scale(pack: AdapterPack, tensors: dict[str, Any]) -> None:
    _, _, _, gate = next(pack.trained(pack.weights_KP))
    gate[1] *= 2


def lose_a_gate(pack: AdapterPack, tensors: dict[str, Any]) -> None:
    _, _, _, gate = next(pack.trained(pack.weights_KP))
    gate[1, 0] = 0


@pytest.mark.parametrize(
    "damage", [drop_a_component, forget_a_site, take_a_neighbours_weights, change_a_scale, lose_a_gate]
)
def test_a_run_that_is_not_what_was_planned_fails_alone(
    damage: Callable[[AdapterPack, dict[str, Any]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = AdapterPack.tensors

    def damaged(pack: AdapterPack, slot: int) -> dict[str, Any]:
        tensors = honest(pack, slot)
        if slot == 1:
            damage(pack, tensors)
        return tensors

    monkeypatch.setattr(AdapterPack, "tensors", damaged)
    runs, records = train()
    victim = runs[1].run.id
    (failed,) = (r for r in records if isinstance(r, RunFailed))
    assert failed.run_id == victim
    assert "model.layers.0.self_attn.q_proj: " in failed.cause
    ended = {r.run_id for r in records if isinstance(r, RunFinished | AdapterTrained | RunAudited)}
    assert ended == {run.run.id for run in runs} - {victim}


def pack_of(plan: SlotPlan) -> tuple[AdapterPack, RankHistory]:
    return AdapterPack(tiny_llama(), [plan], compute_dtype=torch.float32), RankHistory.of(plan.rank_map)


def test_components_that_never_moved_are_counted() -> None:
    pack, history = pack_of(SlotPlan(rank_map=mixed_rank_map(tiny_llama(), Scaling(), (3,)), init="kaiming", seed=0))
    _, _, up, _ = next(pack.trained(pack.weights_KP))
    up[0, 2, 1] = 1e-6
    first, *rest = audit_run(pack, 0, "run", pack.tensors(0), history).sites
    assert first.num_unmoved == 2
    assert {site.num_unmoved for site in rest} == {3}


def test_a_subtracted_start_is_stored_with_the_adapter_and_does_not_count_as_movement() -> None:
    rank_map = mixed_rank_map(tiny_llama(), Scaling(), (2,))
    rng = np.random.default_rng(0)
    tensors = {
        s.name: (rng.normal(size=(2, s.in_features)).astype("f4"), rng.normal(size=(s.out_features, 2)).astype("f4"))
        for s in rank_map.sites
    }
    initial = InitialAdapter(tensors=tensors, subtracted=True)
    pack, history = pack_of(SlotPlan(rank_map=rank_map, init="kaiming", seed=0, initial=initial))
    _, down, _, _ = next(pack.trained(pack.weights_KP))
    down[0, 1] += 0.1
    audited = audit_run(pack, 0, "run", pack.tensors(0), history)
    assert [site.num_unmoved for site in audited.sites[:2]] == [1, 2]
    assert {site.rank for site in audited.sites} == {4}
    assert (audited.params, audited.held_params) == (2 * rank_map.params, rank_map.params)


def test_the_plan_after_a_revision_is_what_the_revision_said() -> None:
    rank_map = mixed_rank_map(tiny_llama(), Scaling(), (3,))
    pack, history = pack_of(SlotPlan(rank_map=rank_map, init="kaiming", seed=0))
    ranks = (2, *rank_map.ranks[1:])
    history.revise(RanksRevised(run_id="run", step=4, ranks=ranks))
    with pytest.raises(AuditError, match="planned rank 2, 3 components active in the trained layer"):
        audit_run(pack, 0, "run", pack.tensors(0), history)
    _, _, _, gate = next(pack.trained(pack.weights_KP))
    gate[0, 0] = 0
    tensors = pack.tensors(0)
    name, (down, up) = next(iter(tensors.items()))
    audited = audit_run(pack, 0, "run", {**tensors, name: (down[1:], up[:, 1:])}, history)
    assert [site.rank for site in audited.sites] == list(ranks)
    assert [site.num_revisions for site in audited.sites] == [1] + [0] * (len(ranks) - 1)
    assert audited.params == rank_map.params - rank_map.sites[0].cost
    assert audited.held_params == rank_map.params


def test_a_history_goes_on_from_a_checkpoint() -> None:
    rank_map = mixed_rank_map(tiny_llama(), Scaling(), (3,))
    history, resumed = RankHistory.of(rank_map), RankHistory.of(rank_map)
    history.revise(RanksRevised(run_id="run", step=1, ranks=tuple(rank + 1 for rank in rank_map.ranks)))
    resumed.restore(history.to_state())
    assert resumed == history
    assert resumed.held_params > rank_map.params


def test_more_parameters_than_the_budget_fail_the_run() -> None:
    rank_map = mixed_rank_map(tiny_llama(), Scaling(), (3,))
    smaller = type(rank_map)(
        sites=rank_map.sites, ranks=rank_map.ranks, scales=rank_map.scales, budget_params=rank_map.params - 1
    )
    pack, history = pack_of(SlotPlan(rank_map=smaller, init="kaiming", seed=0))
    with pytest.raises(AuditError, match="more than the budget"):
        audit_run(pack, 0, "run", pack.tensors(0), history)
