"""What a paper is made of, before it is LaTeX or Markdown.

Prose is markup (see `rankwise.reporting.paper.prose`) and written by people; everything else is plain text, which each
renderer escapes. So a name from a ledger can reach a paper only as a named value, a cell, a caption or a line of code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Heading:
    level: int
    """1 is a section."""
    text: str
    """Plain."""
    label: str | None = None
    is_appendix: bool = False
    """The first section of the appendix, and so all that follow."""


@dataclass(frozen=True, kw_only=True)
class Paragraph:
    text: str
    """Markup."""


@dataclass(frozen=True, kw_only=True)
class Bullets:
    items: tuple[str, ...]
    """Markup, one an item."""


@dataclass(frozen=True, kw_only=True)
class Equation:
    text: str
    """Of LaTeX's mathematics, which Markdown's renderers know, too."""


@dataclass(frozen=True, kw_only=True)
class Code:
    text: str


@dataclass(frozen=True, kw_only=True)
class Column:
    title: str
    align: str = "l"
    """`l`, `r`, or `p`: text that wraps, in `width`."""
    width: float = 0.0
    """Of a `p` column, in the width of the text."""


@dataclass(frozen=True, kw_only=True)
class Table:
    name: str
    """Of its file, and of its label `tab:NAME`."""
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    size: str = "footnotesize"
    """LaTeX's name of the type size."""
    is_long: bool = False
    """It may break over pages, and stands where it is called."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    name: str
    """Of its file, and of its label `fig:NAME`."""
    caption: str
    pdf: Path
    """Where the drawing is now."""

    @property
    def png(self) -> Path:
        return self.pdf.with_suffix(".png")


Block = Heading | Paragraph | Bullets | Equation | Code | Table | Figure


@dataclass(frozen=True, kw_only=True)
class Paper:
    title: str
    authors: tuple[str, ...]
    abstract: tuple[Block, ...]
    body: Sequence[Block]
    values: dict[str, str]
    """Name -> what it stands for, as plain text."""
