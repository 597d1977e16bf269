"""Rows of a pack through the model: prefixes that a slot's rows share once, the rest in micro-batches of mixed slots.

N = rows of a micro-batch, G = prefixes computed together.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from transformers import PreTrainedModel

from rankwise.data.batches import MicroBatch, Row, to_micro_batch
from rankwise.lora.pack import AdapterPack
from rankwise.lora.packed_linear import DropoutMasks
from rankwise.models.answer_loss import TokenLosses, answer_token_losses
from rankwise.models.prefix_cache import PrefixCache
from rankwise.packing.passes import cut_passes

DropoutOf = Callable[[MicroBatch], DropoutMasks | None]


def token_losses(
    model: PreTrainedModel,
    pack: AdapterPack | None,
    rows: Sequence[Row],
    *,
    max_tokens: int,
    dropout: DropoutOf = lambda _batch: None,
) -> Iterator[tuple[MicroBatch, TokenLosses]]:
    """The answer-token losses of all rows, micro-batch by micro-batch.

    In training, call backward on each micro-batch's loss before asking for the next one: behind the last micro-batch
    of a prefix the iterator sends the summed gradients through the prefix. Blocks that are checkpointed run again in
    the backward passes, so the rows' slots stay in place until then. `pack` None is the bare base model.
    `max_tokens` bounds the padded tokens of one pass, and those of the prefixes held at a time.
    """
    device = next(model.parameters()).device
    for group in cut_passes(rows, max_tokens):
        cache = _prefix_cache(model, pack, group.prefix, group.slots, device) if group.prefix else None
        place_of = {slot: place for place, slot in enumerate(group.slots)}
        for part in group.micro_batches:
            batch = to_micro_batch(part, device)
            past = None
            if cache is not None:
                places = [place_of[row.slot] for row in batch.rows]
                past = cache.for_rows(torch.tensor(places, device=device))
            with _slots(pack, batch.slots_N, dropout(batch)):
                yield batch, answer_token_losses(model, batch.input_ids_NT, batch.answer_NT, past=past)
        if cache is not None and torch.is_grad_enabled():
            with _slots(pack, torch.tensor(group.slots, device=device), None):
                cache.backward()


def _prefix_cache(
    model: PreTrainedModel,
    pack: AdapterPack | None,
    prefix: tuple[int, ...],
    slots: Sequence[int],
    device: torch.device,
) -> PrefixCache:
    ids_GP = torch.tensor([prefix], device=device).expand(len(slots), -1)
    with _slots(pack, torch.tensor(slots, device=device), None):
        return PrefixCache(model, ids_GP)


def _slots(pack: AdapterPack | None, slots_N: torch.Tensor, masks: DropoutMasks | None) -> AbstractContextManager[None]:
    return nullcontext() if pack is None else pack.active_rows(slots_N, masks)
