"""What was loaded, what was left out and why, and how long the rest is: counts only, ready for JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rankwise.data.examples import Example, SplitName, TokenizedExample

PERCENTILES = (0, 5, 25, 50, 75, 95, 100)
MAX_BINS = 16


@dataclass(frozen=True, kw_only=True)
class Excluded:
    """Examples left out, each counted under the first rule that applied, in this order."""

    empty_prompt: int = 0
    """Neither an instruction nor an input. (A plain text has no prompt by nature and is not counted.)"""
    empty_answer: int = 0
    """Nothing to learn or score."""
    duplicates: int = 0
    """Same instruction and input as an earlier example, whitespace aside, whatever the answer."""
    over_long: int = 0
    """More than `max_tokens` tokens, prompt and answer together. Nothing is ever cut."""

    @property
    def total(self) -> int:
        return self.empty_prompt + self.empty_answer + self.duplicates + self.over_long

    def sentence(self) -> str:
        return (
            f"{self.empty_prompt} without a prompt, {self.empty_answer} with an empty answer, "
            f"{self.duplicates} duplicates, {self.over_long} over-long"
        )


@dataclass(frozen=True, kw_only=True)
class SplitSummary:
    """One split in numbers. Lengths are tokens of prompt and answer together."""

    num_examples: int
    num_tokens: int
    num_answer_tokens: int
    length_percentiles: Mapping[str, float]
    """Tokens at the percentiles 0 (shortest), 5, 25, 50, 75, 95, 100 (longest)."""
    histogram_edges: tuple[int, ...]
    """Bin edges in tokens, one more than there are bins, the same for all splits."""
    histogram_counts: tuple[int, ...]
    """Examples per bin, from its lower edge to one below its upper edge."""


@dataclass(frozen=True, kw_only=True)
class DataSummary:
    """The analysis of one prepared data set."""

    num_loaded: int
    """Examples in the source (of `skills`: generated)."""
    num_kept: int
    """Left after the exclusions; the splits are drawn from these."""
    num_unused_turns: int
    """Messages after the first exchange of a conversation, which are not used."""
    excluded: Excluded
    split_overlap: int
    """Instruction-and-input pairs that occur in more than one split; 0 by construction, counted all the same."""
    splits: Mapping[SplitName, SplitSummary]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def summarise_splits(tokenized: Mapping[SplitName, Sequence[TokenizedExample]]) -> dict[SplitName, SplitSummary]:
    """One summary per split, over common histogram bins. Every split must have an example."""
    lengths = {split: np.array([item.num_tokens for item in items]) for split, items in tokenized.items()}
    edges = _bin_edges(np.concatenate(list(lengths.values())))
    return {split: _summarise(tokenized[split], lengths[split], edges) for split in tokenized}


def _bin_edges(lengths: np.ndarray) -> np.ndarray:
    """At most `MAX_BINS` bins of equal whole width over all lengths."""
    low, high = int(lengths.min()), int(lengths.max())
    width = -(-(high - low + 1) // MAX_BINS)
    return np.arange(low, high + width + 1, width)


def _summarise(items: Sequence[TokenizedExample], lengths: np.ndarray, edges: np.ndarray) -> SplitSummary:
    percentiles = np.percentile(lengths, PERCENTILES)
    counts, _ = np.histogram(lengths, bins=edges)
    return SplitSummary(
        num_examples=len(items),
        num_tokens=int(lengths.sum()),
        num_answer_tokens=sum(item.num_answer_tokens for item in items),
        length_percentiles={str(p): float(value) for p, value in zip(PERCENTILES, percentiles, strict=True)},
        histogram_edges=tuple(map(int, edges)),
        histogram_counts=tuple(map(int, counts)),
    )


def count_overlap(examples: Mapping[SplitName, Sequence[Example]]) -> int:
    """Keys that occur in more than one split."""
    keys = [{example.key for example in split} for split in examples.values()]
    return sum(map(len, keys)) - len(set().union(*keys))
