"""One example as text and as tokens: plain, frozen values.

T = tokens of one example, prompt and answer together.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

SplitName = Literal["train", "validation", "test"]

SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Example:
    """An instruction with its answer, in the schema of Stanford Alpaca."""

    instruction: str
    """What is asked; empty for plain text."""
    input: str
    """What the instruction is about; empty where there is nothing to add."""
    output: str
    """The answer, or the whole of a plain text."""
    family: str | None = None
    """Kind of task, where the source says so."""

    @property
    def key(self) -> tuple[str, ...]:
        """What makes two examples the same: instruction and input (of a plain text: the text), whitespace aside."""
        parts = (self.instruction, self.input) if self.has_prompt else (self.output,)
        return tuple(" ".join(part.split()) for part in parts)

    @property
    def question(self) -> str:
        """Instruction and input on lines of their own, as people read them."""
        return "\n".join(part for part in (self.instruction, self.input) if part)

    @property
    def has_prompt(self) -> bool:
        return bool(self.instruction.strip() or self.input.strip())


@dataclass(frozen=True, eq=False)
class TokenizedExample:
    """What is trained and scored on: positions from `num_prompt_tokens` on count, the end token included."""

    input_ids: np.ndarray
    """int64 (T,): prompt, answer, end token."""
    num_prompt_tokens: int
    """At least 1, because nothing predicts the first token; exactly 1 for plain text."""
    index: int
    """Place in its split: `PreparedData.examples[split][index]` is its text."""
    num_shared_tokens: int = 0
    """Leading tokens that many examples of the split begin with, too: the template. See `data/prefixes.py`."""

    @property
    def num_tokens(self) -> int:
        return len(self.input_ids)

    @property
    def num_answer_tokens(self) -> int:
        return len(self.input_ids) - self.num_prompt_tokens
