"""Bytes of a row by its length: what layers take grows with its tokens, and attention scores with their square."""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Bytes of a row of T tokens: `per_token` T + `per_pair` T²."""

    per_token: float
    per_pair: float

    def of_token(self, row_tokens: int) -> float:
        """Bytes for each token of rows that long."""
        return self.per_token + self.per_pair * row_tokens

    @classmethod
    def fit(cls, lengths: tuple[int, int], sizes: tuple[float, float]) -> Self:
        """From the bytes of two rows, the shorter first."""
        (few, many), (short, long) = lengths, sizes
        per_pair = (long / many - short / few) / (many - few)
        return cls(per_token=short / few - per_pair * few, per_pair=per_pair)
