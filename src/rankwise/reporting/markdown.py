"""Building blocks of Markdown, with every text from outside made harmless."""

import html
import re
from collections.abc import Iterable, Sequence

_SPECIAL = re.compile(r"[\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|^[#+-]|^\d+[.)](?=\s|$)|:(?=//)")
"""What Markdown could give a meaning: `linear_decay`, `uniform-r16` and `a (b)!` stay readable as they are."""


def escape(text: object) -> str:
    """Text that shows as it is written: no markup, HTML, table cell or line can be started from within it.

    Characters that Markdown gives a meaning become character references, so that even renderers that ignore
    backslashes in tables show them; line breaks and other control characters become spaces.
    """
    return _SPECIAL.sub(
        lambda match: "".join(f"&#{ord(char)};" for char in match[0]), html.escape(one_line(text), quote=False)
    )


def one_line(text: object) -> str:
    """Line breaks and other control characters become single spaces."""
    return " ".join("".join(char if char.isprintable() else " " for char in str(text)).split())


def plain(markdown: str) -> str:
    """Prose of this package, made of escaped text and bold names, as it reads without a renderer."""
    return html.unescape(markdown.replace("**", ""))


def code(text: object) -> str:
    """Text in a code span; HTML's, because a backtick inside would end Markdown's."""
    return f"<code>{escape(text)}</code>"


def code_block(text: str) -> str:
    """A fenced block whose fence is longer than any in the text. It keeps its lines; other control characters, and
    those that turn the direction of what follows, become spaces: a command is there to be pasted into a terminal."""
    text = "".join(char if char.isprintable() or char == "\n" else " " for char in text)
    longest = max((len(ticks) for ticks in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text.rstrip()}\n{fence}\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], align: str) -> str:
    """A table of finished cells; `align` has one of `l`, `r` per column."""
    rule = ["---:" if side == "r" else "---" for side in align]
    lines = [header, rule, *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def bullets(items: Iterable[str]) -> str:
    return "".join(f"- {item}\n" for item in items)


def details(summary: str, body: str) -> str:
    """A block that is folded away until it is asked for."""
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n</details>\n"
