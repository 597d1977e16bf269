"""Ranks that move while training keep every guarantee of the engine, next to slots whose ranks stay."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import get_peft_model
from torch.nn import functional

from rankwise.allocation.strategies.base import Phases
from rankwise.lora.truncation import AdapterSpectrum
from rankwise.records import (
    AdapterTrained,
    Evaluated,
    RanksRevised,
    Record,
    RunAllocated,
    RunAudited,
    RunDiverged,
    RunFailed,
    RunFinished,
    StepDone,
)
from rankwise.training.allocated_run import AllocatedRun
from rankwise.training.dynamic import orthogonality_gradient
from rankwise.training.engine import EngineOptions, _PackTraining, train_pack
from tests.tiny import allocated, tiny_base, tiny_llama, tiny_runs

LONGER = "train: {epochs: 5}"
DYNAMIC = (
    f"{{strategy: adalora, {LONGER}}}",
    f"{{name: rare, strategy: adalora, interval_frac: 0.2, {LONGER}}}",
    f"{{strategy: elastic, {LONGER}}}",
    f"{{strategy: l1, shrinkage: 3.0, {LONGER}}}",
    f"{{strategy: truncate, {LONGER}}}",
    f"{{strategy: shuffled, of: adalora, {LONGER}}}",
    f"{{strategy: inverted, of: elastic, {LONGER}}}",
)
MIXED = (
    "uniform",
    DYNAMIC[0],
    "{strategy: linear_decay, train: {learning_rates: [1.0e-2], batch_size: 3}}",
    *DYNAMIC[2:6],
)


def train(runs: Sequence[AllocatedRun], **options: int) -> list[Record]:
    return list(itertools.chain(*train_pack(tiny_base(), runs, options=EngineOptions(**options))))


def losses(records: Sequence[Record], run_id: str) -> list[float]:
    return [r.loss_nats for r in records if isinstance(r, StepDone | Evaluated) and r.run_id == run_id]


def of_kind(records: Sequence[Record], kind: type, run: AllocatedRun) -> list:
    return [r for r in records if isinstance(r, kind) and r.run_id == run.run.id]


def runs_of(*arms: str) -> list[AllocatedRun]:
    return allocated(tiny_base(), tiny_runs(arms))


def test_packed_equals_solo() -> None:
    runs = runs_of(*MIXED)
    packed, turned = train(runs), train(runs[::-1], micro_tokens=20, eval_tokens=16)
    for run in runs:
        solo = train([run])
        assert len(losses(solo, run.run.id)) > 5
        for other in (packed, turned):
            np.testing.assert_allclose(losses(other, run.run.id), losses(solo, run.run.id), atol=1e-6, rtol=0)
            assert ranks_over_time(other, run) == ranks_over_time(solo, run)


def ranks_over_time(records: Sequence[Record], run: AllocatedRun) -> list[tuple[int, tuple[int, ...]]]:
    return [(r.step, r.ranks) for r in of_kind(records, RanksRevised, run)]


@pytest.mark.parametrize("arm", DYNAMIC)
def test_a_run_ends_at_its_budget_and_says_what_it_held(arm: str) -> None:
    (run,) = runs_of(arm)
    records = train([run])
    (began,) = of_kind(records, RunAllocated, run)
    (audited,) = of_kind(records, RunAudited, run)
    (trained,) = of_kind(records, AdapterTrained, run)
    revised = of_kind(records, RanksRevised, run)
    start, costs = run.rank_map, np.array([site.cost for site in run.rank_map.sites])
    assert began.params == start.params
    assert revised, "ranks never moved"
    assert [site.rank for site in audited.sites] == list(revised[-1].ranks)
    assert [site.scale for site in audited.sites] == list(start.scales)
    assert 0 <= start.budget_params - audited.params < costs.min()
    assert sum(down.size + up.size for down, up in trained.tensors.values()) == audited.params
    most = max([start.params, *(int(np.array(r.ranks) @ costs) for r in revised)])
    assert audited.held_params == most
    assert most <= start.held_params
    assert len({r.ranks for r in revised}) > 1 or "l1" in arm or "truncate" in arm


@pytest.mark.parametrize("arm", DYNAMIC)
def test_the_adapter_that_is_stored_is_the_one_that_was_scored(arm: str) -> None:
    """Through PEFT: gates folded in, only active components, and the losses of the last evaluation."""
    (run,) = runs_of(arm)
    records = train([run])
    (trained,) = of_kind(records, AdapterTrained, run)
    (scored,) = (r for r in of_kind(records, Evaluated, run) if r.split == "test")
    stored = run.rank_map.with_ranks({name: len(down) for name, (down, _) in trained.tensors.items()})
    model = get_peft_model(tiny_llama(), stored.to_peft())
    for name, (down, up) in trained.tensors.items():
        layer = model.get_submodule(f"base_model.model.{name}")
        layer.lora_A["default"].weight.data, layer.lora_B["default"].weight.data = map(torch.from_numpy, (down, up))
    for number, example in enumerate(run.data.test):
        ids = torch.from_numpy(example.input_ids)
        with torch.no_grad():
            logits = model(input_ids=ids[None]).logits[0]
        answer, predictions = ids[example.num_prompt_tokens :], logits[example.num_prompt_tokens - 1 : -1]
        expected = functional.cross_entropy(predictions, answer, reduction="sum").item()
        assert scored.example_loss_nats[number] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("stop_after", [0, 2, 3, 6, 8, 13])
def test_a_run_stopped_amid_its_schedule_resumes_to_the_same_losses(stop_after: int, tmp_path: Path) -> None:
    runs = runs_of(*MIXED)
    whole = train(runs)
    path = tmp_path / "pack.checkpoint"
    calls = itertools.count()
    first = list(
        itertools.chain(*train_pack(tiny_base(), runs, checkpoint=path, should_stop=lambda: next(calls) >= stop_after))
    )
    second = list(itertools.chain(*train_pack(tiny_base(), runs, checkpoint=path)))
    for run in runs:
        assert losses(first, run.run.id) + losses(second, run.run.id) == losses(whole, run.run.id)
        assert ranks_over_time(first, run) + ranks_over_time(second, run) == ranks_over_time(whole, run)
        # A run that was done before the stop is ended once more after it.
        ours, theirs = (of_kind(records, AdapterTrained, run)[-1] for records in ([*first, *second], whole))
        for name, pair in theirs.tensors.items():
            assert all(np.array_equal(a, b) for a, b in zip(ours.tensors[name], pair, strict=True))
        assert of_kind([*first, *second], RunAudited, run)[-1:] == of_kind(whole, RunAudited, run)


@pytest.mark.parametrize("arm", DYNAMIC[:5])
def test_a_diverged_dynamic_slot_changes_no_bit_of_its_neighbours(arm: str) -> None:
    static, moving = runs_of("uniform", DYNAMIC[0])
    (victim,) = allocated(tiny_base(), tiny_runs([arm], seeds=[7]))
    poisoned = replace(victim, run=victim.run.model_copy(update={"learning_rate": 1e30}))
    healthy_pack, poisoned_pack = train([static, moving, victim]), train([static, moving, poisoned])
    assert of_kind(poisoned_pack, RunDiverged, poisoned)
    for run in (static, moving):
        assert losses(healthy_pack, run.run.id) == losses(poisoned_pack, run.run.id)
        (ours,), (theirs,) = (of_kind(r, AdapterTrained, run) for r in (healthy_pack, poisoned_pack))
        for name, pair in ours.tensors.items():
            assert all(np.array_equal(a, b) for a, b in zip(pair, theirs.tensors[name], strict=True))


def test_static_slots_are_bit_identical_beside_a_slot_with_gates_and_without() -> None:
    """A neighbour of the same widths, once with gates and once without: multiplying by one changes nothing."""
    static, gated, plain = runs_of(
        "uniform", "{strategy: l1, start_factor: 2.0}", "{name: wide, strategy: uniform, budget: {rank: 4}}"
    )
    assert gated.rank_map.ranks == plain.rank_map.ranks
    assert losses(train([static, gated]), static.run.id) == losses(train([static, plain]), static.run.id)


def test_a_pack_without_gates_has_nothing_of_them() -> None:
    training = _PackTraining(tiny_base(), runs_of("uniform", DYNAMIC[4]), EngineOptions())
    assert training.pack.gates is None
    assert "gates" not in training.to_checkpoint().tensors
    training.close()


@pytest.mark.parametrize("arm", [DYNAMIC[2], DYNAMIC[3]])
def test_what_is_pruned_is_cleared_and_no_momentum_moves_it(arm: str) -> None:
    (run,) = runs_of(arm)
    training = _PackTraining(tiny_base(), [run], EngineOptions())
    training.begin()
    num_cleared = 0
    while not training.is_done:
        training.train_step()
        active = training.pack.active(0)
        of_weights, of_gates = training.slots[0].averages()
        for flat in (training.pack.weights_KP[0], *of_weights):
            for site, down, up in training.pack.slot_views(0, flat):
                gone = ~active[site.name]
                assert not down[gone].any()
                assert not up[:, gone].any()
                num_cleared += int(gone.sum()) if training.slots[0].step > 9 else 0
        for flat in (training.pack.gates.values_KC[0], *of_gates):
            assert all(not gate[~active[site.name]].any() for site, gate in training.pack.gate_views(0, flat))
    training.close()
    assert num_cleared


def test_a_new_component_starts_silent_and_orthogonal_to_the_others() -> None:
    """The output of the model does not jump: the function before a revision is the one after it, but for what left."""
    (run,) = runs_of(DYNAMIC[2])
    training = _PackTraining(tiny_base(), [run], EngineOptions())
    training.begin()
    num_born = 0
    while not training.is_done:
        before = {name: mask.copy() for name, mask in training.pack.active(0).items()}
        training.train_step()
        after = training.pack.active(0)
        gates = dict(training.pack.gate_views(0, training.pack.gates.values_KC[0]))
        for site, down, up in training.pack.slot_views(0, training.pack.weights_KP[0]):
            born = np.flatnonzero(after[site.name] & ~before[site.name])
            for place in born.tolist():
                num_born += 1
                others = [p for p in np.flatnonzero(after[site.name]).tolist() if p != place]
                assert gates[site][place] == 0
                for rows in (down, up.T):
                    assert rows[place].norm() == pytest.approx(1, abs=1e-5)
                    np.testing.assert_allclose((rows[others] @ rows[place]).numpy(), 0, atol=1e-5)
    training.close()
    assert num_born > 3


def test_a_new_component_learns() -> None:
    (run,) = runs_of(DYNAMIC[2])
    audited = of_kind(train([run]), RunAudited, run)[0]
    grown = [s for s, rank in zip(audited.sites, run.rank_map.ranks, strict=True) if s.rank > rank]
    assert grown
    assert all(site.num_unmoved == 0 for site in grown)


def test_the_orthogonality_gradient_is_autograds() -> None:
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(rng.normal(size=(4, 9)).astype("f4")).requires_grad_()
    (rows @ rows.T - torch.eye(4)).norm().backward()
    torch.testing.assert_close(orthogonality_gradient(rows.detach()), rows.grad)
    there = torch.tensor([True, False, True, True])
    chosen = rows.detach()[there].clone().requires_grad_()
    (chosen @ chosen.T - torch.eye(3)).norm().backward()
    found = orthogonality_gradient(rows.detach(), there)
    torch.testing.assert_close(found[there], chosen.grad)
    assert not found[~there].any()
    assert torch.isfinite(orthogonality_gradient(torch.eye(3))).all(), "orthonormal rows divide by zero"


def test_truncate_is_the_dense_svd_of_the_wide_adapter() -> None:
    """The same wide training as plain uniform LoRA, decomposed with numpy, cut by brute force over all sites."""
    cut, wide = runs_of(
        f"{{strategy: truncate, targets: mlp, budget: {{rank: 2, min_rank: 0}}, {LONGER}}}",
        f"{{name: wide, strategy: uniform, targets: mlp, budget: {{rank: 4}}, {LONGER}}}",
    )
    (small,), (large,) = (of_kind(train([run]), AdapterTrained, run) for run in (cut, wide))
    dense = {
        name: np.linalg.svd(wide.rank_map.scale_of(name) * up.astype(float) @ down)
        for name, (down, up) in large.tensors.items()
    }
    values = sorted((value for _, sigma, _ in dense.values() for value in sigma), reverse=True)
    threshold = values[sum(run for run in cut.rank_map.ranks) // 2]  # equal costs: the budget is a number of components
    for name, (left, sigma, right) in dense.items():
        kept = sigma > threshold
        expected = left[:, : len(sigma)][:, kept] * sigma[kept] @ right[: len(sigma)][kept]
        down, up = small.tensors[name]
        assert len(down) == kept.sum()
        np.testing.assert_allclose(cut.rank_map.scale_of(name) * up @ down, expected, atol=1e-6)


def test_one_wide_adapter_gives_the_whole_curve_of_budgets() -> None:
    (run,) = runs_of("{strategy: uniform, budget: {rank: 5}}")
    (trained,) = of_kind(train([run]), AdapterTrained, run)
    scales = {site.name: run.rank_map.scale_of(site.name) for site in run.rank_map.sites}
    spectrum = AdapterSpectrum.of(trained.tensors, scales)
    errors = []
    for budget in (200, 800, 1600, run.rank_map.params):
        tensors = spectrum.truncate(budget)
        params = sum(down.size + up.size for down, up in tensors.values())
        assert 0 <= budget - params < min(site.cost for site in run.rank_map.sites)
        missing = {name: np.zeros((1, 1)) for name in trained.tensors.keys() - tensors.keys()}
        errors.append(
            sum(
                np.square(up @ down - tensors[name][1] @ tensors[name][0]).sum()
                for name, (down, up) in trained.tensors.items()
                if name not in missing
            )
        )
    assert errors[-1] < 1e-9
    assert len(tensors) == len(trained.tensors)


@pytest.mark.parametrize("epochs", [0.3, 0.6])
def test_a_wrong_mover_fails_loudly_instead_of_storing_too_much(epochs: float, monkeypatch) -> None:
    from rankwise.allocation.strategies.adalora import AdaLora
    from rankwise.errors import AllocationError

    monkeypatch.setattr(AdaLora, "revise", lambda self, view: view.exists_LR)
    (run,) = runs_of(DYNAMIC[0])
    with pytest.raises(AllocationError, match="must spend the budget"):
        train([run])


def test_a_dynamic_run_that_fails_its_audit_leaves_no_adapter(monkeypatch) -> None:
    from rankwise.training.dynamic import MovingRanks

    (run,) = runs_of(DYNAMIC[0])
    monkeypatch.setattr(MovingRanks, "_note", lambda self, active: None)
    records = train([run])
    assert of_kind(records, RunFailed, run)
    assert not of_kind(records, AdapterTrained, run)
    assert not of_kind(records, RunFinished, run)


def test_phases_are_shares_of_the_run() -> None:
    from rankwise.allocation import build_strategy

    assert build_strategy("adalora", {}).phases(100) == Phases(12, 50)
    assert build_strategy("elastic", {}).phases(100) == Phases(17, 75)
    assert build_strategy("l1", {}).phases(100) == Phases(49, 50)
    assert build_strategy("truncate", {}).phases(100) == Phases(99, 100)
