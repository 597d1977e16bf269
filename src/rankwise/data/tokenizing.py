"""Text to tokens in one stated way: prompt and answer are tokenized separately and joined.

The prompt begins with the tokenizer's own start token if it has one, once. "Has one" means that the tokenizer's own
encoding of a text begins with it: Llama's does; GPT-2's, DialoGPT's and Phi's do not, although they name a
`bos_token` (the same `<|endoftext|>` that ends a text), so their prompts get none. The answer ends in the end token.
"""

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from rankwise.data.examples import Example, TokenizedExample
from rankwise.data.templates import Template, build_prompt
from rankwise.errors import DataError


def tokenize_examples(
    examples: Sequence[Example], template: Template, tokenizer: PreTrainedTokenizerBase
) -> list[TokenizedExample]:
    """Every example as tokens, in order and in full: nothing is cut here, and nothing left out.

    Raises:
        DataError: the tokenizer has no end token, or no chat template where the template is `chat`.
    """
    end = end_token(tokenizer)
    start = start_tokens(tokenizer)
    prompts = encode_texts([build_prompt(example, template, tokenizer) for example in examples], tokenizer)
    answers = encode_texts([example.output for example in examples], tokenizer)
    return [
        _join(_with_start(prompt, start), [*answer, end], index)
        for index, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
    ]


def encode_prompt(example: Example, template: Template, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The prompt's tokens as in training: what generation continues."""
    [prompt] = encode_texts([build_prompt(example, template, tokenizer)], tokenizer)
    return _with_start(prompt, start_tokens(tokenizer))


def end_token(tokenizer: PreTrainedTokenizerBase) -> int:
    if tokenizer.eos_token_id is None:
        raise DataError(
            f"The tokenizer of {tokenizer.name_or_path!r} has no end token (eos_token), so an answer could not end. "
            "Set eos_token in its tokenizer_config.json, or choose another base model."
        )
    return int(tokenizer.eos_token_id)


def start_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The start token if the tokenizer's own encoding puts it before a text, else nothing."""
    begins_with = tokenizer("a")["input_ids"][0]
    return [begins_with] if begins_with == tokenizer.bos_token_id else []


def encode_texts(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Tokens of each text without special tokens around it."""
    if not texts:
        return []
    encoded = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
    return encoded["input_ids"]


def _with_start(prompt: list[int], start: list[int]) -> list[int]:
    """Chat templates may write the start token themselves; it is not doubled."""
    return prompt if prompt[: len(start)] == start else start + prompt


def _join(prompt: list[int], answer: list[int], index: int) -> TokenizedExample:
    input_ids = np.array(prompt + answer, dtype=np.int64)
    return TokenizedExample(input_ids=input_ids, num_prompt_tokens=max(1, len(prompt)), index=index)
