"""From settings to tokens: load, leave out by rule, split, tokenize, count, fingerprint.

The rule. Left out, and counted, are examples with neither instruction nor input, with an empty answer, with the same
instruction and input as an earlier one (whitespace aside; the first is kept), and with more than `max_tokens` tokens.
Nothing is ever cut.

The splits. One permutation, seeded by `settings.seed`, of all that is left: its first `test` examples are the test
split, the next `validation` ones the validation split, the next `train` ones the training split. So the splits are
disjoint, asking for more training examples changes no other split, and a larger training split contains the smaller.
A file that names all three splits in a column `split` keeps them.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

import numpy as np
from transformers import PreTrainedTokenizerBase

from rankwise.data.columns import LoadedExample
from rankwise.data.examples import SPLITS, Example, SplitName, TokenizedExample
from rankwise.data.prefixes import shared_prefix_tokens
from rankwise.data.sources import load_examples
from rankwise.data.summary import DataSummary, Excluded, count_overlap, summarise_splits
from rankwise.data.tokenizing import tokenize_examples
from rankwise.errors import DataError
from rankwise.streams import stream
from rankwise.study.config import DataSettings

_DRAW_ORDER: tuple[SplitName, ...] = ("test", "validation", "train")


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """All that training and evaluation need of a data set."""

    train: tuple[TokenizedExample, ...]
    validation: tuple[TokenizedExample, ...]
    test: tuple[TokenizedExample, ...]
    examples: Mapping[SplitName, tuple[Example, ...]]
    """The same examples as text, in the same order."""
    summary: DataSummary
    fingerprint: str
    """16 hexadecimal digits over all tokens, prompt lengths, and the settings that made them."""

    @cached_property
    def longest_tokens(self) -> int:
        """Of any example of any split."""
        return max(example.num_tokens for example in (*self.train, *self.validation, *self.test))


@dataclass(frozen=True)
class _Candidate:
    example: Example
    tokens: TokenizedExample
    split: SplitName | None


def prepare_data(settings: DataSettings, tokenizer: PreTrainedTokenizerBase) -> PreparedData:
    """Load, clean, split and tokenize; the same settings and tokenizer give the same result.

    Raises:
        DataError: the source cannot be read, the tokenizer cannot serve the template, or fewer examples are left
            than the splits ask for.
    """
    loaded = load_examples(settings)
    candidates, excluded = _clean(loaded, settings, tokenizer)
    drawn = _draw(candidates, settings, excluded, len(loaded))
    examples = {split: tuple(candidate.example for candidate in drawn[split]) for split in SPLITS}
    tokenized = {split: _number([candidate.tokens for candidate in drawn[split]]) for split in SPLITS}
    summary = DataSummary(
        num_loaded=len(loaded),
        num_kept=len(candidates),
        num_unused_turns=sum(item.num_unused_turns for item in loaded),
        excluded=excluded,
        split_overlap=count_overlap(examples),
        splits=summarise_splits(tokenized),
    )
    return PreparedData(**tokenized, examples=examples, summary=summary, fingerprint=_fingerprint(tokenized, settings))


def _clean(
    loaded: Sequence[LoadedExample], settings: DataSettings, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[_Candidate], Excluded]:
    """Apply the rule of this module: what is left, and how many were left out for which reason."""
    prompted = [item for item in loaded if item.is_text or item.example.has_prompt]
    answered = [item for item in prompted if item.example.output.strip()]
    first: dict[tuple[str, ...], LoadedExample] = {}
    for item in answered:
        first.setdefault(item.example.key, item)
    unique = list(first.values())
    tokenized = tokenize_examples([item.example for item in unique], settings.template, tokenizer)
    candidates = [
        _Candidate(item.example, tokens, item.split)
        for item, tokens in zip(unique, tokenized, strict=True)
        if tokens.num_tokens <= settings.max_tokens
    ]
    excluded = Excluded(
        empty_prompt=len(loaded) - len(prompted),
        empty_answer=len(prompted) - len(answered),
        duplicates=len(answered) - len(unique),
        over_long=len(unique) - len(candidates),
    )
    return candidates, excluded


def _number(tokens: Sequence[TokenizedExample]) -> tuple[TokenizedExample, ...]:
    """The examples of one split with their places in it and the prefixes they share."""
    shared = shared_prefix_tokens(tokens)
    return tuple(
        replace(item, index=index, num_shared_tokens=num_shared)
        for index, (item, num_shared) in enumerate(zip(tokens, shared, strict=True))
    )


def _draw(
    candidates: Sequence[_Candidate], settings: DataSettings, excluded: Excluded, num_loaded: int
) -> dict[SplitName, list[_Candidate]]:
    """Test first, then validation, then training, from one permutation; or from the splits the source names."""
    wanted = {split: int(getattr(settings, split)) for split in _DRAW_ORDER}
    if candidates and candidates[0].split is not None:
        drawn = {split: [item for item in candidates if item.split == split][: wanted[split]] for split in wanted}
    else:
        order = stream(settings.seed, "splits").permutation(len(candidates))
        permuted = iter([candidates[place] for place in order])
        drawn = {split: list(islice(permuted, num)) for split, num in wanted.items()}
    short = {split: len(items) for split, items in drawn.items() if len(items) < wanted[split]}
    if short:
        raise DataError(_too_few(settings, short, len(candidates), excluded, num_loaded))
    return drawn


def _too_few(
    settings: DataSettings, short: Mapping[SplitName, int], num_kept: int, excluded: Excluded, num_loaded: int
) -> str:
    asked = settings.train + settings.validation + settings.test
    missing = ", ".join(f"{split} would get {num}" for split, num in short.items())
    return (
        f"data: {asked} examples are asked for (train {settings.train}, validation {settings.validation}, test "
        f"{settings.test}), but {settings.source} has {num_kept} ({missing}): {num_loaded} loaded, less "
        f"{excluded.sentence()} (max_tokens {settings.max_tokens}). Ask for fewer, raise max_tokens, or name a larger "
        "source."
    )


def _fingerprint(tokenized: Mapping[SplitName, Sequence[TokenizedExample]], settings: DataSettings) -> str:
    digest = hashlib.sha256(f"{settings.template}/{settings.max_tokens}".encode())
    for split in SPLITS:
        digest.update(f"/{split}:{len(tokenized[split])}".encode())
        for item in tokenized[split]:
            header = np.array([item.num_tokens, item.num_prompt_tokens], dtype="<i8")
            digest.update(header.tobytes() + item.input_ids.astype("<i8").tobytes())
    return digest.hexdigest()[:16]
