import pytest

from rankwise.data.examples import Example
from rankwise.data.templates import build_prompt
from rankwise.errors import DataError


def test_alpaca_is_the_published_prompt_byte_for_byte_in_both_forms(tokenizer):
    assert build_prompt(Example("Add.", "2 + 2", "4"), "alpaca", tokenizer) == (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n2 + 2\n\n"
        "### Response:"
    )
    assert build_prompt(Example("Sing.", "", "La"), "alpaca", tokenizer) == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nSing.\n\n### Response:"
    )


def test_an_input_of_blanks_alone_is_no_input(tokenizer):
    assert "### Input" not in build_prompt(Example("Sing.", " \n", "La"), "alpaca", tokenizer)


def test_braces_in_a_data_set_are_text(tokenizer):
    prompt = build_prompt(Example("Explain {input} and {0}.", "{instruction}", "-"), "alpaca", tokenizer)
    assert "### Instruction:\nExplain {input} and {0}.\n\n### Input:\n{instruction}\n\n" in prompt


def test_chat_is_the_tokenizers_own_template(chat_tokenizer):
    assert build_prompt(Example("Add.", "2 + 2", "4"), "chat", chat_tokenizer) == "<s><user>Add.\n\n2 + 2<assistant>"


def test_chat_without_a_chat_template_says_what_to_do(tokenizer):
    with pytest.raises(
        DataError, match=r"data\.template: chat needs a tokenizer with a chat template.*Use template alpaca"
    ):
        build_prompt(Example("Add.", "", "4"), "chat", tokenizer)


def test_plain_adds_nothing_but_line_breaks(tokenizer):
    assert build_prompt(Example("Add.", "2 + 2", "4"), "plain", tokenizer) == "Add.\n2 + 2\n"
    assert build_prompt(Example("Sing.", "", "La"), "plain", tokenizer) == "Sing.\n"
    assert build_prompt(Example("", "", "A story."), "plain", tokenizer) == ""
