"""The gradient signal: how strongly the loss pulls at each frozen weight matrix.

N = rows, T = tokens, D = inputs, F = outputs, L = sites.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from rankwise.allocation.sites import Site


def gradient_rms(model: nn.Module, sites: Sequence[Site], losses: Iterable[Callable[[], torch.Tensor]]) -> np.ndarray:
    """Root mean square of dLoss/dW per site, averaged over the batches: (L,) float64.

    The mean over entries, not the norm, because a norm grows with the size of the matrix and would favour the widest
    layers whatever they do (with grouped-query attention it moved one group from 35 % to 91 %, see docs/log.md).

    Each of `losses` runs one batch and returns its mean loss. No weight is ever set to require a gradient: dW is
    gradient-of-output^T x input, summed in hooks, so quantized bases work and memory is one matrix at a time.
    """
    modules = {site.name: model.get_submodule(site.name) for site in sites}
    rms_sums = dict.fromkeys(modules, 0.0)
    num_batches = 0
    for loss in losses:
        gradients = _WeightGradients(model, modules)
        with gradients:
            loss().backward()
        for name, gradient_FD in gradients.sums.items():
            rms_sums[name] += float(gradient_FD.square().mean().sqrt())
        num_batches += 1
    return np.array([rms_sums[site.name] / num_batches for site in sites])


class _WeightGradients:
    """While open, sums dLoss/dW of each module over all its calls."""

    def __init__(self, model: PreTrainedModel, modules: dict[str, nn.Module]) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self._model = model
        self._modules = modules
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> None:
        # With every weight frozen, autograd starts where something requires grad: at the embeddings' output.
        embeddings = self._model.get_input_embeddings()
        self._hooks.append(embeddings.register_forward_hook(lambda _module, _args, output: output.requires_grad_()))
        for name, module in self._modules.items():
            self._hooks.append(module.register_forward_hook(self._watch(name)))

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _watch(self, name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        def on_forward(_module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            x = args[0].detach()
            output.register_hook(lambda grad: self._add(name, grad, x))

        return on_forward

    def _add(self, name: str, grad: torch.Tensor, x: torch.Tensor) -> None:
        gradient_FD = grad.flatten(0, -2).float().T @ x.flatten(0, -2).float()
        self.sums[name] = self.sums[name] + gradient_FD if name in self.sums else gradient_FD
