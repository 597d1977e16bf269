"""LoRA dropout drawn from each run's own stream, so a run drops the same entries in any pack, slot or padding.

N = rows, T = tokens of the longest row, D = inputs of the site.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rankwise.lora.packed_linear import DropoutMasks
from rankwise.streams import stream


@dataclass(frozen=True)
class RowDraw:
    """What one row's masks depend on."""

    seed: int
    step: int
    row_in_batch: int
    num_tokens: int
    dropout: float


class RowDropout(DropoutMasks):
    """Masks of one micro-batch; each entry depends only on (seed, step, row in its own batch, site)."""

    def __init__(self, rows: Sequence[RowDraw]) -> None:
        self.rows = rows

    def mask(self, site: str, x_NTD: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros_like(x_NTD)
        for n, row in enumerate(self.rows):
            rng = stream(row.seed, "dropout", row.step, row.row_in_batch, site)
            kept = rng.random((row.num_tokens, x_NTD.shape[-1]), dtype="float32") >= row.dropout
            mask[n, : row.num_tokens] = torch.from_numpy(kept).to(mask) / (1 - row.dropout)
        return mask
