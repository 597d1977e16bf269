"""A flat row of weights as `torch.optim.AdamW` steps it: whole, or in parts that have learning-rate factors.

Parts are views of the row, and so are their running averages, so whatever reads the row, its gradient or its averages
sees one tensor either way.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch

Part: TypeAlias = tuple[slice, float]
"""Where a part lies in the row, and what the learning rate is multiplied with there."""

AVERAGES = ("exp_avg", "exp_avg_sq")
"""AdamW's running averages, by the names of its state."""


class SteppedRow:
    """One row with its gradient; `parts` None: the whole row at the run's own learning rate."""

    def __init__(self, weights_P: torch.Tensor, grads_P: torch.Tensor, parts: Sequence[Part] | None = None) -> None:
        self.grads_P = grads_P
        self._device = weights_P.device
        self.parts = _merged(parts) if parts is not None else [(slice(0, len(weights_P)), 1.0)]
        """Neighbours of one factor are one part."""
        self._averages = {name: torch.zeros_like(weights_P) for name in AVERAGES}
        self._parameters = [_parameter(weights_P[where], grads_P[where]) for where, _ in self.parts]

    def groups(self) -> list[dict[str, Any]]:
        """Parameter groups of the optimizer: one per factor, with the factor beside the parameters."""
        by_factor: dict[float, list[torch.nn.Parameter]] = {}
        for parameter, (_, factor) in zip(self._parameters, self.parts, strict=True):
            by_factor.setdefault(factor, []).append(parameter)
        return [{"params": parameters, "factor": factor} for factor, parameters in by_factor.items()]

    def attach(self, optimizer: torch.optim.Optimizer, step: torch.Tensor | None = None) -> None:
        """Make `optimizer` keep its averages in this row's; `step` steps have been taken, None: none."""
        taken = torch.zeros(()) if step is None else step.float().cpu()
        is_fused = bool(optimizer.defaults["fused"])
        for parameter, (where, _) in zip(self._parameters, self.parts, strict=True):
            optimizer.state[parameter] = {
                "step": taken.clone().to(self._device if is_fused else "cpu"),
                **{name: average[where] for name, average in self._averages.items()},
            }

    def averages(self) -> list[torch.Tensor]:
        """The running averages of the gradient and of its square, each (P,)."""
        return list(self._averages.values())

    def tensors(self, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
        """The optimizer's state of this row, for a checkpoint."""
        return {"step": optimizer.state[self._parameters[0]]["step"], **self._averages}

    def restore(self, optimizer: torch.optim.Optimizer, saved: Mapping[str, torch.Tensor]) -> None:
        """The inverse of `tensors`."""
        for name, average in self._averages.items():
            average.copy_(saved[name])
        self.attach(optimizer, saved["step"])


def _merged(parts: Sequence[Part]) -> list[Part]:
    found: list[Part] = []
    for where, factor in parts:
        is_next = bool(found) and found[-1][0].stop == where.start and found[-1][1] == factor
        start = found.pop()[0].start if is_next else where.start
        found.append((slice(start, where.stop), factor))
    return found


def _parameter(values: torch.Tensor, grad: torch.Tensor) -> torch.nn.Parameter:
    parameter = torch.nn.Parameter(values)
    parameter.grad = grad
    return parameter
