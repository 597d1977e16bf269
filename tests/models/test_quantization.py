"""Quantized weights: which layers have them, what they compute, and what is refused."""

import importlib.util
import json
import shutil
from importlib.metadata import version

import pytest
import torch
from transformers import BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from rankwise.errors import ModelError
from rankwise.models import quantization
from rankwise.models.dtype import resolve_settings
from rankwise.models.load import load_base, load_skeleton
from rankwise.models.quantization import quantization_config
from rankwise.models.sites import find_sites
from rankwise.probing.weights import weight_of
from rankwise.study.config import BaseSettings
from tests.quantized import FORMS, quantized_model, whole_model

CPU = torch.device("cpu")
IDS = torch.tensor([[0, 3, 4, 5, 1]])
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs the extra `quant`"
)


def settings(**values) -> BaseSettings:
    return resolve_settings(BaseSettings(**values), CPU)


@needs_bitsandbytes
def test_quantization_is_asked_for_as_published():
    int8 = quantization_config(settings(quantization="int8", dtype="bfloat16"), CPU)
    nf4 = quantization_config(settings(quantization="nf4", dtype="bfloat16"), CPU)
    assert int8.load_in_8bit
    assert (nf4.bnb_4bit_quant_type, nf4.bnb_4bit_use_double_quant) == ("nf4", True)
    assert nf4.bnb_4bit_compute_dtype == torch.bfloat16
    assert quantization_config(settings(), CPU) is None


@needs_bitsandbytes
def test_settings_of_4_bit_weights_reach_transformers():
    asked = settings(quantization="fp4", double_quantization=False, compute_dtype="float16", dtype="float32")
    fp4 = quantization_config(asked, CPU)
    assert (fp4.bnb_4bit_quant_type, fp4.bnb_4bit_use_double_quant) == ("fp4", False)
    assert fp4.bnb_4bit_compute_dtype == torch.float16


@needs_bitsandbytes
@pytest.mark.parametrize("form", ["int8", "nf4", "fp4"])
def test_layers_of_blocks_are_quantized_and_nothing_else(tiny_folder, form):
    base = load_base(BaseSettings(model=str(tiny_folder), dtype="float32", quantization=form), CPU)
    kind = "Linear8bitLt" if form == "int8" else "Linear4bit"
    names = {name for name, module in base.model.named_modules() if type(module).__name__ == kind}
    whole = load_skeleton(BaseSettings(model=str(tiny_folder)))
    assert names == {site.name for site in find_sites(whole)}
    assert find_sites(base.model) == find_sites(whole)
    assert base.num_params == whole.num_parameters()
    assert base.model.get_output_embeddings().weight.dtype == torch.float32


@needs_bitsandbytes
@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "odd"])
@pytest.mark.parametrize("form", FORMS)
def test_a_quantized_model_computes_with_the_weights_that_are_read_back(tmp_path, form, name):
    """Against the whole model with its weights replaced by them; in both modes, which layers look at."""
    model = quantized_model(tmp_path, form, name)
    plain = whole_model(name)
    for site in find_sites(model):
        weight = weight_of(model, site)
        error = (weight - weight_of(plain, site)).norm() / weight_of(plain, site).norm()
        assert 0.002 < error < (0.02 if form == "int8" else 0.15), site.name
        whole = plain.get_submodule(site.name)
        whole.weight.data.copy_(weight.T if isinstance(whole, Conv1D) else weight)
    for training in (False, True):
        for site in find_sites(model):
            model.get_submodule(site.name).train(training)
        with torch.no_grad():
            difference = model(IDS).logits - plain(IDS).logits
        assert difference.norm() < (0.02 if form.endswith("bfloat16") else 1e-5) * plain(IDS).logits.norm()


@needs_bitsandbytes
@pytest.mark.parametrize("form", ["nf4", "nf4-single", "fp4"])
def test_4_bit_weights_are_read_by_the_definition(tmp_path, form):
    """Codes of the published table times the scale of each block of 64, in the order of memory."""
    from bitsandbytes import functional as bits

    model = quantized_model(tmp_path, form, "odd")
    for site in find_sites(model):
        stored = model.get_submodule(site.name).weight
        state, packed = stored.quant_state, stored.data.flatten()
        places = torch.stack([packed >> 4, packed & 15], dim=1).flatten().long()
        scales = bits.dequantize_blockwise(state.absmax, state.state2) + state.offset if state.nested else state.absmax
        table = bits.get_4bit_type(state.quant_type, device="cpu")
        expected = (table[places] * scales.repeat_interleave(64)[: len(places)]).view(site.out_features, -1)
        assert torch.equal(weight_of(model, site), expected)


@needs_bitsandbytes
def test_rows_of_a_pass_do_not_change_each_other(tmp_path):
    """LLM.int8() would choose the columns it rounds by the largest activation of any row."""
    model = quantized_model(tmp_path, "int8")
    layer = model.model.layers[0].self_attn.q_proj
    rows = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    loud = torch.cat([rows, torch.full((1, 64), 1e4)])
    assert torch.equal(layer(rows), layer(loud)[:3])


@pytest.mark.parametrize("form", ["int8", "nf4", "fp4"])
def test_without_its_package_the_extra_is_named(form, monkeypatch):
    monkeypatch.setattr(quantization.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=rf"base.quantization: {form} needs bitsandbytes.*rankwise\[quant\]"):
        quantization_config(settings(quantization=form), CPU)


@needs_bitsandbytes
def test_an_old_package_is_refused(monkeypatch):
    monkeypatch.setattr(quantization, "version", lambda name: "0.45.0")
    with pytest.raises(ModelError, match=r"needs bitsandbytes 0\.50 or later, and 0\.45\.0 is installed"):
        quantization_config(settings(quantization="int8"), CPU)


@needs_bitsandbytes
def test_a_device_that_the_build_cannot_quantize_for_is_refused(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise RuntimeError("no kernel for this device")

    monkeypatch.setattr("bitsandbytes.functional.quantize_4bit", refuse)
    quantization._check_device.cache_clear()
    with pytest.raises(
        ModelError, match=rf"\({version('bitsandbytes')}\) cannot hold weights as nf4 on cpu.*no kernel"
    ):
        quantization_config(settings(quantization="nf4"), CPU)


@needs_bitsandbytes
def test_forms_that_work_are_named(monkeypatch):
    quantization._check_device.cache_clear()
    assert quantization.working_forms(CPU) == ("int8", "nf4", "fp4")
    monkeypatch.setattr(quantization.importlib.util, "find_spec", lambda name: None)
    assert quantization.working_forms(CPU) == ()


def test_a_model_that_is_stored_quantized_is_refused(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True).to_dict()
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"weights in .* are stored quantized \(bitsandbytes\)"):
        load_base(BaseSettings(model=str(folder)), CPU)
