"""The gradient signal against autograd's own gradient of the weights."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rankwise.models.sites import find_sites
from rankwise.probing.gradient import gradient_rms
from tests.families import FAMILIES, family, random_prompts

BATCHES = [torch.from_numpy(np.stack(random_prompts([7] * 3, seed))) for seed in range(3)]


def losses(model: PreTrainedModel, batches: Sequence[torch.Tensor] = BATCHES) -> list[Callable[[], torch.Tensor]]:
    return [lambda ids=ids: model(input_ids=ids, labels=ids).loss for ids in batches]


def autograd_rms(name: str) -> list[float]:
    """Mean over the batches of each weight's own root mean square gradient."""
    model = family(name).requires_grad_(True)
    names = [site.name for site in find_sites(model)]
    totals = np.zeros(len(names))
    for loss in losses(model):
        model.zero_grad()
        loss().backward()
        totals += [float(model.get_submodule(n).weight.grad.square().mean().sqrt()) for n in names]
    return (totals / len(BATCHES)).tolist()


@pytest.mark.parametrize("name", FAMILIES)
def test_it_is_the_gradient_of_each_weight(name):
    model = family(name)
    found = gradient_rms(model, find_sites(model), losses(model))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, autograd_rms(name), rtol=1e-4)
    assert (found > 0).all()


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
    (found,) = gradient_rms(model, sites, losses(model, BATCHES[:1]))
    losses(reference, BATCHES[:1])[0]().backward()
    expected = reference.model.layers[0].mlp.up_proj.weight.grad.square().mean().sqrt()
    assert found == pytest.approx(expected.item(), rel=1e-4)


def hooks(model: PreTrainedModel) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("name", FAMILIES)
def test_the_model_is_left_as_it_was(name):
    model = family(name)
    before = hooks(model)
    gradient_rms(model, find_sites(model), losses(model))
    assert hooks(model) == before
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())
    assert not model(input_ids=BATCHES[0]).logits.requires_grad


def test_the_model_is_left_as_it_was_after_an_error():
    model = family("llama")

    def fail() -> torch.Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        gradient_rms(model, find_sites(model), [fail])
    assert hooks(model) == 0
    assert not model(input_ids=BATCHES[0]).logits.requires_grad
