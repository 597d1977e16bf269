"""Which passes rows go through: cut for the engine (packing/forward.py), and their sizes for whoever predicts.

One function cuts both, so that what is predicted is what is computed.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rankwise.data.batches import Row, cut_micro_batches


@dataclass(frozen=True)
class PrefixGroup:
    """Rows that begin alike, and the slots whose prefixes are computed together for them."""

    prefix: tuple[int, ...]
    """Empty where rows share nothing."""
    slots: tuple[int, ...]
    micro_batches: tuple[tuple[Row, ...], ...]


def cut_passes(rows: Iterable[Row], max_tokens: int) -> Iterator[PrefixGroup]:
    """Rows by prefix, as many slots at a time as `max_tokens` holds prefixes of, in micro-batches of similar length."""
    by_prefix: dict[tuple[int, ...], dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        by_prefix[row.prefix][row.slot].append(row)
    for prefix, of_slot in by_prefix.items():
        per_pass = max(1, max_tokens // len(prefix)) if prefix else len(of_slot)
        slots = list(of_slot)
        for start in range(0, len(slots), per_pass):
            chosen = slots[start : start + per_pass]
            cut = cut_micro_batches([row for slot in chosen for row in of_slot[slot]], max_tokens)
            yield PrefixGroup(prefix, tuple(chosen), tuple(map(tuple, cut)))


@dataclass(frozen=True, kw_only=True)
class PassSize:
    """Of one micro-batch."""

    num_rows: int
    own_tokens: int
    """Of each row after padding, without its prefix."""
    num_answers: int
    """Answer tokens of all rows: positions that logits are computed for."""
    prefix_tokens: int = 0
    num_prefixes: int = 0
    """Computed together, before this pass and others."""
    is_first: bool = True
    """Of those that read the same prefixes."""

    @property
    def num_tokens(self) -> int:
        return self.num_rows * self.own_tokens

    @property
    def row_tokens(self) -> int:
        """What each token attends to at most."""
        return self.prefix_tokens + self.own_tokens


@dataclass(frozen=True, kw_only=True)
class AnswerSize:
    """Of one batch of prompts that are answered together."""

    num_rows: int
    prompt_tokens: int
    """Of the longest prompt."""
    new_tokens: int
    """The most that each may get."""

    @property
    def num_tokens(self) -> int:
        """When the last answer ends."""
        return self.num_rows * (self.prompt_tokens + self.new_tokens)

    def prefill(self) -> PassSize:
        """The pass that reads the prompts; logits are computed for the last position alone."""
        return PassSize(num_rows=self.num_rows, own_tokens=self.prompt_tokens, num_answers=self.num_rows)

    def decoding(self) -> PassSize:
        """The pass that adds a token to each row, half way."""
        before = self.prompt_tokens + self.new_tokens // 2
        return PassSize(num_rows=self.num_rows, own_tokens=1, num_answers=self.num_rows, prefix_tokens=before)


def pass_sizes(rows: Sequence[Row], max_tokens: int) -> list[PassSize]:
    """Sizes of all passes that `rows` go through."""
    return [
        PassSize(
            num_rows=len(batch),
            own_tokens=max(row.num_own_tokens for row in batch),
            num_answers=sum(row.example.num_answer_tokens for row in batch),
            prefix_tokens=len(group.prefix),
            num_prefixes=len(group.slots) if group.prefix else 0,
            is_first=number == 0,
        )
        for group in cut_passes(rows, max_tokens)
        for number, batch in enumerate(group.micro_batches)
    ]
