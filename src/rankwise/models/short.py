"""A model of the same width that is only a few blocks deep, to ask or to measure what every block needs alike."""

from transformers import PreTrainedConfig


def short_config(config: PreTrainedConfig, *, num_blocks: int, vocab_size: int) -> PreTrainedConfig:
    """A copy of `config` with at most `num_blocks` blocks and `vocab_size` tokens, none of them special."""
    short = config.from_dict(config.to_dict())
    text = short.get_text_config()
    text.num_hidden_layers = min(num_blocks, text.num_hidden_layers)
    text.vocab_size = min(vocab_size, text.vocab_size)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(text, name, None)
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[: text.num_hidden_layers]
    short._attn_implementation = config._attn_implementation
    return short
