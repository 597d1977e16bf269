"""Spectra of weights and of whitened gradients against torch's own decompositions, and what cannot be read."""

import numpy as np
import pytest
import torch
from torch import nn

from rankwise.allocation.sites import Signal
from rankwise.errors import ModelError
from rankwise.models.load import load_skeleton
from rankwise.models.sites import find_sites
from rankwise.probing.batch import ProbeBatch
from rankwise.probing.gradient import mean_gradients
from rankwise.probing.measure import measure
from rankwise.probing.weights import weight_of, weight_singular_values
from rankwise.probing.whitening import RIDGE
from rankwise.study.config import BaseSettings
from tests.families import FAMILIES, family, random_prompts


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_have_torchs_singular_values(name):
    model = family(name)
    sites = find_sites(model)
    found = weight_singular_values(model, sites)
    assert found.shape == (len(sites), max(site.max_rank for site in sites))
    for row, site in zip(found, sites, strict=True):
        expected = torch.linalg.svdvals(model.get_submodule(site.name).weight.double()).numpy()
        np.testing.assert_allclose(row[: site.max_rank], expected, rtol=1e-9)
        assert not row[site.max_rank :].any()


def test_weights_alone_need_no_batch():
    model = family("llama")
    sites = find_sites(model)

    def fail() -> torch.Tensor:
        raise AssertionError("the model was run")

    everywhere = torch.ones(1, 1, dtype=torch.bool)
    found = measure(model, sites, [ProbeBatch(fail, everywhere, everywhere)], [Signal.WEIGHT_SPECTRUM])
    np.testing.assert_array_equal(found.values[Signal.WEIGHT_SPECTRUM], weight_singular_values(model, sites))


def test_a_half_precision_weight_is_read_in_float32():
    model = family("llama").to(torch.bfloat16)
    weight = weight_of(model, find_sites(model)[0])
    assert weight.dtype == torch.float32
    torch.testing.assert_close(
        weight, family("llama").get_submodule(find_sites(model)[0].name).weight, rtol=1e-2, atol=0
    )


def test_a_skeleton_has_no_weights_to_read():
    model = load_skeleton(BaseSettings(dtype="float32"))
    with pytest.raises(ModelError, match=r"q_proj.*Linear.*meta.*quantization none"):
        weight_singular_values(model, find_sites(model))


class Int8Params(nn.Parameter):
    """Named like bitsandbytes' own, which PEFT recognises by that name."""


def test_packed_numbers_that_nothing_can_read_back_are_refused():
    model = family("llama")
    site = find_sites(model)[0]
    module = model.get_submodule(site.name)
    module.weight = Int8Params(torch.ones(16, 16, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ModelError, match=r"layers\.0\.self_attn\.q_proj.*cannot be read.*bitsandbytes"):
        weight_of(model, site)
    module.weight = nn.Parameter(torch.ones(128, 1, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(ModelError, match=r"\(128, 1\) of torch\.uint8"):
        weight_of(model, site)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_gradient_is_whitened_by_the_second_moment_of_real_tokens(name):
    model, reference = family(name), family(name).requires_grad_(True)
    sites = find_sites(model)
    prompts = [torch.from_numpy(np.stack(random_prompts([9] * 3, seed))) for seed in range(2)]
    real = torch.arange(9) < torch.tensor([[9], [6], [4]])

    def loss(of, ids):
        logits = of(input_ids=ids).logits[:, :-1]
        losses = nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        return losses[real[:, 1:].flatten()].mean()

    batches = [ProbeBatch(lambda ids=ids: loss(model, ids), real, real) for ids in prompts]
    found = measure(model, sites, batches, [Signal.GRADIENT_SPECTRUM]).values[Signal.GRADIENT_SPECTRUM]

    modules = {site.name: reference.get_submodule(site.name) for site in sites}
    inputs: dict[str, list[torch.Tensor]] = {site: [] for site in modules}

    def rows_of(x: torch.Tensor) -> torch.Tensor:
        return x.detach().reshape(3, 9, -1)[real]  # OPT's feed-forward layers read (27, D)

    for site, module in modules.items():
        module.register_forward_hook(lambda _m, args, _o, site=site: inputs[site].append(rows_of(args[0])))
    for ids in prompts:
        loss(reference, ids).backward()
    for row, site in zip(found, sites, strict=True):
        weight = modules[site.name].weight
        gradient = (weight.grad.T if name == "gpt2" else weight.grad) / 2
        rows = torch.cat(inputs[site.name]).double()
        covariance = rows.T @ rows / len(rows)
        covariance += RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
        values, vectors = torch.linalg.eigh(covariance)
        expected = torch.linalg.svdvals(gradient.double() @ (vectors * values.rsqrt()) @ vectors.T)
        num = min(site.max_rank, row.size)
        np.testing.assert_allclose(row[:num], expected[:num].numpy(), rtol=1e-3, atol=1e-5 * float(expected[0]))
        assert not row[num:].any()


def test_signals_measured_together_are_those_measured_apart():
    model = family("llama")
    sites = find_sites(model)
    ids = torch.from_numpy(np.stack(random_prompts([9] * 3, 0)))
    batches = [ProbeBatch(lambda: model(input_ids=ids, labels=ids).loss, ids >= 0, ids > 9)] * 2
    together = measure(model, sites, batches, Signal, num_components=5)
    for signal in Signal:
        apart = measure(model, sites, batches, [signal], num_components=5)
        np.testing.assert_array_equal(together.values[signal], apart.values[signal])
        assert together.values[signal].shape[0] == len(sites)
        assert together.values[signal].ndim == (2 if signal.is_spectrum else 1)
    assert together.values[Signal.ACTIVATION_VARIANCE].shape[1] == 5
    assert together.pass_wall_s > 0
    every = together.wall_s(Signal)
    assert every == pytest.approx(together.pass_wall_s + sum(together.own_wall_s[signal] for signal in Signal))


def test_a_site_that_is_never_called_has_no_signal():
    model = family("llama")
    model.add_module("idle", nn.Linear(16, 16, bias=False))
    sites = find_sites(model, ["q_proj", "idle"])
    ids = torch.from_numpy(np.stack(random_prompts([9] * 3, 0)))
    batch = ProbeBatch(lambda: model(input_ids=ids, labels=ids).loss, ids >= 0, ids >= 0)
    found = measure(model, sites, [batch], [signal for signal in Signal if signal.needs_data], num_components=4).values
    assert [site.name for site in sites][-1] == "idle"
    assert all(not values[-1].any() and values[:-1].any() for values in found.values())
    assert not mean_gradients(model, sites, [batch])["idle"].any()
