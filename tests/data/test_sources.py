import time

import pytest

from rankwise.data import hub
from rankwise.data.sources import load_examples
from rankwise.errors import DataError
from rankwise.study.config import DataSettings

HUB_ALTERNATIVES = r"a \.json, \.jsonl, \.csv, \.parquet or \.txt file on this machine as data\.source, or `skills`"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"q": "a", "r": "b"}\n', encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("{}/none.json", {}, "there is no file .*none.json. Allowed are `skills`.*hub id"),
        ("no_such_name", {}, "there is no file no_such_name. Allowed are"),
        ("{}", {}, "is a folder; allowed is a file.*Name one of its files: train.jsonl"),
        ("{}/train.jsonl", {"column": {}}, "'column' is not an option of this source; did you mean columns"),
        ("{}/train.jsonl", {"columns": "q"}, "'q' does not name columns. Allowed is part to column"),
        ("{}/train.jsonl", {"difficulty": 2}, "'difficulty' is not an option of this source. Allowed: columns"),
        ("skills", {"dificulty": 2}, "'dificulty' is not an option of this source; did you mean difficulty"),
        ("owner/name", {"subset": 3}, "data.options.subset: 3 is not a text"),
    ],
)
def test_sources_and_options_that_cannot_be_are_refused(folder, source, options, message):
    with pytest.raises(DataError, match=message):
        load_examples(DataSettings(source=source.format(folder), options=options))


def test_columns_of_a_file_can_be_named(folder):
    settings = DataSettings(
        source=str(folder / "train.jsonl"), options={"columns": {"instruction": "q", "output": "r"}}
    )
    [item] = load_examples(settings)
    assert (item.example.instruction, item.example.output) == ("a", "b")


def test_without_a_network_the_hub_is_given_up_within_seconds_and_local_sources_are_named():
    started = time.monotonic()
    with pytest.raises(DataError, match=HUB_ALTERNATIVES) as caught:
        load_examples(DataSettings(source="alpaca"))
    assert time.monotonic() - started < 20  # most of it is the import of `datasets`
    assert "'alpaca' (tatsu-lab/alpaca) is not a file here and could not be downloaded" in str(caught.value)


def test_a_hub_that_does_not_answer_is_given_up_within_seconds(monkeypatch):
    """Not offline by choice: the address is asked once, where `datasets` alone would try again for minutes."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse_connection)
    with pytest.raises(DataError, match=HUB_ALTERNATIVES) as caught:
        hub.download_rows("someone/something", {})
    assert "ConnectionError: no route to the hub" in str(caught.value)


def refuse_connection(api, repo_id, *, revision, timeout):
    assert timeout <= 10
    raise ConnectionError("no route to the hub")


def test_hub_rows_become_examples_with_the_options_passed_on(monkeypatch):
    asked = {}

    def load_dataset(path, name, **options):
        asked.update(path=path, name=name, **options)
        return [{"question": "a", "answer": "b"}]

    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    options = {"subset": "main", "split": "test", "revision": "abc"}
    [item] = load_examples(DataSettings(source="openai/gsm8k", options=options))
    assert (item.example.instruction, item.example.output) == ("a", "b")
    assert asked == {"path": "openai/gsm8k", "name": "main", "split": "test", "revision": "abc"}
