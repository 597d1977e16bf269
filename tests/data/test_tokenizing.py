import pytest

from rankwise.data.examples import Example
from rankwise.data.tokenizing import encode_prompt, tokenize_examples
from rankwise.errors import DataError

EXAMPLE = Example("Add.", "2 + 2", "4")
TEXT = Example("", "", "Once upon a time.")


def test_prompt_and_answer_are_tokenized_apart_and_joined_between_start_and_end(tokenizer):
    [tokens] = tokenize_examples([EXAMPLE], "plain", tokenizer)
    prompt = tokenizer("Add.\n2 + 2\n", add_special_tokens=False)["input_ids"]
    assert list(tokens.input_ids) == [tokenizer.bos_token_id, *prompt, *tokenizer("4")["input_ids"][1:], 1]
    assert tokens.num_prompt_tokens == 1 + len(prompt)
    assert tokens.num_answer_tokens == 2
    assert tokenizer.decode(tokens.input_ids[tokens.num_prompt_tokens :]) == "4</s>"


def test_a_start_token_that_the_tokenizer_does_not_use_itself_is_not_added(tokenizer_without_start):
    assert tokenizer_without_start.bos_token_id is not None
    [tokens] = tokenize_examples([EXAMPLE], "plain", tokenizer_without_start)
    assert tokenizer_without_start.decode(tokens.input_ids) == "Add.\n2 + 2\n4</s>"


def test_a_start_token_written_by_the_chat_template_is_not_doubled(chat_tokenizer):
    [tokens] = tokenize_examples([EXAMPLE], "chat", chat_tokenizer)
    assert chat_tokenizer.decode(tokens.input_ids) == "<s><user>Add.\n\n2 + 2<assistant>4</s>"
    assert list(tokens.input_ids).count(chat_tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("fixture", ["tokenizer", "tokenizer_without_start"])
def test_of_a_plain_text_all_but_the_first_token_counts(fixture, request):
    tokenizer = request.getfixturevalue(fixture)
    [tokens] = tokenize_examples([TEXT], "plain", tokenizer)
    assert tokens.num_prompt_tokens == 1
    assert tokenizer.decode(tokens.input_ids, skip_special_tokens=True) == TEXT.output
    assert tokens.input_ids[-1] == tokenizer.eos_token_id


def test_nothing_is_cut_however_long(tokenizer):
    [tokens] = tokenize_examples([Example("a", "", "b" * 5000)], "plain", tokenizer)
    assert tokens.num_answer_tokens == 5001


def test_the_prompt_of_generation_is_the_prompt_of_training(tokenizer, chat_tokenizer):
    for template, own in (("alpaca", tokenizer), ("chat", chat_tokenizer), ("plain", tokenizer)):
        [tokens] = tokenize_examples([EXAMPLE], template, own)
        assert encode_prompt(EXAMPLE, template, own) == list(tokens.input_ids[: tokens.num_prompt_tokens])


def test_a_tokenizer_without_an_end_token_is_refused(tokenizer_without_end):
    with pytest.raises(DataError, match=r"no end token \(eos_token\).*tokenizer_config\.json"):
        tokenize_examples([EXAMPLE], "plain", tokenizer_without_end)


@pytest.mark.parametrize(
    ("model", "starts"),
    [
        ("DialoGPT-medium", False),
        ("phi-2", False),
        ("TinyLlama-1.1B-Chat-v1.0", True),
        ("tinystories-llama-260k", True),
    ],
)
def test_real_tokenizers_get_the_start_token_that_they_use_themselves(shared_data, model, starts):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared_data / "models" / model)
    [tokens] = tokenize_examples([EXAMPLE], "alpaca", tokenizer)
    assert (tokens.input_ids[0] == tokenizer.bos_token_id) == starts
    assert tokens.input_ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(tokens.input_ids[tokens.num_prompt_tokens : -1]).strip() == "4"
