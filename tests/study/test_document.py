"""YAML as harmless as JSON, with the line of every key."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.errors import StudyError
from rankwise.study.document import MAX_DEPTH, read_document

plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("aé: -#'\"\n1"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc #:1"), inner, max_size=3),
    max_leaves=8,
)


def read(text):
    return read_document(text, origin="x.yaml")


@given(plain_values)
def test_what_json_writes_is_read_as_json_reads_it(value):
    assert read(json.dumps(value)).value == value


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-4", 1e-4),
        ("3.0e-4", 3e-4),
        (".5", 0.5),
        ("-7", -7),
        ("010", 10),
        ("true", True),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("on", "on"),
        ("12:30:00", "12:30:00"),
        ("2024-01-01", "2024-01-01"),
        ("0x10", "0x10"),
        (".inf", ".inf"),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ("1.2.3", "1.2.3"),
        ("1e", "1e"),
    ],
)
def test_scalars_follow_the_core_schema(written, value):
    found = read(f"key: {written}").value["key"]
    assert (type(found), found) == (type(value), value)


def test_every_key_and_item_knows_its_line():
    document = read("# head\na: 1\nb:\n  - x\n  - {c: 2,\n     d: 3}\n")
    assert [document.line(path) for path in [("a",), ("b",), ("b", 0), ("b", 1), ("b", 1, "d")]] == [2, 3, 4, 5, 6]


def test_a_place_without_a_line_has_that_of_what_holds_it():
    document = read("a: 1\nb:\n  c: 2\n")
    assert document.line(("b", "missing", 3)) == 2
    assert document.line(("missing",)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x 1\nb: *x", "x.yaml:2:4: cannot be read: the alias *x is refused"),
        ("a: !!python/object/apply:os.system ['true']", "python/object/apply:os.system is refused"),
        ("a: !!binary aGk=", "binary is refused"),
        ("a: !!int few", "few is not a finite number"),
        ("a: !!map [1]", "tag:yaml.org,2002:map is refused"),
        ("a: 1\nb: 2\na: 3", "x.yaml:3:1: cannot be read: a is given twice, first on line 1"),
        ("1: a", "x.yaml:1:1: cannot be read: a key that is not a line of text"),
        ("? [a]\n: b", "a key that is not a line of text"),
        ("a: 1e999", "1e999 is not a finite number"),
        ("a: " + "9" * 500, "is not a finite number"),
        ("a: " + "9" * 5000, "is not a finite number"),
        ('a: "\\ud800"', "the character U+D800 is refused"),
        ('a: "\\e[31m"', "the character U+001B is refused"),
        ('"\\x9b31m": a', "the character U+009B is refused"),
        ('"a\\nb": a', "a key that is not a line of text"),
        ("a: 1\n---\nb: 2", "x.yaml:2:1: cannot be read: expected a single document"),
        ("a:\n  - [1, 2\nb: 3", "x.yaml:3:2: cannot be read: while parsing a flow sequence"),
        ("a: b: c", "x.yaml:1:5: cannot be read: mapping values are not allowed here"),
        ("a: 1\n\tb: 2", "x.yaml:2:1: cannot be read: while scanning"),
        ("a: 1\nb: \x00", "x.yaml:2: the character U+0000 is not allowed"),
    ],
)
def test_what_is_refused_is_named_with_its_line(text, message):
    with pytest.raises(StudyError) as caught:
        read(text)
    assert message in str(caught.value)
    assert str(caught.value).startswith("x.yaml:")


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_deep_nesting_is_refused_before_it_exhausts_the_stack(opening):
    with pytest.raises(StudyError, match=f"deeper than {MAX_DEPTH} levels"):
        read(opening * 20_000)


def test_the_deepest_allowed_nesting_is_read():
    assert read("[" * (MAX_DEPTH - 1) + "x" + "]" * (MAX_DEPTH - 1)).value[0]


def test_a_bomb_of_aliases_is_refused_at_once():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    start = time.perf_counter()
    with pytest.raises(StudyError, match="alias"):
        read("\n".join(lines))
    assert time.perf_counter() - start < 1
