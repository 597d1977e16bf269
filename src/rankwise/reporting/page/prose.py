"""RESULTS.md as HTML: the page says what the report says, word for word, and nothing else.

The Markdown is parsed by markdown-it-py (CommonMark with tables). Of HTML within it only the five tags that
`rankwise.reporting.markdown` itself writes pass; whatever else looks like a tag is shown as text. Names of arms and
ids of runs become links to what lies behind them, and each figure's place is taken by the page's own.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup, escape

from rankwise.reporting.page.forest import outcome_class
from rankwise.reporting.style import OUTCOME_STYLES

_OWN_TAGS = re.compile(r"</?code>|<details>\n<summary>[^<>]*</summary>|</details>")
"""What this package writes as HTML; inline tags alone, blocks with their line."""
_FIGURE = re.compile(r"figures/([a-z0-9_]+)\.png")


@dataclass(frozen=True, kw_only=True)
class Section:
    """What stands under one heading of the second level; the first section has none."""

    id: str
    title: str
    body: Markup


@dataclass(frozen=True, kw_only=True)
class Links:
    """What the text may lead to."""

    arms: Mapping[str, int]
    """Name -> position in the study."""
    run_ids: frozenset[str]
    figures: Mapping[str, Markup]
    """Name of a figure -> what stands in its place, caption included."""
    files: frozenset[str]
    """Files that the page holds, by their names in the results folder."""


@dataclass
class _Place:
    """Where the renderer is: what a table is called, and which rows have been given an id."""

    links: Links
    heading: str = ""
    named: set[str] = field(default_factory=set)
    open_ends: list[str] = field(default_factory=list)
    """What closes the tags that are open, where it is more than the tag's own end."""


def sections_of(markdown: str, links: Links) -> list[Section]:
    """The report section by section; its title, the first heading, is left out."""
    parser = MarkdownIt("commonmark", renderer_cls=_Renderer).enable("table")
    tokens = _with_figures(parser.parse(markdown))
    parts = _split(tokens)
    place, sections = _Place(links, named={_slug(title) for title, _ in parts}), []
    for title, part in parts:
        place.heading = title
        body = parser.renderer.render(part, parser.options, {"place": place})
        escaped = Markup(body)  # noqa: S704 - by the renderer
        sections.append(Section(id=_slug(title) or "top", title=title, body=escaped))
    return sections


def _slug(title: str) -> str:
    """As renderers of Markdown name headings: `Known flaws, checked` -> `known-flaws-checked`."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _split(tokens: Sequence[Token]) -> list[tuple[str, list[Token]]]:
    parts: list[tuple[str, list[Token]]] = [("", [])]
    index = 0
    while index < len(tokens):
        token = tokens[index]
        if token.type == "heading_open" and token.tag in ("h1", "h2"):
            if token.tag == "h2":
                parts.append((_text(tokens[index + 1]), []))
            index += 3
            continue
        parts[-1][1].append(token)
        index += 1
    return parts


def _with_figures(tokens: Sequence[Token]) -> list[Token]:
    """The paragraph of an image and the one of its caption become one token, which carries the figure's name."""
    found: list[Token] = []
    index = 0
    while index < len(tokens):
        name = _figure_name(tokens[index : index + 3])
        if name is None:
            found.append(tokens[index])
            index += 1
            continue
        found.append(Token("figure", "", 0, info=name))
        index += 6
    return found


def _figure_name(tokens: Sequence[Token]) -> str | None:
    if len(tokens) < 3 or tokens[0].type != "paragraph_open" or [c.type for c in tokens[1].children or ()] != ["image"]:
        return None
    match = _FIGURE.fullmatch(str((tokens[1].children or [])[0].attrGet("src")))
    return match[1] if match else None


def _text(token: Token) -> str:
    """An inline token's words."""
    return "".join(child.content for child in token.children or () if not child.type.startswith("html"))


class _Renderer(RendererHTML):
    """Methods are named after the tokens that they render."""

    def html_inline(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        place, content = env["place"], tokens[idx].content
        if not _OWN_TAGS.fullmatch(content):
            return str(escape(content))
        if content == "</code>":
            return content + (place.open_ends.pop() if place.open_ends else "")
        run_id = tokens[idx + 1].content if idx + 1 < len(tokens) else ""
        is_run = run_id in place.links.run_ids
        place.open_ends.append("</a>" if is_run else "")
        return str(Markup('<a class="run" href="#run-{}">').format(run_id)) + content if is_run else content

    def html_block(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        content = tokens[idx].content.strip("\n")
        return content if _OWN_TAGS.fullmatch(content) else str(Markup("<p>{}</p>").format(content))

    def figure(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        name = tokens[idx].info
        return str(env["place"].links.figures.get(name, ""))

    def link_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        """To a heading; a file of the results folder is offered for download where the page holds it, or only named."""
        place, target = env["place"], str(tokens[idx].attrGet("href"))
        if re.fullmatch(r"#[a-z0-9-]+", target):
            place.open_ends.append("</a>")
            return f'<a href="{target}">'
        held = target in place.links.files
        place.open_ends.append("</button>" if held else "</span>")
        return str(Markup('<button type="button" data-file="{}">').format(target)) if held else "<span>"

    def link_close(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        return env["place"].open_ends.pop()

    def heading_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        place, tag = env["place"], tokens[idx].tag
        place.heading = _text(tokens[idx + 1])
        slug = _slug(place.heading)
        if slug in place.named:
            return f"<{tag}>"
        place.named.add(slug)
        return f'<{tag} id="{slug}">'

    def strong_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        place = env["place"]
        arm = place.links.arms.get(tokens[idx + 1].content)
        place.open_ends.append("" if arm is None else "</a>")
        return "<strong>" + ("" if arm is None else f'<a class="arm" href="#arm-{arm}">')

    def strong_close(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        return env["place"].open_ends.pop() + "</strong>"

    def table_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        name = env["place"].heading or "Table"
        return str(Markup('<div class="table" role="region" tabindex="0" aria-label="{}"><table>').format(name))

    def table_close(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        return "</table></div>"

    def tr_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        """A row of an arm is hidden with it; the row that names a run first can be linked to."""
        links, row = env["place"].links, _row(tokens, idx)
        arm = _arm_of(row[0], links) if tokens[idx + 1].type == "td_open" else None
        attributes = "" if arm is None else f' data-arm="{arm}"'
        run_id = next((cell for cell in row if cell in links.run_ids), None)
        if run_id and run_id not in env["place"].named:
            env["place"].named.add(run_id)
            attributes += str(Markup(' id="run-{}"').format(run_id))
        elif arm is not None and f"arm-{arm}" not in env["place"].named:
            env["place"].named.add(f"arm-{arm}")
            attributes += f' id="arm-{arm}"'
        return f"<tr{attributes}>"

    def th_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        return f'<th scope="col"{_side(tokens[idx])}>'

    def td_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        text = _text(tokens[idx + 1])
        if not _heads_row(tokens, idx):
            outcome = f' class="outcome {outcome_class(text)}"' if text in OUTCOME_STYLES else _side(tokens[idx])
            return f"<td{outcome}>"
        arm = _arm_of(text, env["place"].links)
        return '<th scope="row">' + ("" if arm is None else f'<a class="arm" href="#arm-{arm}">')

    def td_close(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        if not _heads_row(tokens, idx - 2):
            return "</td>"
        arm = _arm_of(_text(tokens[idx - 1]), env["place"].links)
        return ("" if arm is None else "</a>") + "</th>"


def _heads_row(tokens: Sequence[Token], idx: int) -> bool:
    """Whether the cell that opens at `idx` says what its row is about: the first, unless it is a number."""
    return tokens[idx - 1].type == "tr_open" and not _side(tokens[idx])


def _row(tokens: Sequence[Token], idx: int) -> list[str]:
    """The words of each cell of the row that opens at `idx`."""
    cells = []
    for token in tokens[idx + 1 :]:
        if token.type == "tr_close":
            break
        if token.type == "inline":
            cells.append(_text(token))
    return cells


def _arm_of(cell: str, links: Links) -> int | None:
    """`uniform-r16 (different budget)` -> the position of `uniform-r16`: of names that fit, the longest."""
    fitting = [name for name in links.arms if cell == name or cell.startswith((f"{name} (", f"{name}, "))]
    return links.arms[max(fitting, key=len)] if fitting else None


def _side(token: Token) -> str:
    return ' class="number"' if "right" in str(token.attrGet("style") or "") else ""
