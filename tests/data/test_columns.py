import pytest

from rankwise.data.columns import build_examples
from rankwise.data.examples import Example
from rankwise.data.rows import Row
from rankwise.errors import DataError


def rows(*fields):
    return [Row(f"row {number}", values) for number, values in enumerate(fields, start=1)]


def examples(*fields, columns=None):
    return [item.example for item in build_examples(rows(*fields), "file.json", columns)]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"instruction": "a", "input": "b", "output": "c"}, Example("a", "b", "c")),
        ({"instruction": "a", "output": "c", "text": "a c"}, Example("a", "", "c")),
        ({"prompt": "a", "response": "c"}, Example("a", "", "c")),
        ({"prompt": "a", "completion": "c"}, Example("a", "", "c")),
        ({"question": "a", "context": "b", "answer": "c"}, Example("a", "b", "c")),
        ({"instruction": "a", "input": None, "output": 42, "family": "sums"}, Example("a", "", "42", "sums")),
        ({"text": "all of it"}, Example("", "", "all of it")),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}]},
            Example("a", "", "c"),
        ),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "c"}]}, Example("a", "", "c")),
    ],
)
def test_usual_schemas_are_recognised(fields, expected):
    assert examples(fields) == [expected]


def test_named_columns_win_over_recognised_ones():
    fields = {"instruction": "wrong", "output": "wrong", "q": "a", "a": "c"}
    assert examples(fields, columns={"instruction": "q", "output": "a"}) == [Example("a", "", "c")]
    assert examples({**fields, "text": "t"}, columns={"text": "text"}) == [Example("", "", "t")]


def test_an_optional_input_may_be_missing_in_some_rows():
    first, second = {"instruction": "a", "output": "c"}, {"instruction": "d", "input": "e", "output": "f"}
    assert examples(first, second) == [Example("a", "", "c"), Example("d", "e", "f")]


def test_a_system_message_goes_before_the_instruction_and_later_turns_are_counted():
    turns = [("system", "Be kind."), ("user", "a"), ("assistant", "c"), ("user", "more"), ("assistant", "no")]
    [item] = build_examples(rows({"messages": [{"role": r, "content": t} for r, t in turns]}), "file.json")
    assert item.example == Example("Be kind.\n\na", "", "c")
    assert item.num_unused_turns == 2


def test_a_column_that_names_all_three_splits_is_kept_and_any_other_ignored():
    named = [{"instruction": "a", "output": "b", "split": name} for name in ("train", "test", "validation")]
    assert [item.split for item in build_examples(rows(*named), "f")] == ["train", "test", "validation"]
    assert [item.split for item in build_examples(rows(*named[:2]), "f")] == [None, None]


@pytest.mark.parametrize(
    ("fields", "columns", "message"),
    [
        ([{"a": 1, "b": 2}], None, r"no schema fits its columns \('a', 'b'\).*data\.options, such as \{columns:"),
        ([{"instruction": "a"}], None, "no schema fits its columns"),
        ([{"instruction": "a", "output": "b"}, {"instruction": "c"}], None, "row 2 has no 'output'.*may be empty"),
        (
            [{"instruction": ["a"], "output": "b"}],
            None,
            "row 1: 'instruction' is a list; allowed are texts and numbers",
        ),
        ([{"instruction": "a", "output": True}], None, "row 1: 'output' is a bool"),
        ([{"messages": "hello"}], None, "row 1: messages begin with none"),
        ([{"messages": [{"role": "assistant", "content": "c"}]}], None, "begin with 'assistant'; allowed is a list"),
        ([{"messages": [{"role": "user", "content": None}]}], None, "row 1: a message must be an object with texts"),
        ([{"a": "x"}], {"instructoin": "a"}, "'instructoin' is not a part of an example; did you mean 'instruction'"),
        (
            [{"ask": "x"}],
            {"instruction": "aks", "output": "ask"},
            "no column 'aks'; did you mean 'ask'.*columns: 'ask'",
        ),
        ([{"a": "x"}], {"instruction": "a"}, "instruction cannot make an example. Name instruction and output"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_row(fields, columns, message):
    with pytest.raises(DataError, match=message) as caught:
        build_examples(rows(*fields), "file.json", columns)
    assert columns or "file.json" in str(caught.value)
