"""Rows of many runs into micro-batches of about equal tokens, whatever run they belong to.

One optimizer step of a pack has K x batch_size sequences. Sorted by length and cut by padded tokens, they need almost
no padding, and the activations of one forward pass stay bounded; gradients add up, so each run's own batch is what it
was.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rankwise.data.examples import TokenizedExample


@dataclass(frozen=True)
class Row:
    """One sequence of one slot."""

    slot: int
    example: TokenizedExample
    position: int = 0
    """Place in its run's own batch, or in the split that is scored."""
    num_shared: int = 0
    """Leading tokens that are computed apart, once for all rows of the slot that begin with them."""

    @property
    def num_tokens(self) -> int:
        """Of the whole sequence."""
        return len(self.example.input_ids)

    @property
    def num_own_tokens(self) -> int:
        """From where it begins to differ."""
        return self.num_tokens - self.num_shared

    @property
    def prefix(self) -> tuple[int, ...]:
        return tuple(self.example.input_ids[: self.num_shared].tolist())


@dataclass(frozen=True)
class MicroBatch:
    """Rows of similar length without their shared prefixes, padded on the right to the longest."""

    rows: tuple[Row, ...]
    input_ids_NT: torch.Tensor
    answer_NT: torch.Tensor
    """True at answer tokens."""
    slots_N: torch.Tensor

    @property
    def num_padding_tokens(self) -> int:
        return self.input_ids_NT.numel() - sum(row.num_own_tokens for row in self.rows)


def cut_micro_batches(rows: Sequence[Row], max_tokens: int) -> list[list[Row]]:
    """Rows sorted by their own length, longest first, cut so that rows x longest <= max_tokens (one row may exceed it).

    Example: lengths [5, 3, 5, 2] and max_tokens 10 -> [[5, 5], [3, 2]].
    """
    ordered = sorted(rows, key=lambda row: -row.num_own_tokens)
    cut: list[list[Row]] = []
    for row in ordered:
        if not cut or (len(cut[-1]) + 1) * cut[-1][0].num_own_tokens > max_tokens:
            cut.append([])
        cut[-1].append(row)
    return cut


def micro_batches(rows: Sequence[Row], max_tokens: int, device: torch.device) -> Iterator[MicroBatch]:
    """The micro-batches of `rows`, as tensors on `device`."""
    for part in cut_micro_batches(rows, max_tokens):
        yield to_micro_batch(part, device)


def to_micro_batch(rows: Sequence[Row], device: torch.device) -> MicroBatch:
    """`rows` without their shared prefixes, padded on the right to the longest."""
    shape = (len(rows), max(row.num_own_tokens for row in rows))
    # Any id will do for padding: nothing real attends to it and no loss is taken from it.
    ids = np.zeros(shape, dtype=np.int64)
    answer = np.zeros(shape, dtype=bool)
    for n, row in enumerate(rows):
        ids[n, : row.num_own_tokens] = row.example.input_ids[row.num_shared :]
        answer[n, row.example.num_prompt_tokens - row.num_shared : row.num_own_tokens] = True
    return MicroBatch(
        rows=tuple(rows),
        input_ids_NT=torch.from_numpy(ids).to(device),
        answer_NT=torch.from_numpy(answer).to(device),
        slots_N=torch.tensor([row.slot for row in rows], device=device),
    )
