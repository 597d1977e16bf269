"""Traces against dense matrices: what the docstring says, computed the slow way."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from rankwise.allocation.rank_map import RankMap, Scaling
from rankwise.allocation.sites import Site, site_group
from rankwise.lora.init import InitialAdapter
from rankwise.lora.pack import AdapterPack, SlotPlan
from rankwise.records import StepDone, StepTrace
from rankwise.training.engine import train_pack
from rankwise.training.trace import MAX_TRACED, Groups, Tracer, is_traced
from tests.families import mixed_rank_map
from tests.tiny import allocated, tiny_base, tiny_llama, tiny_runs


def plans(model) -> list[SlotPlan]:
    """Other ranks, scales and initial matrices in every slot; the last one subtracts what it began with."""
    narrow = mixed_rank_map(model, Scaling(), (1, 3, 2))
    wide = mixed_rank_map(model, Scaling(rule="constant", scale=0.5), (4, 1))
    drawn = {
        site.name: (rng.standard_normal((rank, site.in_features)), rng.standard_normal((site.out_features, rank)))
        for rng in [np.random.default_rng(1)]
        for site, rank in zip(narrow.sites, narrow.ranks, strict=True)
    }
    initial = InitialAdapter(
        tensors={name: (down.astype("f4"), up.astype("f4")) for name, (down, up) in drawn.items()}, subtracted=True
    )
    return [
        SlotPlan(rank_map=narrow, init="kaiming", seed=0),
        SlotPlan(rank_map=wide, init="kaiming", seed=1),
        SlotPlan(rank_map=narrow, init="kaiming", seed=2, initial=initial),
    ]


def dense(pack: AdapterPack, slot: int, rank_map: RankMap) -> dict[str, np.ndarray]:
    """What the slot adds to each base weight, in float64."""
    return {
        name: rank_map.scale_of(name) * up.astype(np.float64) @ down.astype(np.float64)
        for name, (down, up) in pack.tensors(slot).items()
    }


def group_norms(groups: Groups, matrices: dict[str, np.ndarray]) -> list[float]:
    return [
        np.sqrt(sum(np.sum(m**2) for site, m in matrices.items() if groups.of_site[site] == name))
        for name in groups.names
    ]


@pytest.mark.parametrize("size", [1e-1, 1e-5])
def test_norms_are_those_of_the_dense_matrices(size: float) -> None:
    """Also for a step so small that the difference of two products in float32 would be noise."""
    model = tiny_llama()
    planned = plans(model)
    pack = AdapterPack(model, planned, compute_dtype=torch.float32)
    generator = torch.Generator().manual_seed(3)
    used = pack.weights_KP.ne(0)
    for _, _, up, gate in pack.trained(used):  # `up` begins at zero in most, and is trained all the same
        up.logical_or_(gate.ne(0)[:, None])
    pack.weights_KP.add_(0.3 * used * torch.randn(pack.weights_KP.shape, generator=generator))
    before = [dense(pack, slot, plan.rank_map) for slot, plan in enumerate(planned)]
    pack.grads_KP.copy_(used * torch.randn(pack.weights_KP.shape, generator=generator))
    tracer = Tracer(pack)
    tracer.before()
    pack.weights_KP.add_(size * used * torch.randn(pack.weights_KP.shape, generator=generator))
    tracer.after()
    for slot, plan in enumerate(planned):
        found = tracer.trace(slot, "run", 7)
        groups = Groups.of(plan.rank_map.sites)
        after = dense(pack, slot, plan.rank_map)
        steps = {name: after[name] - before[slot][name] for name in after}
        np.testing.assert_allclose(found.update_norms, group_norms(groups, steps), rtol=1e-4)
        np.testing.assert_allclose(found.weight_norms, group_norms(groups, after), rtol=1e-4)
        grads = {
            site.name: torch.cat([down[slot].flatten(), up[slot].flatten()]).double().numpy()
            for site, down, up, _ in pack.trained(pack.grads_KP)
        }
        np.testing.assert_allclose(found.grad_norms, group_norms(groups, grads), rtol=1e-5)
        assert (found.groups, found.step) == (groups.names, 7)


def test_every_step_of_a_short_run_is_traced_beside_its_loss() -> None:
    base, runs = tiny_base(), tiny_runs(["uniform", "{strategy: linear_decay, train: {epochs: 3}}"])
    records = [r for batch in train_pack(base, allocated(base, runs)) for r in batch]
    for run in runs:
        steps = [r for r in records if isinstance(r, StepDone) and r.run_id == run.id]
        traces = [r for r in records if isinstance(r, StepTrace) and r.run_id == run.id]
        assert [t.step for t in traces] == [s.step for s in steps]
        for step, trace in zip(steps, traces, strict=True):
            assert np.linalg.norm(trace.grad_norms) == pytest.approx(step.grad_norm, rel=1e-5)
        assert traces[0].update_norms == (0.0,) * len(traces[0].groups)  # warm-up begins at a learning rate of zero
        assert all(norm > 0 for norm in traces[-2].update_norms)


def test_tracing_changes_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    def losses() -> list[float]:
        base = tiny_base()
        batches = train_pack(base, allocated(base, tiny_runs(["uniform", "random"])))
        return [r.loss_nats for batch in batches for r in batch if isinstance(r, StepDone)]

    traced = losses()
    monkeypatch.setattr("rankwise.training.engine.is_traced", lambda step, num_steps: False)
    assert losses() == traced


def test_long_runs_are_traced_at_even_distances() -> None:
    assert all(is_traced(step, MAX_TRACED) for step in range(1, MAX_TRACED + 1))
    traced = [step for step in range(1, 1001) if is_traced(step, 1000)]
    assert traced[:3] == [1, 5, 10]
    assert traced[-1] == 1000
    assert len(traced) == MAX_TRACED + 1


def test_groups_are_kinds_in_thirds_of_the_depth() -> None:
    site = Site(name="a", kind="attention", layer=0, in_features=2, out_features=2)
    found = [site_group("attention", layer, 6) for layer in range(6)]
    assert found == [f"attention.{third}" for third in ("early", "early", "middle", "middle", "late", "late")]
    assert site_group("attention", 0, 1) == "attention.early"
    assert site_group("other", 5, 6) == "other"
    other = replace(site, name="b", kind="mlp")
    groups = Groups.of([site, other])
    assert groups.norms({"a": 9.0}) == (3.0, 0.0)
    assert groups.norms({"a": -1e-12, "b": math.inf}) == (0.0, math.inf)
    assert math.isnan(groups.norms({"a": math.nan})[0])
