"""Whole exports: from an adapter folder to files that other tools load, or to nothing at all."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel, PreTrainedModel

from rankwise.allocation.rank_map import Scaling
from rankwise.allocation.strategies import STRATEGIES
from rankwise.errors import AdapterError, ModelError
from rankwise.execution import export as module
from rankwise.execution.export import EXPORT_NAME, ExportOptions, check_adapter, export_adapter
from rankwise.execution.run_study import run_study
from rankwise.execution.same_logits import sample_ids
from rankwise.execution.study_options import StudyOptions
from rankwise.ledger import open_ledger
from rankwise.lora.init import INITS
from rankwise.lora.peft_folder import CONFIG_NAME, WEIGHTS_NAME, write_peft_folder
from rankwise.study import parse_study
from tests.families import FAMILIES, family, mixed_rank_map, random_pack
from tests.lora.foreign import CONFIGS, write_foreign
from tests.lora.test_saved_adapter import edit
from tests.models.conftest import save_tiny_model
from tests.tiny import tiny_llama

KINDS = ("peft", "baked", "merged")
SCALINGS = {
    "alpha_over_r": Scaling(alpha=4.0),
    "rslora": Scaling(rule="rslora", alpha=3.0),
    "constant": Scaling(rule="constant", scale=0.7),
}


def save_base(folder: Path, model: PreTrainedModel) -> Path:
    """A model with the tokenizer of the tiny one; its vocabulary is smaller than any model's here."""
    save_tiny_model(folder)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_base(tmp_path_factory.mktemp("export") / "base", family("llama"))


@pytest.fixture
def adapter(base, tmp_path) -> Path:
    """Uneven ranks and scales, as a strategy makes them."""
    return write_mixed(tmp_path / "adapter", base, SCALINGS["rslora"])


def write_mixed(folder: Path, base: Path, scaling: Scaling, ranks: tuple[int, ...] = (1, 3, 2)) -> Path:
    model = AutoModelForCausalLM.from_pretrained(base).requires_grad_(False)
    rank_map = mixed_rank_map(model, scaling, ranks)
    pack = random_pack(model, [rank_map])
    write_peft_folder(folder, rank_map, pack.tensors(0), base_name=str(base))
    return folder


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=sample_ids(model)).logits


def loaded_logits(folder: Path, base: Path) -> torch.Tensor:
    """As a user would load it."""
    if (folder / "config.json").is_file():
        return logits(AutoModelForCausalLM.from_pretrained(folder))
    return logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", SCALINGS)
def test_every_form_gives_the_logits_of_the_original(rule, kind, base, tmp_path):
    adapter = write_mixed(tmp_path / "adapter", base, SCALINGS[rule])
    exported = export_adapter(adapter, ExportOptions(kind=kind, out=tmp_path / "out"))
    expected, bare = loaded_logits(adapter, base), logits(AutoModelForCausalLM.from_pretrained(base))
    torch.testing.assert_close(loaded_logits(tmp_path / "out", base), expected, atol=1e-5, rtol=1e-5)
    assert exported.max_logit_difference <= exported.allowed_difference
    assert exported.adapter_effect == pytest.approx(float((expected - bare).abs().max()), rel=1e-4)
    assert exported.adapter_effect > 0.1
    assert exported.num_layers == 14
    assert names(tmp_path) == ["adapter", "out"]


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "llama"])
def test_every_family_in_every_form(name, kind, tmp_path):
    base = save_base(tmp_path / "base", family(name))
    adapter = write_mixed(tmp_path / "adapter", base, SCALINGS["constant"])
    export_adapter(adapter, ExportOptions(kind=kind, out=tmp_path / "out"))
    expected = loaded_logits(adapter, base)
    torch.testing.assert_close(loaded_logits(tmp_path / "out", base), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CONFIGS)
def test_foreign_adapters_in_every_form(name, kind, base, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(base)
    adapter = write_foreign(tmp_path / "adapter", model, **CONFIGS[name])
    export_adapter(adapter, ExportOptions(kind=kind, out=tmp_path / "out"))
    expected = loaded_logits(adapter, base)
    torch.testing.assert_close(loaded_logits(tmp_path / "out", base), expected, atol=1e-5, rtol=1e-5)


EVERYTHING = """
name: everything
hypothesis: Whatever can be trained can be exported.
base: {{model: {folder}, dtype: float32}}
data: {{source: skills, max_tokens: 128, train: 12, validation: 2, test: 2}}
budget: {{rank: 2}}
train: {{epochs: 2, batch_size: 2, learning_rates: [1.0e-2]}}
seeds: [0]
compare: {{baseline: uniform}}
arms:
"""


def all_arms() -> dict[str, str]:
    """Every strategy, init and scaling rule of the tables, in YAML's flow form."""
    strategies = {name: f"{{name: {name}, strategy: {name}}}" for name in STRATEGIES}
    inits = {f"init-{name}": f"{{name: init-{name}, strategy: linear_decay, init: {name}}}" for name in INITS}
    rules = {
        f"scaling-{name}": f"{{name: scaling-{name}, strategy: linear_growth, scaling: {{rule: {name}}}}}"
        for name in ("alpha_over_r", "rslora", "constant")
    }
    return strategies | inits | rules


@pytest.fixture(scope="module")
def trained(small_model, tmp_path_factory) -> dict[str, Path]:
    """The adapter of one run of each arm, as a study leaves it."""
    folder = tmp_path_factory.mktemp("everything")
    text = EVERYTHING.format(folder=small_model) + "".join(f"  - {arm}\n" for arm in all_arms().values())
    study = parse_study(text, origin="everything.yaml")
    with open_ledger(f"sqlite:///{folder}/rankwise.db") as ledger:
        results = run_study(study, ledger, StudyOptions(out=folder))
    assert {run.status for run in results.runs} == {"finished"}
    return {run.arm: folder / "adapters" / run.id for run in results.runs}


@pytest.mark.parametrize("kind", ["peft", "baked"])
@pytest.mark.parametrize("arm", all_arms())
def test_every_strategy_init_and_scaling_can_be_exported(arm, kind, trained, small_model, tmp_path):
    exported = export_adapter(trained[arm], ExportOptions(kind=kind, out=tmp_path / "out"))
    assert exported.adapter_effect > 1e-4
    torch.testing.assert_close(
        loaded_logits(tmp_path / "out", small_model), loaded_logits(trained[arm], small_model), atol=1e-5, rtol=1e-5
    )
    if kind == "baked":
        assert {verdict.outcome for verdict in exported.runtimes} == {"exact"}


def test_layers_of_rank_zero_stay_bare(base, tmp_path):
    adapter = write_mixed(tmp_path / "adapter", base, SCALINGS["constant"], ranks=(0, 2, 4))
    exported = export_adapter(adapter, ExportOptions(kind="baked", out=tmp_path / "out"))
    assert exported.rank == 4
    assert exported.num_layers < 14
    torch.testing.assert_close(
        loaded_logits(tmp_path / "out", base), loaded_logits(adapter, base), atol=1e-5, rtol=1e-5
    )


def test_a_baked_adapter_takes_the_largest_rank_or_a_larger_one(adapter, tmp_path):
    assert export_adapter(adapter, ExportOptions(kind="baked", out=tmp_path / "a")).rank == 3
    exported = export_adapter(adapter, ExportOptions(kind="baked", out=tmp_path / "b", rank=8))
    flat = load_file(tmp_path / "b" / WEIGHTS_NAME)
    assert exported.rank == 8
    assert exported.params == sum(value.size for value in flat.values())
    assert {value.shape[0] for key, value in flat.items() if "lora_A" in key} == {8}
    with pytest.raises(AdapterError, match=r"--rank 2 is below rank 3 of model\.layers"):
        export_adapter(adapter, ExportOptions(kind="baked", out=tmp_path / "c", rank=2))
    assert "c" not in names(tmp_path)


def test_a_merged_folder_is_a_whole_model(adapter, base, tmp_path):
    exported = export_adapter(adapter, ExportOptions(kind="merged", out=tmp_path / "out"))
    assert not any(name.startswith("adapter_") for name in names(tmp_path / "out"))
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("one two").input_ids == [3, 4]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.float32
    assert exported.runtimes == ()
    assert (exported.rank, exported.params) == (None, 0)


def test_merging_in_a_smaller_format_is_checked_against_the_rounded_weights(adapter, tmp_path):
    exported = export_adapter(adapter, ExportOptions(kind="merged", out=tmp_path / "out", dtype="bfloat16"))
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.bfloat16
    assert exported.allowed_difference is None
    assert 1e-4 < exported.max_logit_difference < exported.adapter_effect
    assert 0 < exported.rounding_error_frac < 0.2


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_a_tied_head_is_untied_when_its_adapter_is_merged(tmp_path):
    model = tiny_llama()
    model.config.tie_word_embeddings = True
    model.tie_weights()
    base = save_base(tmp_path / "base", model)
    adapter = write_foreign(
        tmp_path / "adapter", AutoModelForCausalLM.from_pretrained(base), target_modules=["lm_head"]
    )
    exported = export_adapter(adapter, ExportOptions(kind="merged", out=tmp_path / "out"))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert not merged.config.tie_word_embeddings
    assert torch.equal(merged.model.embed_tokens.weight, model.model.embed_tokens.weight)
    assert exported.adapter_effect > 0.1
    baked = export_adapter(adapter, ExportOptions(kind="baked", out=tmp_path / "baked"))
    assert {v.runtime: v.outcome for v in baked.runtimes}["llama.cpp"] == "refused"


def test_gpt2_is_exported_and_the_runtimes_that_cannot_take_it_are_named(tmp_path):
    base = save_base(tmp_path / "base", family("gpt2"))
    assert isinstance(AutoModelForCausalLM.from_pretrained(base), GPT2LMHeadModel)
    adapter = write_mixed(tmp_path / "adapter", base, SCALINGS["constant"])
    exported = export_adapter(adapter, ExportOptions(kind="baked", out=tmp_path / "out"))
    outcomes = {verdict.runtime: verdict.outcome for verdict in exported.runtimes}
    assert outcomes == {"PEFT": "exact", "vLLM": "refused", "llama.cpp": "refused", "SGLang": "refused"}


def test_the_folder_says_what_it_was_made_of_and_how_it_was_verified(adapter, tmp_path):
    (adapter / "rankwise.json").write_text("{}")
    with pytest.raises(AdapterError, match=r"rankwise\.json"):
        export_adapter(adapter, ExportOptions(kind="baked", out=tmp_path / "out"))
    (adapter / "rankwise.json").unlink()
    exported = export_adapter(adapter, ExportOptions(kind="baked", out=tmp_path / "out"))
    record = json.loads((tmp_path / "out" / EXPORT_NAME).read_text())
    assert record["adapter"] == str(adapter)
    assert record["max_logit_difference"] == exported.max_logit_difference
    assert record["runtimes"][0]["runtime"] == "PEFT"
    assert exported.files == {
        name: (tmp_path / "out" / name).stat().st_size for name in names(tmp_path / "out") if name != EXPORT_NAME
    }


def test_an_export_can_be_exported_again(adapter, base, tmp_path):
    export_adapter(adapter, ExportOptions(kind="baked", out=tmp_path / "baked", rank=8))
    export_adapter(tmp_path / "baked", ExportOptions(kind="merged", out=tmp_path / "merged"))
    torch.testing.assert_close(
        loaded_logits(tmp_path / "merged", base), loaded_logits(adapter, base), atol=1e-5, rtol=1e-5
    )


def test_the_base_is_named_as_it_is_found_here_or_as_wished(adapter, base, tmp_path, monkeypatch):
    monkeypatch.chdir(base.parent)
    edit(adapter, base_model_name_or_path="base")
    exported = export_adapter(adapter, ExportOptions(kind="peft", out=tmp_path / "a"))
    assert exported.base_model == str(base)
    export_adapter(adapter, ExportOptions(kind="peft", out=tmp_path / "b", base_name="org/model"))
    assert json.loads((tmp_path / "b" / CONFIG_NAME).read_text())["base_model_name_or_path"] == "org/model"


def test_a_base_can_be_given_where_the_adapter_names_none(adapter, base, tmp_path):
    edit(adapter, base_model_name_or_path=None)
    with pytest.raises(AdapterError, match="--model"):
        export_adapter(adapter, ExportOptions(kind="peft", out=tmp_path / "a"))
    exported = export_adapter(adapter, ExportOptions(kind="peft", out=tmp_path / "a", model=str(base)))
    assert exported.base_model == str(base)


def refused(adapter: Path, out: Path, error: type[Exception] = AdapterError, **options) -> str:
    """The message; and nothing was left where the export would have been."""
    before = names(out.parent)
    with pytest.raises(error) as raised:
        export_adapter(adapter, ExportOptions(**{"kind": "baked", "out": out, **options}))
    assert names(out.parent) == before
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_nothing_but_an_export_is_replaced_and_that_only_when_asked(adapter, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    (tmp_path / "file").write_text("x")
    assert "no export" in refused(adapter, tmp_path / "thesis", replace=True)
    assert "is a file" in refused(adapter, tmp_path / "file", replace=True)
    (tmp_path / "out").mkdir()
    export_adapter(adapter, ExportOptions(kind="baked", out=tmp_path / "out"))
    assert "--replace" in refused(adapter, tmp_path / "out")
    exported = export_adapter(adapter, ExportOptions(kind="merged", out=tmp_path / "out", replace=True))
    assert set(names(tmp_path / "out")) == {*exported.files, EXPORT_NAME}
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"


def test_an_adapter_is_never_written_over_itself(adapter, tmp_path):
    export_adapter(adapter, ExportOptions(kind="baked", out=tmp_path / "out"))
    before = names(tmp_path / "out")
    for out in (tmp_path / "out", tmp_path):
        with pytest.raises(AdapterError, match="is, or holds, the adapter"):
            export_adapter(tmp_path / "out", ExportOptions(kind="peft", out=out, replace=True))
    assert names(tmp_path / "out") == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_base_of_another_size_or_family_is_refused(kind, adapter, tmp_path):
    other = tiny_llama().config
    other.intermediate_size = 40
    save_base(tmp_path / "wide", type(tiny_llama())(other))
    message = refused(adapter, tmp_path / "out", kind=kind, model=str(tmp_path / "wide"))
    assert "does not fit" in message
    save_base(tmp_path / "gpt2", family("gpt2"))
    assert "no layer" in refused(adapter, tmp_path / "out", kind=kind, model=str(tmp_path / "gpt2"))


def test_a_base_that_is_not_there(adapter, tmp_path):
    edit(adapter, base_model_name_or_path="/gone/model")
    assert "/gone/model" in refused(adapter, tmp_path / "out")
    assert "no folder nowhere" in refused(adapter, tmp_path / "out", ModelError, model="./nowhere")


def test_a_quantized_base_cannot_be_merged_into(adapter, base, tmp_path):
    save_base(tmp_path / "quantized", family("llama"))
    config = tmp_path / "quantized" / "config.json"
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"quantization_config": {"quant_method": "bitsandbytes"}})
    )
    message = refused(adapter, tmp_path / "out", kind="merged", model=str(tmp_path / "quantized"))
    assert "quantized" in message
    assert "--to peft" in message


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_folders_leave_nothing(kind, adapter, tmp_path):
    path = adapter / WEIGHTS_NAME
    good, flat = path.read_bytes(), load_file(path)
    key = next(key for key in flat if "lora_B" in key)
    save_file(flat | {key: flat[key] * float("nan")}, path)
    assert "NaN" in refused(adapter, tmp_path / "out", kind=kind)
    save_file(flat | {key: flat[key][:5].copy()}, path)
    assert "does not fit" in refused(adapter, tmp_path / "out", kind=kind)
    path.write_bytes(good[:50])
    assert "damaged" in refused(adapter, tmp_path / "out", kind=kind)
    path.unlink()
    (adapter / "adapter_model.bin").write_bytes(b"\x80\x04")
    assert "run code" in refused(adapter, tmp_path / "out", kind=kind)
    (adapter / CONFIG_NAME).unlink()
    assert "not an adapter folder" in refused(adapter, tmp_path / "out", kind=kind)


def test_a_wrong_scale_in_the_files_is_found_before_they_are_put_in_place(adapter, tmp_path, monkeypatch):
    bake = module.bake

    def doubled(layers, rank):
        return tuple(type(layer)(**{**vars(layer), "up_Fr": 2 * layer.up_Fr}) for layer in bake(layers, rank))

    monkeypatch.setattr(module, "bake", doubled)
    message = refused(adapter, tmp_path / "out")
    assert "logits differ" in message
    assert "removed" in message


def test_a_merged_folder_that_cannot_be_read_again_is_removed(adapter, tmp_path, monkeypatch):
    def forget(model, folder):
        model.config.num_hidden_layers = 3
        PreTrainedModel.save_pretrained(model, folder)

    monkeypatch.setattr(type(family("llama")), "save_pretrained", forget)
    assert "it lacks model.layers.2" in refused(adapter, tmp_path / "out", kind="merged")


def test_an_adapter_that_does_nothing_is_exported_with_an_effect_of_zero(adapter, tmp_path):
    flat = load_file(adapter / WEIGHTS_NAME)
    save_file({key: 0 * value if "lora_B" in key else value for key, value in flat.items()}, adapter / WEIGHTS_NAME)
    for kind in ("baked", "merged"):
        exported = export_adapter(adapter, ExportOptions(kind=kind, out=tmp_path / kind))
        assert exported.adapter_effect == exported.max_logit_difference == 0


def test_a_full_disk_leaves_the_old_export(adapter, tmp_path, monkeypatch):
    export_adapter(adapter, ExportOptions(kind="baked", out=tmp_path / "out"))
    before = (tmp_path / "out" / WEIGHTS_NAME).read_bytes()

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert "No space left" in refused(adapter, tmp_path / "out", kind="peft", replace=True)
    monkeypatch.undo()
    assert (tmp_path / "out" / WEIGHTS_NAME).read_bytes() == before


def test_checking_writes_nothing_and_reads_no_weights_of_the_base(adapter, base, tmp_path):
    (tmp_path / "bare").mkdir()
    for file in base.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / "bare" / file.name).write_bytes(file.read_bytes())
    before = names(tmp_path)
    checked = check_adapter(adapter, str(tmp_path / "bare"))
    assert names(tmp_path) == before
    assert checked.ranks == (1, 2, 3)
    outcomes = {verdict.runtime: verdict.outcome for verdict in checked.runtimes}
    assert outcomes == {"PEFT": "exact", "vLLM": "wrong scale", "llama.cpp": "wrong scale", "SGLang": "refused"}


def test_checking_goes_on_without_a_base_unless_one_was_given(adapter):
    edit(adapter, base_model_name_or_path="/gone/model")
    assert all("not at hand" in verdict.notes[-1] for verdict in check_adapter(adapter).runtimes)
    with pytest.raises(ModelError):
        check_adapter(adapter, "./nowhere")
