"""Learning-rate factors: which site gets what, and the same losses as PEFT with the same parameter groups."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import get_peft_model
from peft.optimizers import create_loraplus_optimizer

from rankwise.lora.pack import AdapterPack, SlotPlan
from rankwise.records import AdapterTrained, Evaluated, Record, RunAllocated, StepDone
from rankwise.study.config import LrFactors, TrainSettings
from rankwise.training.allocated_run import AllocatedRun
from rankwise.training.engine import train_pack
from rankwise.training.site_rates import SiteRates, site_rates
from rankwise.training.stepped_row import SteppedRow
from tests.peft_loop import set_adapter, train_with_peft
from tests.tiny import allocated, tiny_base, tiny_llama, tiny_runs

LORA_PLUS = (
    "{name: plus, strategy: linear_decay, train: {learning_rates: [2.0e-3], lora_plus_ratio: 16, weight_decay: 0.1}}"
)
BY_SITE = (
    "{name: by site, strategy: attention_heavy, train: {lora_plus_ratio: 4, clip_norm: 0.05, "
    "lr_factors: {first: 2.0, last: 0.5, attention: 0.25, mlp: 3.0, rank_power: -0.5}}}"
)


def one(arm: str) -> AllocatedRun:
    (run,) = allocated(tiny_base(), tiny_runs([arm]))
    return run


def train(*runs: AllocatedRun) -> list[Record]:
    return list(itertools.chain(*train_pack(tiny_base(), runs)))


def steps(records: list[Record], run: AllocatedRun) -> list[float]:
    return [r.loss_nats for r in records if isinstance(r, StepDone) and r.run_id == run.run.id]


def peft_model(run: AllocatedRun):
    plan = SlotPlan(rank_map=run.rank_map, init=run.run.arm.init, seed=run.run.seed)
    pack = AdapterPack(tiny_llama(), [plan], compute_dtype=torch.float32)
    model = get_peft_model(tiny_llama(), run.rank_map.to_peft())
    set_adapter(model, pack.tensors(0))
    return model


def test_factors_by_depth_kind_and_rank_are_multiplied() -> None:
    rank_map = one("attention_heavy").rank_map
    factors = LrFactors(first=2.0, last=0.5, attention=0.25, mlp=3.0, rank_power=-0.5)
    found = site_rates(TrainSettings(lora_plus_ratio=4.0, lr_factors=factors), rank_map)
    mean_rank = np.mean(rank_map.ranks)
    for site, rank in zip(rank_map.sites, rank_map.ranks, strict=True):
        expected = {0: 2.0, 1: 0.5}[site.layer] * {"attention": 0.25, "mlp": 3.0}[site.kind] * (mean_rank / rank) ** 0.5
        assert found[site.name].down == pytest.approx(expected)
        assert found[site.name].up == pytest.approx(4 * expected)
    uniform = one("uniform").rank_map
    assert set(site_rates(TrainSettings(lr_factors=LrFactors(rank_power=2.0)), uniform).values()) == {SiteRates()}


def test_lora_plus_is_pefts() -> None:
    """PEFT builds the optimizer, decays both groups alike and clips over all of them."""
    run = one(LORA_PLUS)
    model = peft_model(run)
    train_settings = run.run.arm.train
    optimizer = create_loraplus_optimizer(
        model,
        torch.optim.AdamW,
        lr=run.run.learning_rate,
        loraplus_lr_ratio=train_settings.lora_plus_ratio,
        weight_decay=0.1,
        loraplus_weight_decay=0.1,
    )
    theirs = train_with_peft(model, run, optimizer)
    np.testing.assert_allclose(steps(train(run), run), theirs, atol=3e-6, rtol=0)
    plain = one("{name: plus, strategy: linear_decay, train: {learning_rates: [2.0e-3], weight_decay: 0.1}}")
    assert abs(steps(train(plain), plain)[-1] - theirs[-1]) > 1e-3


def test_every_site_steps_at_its_own_rate_as_with_stock_parameter_groups() -> None:
    run = one(BY_SITE)
    model = peft_model(run)
    rates = site_rates(run.run.arm.train, run.rank_map)
    groups = []
    for name, rate in rates.items():
        layer = model.get_submodule(f"base_model.model.{name}")
        for side, factor in ((layer.lora_A, rate.down), (layer.lora_B, rate.up)):
            groups.append({"params": [side["default"].weight], "lr": run.run.learning_rate * factor})
    optimizer = torch.optim.AdamW(groups, lr=run.run.learning_rate, weight_decay=0.0)
    records = train(run)
    np.testing.assert_allclose(steps(records, run), train_with_peft(model, run, optimizer), atol=3e-6, rtol=0)
    (allocation,) = (r for r in records if isinstance(r, RunAllocated))
    for site in allocation.sites:
        assert site.lr_factor_down == pytest.approx(rates[site.site].down)
        assert site.lr_factor_up == pytest.approx(rates[site.site].up)


def test_packed_equals_solo_beside_runs_without_factors() -> None:
    runs = [one(LORA_PLUS), one("uniform"), one(BY_SITE)]
    packed = train(*runs)
    for run in runs:
        np.testing.assert_allclose(steps(packed, run), steps(train(run), run), atol=2e-6, rtol=0)
    (plain,) = (r for r in packed if isinstance(r, RunAllocated) and r.run_id == runs[1].run.id)
    assert {(site.lr_factor_down, site.lr_factor_up) for site in plain.sites} == {(1.0, 1.0)}


def test_a_stopped_pack_goes_on_with_its_factors_and_averages(tmp_path: Path) -> None:
    runs = [one(BY_SITE), one("uniform")]
    path, calls = tmp_path / "pack.checkpoint", itertools.count()
    first = list(itertools.chain(*train_pack(tiny_base(), runs, checkpoint=path, should_stop=lambda: next(calls) >= 2)))
    second = list(itertools.chain(*train_pack(tiny_base(), runs, checkpoint=path)))
    whole = train(*runs)
    for run in runs:
        assert steps(first, run) + steps(second, run) == steps(whole, run)
    kept = [[r for r in found if isinstance(r, Evaluated | AdapterTrained)] for found in (first + second, whole)]
    assert [type(r) for r in kept[0]] == [type(r) for r in kept[1]]


def test_neighbours_of_one_factor_are_one_part_and_averages_are_whole_rows() -> None:
    weights, grads = torch.arange(8.0), torch.ones(8)
    row = SteppedRow(weights, grads, [(slice(0, 2), 1.0), (slice(2, 4), 1.0), (slice(4, 6), 2.0), (slice(7, 8), 2.0)])
    assert row.parts == [(slice(0, 4), 1.0), (slice(4, 6), 2.0), (slice(7, 8), 2.0)]
    optimizer = torch.optim.AdamW(row.groups(), lr=0.1, weight_decay=0.0)
    row.attach(optimizer)
    optimizer.step()
    average, square = row.averages()
    moved = torch.tensor([1.0, 1, 1, 1, 1, 1, 0, 1])
    torch.testing.assert_close(average, 0.1 * moved)
    torch.testing.assert_close(square, 0.001 * moved)
    assert weights[6] == 6.0, "what no part covers is left alone"
    assert (weights[:6] < torch.arange(6.0)).all(), "parts are views of the row"
