"""Gradient signals against autograd's own gradient of the weights, for every family of layers."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rankwise.allocation.sites import Signal
from rankwise.models.gradient_checkpointing import checkpointed_blocks
from rankwise.models.sites import find_sites
from rankwise.probing.batch import ProbeBatch
from rankwise.probing.gradient import mean_gradients
from rankwise.probing.measure import measure
from tests.families import FAMILIES, family, random_prompts

BATCHES = [torch.from_numpy(np.stack(random_prompts([7] * 3, seed))) for seed in range(3)]
SCALARS = (Signal.GRADIENT_RMS, Signal.FISHER, Signal.GRADIENT_SENSITIVITY)


def probe_batches(model: PreTrainedModel, batches: Sequence[torch.Tensor] = BATCHES) -> list[ProbeBatch]:
    everywhere = torch.ones(3, 7, dtype=torch.bool)
    return [
        ProbeBatch(lambda ids=ids: model(input_ids=ids, labels=ids).loss, everywhere, everywhere) for ids in batches
    ]


def autograd_gradients(name: str) -> list[dict[str, torch.Tensor]]:
    """Each batch's own gradient of each weight, outputs first."""
    model = family(name).requires_grad_(True)
    modules = {site.name: model.get_submodule(site.name) for site in find_sites(model)}
    found = []
    for batch in probe_batches(model):
        model.zero_grad()
        batch.loss().backward()
        found.append({n: m.weight.grad.T if isinstance(m, Conv1D) else m.weight.grad for n, m in modules.items()})
        model.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_each_signal_is_what_autograd_gives(name):
    model = family(name)
    sites = find_sites(model)
    found = measure(model, sites, probe_batches(model), SCALARS).values
    by_batch = autograd_gradients(name)
    for place, site in enumerate(sites):
        gradients = torch.stack([gradients[site.name] for gradients in by_batch])
        weight = model.get_submodule(site.name).weight
        weight = weight.T if isinstance(model.get_submodule(site.name), Conv1D) else weight
        squares = gradients.square().mean(dim=(1, 2))
        expected = {
            Signal.GRADIENT_RMS: squares.sqrt().mean(),
            Signal.FISHER: squares.mean(),
            Signal.GRADIENT_SENSITIVITY: (weight * gradients.mean(dim=0)).abs().mean(),
        }
        for signal, value in expected.items():
            assert found[signal].dtype == np.float64
            assert found[signal][place] == pytest.approx(value.item(), rel=1e-4), (signal, site.name)
            assert found[signal][place] > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_the_mean_gradient_is_autograds(name):
    model = family(name)
    sites = find_sites(model)
    found = mean_gradients(model, sites, probe_batches(model))
    by_batch = autograd_gradients(name)
    assert list(found) == [site.name for site in sites]
    for site in sites:
        expected = torch.stack([gradients[site.name] for gradients in by_batch]).mean(dim=0)
        assert found[site.name].shape == (site.out_features, site.in_features)
        torch.testing.assert_close(found[site.name], expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("name", FAMILIES)
def test_gradient_checkpointing_changes_no_bit_and_shows_no_input_twice(name):
    model = family(name)
    sites, signals = find_sites(model), [*SCALARS, Signal.GRADIENT_SPECTRUM, Signal.ACTIVATION_VARIANCE]

    def checkpointed(ids: torch.Tensor) -> torch.Tensor:
        with checkpointed_blocks(model):
            return model(input_ids=ids, labels=ids, use_cache=False).loss

    everywhere = torch.ones(3, 7, dtype=torch.bool)
    batches = [ProbeBatch(lambda ids=ids: checkpointed(ids), everywhere, everywhere) for ids in BATCHES]
    plain, again = measure(model, sites, probe_batches(model), signals), measure(model, sites, batches, signals)
    assert all(np.array_equal(plain.values[signal], again.values[signal]) for signal in signals)


def test_gpt2_is_measured_on_transposed_weights():
    model = family("gpt2")
    assert isinstance(model.get_submodule(find_sites(model)[0].name), Conv1D)


def test_a_layer_that_runs_twice_is_summed_over_its_calls():
    def shared() -> PreTrainedModel:
        model = family("llama")
        model.model.layers[1].mlp.up_proj = model.model.layers[0].mlp.up_proj
        return model

    model, reference = shared(), shared().requires_grad_(True)
    sites = [site for site in find_sites(model) if site.name == "model.layers.0.mlp.up_proj"]
    (found,) = mean_gradients(model, sites, probe_batches(model, BATCHES[:1])).values()
    probe_batches(reference, BATCHES[:1])[0].loss().backward()
    torch.testing.assert_close(found, reference.model.layers[0].mlp.up_proj.weight.grad, rtol=1e-4, atol=1e-8)


def hooks(model: PreTrainedModel) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("name", FAMILIES)
def test_the_model_is_left_as_it_was(name):
    model = family(name)
    before = hooks(model)
    measure(model, find_sites(model), probe_batches(model), Signal)
    assert hooks(model) == before
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())
    assert not model(input_ids=BATCHES[0]).logits.requires_grad


def test_the_model_is_left_as_it_was_after_an_error():
    model = family("llama")

    def fail() -> torch.Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        measure(model, find_sites(model), [ProbeBatch(fail, BATCHES[0] > 0, BATCHES[0] > 0)], Signal)
    assert hooks(model) == 0
    assert not model(input_ids=BATCHES[0]).logits.requires_grad
