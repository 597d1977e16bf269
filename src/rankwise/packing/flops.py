"""Floating-point operations of training and of scoring, counted from shapes.

A multiply-add counts as two. Only matrix products count; norms, activations, the optimizer and padding do not: the time
they take shows in the share of the matrix-product speed that a training step reaches.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rankwise.data.examples import TokenizedExample
from rankwise.packing.memory import ModelShape


@dataclass(frozen=True, kw_only=True)
class TokenCounts:
    """What the operations of a slot's passes over its rows depend on."""

    num_tokens: int
    """Computed ones: a prefix that rows of a pass share counts once."""
    num_answer_tokens: int
    num_token_pairs: int
    """Attention scores, as plain matrix products compute them: each computed token against all of its row."""

    @classmethod
    def of(cls, passes: Iterable[Sequence[TokenizedExample]], *, share_prefixes: bool) -> "TokenCounts":
        """Count the rows of each pass: of an optimizer step, or of a whole split that is scored."""
        num_tokens = num_answer_tokens = num_token_pairs = 0
        for rows in passes:
            prefixes = set()
            for row in rows:
                num_shared = row.num_shared_tokens if share_prefixes else 0
                prefixes.add(tuple(row.input_ids[:num_shared].tolist()))
                num_tokens += row.num_tokens - num_shared
                num_token_pairs += (row.num_tokens - num_shared) * row.num_tokens
                num_answer_tokens += row.num_answer_tokens
            num_tokens += sum(map(len, prefixes))
            num_token_pairs += sum(len(prefix) ** 2 for prefix in prefixes)
        return cls(num_tokens=num_tokens, num_answer_tokens=num_answer_tokens, num_token_pairs=num_token_pairs)


def count_training_flops(
    shape: ModelShape, tokens: TokenCounts, *, num_block_params: int, num_adapter_params: int
) -> int:
    """Forward and backward pass over `tokens`, base weights frozen.

    Backward costs the frozen products once more (gradients of activations only), attention and adapters twice more.
    """
    forward = _forward_terms(shape, tokens, num_block_params, num_adapter_params)
    return 2 * forward.blocks + 3 * forward.attention + 3 * forward.adapters + 2 * forward.head


def count_scoring_flops(
    shape: ModelShape, tokens: TokenCounts, *, num_block_params: int, num_adapter_params: int
) -> int:
    """Forward pass over `tokens`."""
    forward = _forward_terms(shape, tokens, num_block_params, num_adapter_params)
    return forward.blocks + forward.attention + forward.adapters + forward.head


def count_recomputed_flops(
    shape: ModelShape, tokens: TokenCounts, *, num_block_params: int, num_adapter_params: int
) -> int:
    """What gradient checkpointing adds to training: the forward pass of all blocks again, without the head."""
    forward = _forward_terms(shape, tokens, num_block_params, num_adapter_params)
    return forward.blocks + forward.attention + forward.adapters


@dataclass(frozen=True)
class _ForwardFlops:
    blocks: int
    attention: int
    adapters: int
    head: int


def _forward_terms(
    shape: ModelShape, tokens: TokenCounts, num_block_params: int, num_adapter_params: int
) -> _ForwardFlops:
    return _ForwardFlops(
        blocks=2 * tokens.num_tokens * num_block_params,
        # Scores and the weighted sum of values, per layer.
        attention=2 * 2 * tokens.num_token_pairs * shape.hidden_size * shape.num_layers,
        adapters=2 * tokens.num_tokens * num_adapter_params,
        head=2 * tokens.num_answer_tokens * shape.hidden_size * shape.vocab_size,
    )
