import html
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from rankwise.reporting.markdown import code, code_block, details, escape, plain, table

GITHUB = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
HOSTILE = "a|b `c` <script>alert(1)</script> *d* _e_ [f](http://g) &amp; # h\n1. i ~~j~~ $k$ \\ ![l](m)"


def visible(markdown: str) -> str:
    """What a reader sees: the rendered text without its tags."""
    return html.unescape(re.sub(r"<[^>]*>", "", GITHUB.render(markdown)))


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_escaped_text_renders_as_itself_and_nothing_else(text):
    shown = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    expected = f"<p>{html.escape(shown)}</p>\n" if shown else ""
    assert html.unescape(GITHUB.render(escape(text))) == html.unescape(expected)


def test_hostile_text_starts_no_markup_and_no_html():
    rendered = GITHUB.render(escape(HOSTILE))
    assert re.findall(r"<(\w+)", rendered) == ["p"]


def test_hostile_text_stays_in_its_table_cell():
    rendered = GITHUB.render(table(("arm", "loss"), [(escape(HOSTILE), "1.0"), (code(HOSTILE), "2.0")], "lr"))
    assert rendered.count("<td") == 4
    assert "<script" not in rendered


@pytest.mark.parametrize("name", ["linear_decay", "uniform-r16", "a (b)!", "3.11.9", "λ-Σ"])
def test_ordinary_names_stay_readable_in_the_source(name):
    assert escape(name) == name


def test_plain_text_is_what_a_renderer_would_show():
    markdown = f"**{escape(HOSTILE)}** is better than {escape('uniform')}."
    assert plain(markdown) == visible(markdown).strip()


@pytest.mark.parametrize("text", ["rankwise study x.yaml", "a\n```\nb", "````"])
def test_a_code_block_cannot_be_left_from_within(text):
    (block,) = re.findall(r"<pre><code>(.*?)</code></pre>", GITHUB.render(code_block(text)), re.DOTALL)
    assert html.unescape(block) == text + "\n"


def test_details_hold_rendered_markdown():
    rendered = GITHUB.render(details("Runs", table(("a",), [("b",)], "l")))
    assert "<details>" in rendered
    assert "<td" in rendered
