"""Bytes that a pack needs at its peak, predicted from shapes: one named term a line.

K = slots, P = adapter parameters of a slot with padding. Activations are counted for eager attention and a gated MLP,
the costliest common block, so simpler blocks are over-estimated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from transformers import PreTrainedConfig

from rankwise.allocation.rank_map import RankMap

FLOAT32_BYTES = 4
RUNTIME_BYTES = 450 * 2**20
"""Python with torch and transformers before any model, as measured with `rankwise doctor`'s process on Linux x86-64."""

# Per token and block, in units of the hidden size: two norms with their inputs (4), queries, keys and values before and
# after rotation (6), the attention's output (1), two residual sums (2).
_HIDDEN_TERMS = 13
# Gate, its activation, up, and their product: what the MLP keeps for its backward pass, in units of its width.
_MLP_TERMS = 4
# Scores before and after softmax and their gradient, in units of heads x row length.
_ATTENTION_TERMS = 3
# Logits, their float32 copy and the gradient, in units of the vocabulary.
_LOGIT_TERMS = 3


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What the prediction needs to know of a base model."""

    num_params: int
    param_bytes: float
    """Average bytes of one stored weight: 4, 2, about 1 (int8) or about 0.5 (nf4)."""
    compute_bytes: int
    hidden_size: int
    mlp_size: int
    num_layers: int
    num_heads: int
    vocab_size: int

    @classmethod
    def from_config(
        cls, config: PreTrainedConfig, *, num_params: int, param_bytes: float, compute_bytes: int
    ) -> "ModelShape":
        """Read the shape from any causal model's configuration, under the names that families use."""
        text = config.get_text_config()
        hidden = text.hidden_size
        mlp = (
            getattr(text, "intermediate_size", None) or getattr(text, "n_inner", None) or getattr(text, "ffn_dim", None)
        )
        return cls(
            num_params=num_params,
            param_bytes=param_bytes,
            compute_bytes=compute_bytes,
            hidden_size=hidden,
            mlp_size=mlp or 4 * hidden,
            num_layers=text.num_hidden_layers,
            num_heads=text.num_attention_heads,
            vocab_size=text.vocab_size,
        )


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes by cause."""

    runtime: int
    weights: int
    adapters: int
    gradients: int
    optimizer: int
    activations: int
    prefixes: int
    logits: int

    @property
    def total_bytes(self) -> int:
        return sum(self.terms().values())

    def terms(self) -> Mapping[str, int]:
        return asdict(self)


def predict_memory(
    shape: ModelShape,
    rank_maps: Sequence[RankMap],
    *,
    micro_tokens: int,
    longest_tokens: int,
    eval_tokens: int = 0,
    own_frac: float = 1.0,
    answer_frac: float = 1.0,
    on_host: bool = True,
    num_measured: int = 0,
    has_gates: bool = False,
) -> MemoryEstimate:
    """The peak of training the slots of `rank_maps` together.

    Args:
        micro_tokens: Padded tokens of one forward and backward pass.
        longest_tokens: Length of the longest row; a single row may exceed `micro_tokens`.
        eval_tokens: Padded tokens of one scoring pass.
        own_frac: Share of a row's tokens that it does not share with others; the rest are prefixes computed apart.
        answer_frac: Share of a row's own tokens that are answer tokens, for which logits are computed.
        on_host: Whether the process's own memory counts (it does not on CUDA).
        num_measured: Slots whose every weight has a smoothed sensitivity and its uncertainty.
        has_gates: Whether any slot has gates: compute tensors and their gradients are then tensors of their own.
    """
    tokens = max(micro_tokens, longest_tokens)
    adapter_bytes = len(rank_maps) * padded_params(rank_maps) * FLOAT32_BYTES
    has_own_tensors = has_gates or shape.compute_bytes < FLOAT32_BYTES
    working_bytes = adapter_bytes * shape.compute_bytes // FLOAT32_BYTES if has_own_tensors else 0
    per_token_and_layer = (
        _HIDDEN_TERMS * shape.hidden_size
        + _MLP_TERMS * shape.mlp_size
        + _ATTENTION_TERMS * shape.num_heads * longest_tokens
    )
    return MemoryEstimate(
        runtime=RUNTIME_BYTES if on_host else 0,
        weights=int(shape.num_params * shape.param_bytes),
        adapters=adapter_bytes + working_bytes,
        gradients=adapter_bytes * (2 if has_gates else 1),
        optimizer=2 * adapter_bytes + 2 * num_measured * padded_params(rank_maps) * FLOAT32_BYTES,
        activations=tokens * shape.num_layers * per_token_and_layer * shape.compute_bytes,
        prefixes=_prefix_bytes(shape, max(tokens, eval_tokens), own_frac),
        logits=int(tokens * answer_frac) * shape.vocab_size * FLOAT32_BYTES * _LOGIT_TERMS,
    )


def _prefix_bytes(shape: ModelShape, own_tokens: int, own_frac: float) -> int:
    """Keys and values of all layers for rows that continue shared prefixes: prefix and own tokens in one tensor."""
    if own_frac == 1:
        return 0
    return int(own_tokens / own_frac) * 2 * shape.hidden_size * shape.num_layers * shape.compute_bytes


def padded_params(rank_maps: Sequence[RankMap]) -> int:
    """P: each site as wide as the widest slot there, places that a dynamic strategy may grow into included."""
    widest: dict[str, tuple[int, int]] = {}
    for rank_map in rank_maps:
        for site, rank in zip(rank_map.sites, rank_map.held_ranks, strict=True):
            widest[site.name] = (max(rank, widest.get(site.name, (0, 0))[0]), site.cost)
    return sum(rank * cost for rank, cost in widest.values())
