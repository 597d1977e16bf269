import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch

from rankwise.allocation.rank_map import Scaling
from rankwise.errors import AdapterError
from rankwise.lora.peft_folder import CONFIG_NAME, WEIGHTS_NAME, read_peft_folder, write_peft_folder
from rankwise.records import AdapterTrained
from rankwise.training.engine import train_pack
from tests.families import FAMILIES, family, mixed_rank_map, random_pack
from tests.tiny import allocated, tiny_base, tiny_llama, tiny_runs

IDS = torch.arange(3, 15).view(2, 6)
SCALINGS = {
    "alpha_over_r": Scaling(),
    "rslora": Scaling(rule="rslora", alpha=5.0),
    "constant": Scaling(rule="constant", scale=0.7),
}


def write_random(folder: Path, name: str = "llama", scaling: Scaling = SCALINGS["alpha_over_r"]) -> torch.Tensor:
    """A random adapter of uneven ranks as a folder, and the logits of the pack that held it."""
    model = family(name)
    rank_map = mixed_rank_map(model, scaling)
    pack = random_pack(model, [rank_map])
    with torch.no_grad(), pack.active_rows(torch.zeros(len(IDS), dtype=torch.long)):
        logits = model(input_ids=IDS).logits
    write_peft_folder(folder, rank_map, pack.tensors(0), base_name="tiny", dropout=0.25)
    pack.detach()
    return logits


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False but the target module is `Conv1D`")
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("rule", SCALINGS)
def test_peft_computes_what_the_pack_computed(name, rule, tmp_path):
    expected = write_random(tmp_path / "adapter", name, SCALINGS[rule])
    with torch.no_grad():
        bare = family(name)(input_ids=IDS).logits
        found = PeftModel.from_pretrained(family(name), tmp_path / "adapter")(input_ids=IDS).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert (found - bare).abs().max() > 0.1


def test_a_site_without_components_is_not_adapted(tmp_path):
    model = family("llama")
    rank_map = mixed_rank_map(model, Scaling(), ranks=(0, 2))
    pack = random_pack(model, [rank_map])
    write_peft_folder(tmp_path / "adapter", rank_map, pack.tensors(0), base_name="tiny")
    pack.detach()
    adapted = PeftModel.from_pretrained(family("llama"), tmp_path / "adapter")
    modules = {name for name, module in adapted.get_base_model().named_modules() if hasattr(module, "lora_A")}
    assert modules == {site.name for site, rank in zip(rank_map.sites, rank_map.ranks, strict=True) if rank}


@pytest.mark.parametrize(
    "arm", ["{strategy: linear_decay}", "{strategy: random, scaling: {rule: rslora}, targets: mlp}"]
)
def test_a_trained_adapter_keeps_every_number(arm, tmp_path):
    base = tiny_base()
    (run,) = allocated(base, tiny_runs([arm]))
    (trained,) = (r for records in train_pack(base, [run]) for r in records if isinstance(r, AdapterTrained))
    write_peft_folder(tmp_path / "adapter", run.rank_map, trained.tensors, base_name="tiny")
    adapted = PeftModel.from_pretrained(tiny_llama(), tmp_path / "adapter").get_base_model()
    _, read = read_peft_folder(tmp_path / "adapter")
    assert read.keys() == trained.tensors.keys()
    for name, pair in trained.tensors.items():
        layer = adapted.get_submodule(name)
        held = (layer.lora_A["default"].weight, layer.lora_B["default"].weight)
        for ours, theirs, again in zip(pair, held, read[name], strict=True):
            assert ours.any()
            assert np.array_equal(ours, theirs.detach().numpy())
            assert np.array_equal(ours, again)
        assert layer.scaling["default"] == pytest.approx(run.rank_map.scale_of(name))


def test_the_folder_says_what_it_was_trained_on(tmp_path):
    write_random(tmp_path / "adapter")
    config, _ = read_peft_folder(tmp_path / "adapter")
    assert config["base_model_name_or_path"] == "tiny"
    assert config["lora_dropout"] == 0.25
    assert config["peft_type"] == "LORA"
    assert names(tmp_path) == ["adapter"]
    assert names(tmp_path / "adapter") == [CONFIG_NAME, WEIGHTS_NAME]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_peft_saved_is_read_in_any_number_format(dtype, tmp_path):
    model = get_peft_model(tiny_llama(), LoraConfig(r=3, target_modules=["q_proj", "up_proj"], init_lora_weights=False))
    model.save_pretrained(tmp_path)
    save_torch({key: t.to(dtype) for key, t in load_torch(tmp_path / WEIGHTS_NAME).items()}, tmp_path / WEIGHTS_NAME)
    _, tensors = read_peft_folder(tmp_path)
    assert len(tensors) == 4
    down, up = tensors["model.layers.1.mlp.up_proj"]
    layer = model.get_base_model().model.layers[1].mlp.up_proj
    assert down.dtype == up.dtype == np.float32
    assert np.array_equal(down, layer.lora_A["default"].weight.detach().to(dtype).float().numpy())
    assert np.array_equal(up, layer.lora_B["default"].weight.detach().to(dtype).float().numpy())


def rewrite(folder: Path, **changes: np.ndarray | None) -> None:
    """Replace tensors of a written folder by the beginning of their names; None removes them."""
    flat = load_file(folder / WEIGHTS_NAME)
    for start, value in changes.items():
        for key in [key for key in flat if start in key][:1]:
            del flat[key]
            if value is not None:
                flat[key] = value
    save_file(flat, folder / WEIGHTS_NAME)


def refused(folder: Path) -> str:
    with pytest.raises(AdapterError) as error:
        read_peft_folder(folder)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)
    return str(error.value)


def test_a_folder_without_a_configuration_is_refused(tmp_path):
    assert "not an adapter folder" in refused(tmp_path)
    assert "not an adapter folder" in refused(tmp_path / "missing")


def test_pickled_weights_are_refused_unread(tmp_path):
    write_random(tmp_path / "adapter")
    (tmp_path / "adapter" / WEIGHTS_NAME).rename(tmp_path / "adapter" / "adapter_model.bin")
    message = refused(tmp_path / "adapter")
    assert "adapter_model.bin" in message
    assert "run code" in message


@pytest.mark.parametrize("what", ["lora_A", "lora_B"])
def test_an_incomplete_pair_is_refused_by_name(what, tmp_path):
    write_random(tmp_path / "adapter")
    rewrite(tmp_path / "adapter", **{what: None})
    message = refused(tmp_path / "adapter")
    assert "model.layers." in message
    assert "incomplete" in message


def test_a_pair_of_different_ranks_is_refused_with_its_shapes(tmp_path):
    write_random(tmp_path / "adapter")
    rewrite(tmp_path / "adapter", lora_A=np.zeros((7, 16), dtype=np.float32))
    assert "(7, 16)" in refused(tmp_path / "adapter")


def test_weights_that_are_cut_short_are_refused(tmp_path):
    write_random(tmp_path / "adapter")
    path = tmp_path / "adapter" / WEIGHTS_NAME
    path.write_bytes(path.read_bytes()[:100])
    assert "damaged" in refused(tmp_path / "adapter")


@pytest.mark.parametrize(("text", "words"), [("{", "damaged"), ("[]", "LoRA"), ('{"peft_type": "LOHA"}', "LoRA")])
def test_a_configuration_that_is_not_one_of_lora_is_refused(text, words, tmp_path):
    write_random(tmp_path / "adapter")
    (tmp_path / "adapter" / CONFIG_NAME).write_text(text)
    assert words in refused(tmp_path / "adapter")


def test_more_than_plain_lora_is_refused_by_name(tmp_path):
    config = LoraConfig(r=2, target_modules=["q_proj"], use_dora=True)
    get_peft_model(tiny_llama(), config).save_pretrained(tmp_path)
    assert "lora_magnitude_vector" in refused(tmp_path)


def test_tensors_that_are_not_the_rank_maps_are_not_written(tmp_path):
    model = tiny_llama()
    rank_map = mixed_rank_map(model, Scaling())
    other = random_pack(model, [mixed_rank_map(model, Scaling(), ranks=(2,))])
    with pytest.raises(AdapterError, match="rank map"):
        write_peft_folder(tmp_path / "adapter", rank_map, other.tensors(0), base_name="tiny")
    other.detach()
    assert not list(tmp_path.iterdir())


def test_another_adapter_is_replaced_whole(tmp_path):
    write_random(tmp_path / "adapter")
    (tmp_path / "adapter" / "note.txt").write_text("of the old adapter")
    expected = write_random(tmp_path / "adapter", scaling=SCALINGS["constant"])
    with torch.no_grad():
        found = PeftModel.from_pretrained(family("llama"), tmp_path / "adapter")(input_ids=IDS).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert names(tmp_path / "adapter") == [CONFIG_NAME, WEIGHTS_NAME]


def test_other_files_are_never_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    (tmp_path / "file").write_text("x")
    for place in ("thesis", "file"):
        with pytest.raises(AdapterError, match="--out"):
            write_random(tmp_path / place)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"
    assert names(tmp_path) == ["file", "thesis"]


def test_a_folder_that_cannot_be_written_is_named_and_nothing_is_left(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(AdapterError) as error:
        write_random(tmp_path / "file" / "adapter")
    assert str(tmp_path / "file" / "adapter") in str(error.value)
    assert "--out" in str(error.value)
    assert names(tmp_path) == ["file"]


def test_a_disk_that_fills_up_leaves_the_old_adapter_and_nothing_else(tmp_path, monkeypatch):
    write_random(tmp_path / "adapter")
    before = (tmp_path / "adapter" / WEIGHTS_NAME).read_bytes()

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(AdapterError, match="No space left on device"):
        write_random(tmp_path / "adapter", scaling=SCALINGS["constant"])
    assert names(tmp_path) == ["adapter"]
    assert (tmp_path / "adapter" / WEIGHTS_NAME).read_bytes() == before
    assert json.loads((tmp_path / "adapter" / CONFIG_NAME).read_text())["peft_type"] == "LORA"
