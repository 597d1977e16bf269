"""Greedy answers of many prompts at once, each row with its own slot's adapter, and whether they are the expected ones.

N = prompts of a batch, T = tokens of the longest prompt, A = generated tokens of the longest answer.

Prompts are padded on the left, so that all answers begin in one column; the attention mask hides the padding.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from rankwise.lora.pack import AdapterPack
from rankwise.models.context import context_tokens


@dataclass(frozen=True)
class Answer:
    """What a model wrote after one prompt."""

    text: str
    num_tokens: int
    """The end token included, where it came to one."""


@torch.no_grad()
def generate_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[np.ndarray],
    *,
    max_new_tokens: int,
    batch_tokens: int,
    pack: AdapterPack | None = None,
    slots: Sequence[int] | None = None,
    on_batch: Callable[[int], None] = lambda _num_prompts: None,
) -> list[Answer]:
    """The most probable token after each prompt, again and again until the end token: one answer per prompt, in order.

    A row that has ended is padded until the last one of its batch has; what it is padded with reaches nobody.

    Args:
        prompts: Token ids, int64 (tokens,) each; at least one token.
        max_new_tokens: An answer that has not ended by then, or that fills the model's context, is cut there.
        batch_tokens: Bound on prompts x (longest prompt + its answer) of one batch; one prompt may exceed it.
        pack: Adapters to generate with; None for the model as it is.
        slots: With `pack`, the slot of each prompt.
        on_batch: Called with the number of prompts that were just answered.
    """
    answers = [Answer("", 0)] * len(prompts)
    for batch, num_new in cut_batches(prompts, max_new_tokens, context_tokens(model), batch_tokens):
        active = _active_rows(pack, [slots[p] for p in batch] if slots is not None else None, model.device)
        with active:
            new_NA = _generate(model, tokenizer, [prompts[p] for p in batch], num_new)
        for place, new_A in zip(batch, new_NA, strict=True):
            answers[place] = _read(tokenizer, new_A)
        on_batch(len(batch))
    return answers


def is_exact_match(answer: str, expected: str) -> bool:
    """Whether an answer is the expected one, white space around it aside."""
    return answer.strip() == expected.strip()


def cut_batches(
    prompts: Sequence[np.ndarray], max_new_tokens: int, context_tokens: int, batch_tokens: int
) -> Iterator[tuple[list[int], int]]:
    """Indices of similarly long prompts, longest first, with the number of tokens that each may generate.

    Near the end of the context only prompts of equal room share a batch, so an answer never depends on its neighbours.
    """
    batch: list[int] = []
    num_new = longest = 0
    for index in sorted(range(len(prompts)), key=lambda p: -len(prompts[p])):
        room = min(max_new_tokens, context_tokens - len(prompts[index]))
        if room <= 0:
            continue
        if batch and (room != num_new or (len(batch) + 1) * (longest + num_new) > batch_tokens):
            yield batch, num_new
            batch = []
        if not batch:
            num_new, longest = room, len(prompts[index])
        batch.append(index)
    if batch:
        yield batch, num_new


def _active_rows(
    pack: AdapterPack | None, slots: list[int] | None, device: torch.device
) -> AbstractContextManager[None]:
    if pack is None:
        return nullcontext()
    return pack.active_rows(torch.tensor(slots, device=device))


def _generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[np.ndarray], num_new: int
) -> np.ndarray:
    """New token ids (N, A); rows that ended earlier are filled up with end tokens."""
    longest = max(len(prompt) for prompt in prompts)
    ids_NT = np.full((len(prompts), longest), tokenizer.eos_token_id, dtype=np.int64)
    mask_NT = np.zeros_like(ids_NT)
    for row, prompt in enumerate(prompts):
        ids_NT[row, longest - len(prompt) :] = prompt
        mask_NT[row, longest - len(prompt) :] = 1
    greedy = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=num_new,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    with _only_settings(model, greedy):
        found = model.generate(
            torch.from_numpy(ids_NT).to(model.device), attention_mask=torch.from_numpy(mask_NT).to(model.device)
        )
    return found[:, longest:].cpu().numpy()


@contextmanager
def _only_settings(model: PreTrainedModel, settings: GenerationConfig) -> Iterator[None]:
    """Generate with `settings` and none that the model ships (temperatures, penalties, suppressed tokens)."""
    shipped = model.generation_config
    model.generation_config = settings
    try:
        yield
    finally:
        model.generation_config = shipped


def _read(tokenizer: PreTrainedTokenizerBase, new_A: np.ndarray) -> Answer:
    ends = np.flatnonzero(new_A == tokenizer.eos_token_id)
    written = new_A[: ends[0]] if len(ends) else new_A
    text = str(tokenizer.decode(written.tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False))
    return Answer(text, len(written) + bool(len(ends)))
