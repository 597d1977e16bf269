"""General text: passages that have nothing to do with the task, to measure what adapting to it cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files

from transformers import PreTrainedTokenizerBase

from rankwise.data.columns import LoadedExample
from rankwise.data.examples import TokenizedExample
from rankwise.data.sources import load_examples
from rankwise.data.tokenizing import tokenize_examples
from rankwise.errors import DataError
from rankwise.study.config import DataSettings

GENERAL = "general"
"""Name of the passages that come with the package: a few pages of prose in the public domain."""
MIN_PASSAGES = 2


@dataclass(frozen=True, kw_only=True)
class GeneralText:
    """Passages in the order of their source, none of them cut."""

    passages: tuple[TokenizedExample, ...]
    num_over_long: int
    """Left out because they have more tokens than were allowed."""


def load_general(source: str, tokenizer: PreTrainedTokenizerBase, *, max_tokens: int) -> GeneralText:
    """Passages of plain text: `general` for the embedded ones, else a file or a data set on the hub (paragraphs of a
    .txt file, rows with a `text`).

    Raises:
        DataError: it cannot be read, is not plain text, or fewer than two passages are left.
    """
    texts = [loaded.example for loaded in _load(source)]
    tokenized = [example for example in tokenize_examples(texts, "plain", tokenizer) if example.num_answer_tokens]
    fitting = tuple(example for example in tokenized if example.num_tokens <= max_tokens)
    if len(fitting) < MIN_PASSAGES:
        raise DataError(
            f"forgetting: {source} has {len(tokenized)} passages, of which {len(fitting)} have at most {max_tokens} "
            f"tokens; at least {MIN_PASSAGES} are needed. Give shorter paragraphs, or `{GENERAL}` for the passages "
            "that come with rankwise."
        )
    return GeneralText(passages=fitting, num_over_long=len(tokenized) - len(fitting))


def _load(source: str) -> Sequence[LoadedExample]:
    if source == GENERAL:
        with as_file(files("rankwise").joinpath("assets", "general", "passages.jsonl")) as path:
            return load_examples(DataSettings(source=str(path), template="plain"))
    found = load_examples(DataSettings(source=source, template="plain"))
    if not found[0].is_text:
        raise DataError(
            f"forgetting: {source} holds instructions with answers; general text is wanted: paragraphs of a .txt file, "
            f"rows with a `text`, or `{GENERAL}` for the passages that come with rankwise."
        )
    return found
