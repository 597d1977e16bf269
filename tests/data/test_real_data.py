"""Real instruction data, where it is at hand."""

import json

import pytest
from transformers import AutoTokenizer

from rankwise.data.examples import SPLITS
from rankwise.data.prepare import prepare_data
from rankwise.study.config import DataSettings


@pytest.fixture(scope="module")
def dialogpt(shared_data):
    return AutoTokenizer.from_pretrained(shared_data / "models" / "DialoGPT-medium")


def test_alpaca_rows_become_prompts_and_answers(shared_data, dialogpt):
    source = shared_data / "instruct" / "alpaca_random_9k.json"
    prepared = prepare_data(DataSettings(source=str(source), train=800, validation=100, test=100), dialogpt)
    rows = {(row["instruction"], row["input"]): row["output"] for row in json.loads(source.read_text(encoding="utf-8"))}
    assert prepared.summary.num_loaded == 9229
    assert prepared.summary.excluded.empty_answer == 4
    assert prepared.summary.split_overlap == 0
    for split in SPLITS:
        for tokens, example in zip(getattr(prepared, split), prepared.examples[split], strict=True):
            assert rows[example.instruction, example.input] == example.output
            assert tokens.num_tokens <= 256
            prompt = dialogpt.decode(tokens.input_ids[: tokens.num_prompt_tokens])
            answer = dialogpt.decode(tokens.input_ids[tokens.num_prompt_tokens : -1])
            assert prompt.startswith("Below is an instruction")
            assert prompt.endswith("### Response:")
            assert answer == example.output
            assert tokens.input_ids[-1] == dialogpt.eos_token_id


def test_gsm8k_questions_and_answers_are_recognised(shared_data, dialogpt):
    source = shared_data / "gsm8k" / "train.jsonl"
    prepared = prepare_data(DataSettings(source=str(source), train=500, validation=100, test=100), dialogpt)
    assert prepared.summary.num_loaded == 7473
    assert all("\n#### " in example.output for example in prepared.examples["test"])


def test_wikitext_is_plain_text(shared_data, dialogpt):
    source = shared_data / "lm" / "wikitext-2" / "valid.txt"
    settings = DataSettings(source=str(source), template="plain", train=200, validation=50, test=50)
    prepared = prepare_data(settings, dialogpt)
    assert prepared.summary.excluded.over_long > 0
    assert {tokens.num_prompt_tokens for tokens in prepared.train} == {1}
