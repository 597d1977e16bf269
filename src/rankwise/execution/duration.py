"""How long a pack would take: the passes it will make, cut as the engine cuts them, at the speed calibrated here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Literal

import torch

from rankwise.execution.packing import SizedRun, answer_batches, micro_tokens_of, sampled_steps, training_passes
from rankwise.execution.workbench import BaseShape, Workbench
from rankwise.packing.flops import (
    TokenCounts,
    count_recomputed_flops,
    count_scoring_flops,
    count_training_flops,
)
from rankwise.packing.memory import padded_params
from rankwise.packing.passes import PassSize, pass_sizes
from rankwise.profiling.calibration import Calibration, PassSpeed, Workload, calibrate
from rankwise.profiling.calibration_cache import keep_calibration, read_calibrations
from rankwise.profiling.processor import processor_name

Calibrate = Callable[[BaseShape, Workload], Calibration]


@dataclass
class DurationPredictor:
    """Predicts seconds per pack. Loading, probing, the report and other work on the machine are not counted."""

    bench: Workbench
    calibrate: Calibrate = field(default_factory=lambda: _kept_calibration)
    _known: dict[tuple[object, ...], Calibration] = field(default_factory=dict)

    def predict_s(self, runs: Sequence[SizedRun]) -> float:
        """Of training and scoring `runs` side by side."""
        return sum(self.predict_shares_s(runs))

    def predict_shares_s(self, runs: Sequence[SizedRun]) -> list[float]:
        """What each of `runs` is charged of it: of training by its tokens, of scoring an equal part."""
        base = self.bench.shape(runs[0].planned.run.arm.base)
        speed = self._calibration(runs, base)
        scoring_s = self._scoring_s(runs, base, speed.scoring) / len(runs)
        answers_s = self._answers_s(runs, base, speed)
        asked = max(1, sum(run.writes_answers for run in runs))
        final_s = [answers_s / asked * run.writes_answers for run in runs]
        training_shares_s = self._training_shares_s(runs, base, speed)
        return [training_s + scoring_s + own_s for training_s, own_s in zip(training_shares_s, final_s, strict=True)]

    def _training_shares_s(self, runs: Sequence[SizedRun], base: BaseShape, speed: Calibration) -> list[float]:
        """Some steps stand for all; a run that is done leaves the others' steps."""
        num_steps = max(run.num_steps for run in runs)
        steps = sampled_steps(runs)
        adapter_params = padded_params([run.rank_map for run in runs])
        shares_s = [0.0] * len(runs)
        for step in steps:
            live = [run for run in runs if step < run.num_steps]
            passes = training_passes(live, step)
            step_s = self._passes_s(passes, base, runs[0], adapter_params, speed.training, count_training_flops)
            if runs[0].planned.run.arm.train.gradient_checkpointing:  # the blocks' forward pass again, as in scoring
                step_s += self._passes_s(passes, base, runs[0], adapter_params, speed.scoring, count_recomputed_flops)
            step_s += len(live) * adapter_params / speed.params_per_s
            tokens = [sum(row.num_tokens for row in run.rows(0, step)) * (step < run.num_steps) for run in runs]
            for slot, num_tokens in enumerate(tokens):
                shares_s[slot] += step_s * num_tokens / sum(tokens)
        return [share_s * num_steps / len(steps) for share_s in shares_s]

    def _scoring_s(self, runs: Sequence[SizedRun], base: BaseShape, speed: PassSpeed) -> float:
        """Validation as often as it is due, test and general text where they are reported; and once per data set the
        bare base, which sees general text too."""
        adapter_params = padded_params([run.rank_map for run in runs])
        num_validations = max(ceil(1 / run.planned.run.arm.train.eval_every_frac) for run in runs)
        reported = [run for run in runs if run.planned.purpose == "report"]
        bare = list({run.data.fingerprint: run for run in runs}.values())
        return (
            num_validations * self._split_s(runs, "validation", base, adapter_params, speed)
            + self._split_s(reported, "test", base, adapter_params, speed)
            + self._split_s(bare, "validation", base, 0, speed)
            + self._split_s(reported, "general", base, adapter_params, speed)
            + self._split_s([run for run in reported if run.general][:1], "general", base, 0, speed)
        )

    def _answers_s(self, runs: Sequence[SizedRun], base: BaseShape, speed: Calibration) -> float:
        """Prompts are read, then every row gets token after token until the longest answer that there may be."""
        adapter_params = padded_params([run.rank_map for run in runs])
        seconds = 0.0
        for batch in answer_batches(runs):
            read_s = self._passes_s(
                [batch.prefill()], base, runs[0], adapter_params, speed.scoring, count_scoring_flops
            )
            token_s = self._passes_s(
                [batch.decoding()], base, runs[0], adapter_params, speed.decoding, count_scoring_flops
            )
            seconds += read_s + (batch.new_tokens - 1) * token_s
        return seconds

    def _split_s(
        self,
        runs: Sequence[SizedRun],
        split: Literal["validation", "test", "general"],
        base: BaseShape,
        adapter_params: int,
        speed: PassSpeed,
    ) -> float:
        rows = [row for slot, run in enumerate(runs) for row in run.scored_rows(slot, split)]
        if not rows:
            return 0.0
        passes = pass_sizes(rows, runs[0].eval_tokens)
        return self._passes_s(passes, base, runs[0], adapter_params, speed, count_scoring_flops)

    def _passes_s(
        self,
        passes: Sequence[PassSize],
        base: BaseShape,
        run: SizedRun,
        adapter_params: int,
        speed: PassSpeed,
        count: Callable[..., int],
    ) -> float:
        seconds = 0.0
        for counts in (counts for size in passes for counts in _counts(size)):
            flops = count(run.shape, counts, num_block_params=base.num_block_params, num_adapter_params=adapter_params)
            seconds += speed.predict_s(run.shape.num_layers, flops)
        return seconds

    def _calibration(self, runs: Sequence[SizedRun], base: BaseShape) -> Calibration:
        workload = _workload(runs)
        key = (base.settings, workload)
        if key not in self._known:
            self._known[key] = self.calibrate(base, workload)
        return self._known[key]


def _counts(size: PassSize) -> list[TokenCounts]:
    """Of the rows, and before them of the prefixes that they are the first to need."""
    rows = TokenCounts(
        num_tokens=size.num_tokens,
        num_answer_tokens=size.num_answers,
        num_token_pairs=size.num_tokens * size.row_tokens,
    )
    num_prefix_tokens = size.num_prefixes * size.prefix_tokens
    if not num_prefix_tokens or not size.is_first:
        return [rows]
    prefixes = TokenCounts(
        num_tokens=num_prefix_tokens, num_answer_tokens=0, num_token_pairs=num_prefix_tokens * size.prefix_tokens
    )
    return [prefixes, rows]


def _workload(runs: Sequence[SizedRun]) -> Workload:
    """Roughly what the passes of a pack look like, so that alike packs share a calibration."""
    (largest, *_) = sorted(training_passes(runs, 0), key=lambda size: -size.num_tokens)
    arm = runs[0].planned.run.arm
    ranks = [rank for run in runs for rank in run.rank_map.held_ranks]
    return Workload(
        targets=arm.targets,
        rank=_power_of_two(max(1, round(sum(ranks) / len(ranks)))),
        row_tokens=_power_of_two(largest.own_tokens),
        pass_tokens=min(_power_of_two(largest.num_tokens), micro_tokens_of(runs)),
        num_slots=_power_of_two(len(runs)),
    )


def _power_of_two(number: int) -> int:
    """The nearest one, by ratio."""
    lower = 1 << (number.bit_length() - 1)
    return lower if number * number <= 2 * lower * lower else 2 * lower


def _kept_calibration(base: BaseShape, workload: Workload) -> Calibration:
    """From the cache, or measured now and kept."""
    key = calibration_key(base, workload)
    found = read_calibrations().get(key)
    if found is None:
        found = calibrate(base.model.config, workload, settings=base.settings, device=base.device)
        keep_calibration(key, found)
    return found


def calibration_key(base: BaseShape, workload: Workload) -> str:
    """Machine, number format, shape and kind of passes: readable, because people look into the file."""
    text = base.model.config.get_text_config()
    shape = [getattr(text, name, None) for name in ("hidden_size", "intermediate_size", "num_attention_heads")]
    device = torch.cuda.get_device_name(base.device) if base.device.type == "cuda" else processor_name()
    parts = (
        device,
        f"{torch.get_num_threads()} threads",
        f"torch {torch.__version__}",
        base.settings.dtype,
        base.settings.attention,
        *([base.settings.quantization] if base.settings.quantization != "none" else []),
        f"{text.model_type} {'x'.join(map(str, shape))}",
        f"{workload.targets} rank {workload.rank}",
        f"{workload.num_slots} slots, passes of {workload.pass_tokens} tokens in rows of {workload.row_tokens}",
    )
    return ", ".join(parts)
