"""The engine's guarantees over quantized and bfloat16 bases, and PEFT's QLoRA recipe as the oracle."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("bitsandbytes", reason="needs the extra `quant`")

from peft import get_peft_model, prepare_model_for_kbit_training

from rankwise.lora.init import INITS
from rankwise.lora.pack import AdapterPack, SlotPlan
from rankwise.models.load import LoadedBase
from rankwise.records import AdapterTrained, Evaluated, Record, StepDone
from rankwise.study.config import SUBTRACTED_INITS
from rankwise.training.allocated_run import AllocatedRun
from rankwise.training.engine import EngineOptions, train_pack
from tests.peft_loop import set_adapter, train_with_peft
from tests.quantized import FORMS, quantized_model, stock_model
from tests.tiny import allocated, checkpointed, tiny_base, tiny_runs

MIXED_ARMS = (
    "uniform",
    "{name: wide, strategy: uniform, budget: {rank: 5}}",
    "{strategy: linear_decay, train: {learning_rates: [1.0e-2], batch_size: 3}}",
)
MOVING = ("adalora", "elastic", "l1", "truncate")
BFLOAT16_NATS = 5e-3
"""How far losses of about 5 nats may be apart where numbers are rounded to bfloat16: measured 7e-4 at most."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def base_of(folder: Path, form: str, name: str = "llama", dtype: str = "float32") -> LoadedBase:
    return tiny_base(quantized_model(folder, form, name, dtype))


def train(base: LoadedBase, runs: Sequence[AllocatedRun], **options: int) -> list[Record]:
    return list(itertools.chain(*train_pack(base, runs, options=EngineOptions(**options))))


def losses(records: Sequence[Record], run_id: str) -> list[float]:
    return [r.loss_nats for r in records if isinstance(r, StepDone | Evaluated) and r.run_id == run_id]


def steps(records: Sequence[Record]) -> list[float]:
    return [r.loss_nats for r in records if isinstance(r, StepDone)]


@pytest.mark.parametrize(
    ("form", "name"),
    [("int8", "llama"), ("nf4", "llama"), ("nf4-bfloat16", "llama"), ("int8", "gpt2"), ("nf4", "gpt2")],
)
def test_packed_equals_solo(folder: Path, form: str, name: str) -> None:
    base = base_of(folder, form, name)
    runs = allocated(base, tiny_runs(MIXED_ARMS))
    packed, cut = train(base, runs), train(base, runs[::-1], micro_tokens=20, eval_tokens=16)
    atol = BFLOAT16_NATS if form.endswith("bfloat16") else 2e-6
    for run in runs:
        solo = losses(train(base, [run]), run.run.id)
        for found in (packed, cut):
            np.testing.assert_allclose(losses(found, run.run.id), solo, atol=atol, rtol=0)


@pytest.mark.parametrize(
    ("form", "name"), [*((form, "llama") for form in FORMS), ("int8", "gpt2"), ("nf4", "gpt2"), ("nf4", "gpt_neox")]
)
def test_solo_equals_peft_by_the_qlora_recipe(folder: Path, form: str, name: str) -> None:
    """Stock Transformers and PEFT over the same quantized weights, prepared as QLoRA prepares them."""
    base = base_of(folder, form, name)
    (run,) = allocated(base, tiny_runs([MIXED_ARMS[2]]))
    ours = steps(train(base, [run]))
    model = prepare_model_for_kbit_training(stock_model(folder, form, name), use_gradient_checkpointing=False)
    adapted = get_peft_model(model, run.rank_map.to_peft()).eval()  # the model's own dropout is off
    for module in adapted.modules():
        if type(module).__module__.startswith("bitsandbytes"):
            module.train()  # as all of them are while PEFT trains
    set_adapter(adapted, initial(base, run))
    theirs = train_with_peft(adapted, run)
    np.testing.assert_allclose(ours, theirs, atol=BFLOAT16_NATS if form.endswith("bfloat16") else 5e-6, rtol=0)
    assert ours[-1] < ours[0]


def initial(base: LoadedBase, run: AllocatedRun) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    plan = SlotPlan(rank_map=run.rank_map, init=run.run.arm.init, seed=run.run.seed, initial=run.initial)
    pack = AdapterPack(base.model, [plan], compute_dtype=torch.float32)
    pack.detach()
    return pack.tensors(0)


@pytest.mark.parametrize("form", ["int8", "none"])
def test_a_bfloat16_base_packed_is_near_what_it_is_alone(folder: Path, form: str) -> None:
    base = base_of(folder, form, dtype="bfloat16")
    runs = allocated(base, tiny_runs(MIXED_ARMS))
    packed, cut = train(base, runs), train(base, runs[::-1], micro_tokens=20, eval_tokens=16)
    for run in runs:
        solo = losses(train(base, [run]), run.run.id)
        for found in (packed, cut):
            np.testing.assert_allclose(losses(found, run.run.id), solo, atol=BFLOAT16_NATS, rtol=0)


@pytest.mark.parametrize("form", ["int8", "nf4"])
def test_a_diverged_slot_changes_no_bit_of_its_neighbours(folder: Path, form: str) -> None:
    base = base_of(folder, form)
    healthy, victim = allocated(base, tiny_runs(MIXED_ARMS[:2]))
    poisoned = replace(victim, run=victim.run.model_copy(update={"learning_rate": 1e30}))
    beside = [losses(train(base, [healthy, other]), healthy.run.id) for other in (victim, poisoned)]
    assert beside[0] == beside[1]


@pytest.mark.parametrize("form", ["int8", "nf4"])
def test_the_base_is_bit_identical_after_training_and_scoring(folder: Path, form: str) -> None:
    base = base_of(folder, form)
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    train(base, allocated(base, tiny_runs([*MIXED_ARMS, "weight_spectrum", "{strategy: empirical, init: gora}"])))
    after = base.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(("form", "dtype"), [("nf4", "float32"), ("none", "bfloat16")])
def test_ranks_move_over_such_bases_and_end_at_the_budget(folder: Path, form: str, dtype: str) -> None:
    base = base_of(folder, form, dtype=dtype)
    runs = allocated(base, tiny_runs([f"{{strategy: {strategy}, train: {{epochs: 5}}}}" for strategy in MOVING]))
    records = train(base, runs, micro_tokens=20)
    for run in runs:
        (trained,) = (r for r in records if isinstance(r, AdapterTrained) and r.run_id == run.run.id)
        stored = sum(down.size + up.size for down, up in trained.tensors.values())
        assert 0 <= run.rank_map.budget_params - stored < min(site.cost for site in run.rank_map.sites)
        found, solo = losses(records, run.run.id), losses(train(base, [run]), run.run.id)
        np.testing.assert_allclose(found, solo, atol=2e-5 if dtype == "float32" else BFLOAT16_NATS, rtol=0)


@pytest.mark.parametrize(("form", "dtype"), [("nf4", "float32"), ("none", "bfloat16")])
def test_runs_start_where_they_should_over_such_bases(folder: Path, form: str, dtype: str) -> None:
    """Every initialisation that such a base allows, in one pack: what it is alone, and at its first step the base's
    own loss where it should be."""
    base = base_of(folder, form, dtype=dtype)
    inits = [name for name in INITS if form == "none" or name not in SUBTRACTED_INITS]
    arms = [
        f"{{name: {name}, strategy: linear_decay, init: {name}, train: {{learning_rates: [3.0e-3]}}}}" for name in inits
    ]
    runs = allocated(base, tiny_runs(arms))
    records = train(base, runs, micro_tokens=20)
    tolerance = 3e-5 if dtype == "float32" else BFLOAT16_NATS
    first = {run.run.arm.init: losses(records, run.run.id)[1] for run in runs}
    for run in runs:
        found, solo = losses(records, run.run.id), losses(train(base, [run]), run.run.id)
        np.testing.assert_allclose(found, solo, atol=tolerance, rtol=0)
        if INITS[run.run.arm.init].starts_at_base:
            assert first[run.run.arm.init] == pytest.approx(first["kaiming"], abs=tolerance)
    assert first["gora"] < first["kaiming"]


@pytest.mark.parametrize("init", ["eva", "gora"])
def test_measured_starts_on_4_bit_weights_train_as_in_peft(folder: Path, init: str) -> None:
    base = base_of(folder, "nf4")
    (run,) = allocated(base, tiny_runs([f"{{name: {init}, strategy: linear_decay, init: {init}}}"]))
    model = prepare_model_for_kbit_training(stock_model(folder, "nf4"), use_gradient_checkpointing=False)
    adapted = get_peft_model(model, run.rank_map.to_peft()).train()
    set_adapter(adapted, run.initial.tensors)
    np.testing.assert_allclose(steps(train(base, [run])), train_with_peft(adapted, run), atol=5e-6, rtol=0)


@pytest.mark.parametrize(
    ("form", "name"), [("int8", "llama"), ("nf4", "llama"), ("nf4-bfloat16", "llama"), ("nf4", "gpt2")]
)
def test_gradient_checkpointing_changes_no_bit(folder: Path, form: str, name: str) -> None:
    base = base_of(folder, form, name)
    runs = allocated(base, tiny_runs(MIXED_ARMS))
    plain, again = train(base, runs, micro_tokens=20), train(base, checkpointed(runs), micro_tokens=20)
    for before, after in zip(runs, checkpointed(runs), strict=True):
        assert losses(plain, before.run.id) == losses(again, after.run.id)
