"""Errors of quantized layers against the definition: the quantized model itself, and inputs caught by hand."""

import pytest
import torch

pytest.importorskip("bitsandbytes", reason="needs the extra `quant`")

from functools import partial

from rankwise.models.quantization import requantize
from rankwise.models.sites import find_sites
from rankwise.probing.batch import ProbeBatch
from rankwise.probing.quantization_error import quantization_errors
from rankwise.probing.weights import weight_of
from rankwise.study.config import BaseSettings
from tests.quantized import FORMS, quantized_model, whole_model

IDS = torch.tensor([[5, 9, 33, 2, 2], [7, 1, 8, 40, 3]])
REAL = torch.tensor([[True, True, True, False, False], [True] * 5])


@pytest.mark.parametrize("name", ["llama", "gpt2", "odd"])
@pytest.mark.parametrize("form", ["int8", "nf4", "nf4-single", "fp4"])
def test_errors_are_those_of_the_quantized_model(tmp_path, form, name):
    whole, quantized = whole_model(name), quantized_model(tmp_path, form, name)
    sites = find_sites(whole)
    inputs: dict[str, torch.Tensor] = {}
    for site in sites:
        whole.get_submodule(site.name).register_forward_pre_hook(
            lambda _module, args, site=site: inputs.__setitem__(site.name, args[0].flatten(0, -2)[REAL.flatten()])
        )

    def loss() -> torch.Tensor:
        return whole(IDS).logits.sum()

    batch = ProbeBatch(loss=loss, real_NT=REAL, answer_NT=REAL)
    errors = quantization_errors(whole, sites, [batch], partial(requantize, BaseSettings(**FORMS[form])))
    assert [error.site for error in errors] == [site.name for site in sites]
    for site, error in zip(sites, errors, strict=True):
        exact, held, x = weight_of(whole, site), weight_of(quantized, site), inputs[site.name]
        assert error.weight_error_frac == pytest.approx(float((exact - held).norm() / exact.norm()), rel=1e-4)
        changed, right = x @ (exact - held).T, x @ exact.T
        assert error.output_error_frac == pytest.approx(float(changed.norm() / right.norm()), rel=1e-3)


def test_a_layer_that_no_token_reaches_has_no_output_error(tmp_path):
    whole = whole_model("llama")
    (error, *_) = quantization_errors(
        whole, find_sites(whole), [], partial(requantize, BaseSettings(quantization="nf4"))
    )
    assert error.output_error_frac is None
    assert 0.05 < error.weight_error_frac < 0.15
