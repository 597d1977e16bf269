import dataclasses
import json
import pickle

import numpy as np
import pytest

from rankwise.data.examples import SPLITS
from rankwise.data.prepare import prepare_data
from rankwise.errors import DataError
from rankwise.study.config import DataSettings


def write_rows(path, rows):
    path.write_text(json.dumps(rows), encoding="utf-8")
    return str(path)


def sums(num, start=0):
    return [{"instruction": f"Add one to {n}.", "input": "", "output": str(n + 1)} for n in range(start, start + num)]


@pytest.fixture
def source(tmp_path):
    return write_rows(tmp_path / "sums.json", sums(60))


def settings(source, **changed):
    given = {"source": source, "template": "plain", "train": 8, "validation": 5, "test": 7, **changed}
    return DataSettings(**given)


def texts(prepared, split):
    return [example.instruction for example in prepared.examples[split]]


def test_splits_have_the_numbers_asked_for_and_share_nothing(source, tokenizer):
    prepared = prepare_data(settings(source), tokenizer)
    assert [len(getattr(prepared, split)) for split in SPLITS] == [8, 5, 7]
    assert len({text for split in SPLITS for text in texts(prepared, split)}) == 20
    assert prepared.summary.split_overlap == 0


def test_tokens_belong_to_the_example_that_their_index_names(source, tokenizer):
    prepared = prepare_data(settings(source), tokenizer)
    for split in SPLITS:
        for place, tokens in enumerate(getattr(prepared, split)):
            example = prepared.examples[split][tokens.index]
            assert tokens.index == place
            assert tokenizer.decode(tokens.input_ids) == f"<s>{example.instruction}\n{example.output}</s>"


def test_the_same_settings_give_the_same_data_and_another_seed_another(source, tokenizer):
    first, again = (prepare_data(settings(source), tokenizer) for _ in range(2))
    other = prepare_data(settings(source, seed=1), tokenizer)
    assert first.examples == again.examples
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert texts(first, "test") != texts(other, "test")


@pytest.mark.parametrize("from_skills", [False, True])
def test_more_training_examples_change_no_other_split_and_keep_the_ones_before(source, tokenizer, from_skills):
    source = "skills" if from_skills else source
    small, large = (prepare_data(settings(source, train=train), tokenizer) for train in (8, 30))
    assert small.examples["test"] == large.examples["test"]
    assert small.examples["validation"] == large.examples["validation"]
    assert small.examples["train"] == large.examples["train"][:8]


def test_more_validation_examples_do_not_change_the_test_split(source, tokenizer):
    small, large = (prepare_data(settings(source, validation=num), tokenizer) for num in (5, 20))
    assert small.examples["test"] == large.examples["test"]


def test_every_left_out_example_is_counted_under_its_reason(tmp_path, tokenizer):
    rows = [
        *sums(20),
        {"instruction": " Add  one\nto 3. ", "input": " ", "output": "a later answer"},
        {"instruction": "Say nothing.", "input": "", "output": " \n"},
        {"instruction": "Say nothing, too.", "input": "", "output": None},
        {"instruction": "", "input": " ", "output": "An answer to nothing."},
        {"instruction": "Talk.", "input": "", "output": "x" * 300},
    ]
    prepared = prepare_data(settings(write_rows(tmp_path / "a.json", rows), max_tokens=60), tokenizer)
    summary = prepared.summary
    assert dataclasses.asdict(summary.excluded) == {
        "empty_prompt": 1,
        "empty_answer": 2,
        "duplicates": 1,
        "over_long": 1,
    }
    assert (summary.num_loaded, summary.num_kept) == (25, 20)
    kept = {example.instruction: example.output for split in SPLITS for example in prepared.examples[split]}
    assert set(kept) == {row["instruction"] for row in sums(20)}
    assert kept["Add one to 3."] == "4"


def test_an_empty_answer_does_not_displace_a_later_good_one(tmp_path, tokenizer):
    rows = [{"instruction": "Add one to 0.", "input": "", "output": ""}, *sums(20)]
    prepared = prepare_data(settings(write_rows(tmp_path / "a.json", rows)), tokenizer)
    assert prepared.summary.num_kept == 20
    assert prepared.summary.excluded.duplicates == 0


def test_an_example_of_exactly_max_tokens_is_kept_whole(tmp_path, tokenizer):
    num_tokens = len("<>Add one to 10.\n11<>")
    rows = sums(20, start=10)
    prepared = prepare_data(settings(write_rows(tmp_path / "a.json", rows), max_tokens=num_tokens - 2), tokenizer)
    assert prepared.summary.excluded.over_long == 0
    with pytest.raises(DataError, match="20 over-long"):
        prepare_data(settings(write_rows(tmp_path / "a.json", rows), max_tokens=num_tokens - 3), tokenizer)


def test_asking_for_too_many_says_how_many_there_are_and_what_was_left_out(tmp_path, tokenizer):
    source = write_rows(tmp_path / "a.json", [*sums(15), *sums(2), {"instruction": "a", "input": "", "output": ""}])
    with pytest.raises(DataError) as caught:
        prepare_data(settings(source), tokenizer)
    message = str(caught.value)
    assert "20 examples are asked for (train 8, validation 5, test 7)" in message
    assert f"{source} has 15 (train would get 3): 18 loaded" in message
    assert "1 with an empty answer, 2 duplicates, 0 over-long (max_tokens 256)" in message


def test_a_data_set_without_any_answer_is_refused(tmp_path, tokenizer):
    rows = [{**row, "output": ""} for row in sums(30)]
    with pytest.raises(DataError, match=r"has 0 .*30 with an empty answer"):
        prepare_data(settings(write_rows(tmp_path / "a.json", rows)), tokenizer)


def test_a_file_that_names_its_splits_keeps_them(tmp_path, tokenizer):
    rows = [{**row, "split": ("train", "validation", "test")[n % 3]} for n, row in enumerate(sums(60))]
    prepared = prepare_data(settings(write_rows(tmp_path / "a.json", rows)), tokenizer)
    for place, split in enumerate(SPLITS):
        expected = [row["instruction"] for row in rows[place::3]]
        assert texts(prepared, split) == expected[: len(texts(prepared, split))]
    with pytest.raises(DataError, match="train would get 20"):
        prepare_data(settings(write_rows(tmp_path / "a.json", rows), train=21), tokenizer)


def test_plain_text_is_split_by_paragraphs_and_needs_the_plain_template(tmp_path, tokenizer):
    path = tmp_path / "story.txt"
    path.write_text("\n\n".join(f"Paragraph {n}." for n in range(30)) + "\n\nParagraph  3.", encoding="utf-8")
    prepared = prepare_data(settings(str(path)), tokenizer)
    assert prepared.summary.excluded.duplicates == 1
    assert all(tokens.num_prompt_tokens == 1 for tokens in prepared.test)
    with pytest.raises(
        DataError, match=r"is plain text, which has no instruction for template alpaca\. Set template: plain"
    ):
        prepare_data(settings(str(path), template="alpaca"), tokenizer)


def test_the_summary_counts_what_is_there(source, tokenizer):
    prepared = prepare_data(settings(source), tokenizer)
    document = json.loads(json.dumps(prepared.summary.to_dict(), allow_nan=False))
    for split in SPLITS:
        counted, tokens = document["splits"][split], getattr(prepared, split)
        lengths = np.array([len(item.input_ids) for item in tokens])
        assert counted["num_examples"] == len(tokens) == sum(counted["histogram_counts"])
        assert counted["num_tokens"] == lengths.sum()
        assert counted["num_answer_tokens"] == sum(len(e.output) + 1 for e in prepared.examples[split])
        assert counted["length_percentiles"]["0"] == lengths.min()
        assert counted["length_percentiles"]["50"] == np.median(lengths)
        assert counted["length_percentiles"]["100"] == lengths.max()
        for low, high, count in zip(
            counted["histogram_edges"], counted["histogram_edges"][1:], counted["histogram_counts"], strict=False
        ):
            assert count == sum(low <= length < high for length in lengths)


def test_the_fingerprint_covers_tokens_prompt_lengths_order_and_settings(tmp_path, source, tokenizer, monkeypatch):
    prints = {prepare_data(settings(source), tokenizer).fingerprint}
    prints.add(prepare_data(settings(source, max_tokens=255), tokenizer).fingerprint)
    prints.add(prepare_data(settings(source, train=9), tokenizer).fingerprint)
    prints.add(prepare_data(settings(source, template="alpaca"), tokenizer).fingerprint)
    changed = [{**row, "output": "?"} for row in sums(60)]
    prints.add(prepare_data(settings(write_rows(tmp_path / "b.json", changed)), tokenizer).fingerprint)
    moved = [{"instruction": row["instruction"][:-1], "input": "", "output": ".\n" + row["output"]} for row in sums(60)]
    prints.add(prepare_data(settings(write_rows(tmp_path / "c.json", moved)), tokenizer).fingerprint)
    assert len(prints) == 6
    assert all(len(text) == 16 and int(text, 16) >= 0 for text in prints)


def test_the_fingerprint_does_not_depend_on_where_the_file_lies(tmp_path, source, tokenizer):
    elsewhere = write_rows(tmp_path / "copy.json", sums(60))
    assert (
        prepare_data(settings(source), tokenizer).fingerprint
        == prepare_data(settings(elsewhere), tokenizer).fingerprint
    )


def test_prepared_data_crosses_processes(source, tokenizer):
    prepared = prepare_data(settings(source), tokenizer)
    copy = pickle.loads(pickle.dumps(prepared))
    assert copy.fingerprint == prepared.fingerprint
    assert all(np.array_equal(a.input_ids, b.input_ids) for a, b in zip(copy.train, prepared.train, strict=True))
