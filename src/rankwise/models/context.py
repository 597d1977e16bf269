"""How long a sequence a model takes, and settings that ask for more."""

from transformers import PreTrainedModel

from rankwise.errors import DataError

NO_LIMIT = 2**31


def context_tokens(model: PreTrainedModel) -> int:
    """Longest sequence that the model has positions for; no limit where its configuration names none."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or NO_LIMIT)


def check_context(model: PreTrainedModel, name: str, max_tokens: int) -> None:
    """See that examples of `max_tokens` tokens fit the model, which is called `name`.

    A table of positions ends there, and rotary positions beyond were never trained, so that scores would mean nothing.

    Raises:
        DataError: they do not.
    """
    context = context_tokens(model)
    if max_tokens > context:
        raise DataError(
            f"data.max_tokens: {max_tokens} is more than the {context} tokens that {name} takes. Allowed are 2 to "
            f"{context}: set data.max_tokens (--max-tokens) to at most {context}, which leaves longer examples out and "
            "counts them, or choose a model with a longer context."
        )
