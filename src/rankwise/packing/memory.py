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
from rankwise.packing.passes import AnswerSize, PassSize
from rankwise.packing.working import WorkingSize

FLOAT32_BYTES = 4
RUNTIME_BYTES = 485 * 2**20
"""Python with torch, transformers and the ledger before any model, as measured on Linux x86-64."""

SLACK_FRAC = 0.35
"""What the process holds beyond the live tensors of a pass or a checkpoint's document, as a share of them: blocks of
changing sizes that the C library keeps and cannot fit together. Measured (docs/memory.md); on CUDA live tensors are
counted."""

# Logits, their float32 copy and the gradient, in units of the vocabulary; scoring needs no gradient.
_LOGIT_TERMS = 3
_SCORING_LOGIT_TERMS = 2
# Each row's copy of its slot's matrices and the gradient of that copy.
_ROW_COPIES = 2
# Weights and the optimizer's two averages are written, from a copy of each tensor that is then put into one piece.
_DOCUMENT_ROWS = 3
_DOCUMENT_COPIES = 2


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What the prediction needs to know of a base model."""

    num_params: int
    param_bytes: float
    """Average bytes of one stored weight: 4, 2, or less where linear layers are quantized."""
    compute_bytes: int
    hidden_size: int
    mlp_size: int
    num_layers: int
    num_heads: int
    kv_size: int
    """Width of a token's keys, and of its values: below the hidden size where query heads share them."""
    vocab_size: int
    unpacked_params: int = 0
    """Weights of the largest quantized matrix, which is unpacked while its layer is differentiated."""

    @classmethod
    def from_config(
        cls,
        config: PreTrainedConfig,
        *,
        num_params: int,
        param_bytes: float,
        compute_bytes: int,
        unpacked_params: int = 0,
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
            unpacked_params=unpacked_params,
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
    """Torn between allocations: `SLACK_FRAC` of the four terms before, with what the three after need beyond them."""
    scoring: int
    """What a scoring pass needs beyond a training pass: of held-out data, or of general text, all of whose tokens have
    logits."""
    answers: int
    """What writing answers needs beyond both: prompts that are read together, with all keys and values."""
    checkpoint: int
    """What the document that is written needs beyond the room that passes have freed by then."""

    @property
    def total_bytes(self) -> int:
        return sum(self.terms().values())

    def terms(self) -> Mapping[str, int]:
        return asdict(self)


def predict_memory(
    shape: ModelShape,
    rank_maps: Sequence[RankMap],
    activations: ActivationSize,
    working: WorkingSize,
    *,
    training: Sequence[PassSize],
    scoring: Sequence[PassSize] = (),
    answers: Sequence[AnswerSize] = (),
    on_host: bool = True,
    num_measured: int = 0,
    has_gates: bool = False,
    subtracted: Sequence[RankMap] = (),
    writes_checkpoint: bool = True,
) -> MemoryEstimate:
    """The peak of training the slots of `rank_maps` together.

    Args:
        training: Passes forward and backward; the most demanding one counts. None at all: nothing is trained.
        scoring: Passes that are only forward.
        answers: Batches of prompts that are answered.
        on_host: Whether the process's own memory counts (it does not on CUDA).
        num_measured: Slots whose every weight has a smoothed sensitivity and its uncertainty.
        has_gates: Whether any slot has gates: compute tensors and their gradients are then tensors of their own.
        subtracted: Rank maps of the slots whose initial product is subtracted: frozen components beside the trained
            ones, with the same consequence, and as wide in every slot.
        writes_checkpoint: Whether the pack's state is written from time to time.
    """
    adapter_bytes = len(rank_maps) * padded_params(rank_maps) * FLOAT32_BYTES
    frozen_bytes = len(rank_maps) * padded_params(subtracted) * FLOAT32_BYTES
    is_apart = has_gates or bool(subtracted)
    has_own_tensors = is_apart or shape.compute_bytes < FLOAT32_BYTES
    wide_bytes = adapter_bytes + frozen_bytes
    working_bytes = wide_bytes * shape.compute_bytes // FLOAT32_BYTES if has_own_tensors else 0
    passes = _Passes(shape, activations, working, _side_by_side(_widest_ranks(rank_maps), _widest_ranks(subtracted)))
    found = max(map(passes.training, training), key=lambda terms: sum(terms.values()), default=passes.nothing)
    live = sum(found.values())
    most_scored = max(map(passes.scoring, scoring), default=0)
    most_answered = max(map(passes.answering, answers), default=0)
    at_once = max(live, most_scored, most_answered)
    document_bytes = _DOCUMENT_COPIES * (_DOCUMENT_ROWS * adapter_bytes + frozen_bytes)
    is_written = on_host and writes_checkpoint
    beyond = max(0, document_bytes - at_once) if is_written else 0
    return MemoryEstimate(
        runtime=RUNTIME_BYTES if on_host else 0,
        weights=int(shape.num_params * shape.param_bytes),
        adapters=wide_bytes + working_bytes,
        gradients=adapter_bytes + (wide_bytes if is_apart else 0),
        optimizer=2 * adapter_bytes + 2 * num_measured * padded_params(rank_maps) * FLOAT32_BYTES,
        **found,
        scoring=max(0, most_scored - live),
        answers=max(0, most_answered - max(live, most_scored)),
        slack=int((at_once + beyond) * SLACK_FRAC) if on_host else 0,
        checkpoint=beyond,
    )


@dataclass(frozen=True)
class _Passes:
    """What single passes hold at their fullest."""

    shape: ModelShape
    size: ActivationSize
    momentary: WorkingSize
    widest: Mapping[str, tuple[int, int, int]]
    """Per site rank, inputs and outputs."""

    @property
    def nothing(self) -> dict[str, int]:
        return dict.fromkeys(("activations", "prefixes", "logits", "working"), 0)

    def training(self, of: PassSize) -> dict[str, int]:
        """Terms of a forward and backward pass.

        The backward pass begins with the logits and goes on block by block. Logits are gone by then, so the larger of
        the two counts, and of the working space what exceeds the logits. A block that is checkpointed keeps its
        activations only then.
        """
        logits = self._logits(of, _LOGIT_TERMS)
        blocks_at_once = 1 if self.size.is_checkpointed else self.shape.num_layers
        return {
            "activations": int(of.num_tokens * self._kept(of.row_tokens)),
            "prefixes": int(of.num_prefixes * of.prefix_tokens * (self._kept(of.prefix_tokens) + self._cache_bytes))
            + self._row_caches(of) * blocks_at_once // self.shape.num_layers,
            "logits": logits,
            "working": max(0, self._working(of, trains=True) + self._computed_again(of) - logits),
        }

    def scoring(self, of: PassSize) -> int:
        """Bytes of a forward pass alone."""
        prefixes = of.num_prefixes * of.prefix_tokens * self._cache_bytes
        own_cache = of.num_tokens * self._cache_bytes if of.prefix_tokens else 0
        caches = (own_cache + self._row_caches(of)) // self.shape.num_layers  # one block's at a time
        logits = self._logits(of, _SCORING_LOGIT_TERMS)
        return max(self._working(of, trains=False) + caches, logits) + prefixes

    def answering(self, of: AnswerSize) -> int:
        """Bytes of reading prompts and writing their answers: one block's keys and values are copied to grow."""
        keys_and_values = of.num_tokens * self._cache_bytes * (self.shape.num_layers + 1) // self.shape.num_layers
        return self.scoring(of.prefill()) + keys_and_values

    def _kept(self, row_tokens: int) -> float:
        """Bytes that each token of rows that long keeps for the backward pass, with the adapters' own."""
        return self.size.of_token(row_tokens) + (0 if self.size.is_checkpointed else self._low_bytes)

    @property
    def _low_bytes(self) -> int:
        """The inputs of every `up` for one token."""
        return sum(rank for rank, _, _ in self.widest.values()) * self.shape.compute_bytes

    @property
    def _cache_bytes(self) -> int:
        """Keys and values of one token in all blocks."""
        return 2 * self.shape.kv_size * self.shape.num_layers * self.shape.compute_bytes

    def _row_caches(self, of: PassSize) -> int:
        """Each row's own keys and values are among its activations; those of its prefix are copied in front."""
        return of.num_rows * of.prefix_tokens * self._cache_bytes

    def _logits(self, of: PassSize, num_terms: int) -> int:
        return of.num_answers * self.shape.vocab_size * FLOAT32_BYTES * num_terms

    def _working(self, of: PassSize, *, trains: bool) -> int:
        """Of one block under way."""
        block = int(of.num_tokens * self.momentary.of_token(of.row_tokens, trains=trains))
        return block + self._row_adapters(of) + self._unpacked_bytes

    def _computed_again(self, of: PassSize) -> int:
        """What a checkpointed block keeps while it is differentiated, for the rows or for their prefixes."""
        if not self.size.is_checkpointed:
            return 0
        low_bytes = self._low_bytes / self.shape.num_layers
        rows = of.num_tokens * (self.size.of_block(of.row_tokens) + low_bytes)
        prefixes = of.num_prefixes * of.prefix_tokens * (self.size.of_block(of.prefix_tokens) + low_bytes)
        return int(max(rows, prefixes))

    def _row_adapters(self, of: PassSize) -> int:
        largest = max((rank * max(features) for rank, *features in self.widest.values()), default=0)
        return of.num_rows * largest * self.shape.compute_bytes * _ROW_COPIES

    @property
    def _unpacked_bytes(self) -> int:
        return self.shape.unpacked_params * self.shape.compute_bytes


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
