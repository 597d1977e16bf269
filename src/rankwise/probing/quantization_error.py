"""What quantizing a layer's weight changes, at the whole model: of the weight itself, and of what the layer computes.

    weight error = |W - Q(W)| / |W|          output error = |(W - Q(W)) x| / |W x|, over the tokens x of probe batches

Frobenius norms. The inputs are those of the whole model, so an error is the layer's own and not passed on from the
layers before it. Nothing is held but one layer's matrices.

N = rows, T = tokens, M = tokens that count, D = inputs, F = outputs.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from rankwise.allocation.sites import Site, SiteKind
from rankwise.probing.batch import ProbeBatch
from rankwise.probing.weights import weight_of

Quantize = Callable[[torch.Tensor], torch.Tensor]
"""A weight (F, D) in float32 there and back: what its quantized form stands for."""


@dataclass(frozen=True, kw_only=True)
class SiteError:
    """Relative errors of one layer."""

    site: str
    kind: SiteKind
    layer: int
    weight_error_frac: float
    output_error_frac: float | None
    """None where no token reached the layer."""


@torch.no_grad()
def quantization_errors(
    model: PreTrainedModel, sites: Sequence[Site], batches: Iterable[ProbeBatch], quantize: Quantize
) -> list[SiteError]:
    """Both errors of every site, in order. The model is whole, and stays as it is."""
    changed_sq, whole_sq = dict.fromkeys([s.name for s in sites], 0.0), dict.fromkeys([s.name for s in sites], 0.0)
    for batch in batches:
        with _watched(model, sites, batch, quantize, changed_sq, whole_sq):
            batch.loss()
    return [
        SiteError(
            site=site.name,
            kind=site.kind,
            layer=site.layer,
            weight_error_frac=_relative(weight_of(model, site), quantize),
            output_error_frac=(changed_sq[site.name] / whole_sq[site.name]) ** 0.5 if whole_sq[site.name] else None,
        )
        for site in sites
    ]


def _relative(weight_FD: torch.Tensor, quantize: Quantize) -> float:
    return float((weight_FD - quantize(weight_FD)).norm() / weight_FD.norm())


@contextmanager
def _watched(
    model: PreTrainedModel,
    sites: Sequence[Site],
    batch: ProbeBatch,
    quantize: Quantize,
    changed_sq: dict[str, float],
    whole_sq: dict[str, float],
) -> Iterator[None]:
    """Within, every call of a site adds to the squared norms of its outputs and of their change."""

    def watch(site: Site) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def before_forward(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            rows = args[0].flatten(0, -2)
            chosen = batch.real_NT.flatten()
            x_MD = (rows[chosen] if len(rows) == len(chosen) else rows).float()
            weight_FD = weight_of(model, site)
            whole_sq[site.name] += float((x_MD @ weight_FD.T).square().sum())
            changed_sq[site.name] += float((x_MD @ (weight_FD - quantize(weight_FD)).T).square().sum())

        return before_forward

    hooks = [model.get_submodule(site.name).register_forward_pre_hook(watch(site)) for site in sites]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
