"""An output head among the targets: the engine's guarantees, PEFT's losses, and embeddings that stay as they are."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import PreTrainedModel

from rankwise.lora.pack import AdapterPack, SlotPlan
from rankwise.lora.peft_folder import write_peft_folder
from rankwise.models.sites import find_sites
from rankwise.records import AdapterTrained, Evaluated, Record, StepDone
from rankwise.training.allocated_run import AllocatedRun
from rankwise.training.engine import EngineOptions, train_pack
from tests.families import FAMILIES, family
from tests.peft_loop import set_adapter, train_with_peft
from tests.tiny import allocated, tiny_base, tiny_llama, tiny_runs

ARMS = (
    "{strategy: uniform, targets: [all-linear, head]}",
    "{strategy: linear_decay, targets: head, budget: {rank: 3}}",
    "{name: body, strategy: uniform}",
)


def tied_llama() -> PreTrainedModel:
    model = tiny_llama()
    model.config.tie_word_embeddings = True
    model.tie_weights()
    return model


MODELS = {"untied": tiny_llama, "tied": tied_llama, "gpt2": lambda: family("gpt2"), "phi3": lambda: family("phi3")}


def train(model: PreTrainedModel, runs: Sequence[AllocatedRun], **options: int) -> list[Record]:
    return list(itertools.chain(*train_pack(tiny_base(model), runs, options=EngineOptions(**options))))


def losses(records: Sequence[Record], run_id: str) -> list[float]:
    return [r.loss_nats for r in records if isinstance(r, StepDone | Evaluated) and r.run_id == run_id]


@pytest.mark.parametrize("name", FAMILIES)
def test_head_is_the_output_head_of_every_family(name: str) -> None:
    model = family(name)
    (site,) = find_sites(model, "head")
    assert model.get_submodule(site.name) is model.get_output_embeddings()
    assert site.kind == "other"
    assert find_sites(model, ["all-linear", "head"]) == (*find_sites(model), site)


@pytest.mark.parametrize("name", MODELS)
def test_packed_equals_solo(name: str) -> None:
    dropped = "{name: dropped, strategy: uniform, targets: [attention, head], dropout: 0.2}"
    runs = allocated(tiny_base(MODELS[name]()), tiny_runs([*ARMS, dropped]))
    packed, cut = train(MODELS[name](), runs), train(MODELS[name](), runs[::-1], micro_tokens=20, eval_tokens=16)
    for run in runs:
        solo = losses(train(MODELS[name](), [run]), run.run.id)
        for found in (packed, cut):
            np.testing.assert_allclose(losses(found, run.run.id), solo, atol=2e-6, rtol=0)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`", "ignore:fan_in_fan_out is set to")
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("arm", ARMS[:2])
def test_solo_equals_peft_and_the_stored_adapter_is_pefts(arm: str, name: str, tmp_path) -> None:
    (run,) = allocated(tiny_base(MODELS[name]()), tiny_runs([arm]))
    model = MODELS[name]()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    records = train(model, [run])
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    plan = SlotPlan(rank_map=run.rank_map, init=run.run.arm.init, seed=run.run.seed)
    adapted = get_peft_model(MODELS[name](), run.rank_map.to_peft())
    set_adapter(adapted, AdapterPack(MODELS[name](), [plan], compute_dtype=torch.float32).tensors(0))
    ours = [r.loss_nats for r in records if isinstance(r, StepDone)]
    np.testing.assert_allclose(ours, train_with_peft(adapted.eval(), run), atol=5e-6, rtol=0)

    (trained,) = (r for r in records if isinstance(r, AdapterTrained))
    (scored,) = (r for r in records if isinstance(r, Evaluated) and r.split == "test")
    write_peft_folder(tmp_path / "adapter", run.rank_map, trained.tensors, base_name="tiny")
    loaded = PeftModel.from_pretrained(MODELS[name](), tmp_path / "adapter").eval()
    for number, example in enumerate(run.data.test):
        ids = torch.from_numpy(example.input_ids)[None]
        labels = ids.clone()
        labels[:, : example.num_prompt_tokens] = -100
        with torch.no_grad():
            loss = loaded(input_ids=ids, labels=labels, num_items_in_batch=1).loss.item()
        assert scored.example_loss_nats[number] == pytest.approx(loss, abs=2e-5)


def test_a_diverged_head_changes_no_bit_of_its_neighbours() -> None:
    healthy, victim = allocated(tiny_base(), tiny_runs(ARMS[:2]))
    poisoned = AllocatedRun(
        run=victim.run.model_copy(update={"learning_rate": 1e30}), rank_map=victim.rank_map, data=victim.data
    )
    beside = [losses(train(tiny_llama(), [healthy, other]), healthy.run.id) for other in (victim, poisoned)]
    assert beside[0] == beside[1]


def test_signals_and_starts_are_measured_at_the_head() -> None:
    arms = [
        f"{{name: {name}, strategy: {name}, init: {init}, targets: [attention, head]}}"
        for name, init in (("empirical", "eva"), ("weight_spectrum", "pissa"), ("gora", "gora"), ("fisher", "loraga"))
    ]
    runs = allocated(tiny_base(), tiny_runs(arms))
    records = train(tiny_llama(), runs)
    for run in runs:
        assert dict(zip((site.name for site in run.rank_map.sites), run.rank_map.ranks, strict=True))["lm_head"] > 0
        np.testing.assert_allclose(
            losses(train(tiny_llama(), [run]), run.run.id), losses(records, run.run.id), atol=5e-6, rtol=0
        )
