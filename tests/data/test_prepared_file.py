import hashlib
import json
import os

import pytest

from rankwise.data.examples import SPLITS
from rankwise.data.prepare import prepare_data
from rankwise.data.prepared_file import analysis_path, write_prepared
from rankwise.errors import DataError
from rankwise.study.config import DataSettings

SETTINGS = DataSettings(template="plain", train=30, validation=10, test=10)


@pytest.fixture(scope="module")
def prepared(tokenizer):
    return prepare_data(SETTINGS, tokenizer)


def test_a_study_reads_back_the_same_splits_and_tokens(tmp_path, prepared, tokenizer):
    path = tmp_path / "skills.jsonl"
    write_prepared(prepared, SETTINGS, "nano", path)
    again = prepare_data(SETTINGS.model_copy(update={"source": str(path)}), tokenizer)
    assert again.examples == prepared.examples
    assert again.fingerprint == prepared.fingerprint


def test_plain_text_is_read_back_as_plain_text(tmp_path, tokenizer):
    source = tmp_path / "story.txt"
    source.write_text("\n\n".join(f"Line {n}\nof a story." for n in range(20)), encoding="utf-8")
    settings = DataSettings(source=str(source), template="plain", train=10, validation=5, test=5)
    prepared = prepare_data(settings, tokenizer)
    write_prepared(prepared, settings, "nano", tmp_path / "out.jsonl")
    again = prepare_data(settings.model_copy(update={"source": str(tmp_path / "out.jsonl")}), tokenizer)
    assert again.fingerprint == prepared.fingerprint


def test_the_analysis_says_what_the_file_is(tmp_path, prepared):
    path = tmp_path / "skills.jsonl"
    analysis = write_prepared(prepared, SETTINGS, "nano", path)
    assert json.loads(analysis_path(path).read_text(encoding="utf-8")) == json.loads(json.dumps(analysis))
    assert analysis["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert analysis["fingerprint"] == prepared.fingerprint
    assert analysis["summary"]["splits"]["train"]["num_examples"] == 30
    assert analysis["settings"]["seed"] == 0
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["split"] for line in lines] == [split for split in SPLITS for _ in prepared.examples[split]]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_half_written(tmp_path, prepared, monkeypatch, failing):
    path = tmp_path / "skills.jsonl"
    path.write_text("old", encoding="utf-8")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if failing == "fsync" else (type(path), "replace")), full)
    with pytest.raises(DataError, match=r"skills.jsonl.*No space left on device.*--out"):
        write_prepared(prepared, SETTINGS, "nano", path)
    assert [file.name for file in tmp_path.iterdir()] == ["skills.jsonl"]
    assert path.read_text(encoding="utf-8") == "old"
