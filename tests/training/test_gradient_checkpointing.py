"""The engine's guarantees with gradient checkpointing: to the bit what it does without."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import get_peft_model

from rankwise.allocation.rank_map import Scaling
from rankwise.data.batches import Row
from rankwise.lora.pack import AdapterPack, SlotPlan
from rankwise.models.gradient_checkpointing import checkpointed_blocks
from rankwise.models.load import LoadedBase
from rankwise.packing.forward import token_losses
from rankwise.packing.live_tensors import LiveTensors
from rankwise.records import AdapterTrained, Evaluated, Record, StepDone
from rankwise.training.allocated_run import AllocatedRun
from rankwise.training.engine import EngineOptions, train_pack
from tests.families import FAMILIES, family, mixed_rank_map, random_pack
from tests.peft_loop import set_adapter, train_with_peft
from tests.tiny import allocated, checkpointed, templated_data, tiny_base, tiny_examples, tiny_llama, tiny_runs

STATIC = (
    "uniform",
    "{name: wide, strategy: uniform, budget: {rank: 5}}",
    "{strategy: linear_decay, init: pissa, train: {learning_rates: [1.0e-2], batch_size: 3}}",
    "{strategy: random, targets: mlp, train: {epochs: 3}}",
)
MOVING = tuple(f"{{strategy: {name}, train: {{epochs: 5}}}}" for name in ("adalora", "elastic", "l1"))
DROPPING = "{name: dropping, strategy: uniform, dropout: 0.3}"


def train(base: LoadedBase, runs: Sequence[AllocatedRun], **options: int) -> list[Record]:
    return list(itertools.chain(*train_pack(base, runs, options=EngineOptions(**options))))


def losses(records: Sequence[Record], run: AllocatedRun) -> list[float]:
    return [r.loss_nats for r in records if isinstance(r, StepDone | Evaluated) and r.run_id == run.run.id]


def adapter(records: Sequence[Record], run: AllocatedRun) -> list[np.ndarray]:
    (trained,) = (r for r in records if isinstance(r, AdapterTrained) and r.run_id == run.run.id)
    return [tensor for pair in trained.tensors.values() for tensor in pair]


def assert_same_to_the_bit(base: LoadedBase, runs: Sequence[AllocatedRun]) -> None:
    """Micro-batches are fixed, since their size may be another one with gradient checkpointing."""
    plain, again = train(base, runs, micro_tokens=64), train(base, checkpointed(runs), micro_tokens=64)
    for before, after in zip(runs, checkpointed(runs), strict=True):
        assert len(losses(plain, before)) > 5
        assert losses(plain, before) == losses(again, after)
        pairs = zip(adapter(plain, before), adapter(again, after), strict=True)
        assert all(np.array_equal(ours, theirs) for ours, theirs in pairs)


@pytest.mark.parametrize("name", FAMILIES)
def test_losses_and_adapters_are_the_same_to_the_bit(name: str) -> None:
    """With prefixes that rows share, so that the prefix is recomputed too."""
    base = tiny_base(family(name))
    runs = allocated(base, tiny_runs(STATIC[:3]), templated_data())
    assert any(example.num_shared_tokens for example in runs[0].data.train)
    assert_same_to_the_bit(base, runs)


@pytest.mark.parametrize("arms", [(*STATIC, *MOVING), (*STATIC[:2], DROPPING)])
def test_so_they_are_where_ranks_move_and_where_inputs_are_dropped(arms: tuple[str, ...]) -> None:
    base = tiny_base()
    assert_same_to_the_bit(base, allocated(base, tiny_runs(arms)))


def test_so_they_are_in_bfloat16() -> None:
    base = tiny_base(tiny_llama().bfloat16())
    assert_same_to_the_bit(base, allocated(base, tiny_runs((STATIC[2], MOVING[0]))))


def test_packed_equals_solo() -> None:
    runs = checkpointed(allocated(tiny_base(), tiny_runs((STATIC[0], STATIC[2], MOVING[0]))))
    packed = train(tiny_base(), runs)
    for run in runs:
        np.testing.assert_allclose(losses(packed, run), losses(train(tiny_base(), [run]), run), atol=1e-6, rtol=0)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to")
@pytest.mark.parametrize("name", ["llama", "gpt2", "phi"])
def test_solo_equals_peft_with_gradient_checkpointing_of_its_own(name: str) -> None:
    base = tiny_base(family(name))
    (run,) = checkpointed(allocated(base, tiny_runs(["{strategy: linear_decay}"])))
    ours = [r.loss_nats for r in train(base, [run]) if isinstance(r, StepDone)]
    pack = AdapterPack(
        family(name), [SlotPlan(rank_map=run.rank_map, init="kaiming", seed=run.run.seed)], compute_dtype=torch.float32
    )
    model = family(name)
    model.activation_checkpointing_enable()
    adapted = get_peft_model(model, run.rank_map.to_peft()).train()
    for module in adapted.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # the base's own, which acts in training mode
    set_adapter(adapted, pack.tensors(0))
    np.testing.assert_allclose(train_with_peft(adapted, run), ours, atol=5e-6, rtol=0)
    assert ours[-1] < ours[0]


def test_a_diverged_slot_changes_no_bit_of_its_neighbours() -> None:
    healthy, victim = checkpointed(allocated(tiny_base(), tiny_runs(STATIC[:2]), templated_data()))
    poisoned = replace(victim, run=victim.run.model_copy(update={"learning_rate": 1e30}))
    beside = [losses(train(tiny_base(), [healthy, other]), healthy) for other in (victim, poisoned)]
    assert beside[0] == beside[1]


def test_less_is_held_when_the_backward_pass_begins_and_at_its_fullest() -> None:
    """Eight blocks keep little more than their inputs; the peak adds one block, so it falls by less."""
    model = tiny_llama_of(num_blocks=8)
    pack = random_pack(model, [mixed_rank_map(model, Scaling())])
    rows = [Row(0, example, position) for position, example in enumerate(tiny_examples(12, 0))]
    kept, peaks = {}, {}
    for is_on in (False, True):
        with LiveTensors([*model.parameters(), *model.buffers()]) as live:
            with checkpointed_blocks(model) if is_on else torch.enable_grad():
                for _, found in token_losses(model, pack, rows, max_tokens=10**6):
                    kept[is_on] = live.live_bytes
                    found.loss_M.sum().backward()
            peaks[is_on] = live.peak_bytes
    assert kept[True] < 0.25 * kept[False]
    assert peaks[True] < 0.4 * peaks[False]


def tiny_llama_of(num_blocks: int):
    config = tiny_llama().config
    config.num_hidden_layers = num_blocks
    return type(tiny_llama())(config).eval().requires_grad_(False)
