"""Gradients of the loss with respect to frozen weights, batch by batch.

No weight is ever set to require a gradient: dLoss/dW is gradient-of-output^T x input, summed in hooks. So quantized
bases work, and what is held is float32 whatever the base is. One batch's gradients of all sites are held at a time: the
size of the adapted weights in float32, and twice that where a mean over batches is asked for.

N = rows, T = tokens, D = inputs, F = outputs.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from rankwise.allocation.sites import Site
from rankwise.probing.batch import ProbeBatch


def mean_gradients(
    model: PreTrainedModel, sites: Sequence[Site], batches: Iterable[ProbeBatch]
) -> dict[str, torch.Tensor]:
    """dLoss/dW of every site, averaged over the batches: float32 (F, D) by name, for GPT-2's `Conv1D` too.

    The mean of the gradients of each batch's own mean loss, as LoRA-GA (arXiv:2407.05000) and GoRA (arXiv:2502.12171)
    accumulate it. Zero for a site that was never called (an expert that no token chose).
    """
    sums: dict[str, torch.Tensor] = {}
    num_batches = 0
    for gradients in batch_gradients(model, sites, batches):
        add_to(sums, gradients)
        num_batches += 1

    def mean(site: Site) -> torch.Tensor:
        if site.name not in sums:
            return torch.zeros(site.out_features, site.in_features, device=model.device)
        return sums[site.name] / num_batches

    return {site.name: mean(site) for site in sites}


def batch_gradients(
    model: PreTrainedModel, sites: Sequence[Site], batches: Iterable[ProbeBatch]
) -> Iterator[dict[str, torch.Tensor]]:
    """dLoss/dW of every site for one batch after the other: float32 (F, D) by name."""
    modules = {site.name: model.get_submodule(site.name) for site in sites}
    for batch in batches:
        with weight_gradients(model, modules) as gradients:
            batch.loss().backward()
        yield gradients


def add_to(sums: dict[str, torch.Tensor], gradients: dict[str, torch.Tensor]) -> None:
    """Adds `gradients` to `sums` in place."""
    for name, gradient_FD in gradients.items():
        if name in sums:
            sums[name] += gradient_FD
        else:
            sums[name] = gradient_FD.clone()


@contextmanager
def weight_gradients(model: PreTrainedModel, modules: dict[str, nn.Module]) -> Iterator[dict[str, torch.Tensor]]:
    """Within, backward passes sum dLoss/dW of each module over all its calls into the dict, float32 (F, D).

    Where no gradient reaches a module its matrix is zero.
    """
    gradients: dict[str, torch.Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor]:
        def on_forward(_module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
            x = args[0]
            total_FD = gradients.setdefault(name, torch.zeros(output.shape[-1], x.shape[-1], device=x.device))
            watched: torch.Tensor = _AddWeightGradient.apply(output, x, total_FD)
            return watched

        return on_forward

    with ExitStack() as hooks:
        # With every weight frozen, autograd starts where something requires grad: at the embeddings' output.
        embeddings = model.get_input_embeddings()
        hooks.enter_context(
            _removing(embeddings.register_forward_hook(lambda _module, _args, output: output.requires_grad_()))
        )
        for name, module in modules.items():
            hooks.enter_context(_removing(module.register_forward_hook(watch(name))))
        yield gradients


class _AddWeightGradient(torch.autograd.Function):
    """Hands a layer's output on; in the backward pass adds its weight's gradient to `total_FD`.

    The input is kept by autograd's own means, so that gradient checkpointing spares it too.
    """

    @staticmethod
    def forward(ctx: Any, output: torch.Tensor, x: torch.Tensor, total_FD: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.total_FD = total_FD
        return output

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (x,) = ctx.saved_tensors
        ctx.total_FD += grads[0].flatten(0, -2).float().T @ x.flatten(0, -2).float()
        return grads[0], None, None


@contextmanager
def _removing(hook: torch.utils.hooks.RemovableHandle) -> Iterator[None]:
    try:
        yield
    finally:
        hook.remove()
