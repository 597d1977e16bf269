"""Bytes that a pack needs at its peak, predicted before anything is loaded: one named term a line.

K = slots, P = adapter parameters of a slot with padding, N = rows of a micro-batch, R = largest rank at a site.

What a pass keeps for its backward pass is asked of the model (packing/activations.py); the rest follows from shapes.
`benchmarks/memory_model.py` holds the sum against measured peaks (docs/memory.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from transformers import PreTrainedConfig

from rankwise.allocation.rank_map import RankMap
from rankwise.packing.activations import ActivationSize

FLOAT32_BYTES = 4
RUNTIME_BYTES = 450 * 2**20
"""Python with torch, transformers and the ledger before any model, as measured on Linux x86-64."""

SLACK_FRAC = 0.5
"""What the process holds beyond the live tensors of a training pass, as a share of them: blocks of changing sizes that
the C library keeps and cannot fit together. Measured (docs/memory.md); on CUDA live tensors are counted."""

# Logits, their float32 copy and the gradient, in units of the vocabulary; scoring needs no gradient.
_LOGIT_TERMS = 3
_SCORING_LOGIT_TERMS = 2
# Each row's copy of its slot's matrices and the gradient of that copy.
_ROW_COPIES = 2
# Of what a block keeps for its backward pass, the share that is alive at once where there is none.
_SCORING_BLOCK_FRAC = 0.5
# Weights and the optimizer's two averages, gathered into one document.
_CHECKPOINT_COPIES = 3


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
    kv_size: int
    """Width of a token's keys, and of its values: below the hidden size where query heads share them."""
    vocab_size: int

    @classmethod
    def from_config(
        cls, config: PreTrainedConfig, *, num_params: int, param_bytes: float, compute_bytes: int
    ) -> "ModelShape":
        """Read the shape from any causal model's configuration, under the names that families use."""
        text = config.get_text_config()
        hidden, num_heads = text.hidden_size, text.num_attention_heads
        head_size = getattr(text, "head_dim", None) or hidden // num_heads
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
            num_heads=num_heads,
            kv_size=(getattr(text, "num_key_value_heads", None) or num_heads) * head_size,
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
    """Kept for the backward pass of one micro-batch."""
    prefixes: int
    """Shared prefixes with what they keep, and each row's view of their keys and values."""
    logits: int
    working: int
    """Of one block while it is computed, and each row's copy of its slot's adapters there."""
    slack: int
    """Torn between allocations: `SLACK_FRAC` of the four terms before."""
    scoring: int
    """What a scoring pass needs beyond a training pass."""
    checkpoint: int
    """The document that is written: in one piece, so what a pass has freed in pieces has no room for it."""

    @property
    def total_bytes(self) -> int:
        return sum(self.terms().values())

    def terms(self) -> Mapping[str, int]:
        return asdict(self)


def predict_memory(
    shape: ModelShape,
    rank_maps: Sequence[RankMap],
    activations: ActivationSize,
    *,
    micro_tokens: int,
    eval_tokens: int,
    step_rows: int,
    scored_rows: int,
    longest_tokens: int,
    own_frac: float = 1.0,
    answer_frac: float = 1.0,
    on_host: bool = True,
    num_measured: int = 0,
    has_gates: bool = False,
    subtracted: Sequence[RankMap] = (),
) -> MemoryEstimate:
    """The peak of training the slots of `rank_maps` together.

    Args:
        micro_tokens: Padded tokens of one forward and backward pass.
        eval_tokens: Padded tokens of one scoring pass.
        step_rows: Rows of one optimizer step of all slots; few of them do not fill a micro-batch.
        scored_rows: Rows that are scored together, of all slots.
        longest_tokens: Length of the longest row; a single row may exceed `micro_tokens`.
        own_frac: Share of a row's tokens that it does not share with others; the rest are prefixes computed apart.
        answer_frac: Share of a row's own tokens that are answer tokens, for which logits are computed.
        on_host: Whether the process's own memory counts (it does not on CUDA).
        num_measured: Slots whose every weight has a smoothed sensitivity and its uncertainty.
        has_gates: Whether any slot has gates: compute tensors and their gradients are then tensors of their own.
        subtracted: Rank maps of the slots whose initial product is subtracted: frozen components beside the trained
            ones, with the same consequence, and as wide in every slot.
    """
    adapter_bytes = len(rank_maps) * padded_params(rank_maps) * FLOAT32_BYTES
    frozen_bytes = len(rank_maps) * padded_params(subtracted) * FLOAT32_BYTES
    is_apart = has_gates or bool(subtracted)
    has_own_tensors = is_apart or shape.compute_bytes < FLOAT32_BYTES
    wide_bytes = adapter_bytes + frozen_bytes
    working_bytes = wide_bytes * shape.compute_bytes // FLOAT32_BYTES if has_own_tensors else 0
    widest = _side_by_side(_widest_ranks(rank_maps), _widest_ranks(subtracted))
    passes = _Passes(shape, activations, widest, len(rank_maps), longest_tokens, own_frac, answer_frac)
    training = passes.training(passes.tokens(micro_tokens, step_rows))
    scoring = passes.scoring(passes.tokens(eval_tokens, scored_rows))
    training["slack"] = int(sum(training.values()) * SLACK_FRAC) if on_host else 0
    return MemoryEstimate(
        runtime=RUNTIME_BYTES if on_host else 0,
        weights=int(shape.num_params * shape.param_bytes),
        adapters=wide_bytes + working_bytes,
        gradients=adapter_bytes + (wide_bytes if is_apart else 0),
        optimizer=2 * adapter_bytes + 2 * num_measured * padded_params(rank_maps) * FLOAT32_BYTES,
        **training,
        scoring=max(0, scoring - sum(training.values())),
        checkpoint=_CHECKPOINT_COPIES * adapter_bytes + frozen_bytes if on_host else 0,
    )


@dataclass(frozen=True)
class _Passes:
    """What passes over rows of the longest length hold at their fullest."""

    shape: ModelShape
    size: ActivationSize
    widest: Mapping[str, tuple[int, int, int]]
    num_slots: int
    longest_tokens: int
    own_frac: float
    answer_frac: float

    @property
    def own_tokens(self) -> int:
        """Of the longest row."""
        return max(1, round(self.longest_tokens * self.own_frac))

    @property
    def prefix_tokens(self) -> int:
        return self.longest_tokens - self.own_tokens

    def tokens(self, most: int, num_rows: int) -> int:
        """Padded tokens of the fullest pass over `num_rows`: whole rows, at least one."""
        return min(max(1, most // self.own_tokens), num_rows) * self.own_tokens

    def training(self, tokens: int) -> dict[str, int]:
        """Terms of a forward and backward pass over `tokens`."""
        low_bytes = sum(rank for rank, _, _ in self.widest.values()) * self.shape.compute_bytes
        prefix_rows = self._prefix_rows(tokens)
        prefix_kept = self.size.of_token(self.prefix_tokens) + low_bytes + 2 * self._cache_bytes
        return {
            "activations": int(tokens * (self.size.of_token(self.longest_tokens) + low_bytes)),
            "prefixes": int(prefix_rows * self.prefix_tokens * prefix_kept) + self._row_caches(tokens),
            "logits": self._logits(tokens, _LOGIT_TERMS),
            "working": self._block(tokens) + self._row_adapters(tokens),
        }

    def scoring(self, tokens: int) -> int:
        """Bytes of a forward pass alone."""
        prefixes = self._prefix_rows(tokens) * self.prefix_tokens * self._cache_bytes
        own_cache = tokens * self._cache_bytes if self.prefix_tokens else 0
        block = int(self._block(tokens) * _SCORING_BLOCK_FRAC) + self._row_adapters(tokens)
        logits = self._logits(tokens, _SCORING_LOGIT_TERMS)
        return block + logits + prefixes + own_cache + self._row_caches(tokens)

    @property
    def _cache_bytes(self) -> int:
        """Keys and values of one token in all blocks."""
        return 2 * self.shape.kv_size * self.shape.num_layers * self.shape.compute_bytes

    def _num_rows(self, tokens: int) -> int:
        return max(1, tokens // self.own_tokens)

    def _prefix_rows(self, tokens: int) -> int:
        """Prefixes computed together: one a slot, as many as a pass holds."""
        return min(self.num_slots, max(1, tokens // self.prefix_tokens)) if self.prefix_tokens else 0

    def _row_caches(self, tokens: int) -> int:
        """Each row's own keys and values are among its activations; those of its prefix are copied in front."""
        return self._num_rows(tokens) * self.prefix_tokens * self._cache_bytes

    def _logits(self, tokens: int, num_terms: int) -> int:
        return int(tokens * self.answer_frac) * self.shape.vocab_size * FLOAT32_BYTES * num_terms

    def _block(self, tokens: int) -> int:
        """As much again as one block keeps."""
        return int(tokens * self.size.of_token(self.longest_tokens) / self.shape.num_layers)

    def _row_adapters(self, tokens: int) -> int:
        largest = max((rank * max(features) for rank, *features in self.widest.values()), default=0)
        return self._num_rows(tokens) * largest * self.shape.compute_bytes * _ROW_COPIES


def padded_params(rank_maps: Sequence[RankMap]) -> int:
    """P: each site as wide as the widest slot there, places that a dynamic strategy may grow into included."""
    return sum(rank * (num_in + num_out) for rank, num_in, num_out in _widest_ranks(rank_maps).values())


def _widest_ranks(rank_maps: Sequence[RankMap]) -> dict[str, tuple[int, int, int]]:
    """Per site the largest rank of any slot, inputs and outputs."""
    widest: dict[str, tuple[int, int, int]] = {}
    for rank_map in rank_maps:
        for site, rank in zip(rank_map.sites, rank_map.held_ranks, strict=True):
            most = max(rank, widest.get(site.name, (0, 0, 0))[0])
            widest[site.name] = (most, site.in_features, site.out_features)
    return widest


def _side_by_side(
    trained: Mapping[str, tuple[int, int, int]], frozen: Mapping[str, tuple[int, int, int]]
) -> dict[str, tuple[int, int, int]]:
    """Each site as wide as its trained and its frozen components together."""
    return {
        name: (rank + frozen.get(name, (0, 0, 0))[0], num_in, num_out)
        for name, (rank, num_in, num_out) in trained.items()
    }
