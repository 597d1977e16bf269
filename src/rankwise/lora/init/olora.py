"""OLoRA: adapters start from the QR decomposition of the frozen weight (Büyükakyüz, arXiv:2406.01775).

W = Q R; `up` is the first `rank` columns of Q, which are orthonormal, and `down` the first rows of R. The same matrices
as PEFT's `init_lora_weights="olora"`, whose base weight becomes W - scale · up · down; here W stays and frozen copies
of both matrices are subtracted.
"""

import torch

from rankwise.lora.init.rule import Matrices, SiteStart


def olora(start: SiteStart) -> Matrices:
    assert start.measured is not None
    q_FK, r_KD = torch.linalg.qr(start.measured)
    down_RD, up_FR = r_KD[: start.rank], q_FK[:, : start.rank]
    return down_RD.contiguous().cpu().numpy(), up_FR.contiguous().cpu().numpy()
