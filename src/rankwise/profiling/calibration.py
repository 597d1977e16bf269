"""How fast this machine trains and scores models of one shape: a few real passes through two blocks of random weights.

A pass takes `overhead_s` for every block, whatever its size, and its counted operations at `flops_per_s`. Two sizes of
pass give both numbers; what norms, activations and copies take is in them, because the passes are real ones. Two blocks
stand for all, because blocks are alike, and a small vocabulary for the whole, because its projection is counted.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedConfig, PreTrainedModel

from rankwise.allocation import RankMap
from rankwise.data.batches import Row
from rankwise.data.examples import TokenizedExample
from rankwise.lora.pack import AdapterPack, SlotPlan
from rankwise.models.quantization import quantize_model
from rankwise.models.short import short_config
from rankwise.models.sites import find_sites
from rankwise.packing.flops import TokenCounts, count_scoring_flops, count_training_flops
from rankwise.packing.forward import token_losses
from rankwise.packing.memory import ModelShape, padded_params
from rankwise.profiling.speed import wait_for
from rankwise.study.config import BaseSettings, Targets

NUM_BLOCKS = 2
VOCAB = 4096
SMALL_TOKENS = 16
"""Of the pass that shows what a block costs whatever its size."""
BUDGET_S = 6.0
"""After this no pass is repeated any more."""
REPEATS = 4


@dataclass(frozen=True, kw_only=True)
class PassSpeed:
    """Of training or of scoring."""

    overhead_s: float
    """Of one block in one pass."""
    flops_per_s: float

    def predict_s(self, num_blocks: int, flops: float) -> float:
        """Of a pass through `num_blocks` with `flops` counted operations."""
        return num_blocks * self.overhead_s + flops / self.flops_per_s

    @classmethod
    def solve(cls, small: tuple[float, float], large: tuple[float, float]) -> "PassSpeed":
        """From the operations and the seconds of two passes through `NUM_BLOCKS` blocks."""
        (few, short_s), (many, long_s) = small, large
        flops_per_s = (many - few) / max(long_s - short_s, 1e-9)
        return cls(overhead_s=max(0.0, short_s - few / flops_per_s) / NUM_BLOCKS, flops_per_s=flops_per_s)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Of one shape of model on one machine."""

    training: PassSpeed
    scoring: PassSpeed
    decoding: PassSpeed
    """Of passes that add one token to each row."""
    params_per_s: float
    """Adapter parameters that AdamW steps."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What the measured passes look like: as those of a study do."""

    targets: Targets
    rank: int
    row_tokens: int
    pass_tokens: int
    num_slots: int


def calibrate(
    config: PreTrainedConfig, workload: Workload, *, settings: BaseSettings, device: torch.device
) -> Calibration:
    """Measure passes like those of `workload` through a short model of the shape of `config`.

    The best of a few repeats counts, so that other processes on the machine disturb little.

    Args:
        settings: Number format and quantization; without `auto`.

    Raises:
        ModelError: this machine cannot quantize so.
    """
    dtype = getattr(torch, settings.dtype)
    model = quantize_model(_short_model(config, dtype, device), settings, device)
    num_block_params = sum(site.in_features * site.out_features for site in find_sites(model))
    sites = find_sites(model, workload.targets)
    ranks = tuple(min(workload.rank, site.in_features, site.out_features) for site in sites)
    rank_map = RankMap(sites=sites, ranks=ranks, scales=(1.0,) * len(sites), budget_params=0)
    plans = [SlotPlan(rank_map=rank_map, init="kaiming", seed=slot) for slot in range(workload.num_slots)]
    pack = AdapterPack(model, plans, compute_dtype=dtype)
    started = time.perf_counter()

    def best_s(work: Callable[[], None]) -> float:
        work()
        found = [_seconds(work, device)]
        while len(found) < REPEATS and time.perf_counter() - started < BUDGET_S:
            found.append(_seconds(work, device))
        return min(found)

    def measure(trains: bool) -> PassSpeed:
        points = []
        for num_rows, num_tokens in _sizes(workload):
            rows = _rows(num_rows, num_tokens, workload.num_slots)
            flops = _flops(model, num_block_params, rank_map, num_rows, num_tokens, num_tokens, trains)
            points.append((flops, best_s(lambda rows=rows: _pass(model, pack, rows, trains))))  # type: ignore[misc]
        return PassSpeed.solve(*points)

    def measure_decoding() -> PassSpeed:
        points = []
        num_tokens = max(2, workload.row_tokens)
        for num_rows in (1, max(8, workload.pass_tokens // num_tokens)):
            flops = _flops(model, num_block_params, rank_map, num_rows, 1, num_tokens, trains=False)
            points.append((flops, best_s(_decoder(model, pack, num_rows, num_tokens))))
        return PassSpeed.solve(*points)

    training, scoring, decoding = measure(trains=True), measure(trains=False), measure_decoding()
    weight = torch.zeros(2**20, device=device, requires_grad=True)
    weight.grad = torch.ones_like(weight)
    optimizer = torch.optim.AdamW([weight])
    per_s = weight.numel() / best_s(optimizer.step)
    return Calibration(training=training, scoring=scoring, decoding=decoding, params_per_s=per_s)


def _short_model(config: PreTrainedConfig, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """Of the same width: `NUM_BLOCKS` blocks, a small vocabulary, random weights."""
    short = short_config(config, num_blocks=NUM_BLOCKS, vocab_size=VOCAB)
    model = AutoModelForCausalLM.from_config(short, dtype=dtype, attn_implementation=short._attn_implementation)
    model.requires_grad_(False)
    return model.eval().to(device)


def _sizes(workload: Workload) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows and their tokens of the small and of the large pass."""
    row_tokens = max(2, workload.row_tokens)
    return (1, min(SMALL_TOKENS, row_tokens)), (max(2, workload.pass_tokens // row_tokens), row_tokens)


def _rows(num_rows: int, num_tokens: int, num_slots: int) -> list[Row]:
    ids = np.arange(num_tokens, dtype=np.int64) % 64
    return [Row(row % num_slots, TokenizedExample(ids, max(1, num_tokens // 2), row), row) for row in range(num_rows)]


def _flops(
    model: PreTrainedModel,
    num_block_params: int,
    rank_map: RankMap,
    num_rows: int,
    num_tokens: int,
    seen_tokens: int,
    trains: bool,
) -> float:
    """Of `num_rows` rows of `num_tokens`, each of which looks at `seen_tokens`; half of the tokens are answers."""
    num_params = model.num_parameters()
    shape = ModelShape.from_config(model.config, num_params=num_params, param_bytes=4, compute_bytes=4)
    counts = TokenCounts(
        num_tokens=num_rows * num_tokens,
        num_answer_tokens=num_rows * (num_tokens - num_tokens // 2),
        num_token_pairs=num_rows * num_tokens * seen_tokens,
    )
    count = count_training_flops if trains else count_scoring_flops
    return count(shape, counts, num_block_params=num_block_params, num_adapter_params=padded_params([rank_map]))


def _pass(model: PreTrainedModel, pack: AdapterPack, rows: Sequence[Row], trains: bool) -> None:
    with torch.set_grad_enabled(trains):
        for _, losses in token_losses(model, pack, rows, max_tokens=2**31):
            if trains:
                losses.loss_M.sum().backward()


def _decoder(model: PreTrainedModel, pack: AdapterPack, num_rows: int, num_tokens: int) -> Callable[[], None]:
    """Work that adds one more token to `num_rows` rows, which have had `num_tokens`."""
    slots_N = torch.arange(num_rows, device=model.device) % pack.num_slots
    ids_NT = torch.zeros(num_rows, num_tokens, dtype=torch.long, device=model.device)
    cache = DynamicCache()

    def add_token() -> None:
        with torch.no_grad(), pack.active_rows(slots_N):
            model(input_ids=ids_NT[:, :1], past_key_values=cache, use_cache=True).logits.argmax(dim=-1)

    with torch.no_grad(), pack.active_rows(slots_N):
        model(input_ids=ids_NT, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return add_token


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    """Wall time; on a processor no more than its processor time, which other processes do not stretch.

    Alone on the machine at least one thread is always at work, so that the wall time is the smaller one.
    """
    wait_for(device)
    wall_s, processor_s = time.perf_counter(), time.process_time()
    work()
    wait_for(device)
    wall_s, processor_s = time.perf_counter() - wall_s, time.process_time() - processor_s
    return min(wall_s, processor_s) if device.type == "cpu" else wall_s
