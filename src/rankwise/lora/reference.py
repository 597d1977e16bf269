"""The packed layer written like the paper: one row at a time, no padding, no batching. For tests only.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv:2106.09685, equation 3.
"""

from collections.abc import Sequence

import torch


def reference_forward(
    base_FD: torch.Tensor,
    bias_F: torch.Tensor | None,
    x_NTD: torch.Tensor,
    slots: Sequence[int],
    downs: Sequence[torch.Tensor],
    ups: Sequence[torch.Tensor],
    scales: Sequence[float],
) -> torch.Tensor:
    """W x + b + scale · up · down · x for each row, with its own slot's down (r, D), up (F, r) and scale."""
    outputs = []
    for x_TD, slot in zip(x_NTD, slots, strict=True):
        y_TF = x_TD @ base_FD.T
        if bias_F is not None:
            y_TF = y_TF + bias_F
        outputs.append(y_TF + scales[slot] * (x_TD @ downs[slot].T @ ups[slot].T))
    return torch.stack(outputs)
