"""Floating-point operations of training and of scoring, counted from shapes.

A multiply-add counts as two. Only matrix products count; norms, activations, the optimizer and padding do not: the time
they take shows in the share of the matrix-product speed that a training step reaches.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from rankwise.data.examples import TokenizedExample
from rankwise.packing.memory import ModelShape


@dataclass(frozen=True, kw_only=True)
class TokenCounts:
    """What the operations of a split depend on."""

    num_tokens: int
    num_answer_tokens: int
    num_token_pairs: int
    """Sum of squared lengths: each token's score against each of its row, as plain matrix products compute them."""

    @classmethod
    def of(cls, examples: Iterable[TokenizedExample]) -> "TokenCounts":
        counted = [(example.num_tokens, example.num_answer_tokens) for example in examples]
        return cls(
            num_tokens=sum(tokens for tokens, _ in counted),
            num_answer_tokens=sum(answers for _, answers in counted),
            num_token_pairs=sum(tokens**2 for tokens, _ in counted),
        )


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
