import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.reporting.paper.escape import breakable, escape

COMMAND = re.compile(r"\\(?:[A-Za-z]+\{\}|ensuremath\{[^{}]*\}|[{}$&#%_])|-\{\}|\{[\[\]*]\}")
"""All that an escaped text may hold beside plain characters."""


def leftovers(text):
    return COMMAND.sub("", text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linear_decay", r"linear\_decay"),
        ("100% of $5 & #1", r"100\% of \$5 \& \#1"),
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("a--b", "a-{}-{}b"),
        ("−0.0193 [−0.0261, +0.0125]", r"\ensuremath{-}0.0193 {[}\ensuremath{-}0.0261, +0.0125{]}"),
        ("4–12", "4--12"),
        ("Nicolò Büyükakyüz", "Nicolò Büyükakyüz"),
        ("层", "{[}U+5C42{]}"),
        ("a\n\n%b\x00", r"a \%b"),
        ("e\u0301", "é"),  # composed, so that the letter has a glyph
    ],
)
def test_text_shows_as_it_is_written(text, expected):
    assert escape(text) == expected


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_nothing_but_known_commands_and_harmless_characters_remains(text):
    for escaped in (escape(text), breakable(text)):
        assert not set(leftovers(escaped)) & set('\\{}$&#%_^~`"<>|\n\r\t[]*')
        assert all(char.isascii() or 0xC0 <= ord(char) < 0x180 for char in escaped)


def test_a_narrow_column_can_break_every_name():
    assert breakable("early_gradient_spectrum") == r"early\_\allowbreak{}gradient\_\allowbreak{}spectrum"
    assert breakable("x" * 40).count(r"\allowbreak{}") == 2
    assert breakable("") == ""
