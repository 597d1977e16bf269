"""The guarantees of the engine, each by name."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import get_peft_model

from rankwise.lora.pack import AdapterPack
from rankwise.records import AdapterTrained, Evaluated, Record, RunAllocated, RunDiverged, RunFinished, StepDone
from rankwise.training.allocated_run import AllocatedRun
from rankwise.training.engine import EngineOptions, train_pack
from tests.peft_loop import set_adapter, train_with_peft
from tests.tiny import allocated, templated_data, tiny_base, tiny_data, tiny_llama, tiny_runs

MIXED_ARMS = (
    "uniform",
    "{name: wide, strategy: uniform, budget: {rank: 5}}",
    "{strategy: linear_decay, train: {learning_rates: [1.0e-2], batch_size: 3}}",
    "{strategy: attention_heavy, scaling: {rule: constant, scale: 1.5}}",
    "{strategy: random, targets: mlp, train: {epochs: 3}}",
)


def train(runs: Sequence[AllocatedRun], **options: int) -> list[Record]:
    return list(itertools.chain(*train_pack(tiny_base(), runs, options=EngineOptions(**options))))


def losses(records: Sequence[Record], run_id: str) -> list[float]:
    return [r.loss_nats for r in records if isinstance(r, StepDone | Evaluated) and r.run_id == run_id]


def test_packed_equals_solo() -> None:
    runs = allocated(tiny_base(), tiny_runs(MIXED_ARMS))
    packed = train(runs)
    for run in runs:
        solo = train([run])
        assert len(losses(solo, run.run.id)) > 5
        np.testing.assert_allclose(losses(packed, run.run.id), losses(solo, run.run.id), atol=1e-6, rtol=0)


def test_losses_do_not_depend_on_the_slot_or_on_the_cut_into_micro_batches() -> None:
    runs = allocated(tiny_base(), tiny_runs(MIXED_ARMS))
    forward, backward = train(runs), train(runs[::-1], micro_tokens=20, eval_tokens=16)
    for run in runs:
        np.testing.assert_allclose(losses(forward, run.run.id), losses(backward, run.run.id), atol=1e-6, rtol=0)


@pytest.mark.parametrize("arm", MIXED_ARMS)
def test_solo_equals_peft_with_stock_adamw(arm: str) -> None:
    """Same initial adapters, same batches, `torch.optim.AdamW` and Transformers' scheduler on a `peft` model."""
    base = tiny_base()
    (run,) = allocated(base, tiny_runs([arm]))
    records = train([run])
    ours = [r.loss_nats for r in records if isinstance(r, StepDone)]
    np.testing.assert_allclose(_train_with_peft(run), ours, atol=2e-6, rtol=0)
    assert ours[-1] < ours[0]


def _train_with_peft(allocated_run: AllocatedRun) -> list[float]:
    pack = AdapterPack(tiny_llama(), [_slot_plan(allocated_run)], compute_dtype=torch.float32)
    model = get_peft_model(tiny_llama(), allocated_run.rank_map.to_peft())
    set_adapter(model, pack.tensors(0))
    return train_with_peft(model, allocated_run)


def _slot_plan(allocated_run: AllocatedRun):
    from rankwise.lora.pack import SlotPlan

    return SlotPlan(rank_map=allocated_run.rank_map, init=allocated_run.run.arm.init, seed=allocated_run.run.seed)


def test_a_diverged_slot_changes_no_bit_of_its_neighbours() -> None:
    healthy, victim = allocated(tiny_base(), tiny_runs(["uniform", "linear_decay"]))
    poisoned = replace(victim, run=victim.run.model_copy(update={"learning_rate": 1e30}))
    beside_healthy, beside_diverged = train([healthy, victim]), train([healthy, poisoned])
    assert losses(beside_healthy, healthy.run.id) == losses(beside_diverged, healthy.run.id)
    for ours, theirs in zip(_adapters(beside_healthy, healthy), _adapters(beside_diverged, healthy), strict=True):
        assert np.array_equal(ours, theirs)


def _adapters(records: Sequence[Record], run: AllocatedRun) -> list[np.ndarray]:
    (trained,) = (r for r in records if isinstance(r, AdapterTrained) and r.run_id == run.run.id)
    return [tensor for pair in trained.tensors.values() for tensor in pair]


def test_divergence_is_recorded_with_its_step_and_cause() -> None:
    runs = allocated(tiny_base(), tiny_runs(["uniform", "linear_decay"]))
    poisoned = replace(runs[1], run=runs[1].run.model_copy(update={"learning_rate": 1e30}))
    records = train([runs[0], poisoned])
    (diverged,) = (r for r in records if isinstance(r, RunDiverged))
    assert diverged.run_id == poisoned.run.id
    assert diverged.step >= 2
    assert "nan" in diverged.cause or "inf" in diverged.cause
    status = {r.run_id: r.status for r in records if isinstance(r, RunFinished)}
    assert status == {runs[0].run.id: "finished", poisoned.run.id: "diverged"}
    assert not any(isinstance(r, AdapterTrained) and r.run_id == poisoned.run.id for r in records)


def test_common_random_numbers_across_arms() -> None:
    """Arms of one seed share every component they both have, whatever their ranks; another seed shares none."""
    runs = allocated(tiny_base(), tiny_runs(MIXED_ARMS[:2]))
    other = allocated(tiny_base(), tiny_runs(MIXED_ARMS[:1], seeds=[7]))
    pack = AdapterPack(tiny_llama(), [_slot_plan(r) for r in (*runs, *other)], compute_dtype=torch.float32)
    narrow, wide, other_seed = (pack.tensors(slot) for slot in range(3))
    for name, (down, _) in narrow.items():
        assert np.array_equal(wide[name][0][: len(down)], down)
        assert not np.isclose(other_seed[name][0], down).any()


def test_what_was_planned_is_what_was_trained() -> None:
    runs = allocated(tiny_base(), tiny_runs(MIXED_ARMS))
    records = train(runs)
    for run in runs:
        (audit,) = (r for r in records if isinstance(r, RunAllocated) and r.run_id == run.run.id)
        assert [site.realised_rank for site in audit.sites] == list(run.rank_map.ranks)
        assert [site.scale for site in audit.sites] == list(run.rank_map.scales)
        assert audit.params == run.rank_map.params
        assert audit.params + audit.residual_params == audit.budget_params
        (trained,) = (r for r in records if isinstance(r, AdapterTrained) and r.run_id == run.run.id)
        assert sum(d.size + u.size for d, u in trained.tensors.values()) == audit.params


@pytest.mark.parametrize("stop_after", [0, 1, 3])
def test_a_stopped_pack_resumes_to_the_same_losses(stop_after: int, tmp_path: Path) -> None:
    runs = allocated(tiny_base(), tiny_runs(MIXED_ARMS))
    whole = train(runs)
    path = tmp_path / "pack.checkpoint"
    calls = itertools.count()
    first = list(
        itertools.chain(*train_pack(tiny_base(), runs, checkpoint=path, should_stop=lambda: next(calls) >= stop_after))
    )
    second = list(itertools.chain(*train_pack(tiny_base(), runs, checkpoint=path)))
    for run in runs:
        assert losses(first, run.run.id) + losses(second, run.run.id) == losses(whole, run.run.id)
        for ours, theirs in zip(_adapters(second, run), _adapters(whole, run), strict=True):
            assert np.array_equal(ours, theirs)


def test_a_damaged_checkpoint_starts_the_pack_again(tmp_path: Path) -> None:
    runs = allocated(tiny_base(), tiny_runs(["uniform"]))
    path = tmp_path / "pack.checkpoint"
    list(train_pack(tiny_base(), runs, checkpoint=path, should_stop=lambda: True))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    records = list(itertools.chain(*train_pack(tiny_base(), runs, checkpoint=path)))
    assert losses(records, runs[0].run.id) == losses(train(runs), runs[0].run.id)


def test_the_base_is_bit_identical_after_training() -> None:
    base = tiny_base()
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    list(train_pack(base, allocated(base, tiny_runs(MIXED_ARMS))))
    after = base.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_dropout_is_the_runs_own_in_any_pack() -> None:
    runs = allocated(
        tiny_base(), tiny_runs(["{strategy: uniform, dropout: 0.3}", "{strategy: linear_decay, dropout: 0.1}"])
    )
    without = allocated(tiny_base(), tiny_runs(["uniform"]))
    packed, solo = train(runs), train(runs[1:])
    np.testing.assert_allclose(losses(packed, runs[1].run.id), losses(solo, runs[1].run.id), atol=1e-6, rtol=0)
    assert losses(packed, runs[0].run.id)[3] != losses(train(without), without[0].run.id)[3]


def test_scores_are_those_of_each_example_alone() -> None:
    """Per-example losses of the final evaluation against a plain forward pass of the PEFT model."""
    from peft import PeftModel
    from torch.nn import functional

    (run,) = allocated(tiny_base(), tiny_runs(["attention_heavy"]))
    records = train([run])
    (scored,) = (r for r in records if isinstance(r, Evaluated) and r.split == "test")
    (trained,) = (r for r in records if isinstance(r, AdapterTrained))
    model = get_peft_model(tiny_llama(), run.rank_map.to_peft())
    assert isinstance(model, PeftModel)
    set_adapter(model, trained.tensors)
    for number, example in enumerate(run.data.test):
        ids = torch.from_numpy(example.input_ids)
        with torch.no_grad():
            logits = model(input_ids=ids[None]).logits[0]
        answer = ids[example.num_prompt_tokens :]
        predictions = logits[example.num_prompt_tokens - 1 : -1]
        expected = functional.cross_entropy(predictions, answer, reduction="sum").item()
        assert scored.example_loss_nats[number] == pytest.approx(expected, abs=1e-5)
        assert scored.example_correct_tokens[number] == (predictions.argmax(-1) == answer).sum()
    total = scored.example_loss_nats.sum() / scored.example_answer_tokens.sum()
    assert scored.loss_nats == pytest.approx(total)


def test_runs_of_different_length_share_a_pack() -> None:
    short, long = allocated(tiny_base(), tiny_runs(["{strategy: uniform, train: {epochs: 1}}", "linear_decay"]))
    records = train([short, long])
    steps = {r.run_id: r.steps for r in records if isinstance(r, RunFinished)}
    assert steps == {short.run.id: 3, long.run.id: 6}


def test_wall_time_is_shared_out_and_tokens_are_counted() -> None:
    runs = allocated(tiny_base(), tiny_runs(["uniform", "linear_decay"]))
    finished = [r for r in train(runs) if isinstance(r, RunFinished)]
    expected = 2 * sum(len(e.input_ids) for e in tiny_data().train)
    assert [r.tokens for r in finished] == [expected, expected]
    assert all(r.wall_s > 0 and r.peak_memory_bytes > 0 and r.pack_slots == 2 for r in finished)


def test_computing_the_template_once_changes_no_loss() -> None:
    """Examples that begin alike, with and without sharing what they share; to float32 rounding."""
    base = tiny_base()
    runs = allocated(base, tiny_runs(MIXED_ARMS), templated_data())
    assert any(example.num_shared_tokens for example in runs[0].data.train)
    shared, whole = train(runs, micro_tokens=64), train(runs, share_prefixes=False)
    for run in runs:
        np.testing.assert_allclose(losses(shared, run.run.id), losses(whole, run.run.id), atol=2e-6, rtol=0)
