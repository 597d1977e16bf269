"""EVA: `down` starts as the directions in which the site's inputs vary most (Paischer et al., arXiv:2410.07170);
`up` is zero, so training starts at the base model.

The directions are the right singular vectors of the centred inputs at answer tokens, of length 1, not whitened: PEFT's
defaults. EVA's other half, the distribution of ranks by explained variance, is the strategy `eva`.
"""

import numpy as np

from rankwise.errors import AllocationError
from rankwise.lora.init.rule import Matrices, SiteStart


def eva(start: SiteStart) -> Matrices:
    """Raises AllocationError where the inputs vary in fewer directions than the site has components."""
    assert start.measured is not None
    if len(start.measured) < start.rank:
        raise AllocationError(
            f"init eva: {start.site.name} was given rank {start.rank}, and the inputs it was measured on vary in "
            f"{len(start.measured)} directions. Set budget.max_rank to {len(start.measured)} or less, raise "
            "train.batch_size or data.train, or use another init."
        )
    down_RD = start.measured[: start.rank].cpu().numpy()
    return down_RD, np.zeros((start.site.out_features, start.rank), dtype=np.float32)
