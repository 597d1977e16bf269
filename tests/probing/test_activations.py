"""Principal components of the inputs: batch by batch as all at once, against numpy, torch and PEFT's IncrementalPCA."""

import numpy as np
import pytest
import torch
from peft.utils.incremental_pca import IncrementalPCA

from rankwise.models.sites import find_sites
from rankwise.probing.activations import ActivationSpectrum, activation_spectra, extend
from rankwise.probing.batch import ProbeBatch
from tests.families import FAMILIES, family, random_prompts

WIDTH = 24


def drawn(*num_rows: int, seed: int = 0) -> list[torch.Tensor]:
    """Rows whose variance falls off steeply from direction to direction, about a mean that is not zero."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((WIDTH, WIDTH)) * 0.7 ** np.arange(WIDTH)[:, None]
    shift = rng.standard_normal(WIDTH)
    return [torch.from_numpy(rng.standard_normal((num, WIDTH)) @ mix + shift).float() for num in num_rows]


def fold(batches: list[torch.Tensor], num_components: int) -> ActivationSpectrum:
    found = None
    for rows in batches:
        found = extend(found, rows, num_components=num_components)
    assert found is not None
    return found


def exact(batches: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows = torch.cat(batches).double()
    _, values, vectors = torch.linalg.svd(rows - rows.mean(dim=0), full_matrices=False)
    return values, vectors, values.square() / values.square().sum()


@pytest.mark.parametrize("num_rows", [(60,), (3, 50, 7), (1, 1, 40), (5, 4)])
def test_batch_by_batch_is_the_svd_of_all_batches_together(num_rows):
    batches = drawn(*num_rows)
    found, (values, vectors, ratios) = fold(batches, WIDTH), exact(batches)
    num = min(WIDTH, sum(num_rows) - 1)
    assert found.num_rows == sum(num_rows)
    torch.testing.assert_close(found.values_K[:num].double(), values[:num], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.ratios_K[:num].double(), ratios[:num], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(found.mean_D, torch.cat(batches).mean(dim=0), rtol=1e-4, atol=1e-5)
    alike = (found.vectors_KD[:6].double() * vectors[:6]).sum(dim=1).abs()
    torch.testing.assert_close(alike, torch.ones(6, dtype=torch.float64), rtol=1e-4, atol=0)


def test_cut_to_few_components_it_stays_close_to_the_whole():
    batches = drawn(40, 40, 40, 40)
    found, (_, vectors, ratios) = fold(batches, 8), exact(batches)
    assert found.values_K.shape == (8,)
    torch.testing.assert_close(found.ratios_K[:4].double(), ratios[:4], rtol=0.02, atol=0)
    assert ((found.vectors_KD[:3].double() * vectors[:3]).sum(dim=1).abs() > 0.999).all()
    assert found.ratios_K.sum() <= 1


@pytest.mark.parametrize("num_components", [4, 10, WIDTH])
def test_it_is_pefts_incremental_pca(num_components):
    batches = drawn(30, 25, 41)
    found, peft = fold(batches, num_components), IncrementalPCA(n_components=num_components)
    for rows in batches:
        peft.partial_fit(rows)
    torch.testing.assert_close(found.ratios_K.double(), peft.explained_variance_ratio_.double(), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(found.vectors_KD[:4], peft.components_[:4].float(), rtol=1e-3, atol=1e-4)


def test_inputs_that_never_change_explain_nothing():
    found = fold([torch.full((5, WIDTH), 2.0)] * 2, 4)
    assert found.ratios_K.tolist() == [0.0] * 4


def batch_of(model, ids, answer):
    return ProbeBatch(lambda: model(input_ids=ids, labels=ids).loss, torch.ones_like(answer), answer)


@pytest.mark.parametrize("name", FAMILIES)
def test_each_site_sees_its_own_inputs_at_answer_tokens(name):
    model = family(name)
    sites = find_sites(model)
    batches = [torch.from_numpy(np.stack(random_prompts([9] * 3, seed))) for seed in range(3)]
    answers = [torch.arange(9) >= torch.tensor([[2], [4], [5]])] * 3
    seen: dict[str, list[torch.Tensor]] = {site.name: [] for site in sites}
    hooks = [
        model.get_submodule(site.name).register_forward_hook(
            lambda _module, args, _output, name=site.name: seen[name].append(args[0])
        )
        for site in sites
    ]
    for ids in batches:
        model(input_ids=ids)
    for hook in hooks:
        hook.remove()
    probed = [batch_of(model, *pair) for pair in zip(batches, answers, strict=True)]
    found = activation_spectra(model, sites, probed, 64)
    assert list(found) == [site.name for site in sites]
    for site in sites:
        rows = [x.reshape(3, 9, -1)[answer] for x, answer in zip(seen[site.name], answers, strict=True)]
        assert found[site.name].num_rows == sum(map(len, rows)) == 48
        values, _, ratios = exact(rows)
        num = min(site.in_features, 47)  # 48 rows about their mean span 47 directions
        torch.testing.assert_close(found[site.name].values_K[:num].double(), values[:num], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found[site.name].ratios_K[:num].double(), ratios[:num], rtol=1e-3, atol=1e-6)


def test_layers_that_read_the_same_tensor_share_one_decomposition():
    model = family("llama")
    sites = find_sites(model)
    ids = torch.from_numpy(np.stack(random_prompts([9] * 3, 0)))
    found = activation_spectra(model, sites, [batch_of(model, ids, ids >= 0)] * 2, 4)
    block = {name.removeprefix("model.layers.1."): spectrum for name, spectrum in found.items() if ".1." in name}
    assert block["self_attn.q_proj"] is block["self_attn.k_proj"] is block["self_attn.v_proj"]
    assert block["mlp.gate_proj"] is block["mlp.up_proj"]
    assert len({id(spectrum) for spectrum in block.values()}) == 4


def test_no_gradient_is_computed_and_no_hook_stays():
    model = family("llama")
    ids = torch.from_numpy(np.stack(random_prompts([9] * 3, 0)))
    grad_modes = []

    def loss() -> torch.Tensor:
        grad_modes.append(torch.is_grad_enabled())
        return model(input_ids=ids, labels=ids).loss

    activation_spectra(model, find_sites(model), [ProbeBatch(loss, ids >= 0, ids >= 0)], 4)
    assert grad_modes == [False]
    assert not any(module._forward_pre_hooks for module in model.modules())
