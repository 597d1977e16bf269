"""How an example becomes a prompt. The answer is never touched.

`alpaca` is the prompt of Taori et al., "Stanford Alpaca" (2023), byte for byte as published in its `train.py`.
"""

from collections.abc import Callable
from typing import Literal

from transformers import PreTrainedTokenizerBase

from rankwise.data.examples import Example
from rankwise.errors import DataError

Template = Literal["alpaca", "chat", "plain"]

ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
ALPACA_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:"
)


def build_prompt(example: Example, template: Template, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text before the answer; empty for a plain text.

    Raises:
        DataError: template `chat` and a tokenizer without one, or whose template refuses a single user message.
    """
    return _BUILDERS[template](example, tokenizer)


def _alpaca(example: Example, tokenizer: PreTrainedTokenizerBase) -> str:
    form = ALPACA_WITH_INPUT if example.input.strip() else ALPACA_WITHOUT_INPUT
    return form.format(instruction=example.instruction, input=example.input)


def _chat(example: Example, tokenizer: PreTrainedTokenizerBase) -> str:
    if not tokenizer.chat_template:
        raise DataError(
            f"data.template: chat needs a tokenizer with a chat template, and that of {tokenizer.name_or_path!r} has "
            "none. Use template alpaca or plain, or the base model's chat variant."
        )
    message = {"role": "user", "content": _instruction_and_input(example, separator="\n\n")}
    return str(tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True))


def _plain(example: Example, tokenizer: PreTrainedTokenizerBase) -> str:
    """Instruction and input on lines of their own, so that the answer starts a line; nothing for a plain text."""
    return _instruction_and_input(example, separator="\n") + "\n" if example.has_prompt else ""


def _instruction_and_input(example: Example, *, separator: str) -> str:
    return separator.join(part for part in (example.instruction, example.input) if part.strip())


_BUILDERS: dict[Template, Callable[[Example, PreTrainedTokenizerBase], str]] = {
    "alpaca": _alpaca,
    "chat": _chat,
    "plain": _plain,
}
