"""Prose of a paper: a small part of Markdown, in which numbers have names.

    # Heading                          sections, to three levels
    Text with **strong**, *emphasis*, `code`, $mathematics$ and [links](https://example.org).
    - an item                          lists
    $$ y = x $$                        an equation, on lines of its own
    {{adaptive.empirical.difference}}  a value: never typed, always looked up
    [@hu2022lora; @zhang2023adalora]   references; [@tab:main-adaptive] and [@fig:...] refer to tables and figures
    <!-- expects: adaptive.empirical.outcome = worse -->   what the text rests on: see `expectations`

Raw LaTeX and HTML have no meaning here and show as they are written.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rankwise.reporting.paper.blocks import Block, Bullets, Code, Equation, Heading, Paragraph

_INLINE = re.compile(
    r"\{\{\s*(?P<value>[^{}]+?)\s*\}\}"
    r"|\[(?P<cite>@[^\]\[]+)\]"
    r"|\$(?P<math>[^$\n]+)\$"
    r"|`(?P<code>[^`\n]+)`"
    r"|\*\*(?P<strong>.+?)\*\*"
    r"|\*(?P<emphasis>[^*\s](?:[^*]*[^*\s])?)\*"
    r"|\[(?P<text>[^\]\[]+)\]\((?P<url>https?://[^\s()<>]+)\)"
)
_COMMENT = re.compile(r"<!--(.*?)-->", re.DOTALL)
_EXPECTS = re.compile(r"\s*expects:\s*(?P<value>\S+)\s*=\s*(?P<wanted>.*?)\s*", re.DOTALL)


@dataclass(frozen=True)
class Span:
    """A piece of a line: `kind` says what `text` is; `spans` are inside of strong text and emphasis."""

    kind: str
    text: str
    spans: tuple["Span", ...] = ()
    url: str = ""

    @property
    def references(self) -> tuple[str, ...]:
        """Of a citation: its keys."""
        return tuple(key.strip().removeprefix("@") for key in self.text.split(";"))


def spans(markup: str) -> tuple[Span, ...]:
    """The pieces of a line, in order."""
    return tuple(_spans(markup))


def _spans(markup: str) -> Iterator[Span]:
    end = 0
    for match in _INLINE.finditer(markup):
        if match.start() > end:
            yield Span("plain", markup[end : match.start()])
        end = match.end()
        kind = match.lastgroup
        if kind == "url":
            yield Span("link", match["text"], url=match["url"])
        elif kind in ("strong", "emphasis"):
            yield Span(kind, match[kind], spans(match[kind]))
        else:
            assert kind is not None
            yield Span(kind, match[kind])
    if end < len(markup):
        yield Span("plain", markup[end:])


def parse(text: str, *, level: int = 1) -> tuple[Block, ...]:
    """The blocks of a section file; its first level of headings becomes `level`."""
    return tuple(_blocks(_COMMENT.sub("", text), level))


def _blocks(text: str, level: int) -> Iterator[Block]:
    for chunk in _chunks(text):
        first = chunk[0]
        if first.startswith("```"):
            yield Code(text="\n".join(chunk[1:-1] if chunk[-1].startswith("```") else chunk[1:]))
        elif first.startswith("$$"):
            yield Equation(text=" ".join(chunk).strip().removeprefix("$$").removesuffix("$$").strip())
        elif heading := re.fullmatch(r"(#{1,3})\s+(.*?)\s*(?:\{#([a-z0-9:-]+)\})?", first):
            yield Heading(level=level - 1 + len(heading[1]), text=heading[2], label=heading[3])
            if chunk[1:]:
                yield from _blocks("\n".join(chunk[1:]), level)
        elif re.match(r"[-*] ", first):
            yield Bullets(items=tuple(_items(chunk)))
        else:
            yield Paragraph(text=" ".join(line.strip() for line in chunk))


def _chunks(text: str) -> Iterator[list[str]]:
    """Lines that belong together: what stands between empty lines, or in a fence."""
    chunk: list[str] = []
    is_fenced = False
    for line in text.splitlines():
        if line.startswith("```"):
            if not is_fenced and chunk:
                yield chunk
                chunk = []
            is_fenced = not is_fenced
            chunk.append(line)
            if not is_fenced:
                yield chunk
                chunk = []
        elif line.strip() or is_fenced:
            chunk.append(line)
        elif chunk:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _items(lines: list[str]) -> Iterator[str]:
    item: list[str] = []
    for line in lines:
        if re.match(r"[-*] ", line):
            if item:
                yield " ".join(item)
            item = [line[2:].strip()]
        else:
            item.append(line.strip())
    yield " ".join(item)


def expectations(text: str) -> tuple[tuple[str, str], ...]:
    """What a section file says that it rests on: (value's name, what it was when the text was written)."""
    found = (_EXPECTS.fullmatch(comment) for comment in _COMMENT.findall(text))
    return tuple((match["value"], match["wanted"]) for match in found if match)


def used_values(block: Block) -> tuple[str, ...]:
    """Names of the values in a block, in order."""
    return tuple(span.text for span in _all_spans(block) if span.kind == "value")


def used_references(block: Block) -> tuple[str, ...]:
    """Keys of the references in a block, those to tables and figures included."""
    return tuple(key for span in _all_spans(block) if span.kind == "cite" for key in span.references)


def _all_spans(block: Block) -> Iterator[Span]:
    texts = (block.text,) if isinstance(block, Paragraph) else block.items if isinstance(block, Bullets) else ()
    for text in texts:
        yield from _flat(spans(text))


def _flat(found: tuple[Span, ...]) -> Iterator[Span]:
    for span in found:
        yield span
        yield from _flat(span.spans)
