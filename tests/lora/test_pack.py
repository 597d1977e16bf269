"""Master weights and compute tensors: the same memory where nothing differs, and frozen subtracted components."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import PeftModel

from rankwise.allocation.rank_map import RankMap, Scaling
from rankwise.errors import AuditError
from rankwise.lora.init.rule import InitialAdapter
from rankwise.lora.pack import AdapterPack, SlotPlan
from rankwise.lora.peft_folder import write_peft_folder
from tests.families import family, mixed_rank_map

IDS = torch.arange(3, 15)[None]
SLOTS = torch.tensor([0])


def random_initial(rank_map: RankMap, *, subtracted: bool, seed: int = 0) -> InitialAdapter:
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)

    tensors = {
        site.name: (draw(rank, site.in_features), draw(site.out_features, rank))
        for site, rank in zip(rank_map.sites, rank_map.ranks, strict=True)
        if rank
    }
    return InitialAdapter(tensors=tensors, subtracted=subtracted)


def subtracted_plan(model, ranks=(1, 3, 2)) -> SlotPlan:
    rank_map = mixed_rank_map(model, Scaling(), ranks)
    return SlotPlan(rank_map=rank_map, init="kaiming", seed=0, initial=random_initial(rank_map, subtracted=True))


def logits(model, pack: AdapterPack | None = None, slot: int = 0) -> torch.Tensor:
    if pack is None:
        return model(input_ids=IDS).logits
    with pack.active_rows(SLOTS + slot):
        return model(input_ids=IDS).logits


def move(pack: AdapterPack, seed: int = 5) -> None:
    """As after some training."""
    generator = torch.Generator().manual_seed(seed)
    used = pack.weights_KP.ne(0)
    pack.weights_KP.add_(used * 0.1 * torch.randn(pack.weights_KP.shape, generator=generator))
    pack.refresh()


def test_plain_slots_compute_with_the_master_weights_themselves() -> None:
    model = family("llama")
    plan = SlotPlan(rank_map=mixed_rank_map(model, Scaling()), init="kaiming", seed=0)
    pack = AdapterPack(model, [plan, plan], compute_dtype=torch.float32)
    site = model.get_submodule(plan.rank_map.sites[0].name).site
    assert site.down_KRD.untyped_storage().data_ptr() == pack.weights_KP.untyped_storage().data_ptr()
    assert site.grad_up_KFR.untyped_storage().data_ptr() == pack.grads_KP.untyped_storage().data_ptr()
    assert pack.frozen_KP.numel() == 0


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_subtracted_initial_product_leaves_the_base_as_it_is(name) -> None:
    model = family(name)
    with torch.no_grad():
        bare = logits(model)
        pack = AdapterPack(model, [subtracted_plan(model)], compute_dtype=torch.float32)
        torch.testing.assert_close(logits(model, pack), bare, atol=1e-5, rtol=1e-5)
        move(pack)
        assert (logits(model, pack) - bare).abs().max() > 0.1
        pack.detach()
        assert torch.equal(logits(model), bare)


def test_a_subtracted_product_trains_as_if_the_base_weight_had_been_changed() -> None:
    """PEFT takes the initial product off the base weight; the pack carries it beside. Gradients agree."""
    model, changed = family("llama"), family("llama")
    plan = subtracted_plan(model)
    initial = plan.initial
    with torch.no_grad():
        for name, (down, up) in initial.tensors.items():
            product = torch.from_numpy(up @ down) * plan.rank_map.scale_of(name)
            changed.get_submodule(name).weight.sub_(product)
    packs = [
        AdapterPack(model, [plan], compute_dtype=torch.float32),
        AdapterPack(changed, [replace(plan, initial=replace(initial, subtracted=False))], compute_dtype=torch.float32),
    ]
    for each, pack in zip((model, changed), packs, strict=True):
        move(pack)
        logits(each, pack).square().mean().backward()
        pack.pull_gradients()
    assert packs[0].grads_KP.abs().max() > 1e-3
    torch.testing.assert_close(packs[0].grads_KP, packs[1].grads_KP, atol=2e-6, rtol=1e-4)
    packs[0].zero_gradients()
    assert not packs[0].grads_KP.any()
    packs[0].pull_gradients()
    assert not packs[0].grads_KP.any()


def test_slots_of_both_kinds_share_a_pack() -> None:
    model = family("llama")
    plain = SlotPlan(rank_map=mixed_rank_map(model, Scaling(), (2, 0, 4)), init="gaussian", seed=3)
    plans = [plain, subtracted_plan(model), replace(subtracted_plan(model, (3,)), seed=1)]
    found = []
    for chosen in (plans, plans[1:2], plans[:1]):
        pack = AdapterPack(model, chosen, compute_dtype=torch.float32)
        for slot in range(len(chosen)):
            logits(model, pack, slot).square().mean().backward()
        pack.pull_gradients()
        found.append((pack, pack.grads_KP))
        pack.detach()
    together, alone = found[0][0], [None, found[1][0], found[2][0]]
    for slot, pack in ((1, alone[1]), (0, alone[2])):
        mine, theirs = together.tensors(slot), pack.tensors(0)
        assert mine.keys() == theirs.keys()
        for name in mine:
            for ours, other in zip(mine[name], theirs[name], strict=True):
                assert np.array_equal(ours, other)
        norm = together.grads_KP[slot].norm()
        torch.testing.assert_close(norm, pack.grads_KP[0].norm(), atol=0, rtol=1e-5)


def test_the_stored_adapter_is_a_plain_one_of_twice_the_rank(tmp_path) -> None:
    model = family("llama")
    plan = subtracted_plan(model)
    pack = AdapterPack(model, [plan], compute_dtype=torch.float32)
    move(pack)
    with torch.no_grad():
        expected = logits(model, pack)
    pack.detach()
    tensors = pack.tensors(0)
    stored = plan.rank_map.with_ranks({name: len(down) for name, (down, _) in tensors.items()})
    assert stored.params == 2 * plan.rank_map.params
    write_peft_folder(tmp_path / "adapter", stored, tensors, base_name="tiny")
    with torch.no_grad():
        found = logits(PeftModel.from_pretrained(family("llama"), tmp_path / "adapter"))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_restoring_brings_back_trained_and_frozen_components() -> None:
    model = family("llama")
    plan = subtracted_plan(model)
    saved = AdapterPack(model, [plan], compute_dtype=torch.float32)
    move(saved)
    with torch.no_grad():
        expected = logits(model, saved)
        saved.detach()
        other = replace(plan, initial=random_initial(plan.rank_map, subtracted=True, seed=9))
        pack = AdapterPack(model, [other], compute_dtype=torch.float32)
        pack.restore(saved.weights_KP, saved.frozen_KP)
        assert torch.equal(logits(model, pack), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_frozen_part_that_is_not_the_planned_one_is_found(dtype) -> None:
    model = family("llama")
    pack = AdapterPack(model, [subtracted_plan(model)], compute_dtype=dtype)
    pack.audit()
    site = model.get_submodule(pack.plans[0].rank_map.sites[0].name).site
    site.gate_KR[0, -1] = site.gate_KR[0, 0]
    with pytest.raises(AuditError, match=r"planned rank 1.*is not trained"):
        pack.audit()
