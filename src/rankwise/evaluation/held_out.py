"""How models that share a base answer held-out examples: the expected answers scored, their own ones written.

All models go through together: rows of every slot are mixed, in scoring and in decoding.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from rankwise.data.examples import Example, TokenizedExample
from rankwise.evaluation.generation import Answer, generate_answers, is_exact_match
from rankwise.evaluation.loss import Scores, score_slots
from rankwise.evaluation.metrics import AnswerScores, ExampleScores
from rankwise.evaluation.overlap import chrf, rouge_l
from rankwise.lora.pack import AdapterPack
from rankwise.models.load import LoadedBase
from rankwise.models.prefix_cache import can_share_prefixes
from rankwise.records import Answered, WrittenAnswer

BATCH_TOKENS = 8192
"""Padded tokens of one pass."""

Slots = Sequence[int | None]
"""Of each model its slot in the pack; None for what is loaded without one: a base, with whatever PEFT put on it."""


def score_examples(
    base: LoadedBase, pack: AdapterPack | None, slots: Slots, examples: Sequence[TokenizedExample]
) -> list[Scores]:
    """Score the expected answers for each model; nothing is generated."""
    in_pack = [slot for slot in slots if slot is not None]
    found: dict[int | None, Scores] = {}
    for of_pack, chosen in ((pack, in_pack), (None, [0] if None in slots else [])):
        scored = score_slots(
            base.model,
            of_pack,
            dict.fromkeys(chosen, examples),
            max_tokens=BATCH_TOKENS,
            share_prefixes=can_share_prefixes(base.model),
        )
        found |= {slot if of_pack is not None else None: scores for slot, scores in scored.items()}
    return [found[slot] for slot in slots]


def answer_examples(
    base: LoadedBase,
    pack: AdapterPack | None,
    slots: Slots,
    examples: Sequence[TokenizedExample],
    *,
    max_new_tokens: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    on_batch: Callable[[int], None] = lambda _num_prompts: None,
) -> list[list[Answer]]:
    """Answers of each model to the examples' prompts, decoded greedily.

    `max_new_tokens` None: as many as the longest expected answer has, its end token included; a longer answer cannot
    be right.
    """
    prompts = [example.input_ids[: example.num_prompt_tokens] for example in examples]
    longest = max_new_tokens or max(example.num_answer_tokens for example in examples)
    answers: dict[int | None, list[Answer]] = {}
    in_pack = [slot for slot in slots if slot is not None]
    for of_pack, chosen in ((pack, in_pack), (None, [None] if None in slots else [])):
        written = generate_answers(
            base.model,
            base.tokenizer,
            prompts * len(chosen),
            max_new_tokens=longest,
            batch_tokens=batch_tokens,
            pack=of_pack,
            slots=[slot for slot in in_pack for _ in prompts] if of_pack is not None else None,
            on_batch=on_batch,
        )
        for place, slot in enumerate(chosen):
            answers[slot] = written[place * len(prompts) : (place + 1) * len(prompts)]
    return [answers[slot] for slot in slots]


def judge_answers(answers: Sequence[Answer], examples: Sequence[Example]) -> AnswerScores:
    """Written answers beside the expected ones."""
    texts, expected = [answer.text for answer in answers], [example.output for example in examples]
    exact = [is_exact_match(text, wanted) for text, wanted in zip(texts, expected, strict=True)]
    return AnswerScores(
        texts=tuple(texts),
        tokens_E=np.array([answer.num_tokens for answer in answers]),
        exact_E=np.array(exact, dtype=np.int64),
        rouge_l_E=rouge_l(texts, expected),
        chrf_E=chrf(texts, expected),
    )


def answered(
    run_id: str, step: int, data_fingerprint: str, answers: Sequence[Answer], examples: Sequence[Example]
) -> Answered:
    """A run's answers to its test examples, judged, as a record."""
    rows = tuple(answer_rows(judge_answers(answers, examples), examples))
    return Answered(run_id=run_id, split="test", step=step, data_fingerprint=data_fingerprint, answers=rows)


def answer_rows(judged: AnswerScores, examples: Sequence[Example]) -> Iterator[WrittenAnswer]:
    """Answers as plain values, one by one."""
    for index, (example, text) in enumerate(zip(examples, judged.texts, strict=True)):
        yield WrittenAnswer(
            question=example.question,
            expected=example.output,
            written=text,
            num_tokens=int(judged.tokens_E[index]),
            exact_match=bool(judged.exact_E[index]),
            rouge_l=float(judged.rouge_l_E[index]),
            chrf=float(judged.chrf_E[index]),
        )


def example_scores(
    expected: Scores, examples: Sequence[Example], written: Sequence[Answer] | None = None
) -> ExampleScores:
    """All that is known of one model and each example."""
    return ExampleScores(
        expected=expected,
        answer_bytes_E=np.array([len(example.output.encode()) for example in examples]),
        written=judge_answers(written, examples) if written is not None else None,
    )
