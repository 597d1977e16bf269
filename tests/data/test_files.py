import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankwise.data.files import read_rows
from rankwise.errors import DataError

ROWS = [
    {"instruction": "Add, please.", "input": "1 + 1", "output": "2"},
    {"instruction": "Say\nhi", "input": "", "output": '"hi"'},
]


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def files_of_every_kind(folder):
    csv = 'instruction,input,output\n"Add, please.",1 + 1,2\n"Say\nhi",,"""hi"""\n'
    yield write(folder / "list.json", json.dumps(ROWS))
    yield write(folder / "data.json", json.dumps({"version": 1, "data": ROWS}))
    yield write(folder / "bom.json", b"\xef\xbb\xbf" + json.dumps(ROWS).encode())
    yield write(folder / "lines.jsonl", "\n".join(json.dumps(row) for row in ROWS) + "\n\n")
    yield write(folder / "table.csv", csv)
    yield write(folder / "windows.CSV", csv.replace("\n1", "\r\n1"))
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "table.parquet")
    yield folder / "table.parquet"


def test_every_kind_of_file_gives_the_same_rows(tmp_path):
    for path in files_of_every_kind(tmp_path):
        assert [dict(row.fields) for row in read_rows(path)] == ROWS, path.name


def test_a_text_is_read_by_paragraphs(tmp_path):
    path = write(tmp_path / "story.txt", "\n\nOnce upon\na time.\n \t\nThere was\n\n\n\na frog.  \n")
    assert [row.fields["text"] for row in read_rows(path)] == ["Once upon\na time.", "There was", "a frog."]


def test_a_list_of_texts_is_plain_text(tmp_path):
    path = write(tmp_path / "stories.json", json.dumps(["One.", "Two."]))
    assert [dict(row.fields) for row in read_rows(path)] == [{"text": "One."}, {"text": "Two."}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "[{]", r"a\.json, column 3: is not JSON \(Expecting property name.*Correct it there"),
        ("a.json", '[\n{"a": 1},\n{"b"}]', r"a\.json, line 3, column 5: is not JSON"),
        ("a.json", '{"rows": []}', r"found an object; allowed is a list of objects, or \{\"data\": \[\.\.\.\]\}"),
        ("a.json", "7", "found a number; allowed is a list of objects"),
        ("a.json", '[{"a": 1}, [2]]', "row 2 is a list; allowed is an object"),
        ("a.json", "[" * 100_000, "nested too deeply|is not JSON"),
        ("a.json", "[]", "has no examples"),
        ("a.jsonl", '{"a": 1}\n\n{"a": }\n', "a.jsonl: line 3, column 7: is not JSON"),
        ("a.jsonl", '{"a": 1}\nnull\n', "line 2 is null; allowed is an object"),
        ("a.jsonl", "\n \n", "has no examples"),
        ("a.csv", "a,b\n1,2\n3\n", r"row 2 \(ending in line 3\) does not have the 2 fields of the header"),
        ("a.csv", "a,b\n1,2,3\n", r"row 1 \(ending in line 2\) does not have the 2 fields of the header"),
        ("a.csv", 'a,b\n"1"x,2\n', "line 2 is not well-formed CSV"),
        ("a.csv", "a,b\n", "has no examples"),
        ("a.parquet", "PAR0", "is not a readable Parquet file"),
        ("a.txt", " \n\n", "has no examples"),
        ("a.txt", b"caf\xe9", r"byte 3 is not UTF-8 \(.*\)\. Save the file in UTF-8"),
        ("a.xlsx", "", r"files end in \.json, \.jsonl, \.csv, \.parquet, \.txt"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(tmp_path, name, content, message):
    path = write(tmp_path / name, content)
    with pytest.raises(DataError, match=message) as caught:
        read_rows(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"none\.json: cannot be read"):
        read_rows(tmp_path / "none.json")
