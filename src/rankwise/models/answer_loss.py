"""Loss of answer tokens, with the vocabulary projection computed for their positions only.

N = rows, T = padded length, M = answer tokens of the whole batch, V = vocabulary.

Rows are padded on the right. A decoder's position never looks to its right, so real tokens cannot see the padding and
no attention mask is needed.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional
from transformers import Cache, PreTrainedModel


@dataclass(frozen=True)
class TokenLosses:
    """Per answer token, rows in order."""

    loss_M: torch.Tensor
    """Cross-entropy in nats, float32, with gradient."""
    correct_M: torch.Tensor
    """Whether the token was the most probable one."""
    confidence_M: torch.Tensor
    """Probability of the most probable token, float32."""
    row_M: torch.Tensor
    """Row of each token."""


def answer_token_losses(
    model: PreTrainedModel, input_ids_NT: torch.Tensor, answer_NT: torch.Tensor, *, past: Cache | None = None
) -> TokenLosses:
    """Cross-entropy of every token marked in `answer_NT` (bool), given the tokens before it.

    The positions are selected in front of the output head, whatever the model computes around it (soft-capping,
    scaling), so a vocabulary of V costs M x V instead of N x T x V. The first column of `answer_NT` must be False:
    nothing comes before it. `past` holds what comes before the rows, where a prefix is computed apart.
    """
    predicts_NT = torch.zeros_like(answer_NT)
    predicts_NT[:, :-1] = answer_NT[:, 1:]
    with _OnlyPositions(model, predicts_NT):
        logits_MV = model(input_ids=input_ids_NT, past_key_values=past, use_cache=past is not None).logits
    targets_M = input_ids_NT[answer_NT]
    logits_MV = logits_MV.float()
    loss_M = functional.cross_entropy(logits_MV, targets_M, reduction="none")
    found_MV, top_M = logits_MV.detach(), logits_MV.detach().argmax(dim=-1)
    # log p(top) = log p(target) + logit(top) - logit(target), without another pass over the vocabulary
    lead_M = (found_MV.gather(1, top_M[:, None]) - found_MV.gather(1, targets_M[:, None]))[:, 0]
    confidence_M = (lead_M - loss_M.detach()).exp()
    return TokenLosses(loss_M, top_M == targets_M, confidence_M, answer_NT.nonzero()[:, 0])


class _OnlyPositions:
    """While open, the model's output head computes the marked positions alone: (M, V).

    An adapted head must know to which row each position belongs, so it is told; any other sees (M, D).
    """

    def __init__(self, model: PreTrainedModel, positions_NT: torch.Tensor) -> None:
        self._head = model.get_output_embeddings()
        self._positions_NT = positions_NT

    def __enter__(self) -> None:
        if hasattr(self._head, "positions_NT"):
            self._head.positions_NT = self._positions_NT
        else:
            self._hook = self._head.register_forward_pre_hook(lambda _, args: (args[0][self._positions_NT], *args[1:]))

    def __exit__(self, *_: object) -> None:
        if hasattr(self._head, "positions_NT"):
            self._head.positions_NT = None
        else:
            self._hook.remove()
