"""One frozen linear layer shared by K adapters: the packed layer that everything else exists to feed.

K = slots, N = rows (sequences) of a micro-batch, T = tokens of a row, M = answer tokens of all rows, D = inputs, F =
outputs, R = largest rank of any slot at this site.

    y = base(x);  low = (x · down[slot]ᵀ) ⊙ gate[slot];  y += low · up[slot]ᵀ          slot (N,), gate = scale x active

`gate` (K, R) carries a slot's scale at its active components and zero elsewhere. A slot of smaller rank is padded with
components whose down, up and gate are zero; their gradients are zero, so they stay zero. `lora/reference.py` says the
same in a slow loop; the tests compare the two.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rankwise.errors import ModelError


@dataclass
class RowSlots:
    """Which slot each row of the forward pass under way belongs to; shared by all packed layers of a model."""

    slots_N: torch.Tensor | None = None
    dropout_masks: "DropoutMasks | None" = None


class DropoutMasks:
    """Source of one pass's dropout masks; see `rankwise.lora.dropout`."""

    def mask(self, site: str, x_NTD: torch.Tensor) -> torch.Tensor:
        """Multipliers (N, T, D): 0 where dropped, 1 / (1 - p) where kept."""
        raise NotImplementedError


@dataclass(frozen=True)
class SiteTensors:
    """Views of one site's part of a pack's adapters; gradients are summed into `grad_*` by the backward pass."""

    down_KRD: torch.Tensor
    up_KFR: torch.Tensor
    gate_KR: torch.Tensor
    grad_down_KRD: torch.Tensor
    grad_up_KFR: torch.Tensor


class _AddLowRank(torch.autograd.Function):
    """y + low · upᵀ, with weight gradients summed straight into the pack's gradient buffer.

    Autograd would accumulate into the flat buffer through one full-size zero tensor per view; summing here costs only
    the rows that are there. `index_add_` keeps slots apart, so a NaN in one slot reaches no other (a one-hot matrix
    product would spread it: 0 x NaN is NaN).
    """

    @staticmethod
    def forward(
        ctx: Any,
        y_NTF: torch.Tensor,
        x_NTD: torch.Tensor,
        anchor: torch.Tensor,
        site: SiteTensors,
        slots_N: torch.Tensor,
    ) -> torch.Tensor:
        gate_N1R = site.gate_KR.index_select(0, slots_N).unsqueeze(1)
        low_NTR = torch.bmm(x_NTD, site.down_KRD.index_select(0, slots_N).transpose(1, 2)).mul_(gate_N1R)
        ctx.save_for_backward(x_NTD, low_NTR, gate_N1R, slots_N)
        ctx.site = site
        # In place, behind autograd's back: no layer's backward pass needs the base's own output, and an announced
        # change of a view would cost three copies of its gradient.
        y_NTF.detach().baddbmm_(low_NTR, site.up_KFR.index_select(0, slots_N).transpose(1, 2))
        return y_NTF

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad_NTF,) = grads
        x_NTD, low_NTR, gate_N1R, slots_N = ctx.saved_tensors
        site: SiteTensors = ctx.site
        grad_low_NTR = torch.bmm(grad_NTF, site.up_KFR.index_select(0, slots_N)).mul_(gate_N1R)
        _sum_rows(site.grad_up_KFR, slots_N, torch.bmm(grad_NTF.transpose(1, 2), low_NTR))
        _sum_rows(site.grad_down_KRD, slots_N, torch.bmm(grad_low_NTR.transpose(1, 2), x_NTD))
        grad_x = None
        if ctx.needs_input_grad[1]:
            grad_x = torch.bmm(grad_low_NTR, site.down_KRD.index_select(0, slots_N))
        return grad_NTF, grad_x, None, None, None


class _AddLowRankOfTokens(torch.autograd.Function):
    """The same where only some tokens of each row are left: at an output head.

    One slot after the other: a gathered matrix per row is F x R large, and here F is a vocabulary.
    """

    @staticmethod
    def forward(
        ctx: Any,
        y_MF: torch.Tensor,
        x_MD: torch.Tensor,
        anchor: torch.Tensor,
        site: SiteTensors,
        slots_M: torch.Tensor,
    ) -> torch.Tensor:
        low_MR = x_MD.new_zeros(len(x_MD), site.gate_KR.shape[1])
        for slot, tokens in _tokens_of_slots(slots_M):
            low = (x_MD[tokens] @ site.down_KRD[slot].T).mul_(site.gate_KR[slot])
            low_MR[tokens] = low
            y_MF.detach().index_add_(0, tokens, low @ site.up_KFR[slot].T)
        ctx.save_for_backward(x_MD, low_MR, slots_M)
        ctx.site = site
        return y_MF

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad_MF,) = grads
        x_MD, low_MR, slots_M = ctx.saved_tensors
        site: SiteTensors = ctx.site
        grad_x_MD = torch.zeros_like(x_MD)
        for slot, tokens in _tokens_of_slots(slots_M):
            grad = grad_MF[tokens]
            grad_low = (grad @ site.up_KFR[slot]).mul_(site.gate_KR[slot])
            site.grad_up_KFR[slot] += (grad.T @ low_MR[tokens]).to(site.grad_up_KFR.dtype)
            site.grad_down_KRD[slot] += (grad_low.T @ x_MD[tokens]).to(site.grad_down_KRD.dtype)
            grad_x_MD[tokens] = grad_low @ site.down_KRD[slot]
        return grad_MF, grad_x_MD, None, None, None


def _tokens_of_slots(slots_M: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """Each slot that is there with the places of its tokens."""
    for slot in slots_M.unique().tolist():
        yield slot, (slots_M == slot).nonzero()[:, 0]


def _sum_rows(total: torch.Tensor, slots_N: torch.Tensor, rows: torch.Tensor) -> None:
    total.index_add_(0, slots_N, rows.to(total.dtype))


class PackedLinear(nn.Module):
    """`base` with the adapters of K slots added; each row uses its own slot's.

    Works over any module that maps (..., D) to (..., F): `nn.Linear`, GPT-2's `Conv1D`, bitsandbytes' 8- and 4-bit
    layers. The base is only called, never looked into.
    """

    def __init__(self, name: str, base: nn.Module, site: SiteTensors, anchor: torch.Tensor, rows: RowSlots) -> None:
        super().__init__()
        self.name = name
        self.base = base
        self.site = site
        self.anchor = anchor
        self.rows = rows
        self.positions_NT: torch.Tensor | None = None
        """While set, the layer computes these positions alone: (N, T, D) to (M, F). For an output head, by
        `answer_token_losses`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.positions_NT is not None:
            return self._at_positions(x, self.positions_NT)
        y = self.base(x)
        slots_N = self.rows.slots_N
        if slots_N is None:
            return y
        x_NTD = self._by_row(x, len(slots_N))
        if self.rows.dropout_masks is not None:
            x_NTD = x_NTD * self.rows.dropout_masks.mask(self.name, x_NTD)
        y_NTF = y.view(*x_NTD.shape[:2], y.shape[-1])
        return _AddLowRank.apply(y_NTF, x_NTD, self.anchor, self.site, slots_N).view(y.shape)

    def _at_positions(self, x_NTD: torch.Tensor, positions_NT: torch.Tensor) -> torch.Tensor:
        x_MD = x_NTD[positions_NT]
        y_MF: torch.Tensor = self.base(x_MD)
        slots_N = self.rows.slots_N
        if slots_N is None:
            return y_MF
        if self.rows.dropout_masks is not None:
            x_MD = x_MD * self.rows.dropout_masks.mask(self.name, x_NTD)[positions_NT]
        slots_M = slots_N[positions_NT.nonzero()[:, 0]]
        added_MF: torch.Tensor = _AddLowRankOfTokens.apply(y_MF, x_MD, self.anchor, self.site, slots_M)
        return added_MF

    def _by_row(self, x: torch.Tensor, num_rows: int) -> torch.Tensor:
        """x as (N, T, D); some models flatten rows and tokens into one axis before their MLP."""
        if x.dim() == 3 and x.shape[0] == num_rows:
            return x
        if x.dim() == 2 and x.shape[0] % num_rows == 0:
            return x.view(num_rows, -1, x.shape[-1])
        raise ModelError(
            f"{self.name} was called with an input of shape {tuple(x.shape)} in a pass of {num_rows} sequences, so its "
            "rows cannot be told apart (a mixture of experts routes tokens, for example). Leave it out of targets."
        )
