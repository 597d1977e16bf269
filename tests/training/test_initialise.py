"""Every initialisation against PEFT: the same first matrices, and the same losses from there."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from peft import EvaConfig, LoraConfig, LoraGAConfig, PeftModel, get_peft_model, initialize_lora_eva_weights
from peft.tuners.lora.loraga import preprocess_loraga

from rankwise.allocation.rank_map import RankMap
from rankwise.data.examples import TokenizedExample
from rankwise.errors import AllocationError
from rankwise.lora.init import INITS
from rankwise.lora.pack import AdapterPack, SlotPlan
from rankwise.lora.peft_folder import read_peft_folder, write_peft_folder
from rankwise.records import AdapterTrained, Evaluated, Record, RunAudited, StepDone
from rankwise.study.config import SUBTRACTED_INITS, Arm
from rankwise.training.allocated_run import AllocatedRun
from rankwise.training.engine import EngineOptions, train_pack
from rankwise.training.order import BatchOrder
from tests.peft_loop import set_adapter, train_with_peft
from tests.tiny import allocated, tiny_base, tiny_llama, tiny_runs

DRAWN = ("kaiming", "gaussian")
MEASURED = ("pissa", "olora", "eva", "gora", "loraga")
STRATEGIES = ("linear_decay", "uniform", "attention_heavy")
SCALINGS = ("{rule: alpha_over_r, alpha: 3}", "{rule: rslora, alpha: 2}", "{rule: constant, scale: 0.5}")


def arm(init: str, strategy: str = "linear_decay", scaling: str = SCALINGS[2], more: str = "") -> str:
    return f"{{name: {init} {strategy}, strategy: {strategy}, init: {init}, scaling: {scaling}{more}}}"


def one(text: str) -> AllocatedRun:
    (run,) = allocated(tiny_base(), tiny_runs([text]))
    return run


def train(runs: Sequence[AllocatedRun], **options: int) -> list[Record]:
    return list(itertools.chain(*train_pack(tiny_base(), runs, options=EngineOptions(**options))))


def losses(records: Sequence[Record], run_id: str) -> list[float]:
    return [r.loss_nats for r in records if isinstance(r, StepDone | Evaluated) and r.run_id == run_id]


def config(rank_map: RankMap, **init) -> LoraConfig:
    arguments = rank_map.to_peft_dict() | init
    return LoraConfig(**arguments)


def slot_plan(run: AllocatedRun) -> SlotPlan:
    return SlotPlan(rank_map=run.rank_map, init=run.run.arm.init, seed=run.run.seed, initial=run.initial)


def held(model: PeftModel) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A PEFT model's matrices by site name."""
    return {
        name.removeprefix("base_model.model."): tuple(
            side["default"].weight.detach().numpy() for side in (module.lora_A, module.lora_B)
        )
        for name, module in model.named_modules()
        if hasattr(module, "lora_A")
    }


def test_the_setting_and_the_table_name_the_same_initialisations() -> None:
    names = Arm.model_fields["init"].annotation.__args__
    assert names == tuple(INITS) == DRAWN + MEASURED
    assert {name for name, rule in INITS.items() if rule.subtracted} == set(SUBTRACTED_INITS)
    assert {name for name, rule in INITS.items() if rule.needs == "nothing"} == set(DRAWN)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_matrices_of_weights_are_pefts_and_so_are_the_losses(init, scaling) -> None:
    """PEFT initialises by itself and takes the product off its base weights; the losses agree step by step."""
    run = one(arm(init, scaling=scaling))
    model = get_peft_model(tiny_llama(), config(run.rank_map, init_lora_weights=init))
    theirs = held(model)
    assert theirs.keys() == run.initial.tensors.keys()
    for name, pair in run.initial.tensors.items():
        for ours, other in zip(pair, theirs[name], strict=True):
            np.testing.assert_allclose(ours, other, atol=1e-6)
    ours = [r.loss_nats for r in train([run]) if isinstance(r, StepDone)]
    np.testing.assert_allclose(ours, train_with_peft(model, run), atol=5e-6, rtol=0)
    assert ours[-1] < ours[0]


@pytest.mark.filterwarnings("ignore:lora with eva initialization used with low_cpu_mem_usage=False")
def test_eva_directions_are_those_of_peft_on_the_same_batch() -> None:
    """One batch, because PEFT goes round its batches until the directions settle."""
    text = arm("eva", "uniform", more=", train: {epochs: 1, batch_size: 6}")
    run = one(text)
    eva = EvaConfig(rho=1.0, tau=0.9999)
    model = get_peft_model(tiny_llama(), config(run.rank_map, init_lora_weights="eva", eva_config=eva))
    initialize_lora_eva_weights(model, [_padded(run.data.train)], show_progress_bar=False)
    theirs = held(model)
    assert theirs.keys() == run.initial.tensors.keys()
    for name, (down, up) in run.initial.tensors.items():
        assert not up.any()
        cosines = np.abs((down * theirs[name][0]).sum(axis=1))
        np.testing.assert_allclose(cosines, 1, atol=1e-3)


def _padded(examples: Sequence[TokenizedExample]) -> dict[str, torch.Tensor]:
    shape = (len(examples), max(example.num_tokens for example in examples))
    ids, mask, labels = torch.zeros(shape).long(), torch.zeros(shape).long(), torch.full(shape, -100)
    for row, example in enumerate(examples):
        end = example.num_tokens
        ids[row, :end] = torch.from_numpy(example.input_ids)
        mask[row, :end] = 1
        labels[row, example.num_prompt_tokens : end] = ids[row, example.num_prompt_tokens : end]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_loraga_matrices_are_those_of_peft_on_the_same_gradients() -> None:
    """Up to the sign of each singular vector; at this rank PEFT's randomised decomposition is exact."""
    run = one(arm("loraga", "uniform", more=", budget: {rank: 4}"))
    model = tiny_llama()
    settings = config(run.rank_map, init_lora_weights="lora_ga", lora_ga_config=LoraGAConfig())

    def backward() -> None:
        order = BatchOrder(num_examples=6, batch_size=2, epochs=2, seed=run.run.seed)
        for step in range(order.num_steps):
            model(**_padded([run.data.train[index] for index in order.batch(step)])).loss.backward()

    preprocess_loraga(model, settings, backward)
    theirs = held(get_peft_model(model, settings))
    for name, (down, up) in run.initial.tensors.items():
        their_down, their_up = theirs[name]
        np.testing.assert_allclose(np.abs((down * their_down).sum(axis=1)), 1, atol=1e-4)
        np.testing.assert_allclose(np.linalg.norm(up, axis=0), np.linalg.norm(their_up, axis=0), rtol=1e-3, atol=1e-6)
        along = np.abs((up * their_up).sum(axis=0))
        np.testing.assert_allclose(along, (their_up**2).sum(axis=0), rtol=1e-3, atol=1e-9)


def test_gora_is_a_step_down_the_gradient_within_the_span_of_down() -> None:
    """The projection by its definition, and a loss that is lower than the base model's before the first step."""
    run = one(arm("gora", "uniform", more=", train: {epochs: 1, batch_size: 6}"))
    drawn = one(arm("kaiming", "uniform", more=", train: {epochs: 1, batch_size: 6}"))
    model = tiny_llama()
    weights = {name: model.get_submodule(name).weight for name in run.initial.tensors}
    model(**_padded(run.data.train)).loss.backward()
    kaiming = AdapterPack(tiny_llama(), [slot_plan(drawn)], compute_dtype=torch.float32).tensors(0)
    for name, (down, up) in run.initial.tensors.items():
        assert np.array_equal(down, kaiming[name][0]), "the same draw as every other arm of this seed"
        basis = np.linalg.svd(down.astype(np.float64), full_matrices=False)[2]
        projected = weights[name].grad.numpy() @ basis.T @ basis
        step = -0.05 * np.sqrt(down.shape[1] / len(down)) * projected
        np.testing.assert_allclose(run.rank_map.scale_of(name) * up @ down, step, atol=1e-7, rtol=1e-3)
    records = train([run])
    untrained = next(r for r in records if isinstance(r, Evaluated))
    bare = next(r for r in train([drawn]) if isinstance(r, Evaluated))
    assert (untrained.step, bare.step) == (0, 0)
    assert untrained.loss_nats != bare.loss_nats
    first = [next(r for r in found if isinstance(r, StepDone)).loss_nats for found in (records, train([drawn]))]
    assert first[0] < first[1]


@pytest.mark.parametrize("init", MEASURED)
def test_solo_equals_peft_from_the_same_start(init) -> None:
    run = one(arm(init))
    model = get_peft_model(tiny_llama(), run.rank_map.to_peft())
    set_adapter(model, run.initial.tensors)
    if run.initial.subtracted:
        for name, (down, up) in run.initial.tensors.items():
            weight = model.get_submodule(f"base_model.model.{name}").base_layer.weight
            weight.data -= run.rank_map.scale_of(name) * torch.from_numpy(up @ down)
    ours = [r.loss_nats for r in train([run]) if isinstance(r, StepDone)]
    np.testing.assert_allclose(ours, train_with_peft(model, run), atol=5e-6, rtol=0)
    assert ours[-1] < ours[0]


def test_packed_equals_solo_with_every_initialisation_in_one_pack() -> None:
    texts = [arm(init, strategy) for init, strategy in zip((*DRAWN, *MEASURED), itertools.cycle(STRATEGIES))]
    runs = allocated(tiny_base(), tiny_runs(texts))
    forward, backward = train(runs), train(runs[::-1], micro_tokens=20)
    for run in runs:
        solo = train([run])
        for packed in (forward, backward):
            np.testing.assert_allclose(losses(packed, run.run.id), losses(solo, run.run.id), atol=2e-6, rtol=0)


def test_the_base_stays_bit_identical_and_a_stopped_pack_goes_on_alike(tmp_path) -> None:
    runs = allocated(tiny_base(), tiny_runs([arm("pissa"), arm("kaiming"), arm("loraga", "uniform")]))
    base = tiny_base()
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    whole = list(itertools.chain(*train_pack(base, runs)))
    assert all(torch.equal(before[name], tensor) for name, tensor in base.model.state_dict().items())
    path, calls = tmp_path / "pack.checkpoint", itertools.count()
    stopped = train_pack(tiny_base(), runs, checkpoint=path, should_stop=lambda: next(calls) >= 2)
    first = list(itertools.chain(*stopped))
    second = list(itertools.chain(*train_pack(tiny_base(), runs, checkpoint=path)))
    for run in runs:
        assert losses(first, run.run.id) + losses(second, run.run.id) == losses(whole, run.run.id)


@pytest.mark.parametrize("init", MEASURED)
def test_the_stored_adapter_does_on_the_original_base_what_the_pack_did(init, tmp_path) -> None:
    """Its test losses in PEFT, on untouched base weights; twice the rank where the start is subtracted."""
    run = one(arm(init))
    records = train([run])
    (trained,) = (r for r in records if isinstance(r, AdapterTrained))
    (audited,) = (r for r in records if isinstance(r, RunAudited))
    (scored,) = (r for r in records if isinstance(r, Evaluated) and r.split == "test")
    stored = run.rank_map.with_ranks({name: len(down) for name, (down, _) in trained.tensors.items()})
    write_peft_folder(tmp_path / "adapter", stored, trained.tensors, base_name="tiny")
    factor = 2 if init in SUBTRACTED_INITS else 1
    assert stored.params == factor * run.rank_map.params == audited.params
    assert audited.held_params == run.rank_map.params
    model = PeftModel.from_pretrained(tiny_llama(), tmp_path / "adapter")
    for number, example in enumerate(run.data.test):
        batch = _padded([example])
        with torch.no_grad():
            loss = model(**batch, num_items_in_batch=1).loss.item()
        assert scored.example_loss_nats[number] == pytest.approx(loss, abs=2e-5)


def test_the_stored_adapter_is_the_one_that_pefts_own_conversion_writes(tmp_path) -> None:
    """`save_pretrained(path_initial_model_for_weight_conversion=...)` of the same PiSSA run."""
    run = one(arm("pissa"))
    (trained,) = (r for r in train([run]) if isinstance(r, AdapterTrained))
    model = get_peft_model(tiny_llama(), config(run.rank_map, init_lora_weights="pissa"))
    model.save_pretrained(tmp_path / "initial")
    half = {name: (down[: len(down) // 2], up[:, : len(down) // 2]) for name, (down, up) in trained.tensors.items()}
    set_adapter(model, half)
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(tmp_path / "converted", path_initial_model_for_weight_conversion=str(tmp_path / "initial"))
    theirs, tensors = read_peft_folder(tmp_path / "converted")
    assert tensors.keys() == trained.tensors.keys()
    for name, pair in trained.tensors.items():
        for ours, other in zip(pair, tensors[name], strict=True):
            np.testing.assert_allclose(ours, other, atol=1e-6)
    stored = run.rank_map.with_ranks({name: len(down) for name, (down, _) in trained.tensors.items()}).to_peft()
    assert theirs["rank_pattern"] == stored.rank_pattern
    assert theirs["alpha_pattern"] == pytest.approx(stored.alpha_pattern)


@pytest.mark.parametrize("init", MEASURED)
def test_a_start_depends_on_its_own_run_alone_and_its_time_is_charged(init) -> None:
    texts = [arm(init), arm(init, "uniform")]
    together = allocated(tiny_base(), tiny_runs(texts, seeds=(0, 1)))
    assert len({id(run.initial) for run in together}) == (2 if INITS[init].needs == "weights" else 4)
    assert all(run.probe_wall_s > 0 for run in together)
    for run in together:
        (alone,) = allocated(tiny_base(), [run.run])
        for name, pair in run.initial.tensors.items():
            for ours, other in zip(pair, alone.initial.tensors[name], strict=True):
                assert np.array_equal(ours, other)


def test_arms_of_one_seed_share_the_components_they_both_have() -> None:
    narrow = one(arm("eva", "uniform")).initial.tensors
    wide = one(arm("eva", "uniform", more=", budget: {rank: 3}")).initial.tensors
    for name, (down, _) in narrow.items():
        np.testing.assert_allclose(wide[name][0][: len(down)], down, atol=1e-3)


def test_more_components_than_directions_are_refused() -> None:
    with pytest.raises(AllocationError, match=r"init loraga: .* was given rank 6, .*budget.max_rank to 4 or less"):
        one(arm("loraga", "uniform", more=", budget: {rank: 6}"))
    with pytest.raises(AllocationError, match=r"init eva: .* was given rank 8, .* vary in \d directions"):
        one(arm("eva", "uniform", more=", budget: {rank: 8}, train: {epochs: 0.3, batch_size: 1}"))
