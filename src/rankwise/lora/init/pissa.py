"""PiSSA: adapters start as the principal part of the frozen weight, which is taken off it (Meng et al.,
arXiv:2404.02948, equations 2 and 3).

W = U S Vᵀ; scale · up · down is the part of the largest `rank` singular values, shared out evenly between both
matrices. The same matrices as PEFT's `init_lora_weights="pissa"`, whose base weight becomes W - scale · up · down; here
W stays and frozen copies of both matrices are subtracted.
"""

import torch

from rankwise.lora.init.rule import Matrices, SiteStart


def pissa(start: SiteStart) -> Matrices:
    assert start.measured is not None
    u_FK, s_K, v_KD = torch.linalg.svd(start.measured, full_matrices=False)
    root_R = (s_K[: start.rank] / start.scale).sqrt()
    down_RD, up_FR = root_R[:, None] * v_KD[: start.rank], u_FK[:, : start.rank] * root_R
    return down_RD.cpu().numpy(), up_FR.contiguous().cpu().numpy()
