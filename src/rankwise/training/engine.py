"""The one training loop: K runs side by side over one frozen base model.

Each optimizer step gathers every run's own batch, mixes all rows by length into micro-batches, adds up the gradients of
each run's own mean loss, and then steps every run with its own learning rate. What a run does does not depend on its
neighbours: tests hold its losses against training alone, and training alone against PEFT.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from rankwise.data.batches import MicroBatch, Row
from rankwise.errors import AuditError
from rankwise.lora.dropout import RowDraw, RowDropout
from rankwise.lora.pack import AdapterPack, SlotPlan
from rankwise.models.gradient_checkpointing import checkpointed_blocks
from rankwise.models.load import LoadedBase
from rankwise.models.prefix_cache import can_share_prefixes
from rankwise.packing.activations import choose_micro_tokens, measure_activations
from rankwise.packing.forward import token_losses
from rankwise.profiling.memory import PeakMemory
from rankwise.records import (
    AdapterTrained,
    Record,
    RunAllocated,
    RunDiverged,
    RunFailed,
    RunFinished,
    SiteAllocation,
    StepDone,
)
from rankwise.training.allocated_run import AllocatedRun
from rankwise.training.audit import RankHistory, audit_run
from rankwise.training.checkpoint import Checkpoint, pack_id, read_checkpoint, write_checkpoint
from rankwise.training.dynamic import MovingRanks
from rankwise.training.scoring import PackScoring
from rankwise.training.site_rates import SiteRates, site_rates
from rankwise.training.slot import Slot
from rankwise.training.stepped_row import Part
from rankwise.training.trace import Tracer, is_traced


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Settings that change speed and memory, not results (beyond rounding)."""

    micro_tokens: int | None = None
    """Padded tokens of one forward and backward pass; None: what suits the model's width (packing/activations.py)."""
    eval_tokens: int = 4096
    """Padded tokens of one scoring pass."""
    checkpoint_every_s: float = 60.0
    share_prefixes: bool = True
    """Compute the prompt template once per slot and step instead of once per sequence, where the model allows it."""
    predicted_memory_bytes: int = 0
    """What the planner expected this pack to need; recorded beside the measured peak."""


def train_pack(
    base: LoadedBase,
    runs: Sequence[AllocatedRun],
    *,
    options: EngineOptions = EngineOptions(),
    checkpoint: Path | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[list[Record]]:
    """Train `runs` together; yields the records of each step as a list.

    With `checkpoint`, the pack's state is saved there from time to time and when `should_stop` answers True (the
    iterator then ends early), and taken up from there when the file exists. State is saved only after all records up to
    it were yielded and the next list was asked for, so a caller that stores each list is never behind its checkpoint.

    Raises:
        AuditError: the attached adapters are not the planned ones.
    """
    training = _PackTraining(base, runs, options)
    try:
        saved = read_checkpoint(checkpoint) if checkpoint else None
        if saved:
            training.restore(saved)
            if ended := training.finish(training.slots):
                yield ended  # a run that failed its audit is tried again from where it ended
        else:
            yield training.begin()
        saved_at = time.monotonic()
        while not training.is_done:
            if should_stop():
                if checkpoint:
                    write_checkpoint(checkpoint, training.to_checkpoint())
                return
            yield training.train_step()
            if checkpoint and time.monotonic() - saved_at > options.checkpoint_every_s and not training.is_done:
                write_checkpoint(checkpoint, training.to_checkpoint())
                saved_at = time.monotonic()
    finally:
        training.close()


class _PackTraining:
    def __init__(self, base: LoadedBase, runs: Sequence[AllocatedRun], options: EngineOptions) -> None:
        self.base = base
        self.runs = tuple(runs)
        self.options = options
        self.share_prefixes = options.share_prefixes and can_share_prefixes(base.model)
        self.has_dropout = any(r.run.arm.dropout for r in self.runs)
        self.checkpoints_blocks = any(r.run.arm.train.gradient_checkpointing for r in self.runs)
        self.micro_tokens = options.micro_tokens or self._choose_micro_tokens()
        self.peak = PeakMemory(base.device)
        movers = [r.run.arm.build_strategy().mover() for r in self.runs]
        plans = [
            SlotPlan(
                rank_map=r.rank_map,
                init=r.run.arm.init,
                seed=r.run.seed,
                initial=r.initial,
                gate=mover.mechanics().gate if mover else None,
            )
            for r, mover in zip(self.runs, movers, strict=True)
        ]
        dtype = next(p.dtype for p in base.model.parameters() if p.is_floating_point())
        self.pack = AdapterPack(base.model, plans, compute_dtype=dtype)
        self.tracer = Tracer(self.pack)
        self.histories = [RankHistory.of(r.rank_map) for r in self.runs]
        self.slots = [
            Slot(
                k,
                r.run,
                r.data.train,
                self.pack.weights_KP[k],
                self.pack.grads_KP[k],
                self._gates(k),
                self._parts(k, r),
            )
            for k, r in enumerate(self.runs)
        ]
        self.moving = [
            MovingRanks(mover, slot, r.rank_map, self.pack) if mover else None
            for mover, slot, r in zip(movers, self.slots, self.runs, strict=True)
        ]
        """One per slot; None where ranks stay."""
        self.scoring = PackScoring(
            base,
            self.pack,
            self.runs,
            self.slots,
            eval_tokens=options.eval_tokens,
            share_prefixes=self.share_prefixes,
        )

    def _choose_micro_tokens(self) -> int:
        sites = dict.fromkeys(site.name for r in self.runs for site in r.rank_map.sites)
        return choose_micro_tokens(
            measure_activations(self.base.model, sites, gradient_checkpointing=self.checkpoints_blocks),
            longest_tokens=max(r.data.longest_tokens for r in self.runs),
            on_host=self.base.device.type != "cuda",
        )

    def _gates(self, slot: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """A slot's gates and the place of their gradient; None for one without."""
        gates = self.pack.gates
        if gates is None or self.pack.plans[slot].gate is None:
            return None
        return gates.values_KC[slot], gates.grads_KC[slot]

    def _parts(self, slot: int, run: AllocatedRun) -> list[Part] | None:
        """A slot's matrices with their learning-rate factors; None where all are 1."""
        rates = site_rates(run.run.arm.train, run.rank_map)
        found: list[Part] = []
        for site, down, up in self.pack.slices(slot):
            of_site = rates.get(site.name, SiteRates())
            found += [(down, of_site.down), (up, of_site.up)]
        return found if any(factor != 1 for _, factor in found) else None

    def _with_rates(self, slot: Slot, sites: tuple[SiteAllocation, ...]) -> tuple[SiteAllocation, ...]:
        """The sites with their learning-rate factors, read back from the slot's optimizer."""
        rates = {
            site.name: (slot.rate_factor(down), slot.rate_factor(up))
            for site, down, up in self.pack.slices(slot.number)
        }
        return tuple(
            replace(site, lr_factor_down=rates[site.site][0], lr_factor_up=rates[site.site][1])
            if site.site in rates
            else site
            for site in sites
        )

    @property
    def is_done(self) -> bool:
        return all(slot.is_done for slot in self.slots)

    def close(self) -> None:
        self.pack.detach()

    def begin(self) -> list[Record]:
        """What was allocated, and validation losses before the first step."""
        audited = self.pack.audit()
        allocated: list[Record] = [
            RunAllocated(
                run_id=r.run.id,
                sites=_with_signal(r, self._with_rates(slot, sites)),
                budget_params=r.rank_map.budget_params,
                params=sum(site.params for site in sites),
                residual_params=r.rank_map.budget_params - sum(site.params for site in sites),
                probe_wall_s=r.probe_wall_s,
                probe_peak_memory_bytes=r.probe_peak_memory_bytes,
                signal=r.signal.name if r.signal else None,
            )
            for r, slot, sites in zip(self.runs, self.slots, audited, strict=True)
        ]
        return allocated + self.scoring.untrained()

    def train_step(self) -> list[Record]:
        """One optimizer step of every unfinished run, and the evaluations that are due after it."""
        started = time.monotonic()
        live = [slot for slot in self.slots if not slot.is_done]
        losses_K, tokens_K = self._accumulate(live)
        self.pack.pull_gradients()
        for slot in live:
            moving = self.moving[slot.number]
            if moving is not None and slot.diverged is None:
                moving.add_penalty()
        norms_K = self.pack.gradient_norms()
        with self._traced(live) as traces:
            records = [
                r for s in live for r in self._advance(s, losses_K[s.number], norms_K[s.number], tokens_K[s.number])
            ]
        records += traces
        self.pack.zero_gradients()
        self.pack.refresh()
        self._charge(live, tokens_K, time.monotonic() - started)
        records += self.scoring.after_step([slot for slot in live if slot.is_evaluation_due()])
        return records + self.finish(live)

    def finish(self, slots: Sequence[Slot]) -> list[Record]:
        """The last records of those that are done."""
        return [record for slot in slots if slot.is_done for record in self._finish(slot)]

    @contextmanager
    def _traced(self, live: Sequence[Slot]) -> Iterator[list[Record]]:
        """Gives a list that holds, afterwards, how the step within moved the slots whose step is to be measured."""
        traces: list[Record] = []
        due = [slot for slot in live if slot.diverged is None and is_traced(slot.step + 1, slot.num_steps)]
        if due:
            self.tracer.before()
        yield traces
        if due:
            self.tracer.after()
        traces += [self.tracer.trace(s.number, s.run.id, s.step) for s in due if s.diverged is None]

    def _accumulate(self, live: Sequence[Slot]) -> tuple[list[float], list[int]]:
        """Sum the gradients of each slot's mean answer-token loss; returns the losses and tokens of all slots."""
        rows = [row for slot in live for row in slot.rows(share_prefixes=self.share_prefixes and not self.has_dropout)]
        answers_K = [0] * len(self.slots)
        for row in rows:
            answers_K[row.slot] += row.num_tokens - row.example.num_prompt_tokens
        device = self.base.device
        weight_K = torch.tensor([1 / max(1, answers) for answers in answers_K], device=device)
        loss_K = torch.zeros(len(self.slots), dtype=torch.float64, device=device)
        tokens_K = [0] * len(self.slots)
        passes = token_losses(self.base.model, self.pack, rows, max_tokens=self.micro_tokens, dropout=self._dropout)
        with checkpointed_blocks(self.base.model) if self.checkpoints_blocks else nullcontext():
            for batch, losses in passes:
                slot_M = batch.slots_N[losses.row_M]
                (losses.loss_M * weight_K[slot_M]).sum().backward()
                loss_K.index_add_(0, slot_M, losses.loss_M.detach().double())
                self._count(batch, tokens_K)
        return (loss_K * weight_K.double()).tolist(), tokens_K

    def _dropout(self, batch: MicroBatch) -> RowDropout | None:
        if not self.has_dropout:
            return None
        return RowDropout([self._row_draw(row) for row in batch.rows])

    def _row_draw(self, row: Row) -> RowDraw:
        slot = self.slots[row.slot]
        return RowDraw(slot.run.seed, slot.step, row.position, row.num_tokens, slot.run.arm.dropout)

    def _count(self, batch: MicroBatch, tokens_K: list[int]) -> None:
        padding = batch.num_padding_tokens / len(batch.rows)
        for row in batch.rows:
            tokens_K[row.slot] += row.num_tokens
            self.slots[row.slot].padding_tokens += padding

    def _advance(self, slot: Slot, loss_nats: float, grad_norm: float, num_tokens: int) -> Iterator[Record]:
        """Update one slot, or freeze it where its loss or gradient is not finite. Its neighbours see nothing of it."""
        slot.tokens += num_tokens
        step = slot.step + 1
        if slot.diverged is None and math.isfinite(loss_nats) and math.isfinite(grad_norm):
            yield StepDone(
                run_id=slot.run.id,
                step=step,
                num_steps=slot.num_steps,
                loss_nats=loss_nats,
                grad_norm=grad_norm,
                learning_rate=slot.learning_rate,
                num_tokens=num_tokens,
            )
            slot.update(grad_norm)
            moving = self.moving[slot.number]
            if moving is not None:
                for revised in moving.after_update(step):
                    self.histories[slot.number].revise(revised)
                    yield revised
        elif slot.diverged is None:
            what = "loss" if not math.isfinite(loss_nats) else "gradient norm"
            value = loss_nats if what == "loss" else grad_norm
            slot.diverged = f"{what} {value} at step {step}, learning rate {slot.learning_rate:g}"
            yield RunDiverged(run_id=slot.run.id, step=step, cause=slot.diverged)
        slot.step = step

    def _charge(self, live: Sequence[Slot], tokens_K: Sequence[int], wall_s: float) -> None:
        """Share out time by tokens."""
        total = sum(tokens_K)
        for slot in live:
            slot.wall_s += wall_s * tokens_K[slot.number] / total

    def _finish(self, slot: Slot) -> list[Record]:
        finished = RunFinished(
            run_id=slot.run.id,
            status="finished" if slot.diverged is None else "diverged",
            steps=slot.step,
            wall_s=slot.wall_s + self.runs[slot.number].probe_wall_s,
            peak_memory_bytes=self.peak.peak_bytes(),
            pack_slots=len(self.slots),
            predicted_memory_bytes=self.options.predicted_memory_bytes,
            predicted_wall_s=self.runs[slot.number].predicted_wall_s,
            micro_tokens=self.micro_tokens,
            pack_id=pack_id([r.run.id for r in self.runs]),
            tokens=slot.tokens,
            padding_tokens=round(slot.padding_tokens),
        )
        if slot.diverged is not None:
            return [finished]
        tensors = self.pack.tensors(slot.number)
        try:
            audited = audit_run(self.pack, slot.number, slot.run.id, tensors, self.histories[slot.number])
        except AuditError as error:
            return [RunFailed(run_id=slot.run.id, cause=str(error))]
        return [AdapterTrained(run_id=slot.run.id, tensors=tensors), audited, finished]

    def to_checkpoint(self) -> Checkpoint:
        tensors = {"weights": self.pack.weights_KP.detach(), "frozen": self.pack.frozen_KP}
        if self.pack.gates is not None:
            tensors["gates"] = self.pack.gates.values_KC.detach()
        for slot in self.slots:
            tensors |= {f"optimizer.{slot.number}.{name}": tensor for name, tensor in slot.tensors().items()}
        for slot, moving in zip(self.slots, self.moving, strict=True):
            if moving is not None:
                tensors |= {f"moving.{slot.number}.{name}": tensor for name, tensor in moving.tensors().items()}
        state = {
            "run_ids": [slot.run.id for slot in self.slots],
            "slots": [slot.counters() for slot in self.slots],
            "histories": [history.to_state() for history in self.histories],
            "moving": [moving and moving.to_state() for moving in self.moving],
        }
        return Checkpoint(tensors, state)

    def restore(self, saved: Checkpoint) -> None:
        assert saved.state["run_ids"] == [slot.run.id for slot in self.slots], "a checkpoint belongs to one pack"
        self.pack.restore(saved.tensors["weights"], saved.tensors["frozen"], saved.tensors.get("gates"))
        for slot, counters in zip(self.slots, saved.state["slots"], strict=True):
            slot.restore(_beginning_with(f"optimizer.{slot.number}.", saved.tensors), counters)
        for history, state in zip(self.histories, saved.state["histories"], strict=True):
            history.restore(state)
        for slot, moving, state in zip(self.slots, self.moving, saved.state["moving"], strict=True):
            if moving is not None:
                moving.restore(_beginning_with(f"moving.{slot.number}.", saved.tensors), state)


def _with_signal(run: AllocatedRun, sites: tuple[SiteAllocation, ...]) -> tuple[SiteAllocation, ...]:
    """The sites with what the run's strategy went by at each of them."""
    if run.signal is None:
        return sites
    names = (site.name for site in run.rank_map.sites)
    values = dict(zip(names, map(float, run.signal.values_L), strict=True))
    return tuple(replace(site, signal=values[site.site]) for site in sites)


def _beginning_with(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Those named so, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
