"""Muon in the parameters' own precision: momentum whose matrix is orthogonalised before each update.

Jordan et al., https://kellerjordan.github.io/posts/muon/ (2024). `torch.optim.Muon` computes the orthogonalisation in
bfloat16, which on a CPU without bfloat16 instructions is about 70 times slower than float32 (docs/log.md); this is
the same update without that cast, and a test holds it against torch's.
"""

import math
from collections.abc import Iterable

import torch

# Quintic Newton-Schulz coefficients of the post above, chosen there for the steepest slope at zero.
NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrix: torch.Tensor, num_iterations: int = 5) -> torch.Tensor:
    """An approximately orthogonal matrix with the singular vectors of `matrix` (M, N)."""
    a, b, c = NEWTON_SCHULZ_COEFFICIENTS
    transposed = matrix.size(0) > matrix.size(1)
    x = matrix.T if transposed else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(num_iterations):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if transposed else x


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum, decoupled weight decay and the post's shape factor sqrt(max(1, rows / columns))."""

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        *,
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is None:
                    continue
                state = self.state[param]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(param)
                buffer = state["momentum_buffer"].lerp_(param.grad, 1 - group["momentum"])
                update = orthogonalize(param.grad.lerp(buffer, group["momentum"]))
                param.mul_(1 - group["lr"] * group["weight_decay"])
                param.add_(update, alpha=-group["lr"] * math.sqrt(max(1.0, param.size(0) / param.size(1))))
