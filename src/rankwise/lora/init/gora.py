"""GoRA: `down` drawn as by `kaiming`, `up` so that their product is about one step down the gradient (He et al.,
arXiv:2502.12171).

With G the mean gradient of the frozen weight and A = `down`, the best `up` for A in least squares is G A⁺, with A⁺ the
pseudo-inverse; G A⁺ A has about sqrt(rank / in) of G's norm. So

    scale · up · down = - STEP · sqrt(in / rank) · G A⁺ A

changes the weight by about STEP times its gradient, whatever the rank: the factor of the authors' code with its option
`gora_scale_by_lr` (MyTransformers, common/lora_modules/gora.py), with the sign of descent. The base weight stays, so
the model before the first step is not the base model. GoRA's other half, ranks from |W ⊙ G|, is the strategy `gora`.
"""

import math

import torch

from rankwise.lora.init.drawn import kaiming
from rankwise.lora.init.rule import Matrices, SiteStart

STEP = 5e-2
"""Length of the step in units of the gradient, an option of the authors' code; ports of it use this value."""


def gora(start: SiteStart) -> Matrices:
    assert start.measured is not None
    down, _ = kaiming(start)
    inverse_DR = torch.linalg.pinv(torch.from_numpy(down).double())
    growth = math.sqrt(start.site.in_features / start.rank)
    up_FR = start.measured.cpu().double() @ inverse_DR * (-STEP * growth / start.scale)
    return down, up_FR.float().numpy()
