"""Byte-level tokenizers made on the spot: one with a start token of its own as in Llama, one without as in GPT-2."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def byte_tokenizer(*, start: bool, end: bool = True, chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """One token per byte; with `start`, `<s>` opens each text that is encoded with special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<s>", "</s>", *alphabet])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if start:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>" if end else None,
        chat_template=chat_template,
        clean_up_tokenization_spaces=False,
    )


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return byte_tokenizer(start=True)


@pytest.fixture(scope="session")
def chat_tokenizer() -> PreTrainedTokenizerFast:
    return byte_tokenizer(start=True, chat_template=CHAT_TEMPLATE)


@pytest.fixture(scope="session")
def tokenizer_without_start() -> PreTrainedTokenizerFast:
    """Names a start token, but does not put it before a text."""
    return byte_tokenizer(start=False)


@pytest.fixture(scope="session")
def tokenizer_without_end() -> PreTrainedTokenizerFast:
    return byte_tokenizer(start=True, end=False)
