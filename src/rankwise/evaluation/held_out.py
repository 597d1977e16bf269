"""How well a model, with whatever adapter it carries, answers held-out examples."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rankwise.data.examples import Example, TokenizedExample
from rankwise.evaluation.generation import generate_answers, is_exact_match
from rankwise.evaluation.loss import score_slots
from rankwise.models.load import LoadedBase
from rankwise.models.prefix_cache import can_share_prefixes

BATCH_TOKENS = 8192
"""Padded tokens of one pass."""


@dataclass(frozen=True, kw_only=True)
class HeldOutScores:
    """Totals over all examples. What is not a finite number is None, like what was not measured."""

    num_examples: int
    num_answer_tokens: int
    loss_nats: float | None
    """Per answer token."""
    perplexity: float | None
    token_accuracy: float
    """Share of answer tokens that were the most probable one."""
    exact_match: float | None
    """Share of generated answers that are the expected ones; None where none were generated."""


def score_examples(base: LoadedBase, examples: Sequence[TokenizedExample]) -> HeldOutScores:
    """Score the expected answers; nothing is generated."""
    scores = score_slots(
        base.model,
        None,
        {0: examples},
        max_tokens=BATCH_TOKENS,
        share_prefixes=can_share_prefixes(base.model),
    )[0]
    num_tokens = int(scores.answer_tokens_E.sum())
    loss_nats = float(scores.loss_nats_E.sum()) / num_tokens
    return HeldOutScores(
        num_examples=len(examples),
        num_answer_tokens=num_tokens,
        loss_nats=loss_nats if math.isfinite(loss_nats) else None,
        perplexity=math.exp(loss_nats) if loss_nats < math.log(1e300) else None,
        token_accuracy=float(scores.correct_tokens_E.sum()) / num_tokens,
        exact_match=None,
    )


def answer_examples(
    base: LoadedBase,
    examples: Sequence[TokenizedExample],
    *,
    max_new_tokens: int | None,
    on_batch: Callable[[int], None],
) -> list[str]:
    """Answers to the examples' prompts, decoded greedily.

    `max_new_tokens` None: as many as the longest expected answer has, its end token included; a longer answer cannot
    be right.
    """
    longest = max(example.num_answer_tokens for example in examples)
    return generate_answers(
        base.model,
        base.tokenizer,
        [example.input_ids[: example.num_prompt_tokens] for example in examples],
        max_new_tokens=max_new_tokens or longest,
        batch_tokens=BATCH_TOKENS,
        on_batch=on_batch,
    )


def exact_match_frac(answers: Sequence[str], examples: Sequence[Example]) -> float:
    """Share of the answers that are the expected ones, white space around them aside."""
    pairs = zip(answers, examples, strict=True)
    return sum(is_exact_match(answer, example.output) for answer, example in pairs) / len(examples)
