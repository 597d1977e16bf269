"""Principal components of what enters each site, from one pass over the batches.

Incremental singular value decomposition with mean correction (Ross et al., "Incremental Learning for Robust Visual
Tracking", IJCV 2008), as EVA uses it (Paischer et al., arXiv:2410.07170) and as in scikit-learn's and PEFT's
IncrementalPCA. Each batch is appended to what is known, `values * vectors`, and the whole is cut to K components again.
Where K covers all directions that occurred the result is that of all batches at once; below, it is close to it.

Cost per batch and distinct input: one decomposition of (K + M + 1, D). Held: K x D float32 per distinct input.

M = rows of a batch, D = inputs of a site, K = components.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from transformers import PreTrainedModel

from rankwise.allocation.sites import Site
from rankwise.probing.batch import ProbeBatch
from rankwise.probing.inputs import InputStatistics, watched_inputs


@dataclass(frozen=True, eq=False)
class ActivationSpectrum:
    """The leading principal components of one site's inputs, largest first; at most K of them."""

    values_K: torch.Tensor
    """Singular values of the centred inputs, float32."""
    vectors_KD: torch.Tensor
    """Right singular vectors, orthonormal rows; the entry of largest size is positive in each, as in PEFT."""
    mean_D: torch.Tensor
    num_rows: int
    total: float
    """Sum of squares of all centred inputs: what all singular values together would add up to, squared."""

    @property
    def ratios_K(self) -> torch.Tensor:
        """Explained variance ratios: the share of the inputs' variance that each component carries."""
        return self.values_K.square() / self.total if self.total > 0 else torch.zeros_like(self.values_K)


def activation_spectra(
    model: PreTrainedModel, sites: Sequence[Site], batches: Iterable[ProbeBatch], num_components: int
) -> dict[str, ActivationSpectrum]:
    """The leading principal components of each site's inputs at answer tokens, by site name.

    Answer tokens only, as PEFT's `use_label_mask`. Forward passes alone; no gradient is computed. A site that was
    never called (an expert that no token chose) is missing.
    """
    spectra = activation_statistics(num_components)
    modules = {site.name: model.get_submodule(site.name) for site in sites}
    for batch in batches:
        with torch.no_grad(), watched_inputs(modules, [spectra], batch):
            batch.loss()
    return {site.name: spectra.states[site.name] for site in sites if site.name in spectra.states}


def activation_statistics(num_components: int) -> InputStatistics[ActivationSpectrum]:
    """What `activation_spectra` folds the inputs into."""
    return InputStatistics(partial(extend, num_components=num_components), lambda batch: batch.answer_NT)


def extend(before: ActivationSpectrum | None, rows_MD: torch.Tensor, *, num_components: int) -> ActivationSpectrum:
    """The spectrum of all rows so far, cut to `num_components`; `before` None: of `rows_MD` alone."""
    num_rows = len(rows_MD)
    mean_D = rows_MD.mean(dim=0)
    centred_MD = rows_MD - mean_D
    total = float(centred_MD.double().square().sum())
    if before is not None:
        # Two groups about their own means, and the shift between the means as one more row.
        both = before.num_rows + num_rows
        shift_D = (before.mean_D - mean_D) * (before.num_rows * num_rows / both) ** 0.5
        centred_MD = torch.cat([before.values_K[:, None] * before.vectors_KD, centred_MD, shift_D[None]])
        total += before.total + float(shift_D.double().square().sum())
        mean_D = (before.mean_D * before.num_rows + mean_D * num_rows) / both
        num_rows = both
    _, values_K, vectors_KD = torch.linalg.svd(centred_MD, full_matrices=False)
    values_K, vectors_KD = values_K[:num_components], vectors_KD[:num_components]
    largest_K1 = vectors_KD.abs().argmax(dim=1, keepdim=True)
    return ActivationSpectrum(values_K, vectors_KD * vectors_KD.gather(1, largest_K1).sign(), mean_D, num_rows, total)
