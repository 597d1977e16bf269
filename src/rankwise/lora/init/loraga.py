"""LoRA-GA: the first step of the adapter follows the gradient of the frozen weight (Wang et al., arXiv:2407.05000).

G = U S Vᵀ is the weight's mean gradient. `down` is the right singular vectors 1 to r, `up` the left ones r + 1 to 2r
times their singular values and out^(1/4) / sqrt(γ), γ = 16: PEFT's `LoraGAConfig()` (direction ArB2r, scale stable),
which keeps the singular values where the paper leaves them out. PEFT takes scale · up · down off the base weight; here
it stays and frozen copies of both matrices are subtracted.
"""

import torch

from rankwise.errors import AllocationError
from rankwise.lora.init.rule import Matrices, SiteStart

STABLE_GAMMA = 16


def loraga(start: SiteStart) -> Matrices:
    """Raises AllocationError where the gradient has fewer than 2 x rank directions."""
    assert start.measured is not None
    site, rank = start.site, start.rank
    if 2 * rank > site.max_rank:
        raise AllocationError(
            f"init loraga: {site.name} ({site.in_features} x {site.out_features}) was given rank {rank}, which needs "
            f"{2 * rank} singular vectors of its gradient, and there are {site.max_rank}. Set budget.max_rank to "
            f"{site.max_rank // 2} or less, or use another init."
        )
    u_FK, s_K, v_KD = torch.linalg.svd(start.measured, full_matrices=False)
    factor = site.out_features**0.25 / STABLE_GAMMA**0.5
    up_FR = u_FK[:, rank : 2 * rank] * s_K[rank : 2 * rank] * factor
    return v_KD[:rank].contiguous().cpu().numpy(), up_FR.contiguous().cpu().numpy()
