"""The tokenizer that belongs to a base model, as it was published: no token is added and none is renamed."""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from rankwise.errors import ModelError
from rankwise.models.source import locate_base
from rankwise.study.config import BaseSettings


def load_tokenizer(settings: BaseSettings) -> PreTrainedTokenizerBase:
    """Load the tokenizer alone; the model's weights are neither needed nor downloaded.

    Raises:
        ModelError: The model cannot be found or downloaded, or has no tokenizer that can be read.
    """
    return read_tokenizer(locate_base(settings, "config", "tokenizer"), settings.trust_remote_code)


def read_tokenizer(folder: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Read the tokenizer in a folder that `locate_base` has checked."""
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # the tokenizers library raises bare Exception for a broken file
        raise ModelError(
            f"base.model: the tokenizer in {folder} cannot be read ({type(error).__name__}: {error}). Save it again "
            "with `tokenizer.save_pretrained`. One that comes with Python code of its own needs "
            "base.trust_remote_code: true."
        ) from error
