"""Measure one rank, in a process of its own: peak memory by cause, time by phase, speed of generation.

Steps are those of the training engine: the same packed layers, micro-batches, loss and optimizer, with one slot.
"""

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig
from transformers.generation import BaseStreamer

from rankwise.allocation.rank_map import RankMap
from rankwise.data.batches import Row
from rankwise.data.examples import TokenizedExample
from rankwise.execution.profile.ranks import uniform_map
from rankwise.execution.profile.values import TERMS, Decoding, Form, ProfileSettings, RankMeasurement
from rankwise.lora.attach_peft import attach_peft_adapter, detach_peft_adapter
from rankwise.lora.export import bake, merge, write_adapter
from rankwise.lora.pack import AdapterPack, SlotPlan
from rankwise.lora.packed_linear import PackedLinear
from rankwise.lora.saved_adapter import SavedLayer
from rankwise.models.dtype import default_device
from rankwise.models.gradient_checkpointing import checkpointed_blocks
from rankwise.models.host_memory import keep_freed_memory
from rankwise.models.load import LoadedBase, load_base
from rankwise.models.sites import find_sites
from rankwise.packing.activations import choose_micro_tokens, measure_activations
from rankwise.packing.forward import token_losses
from rankwise.packing.live_tensors import LiveTensors
from rankwise.profiling.memory import PeakMemory, resident_bytes
from rankwise.profiling.resident import ResidentSampler
from rankwise.profiling.speed import wait_for
from rankwise.study.config import Arm, BudgetSettings, TrainSettings
from rankwise.study.runs import Run
from rankwise.training.slot import Slot

WARM_UP = 2
"""Steps before the measured ones: the first allocate, and choose kernels."""
DECODE_REPEATS = 3


def measure_rank(settings: ProfileSettings, rank: int) -> RankMeasurement:
    """Load the base, train some steps at `rank` and generate. All of it counts, so start in a fresh process.

    Raises:
        ModelError: the base cannot be loaded.
    """
    keep_freed_memory()
    before = resident_bytes()
    loading = _Peak(default_device())
    with loading:
        base = load_base(settings.base)
    rank_map = uniform_map(find_sites(base.model, settings.targets), rank)
    session = _Session(settings, base, rank_map)
    peak = _Peak(base.device)
    with peak:
        steps = [session.step() for _ in range(WARM_UP + settings.repeats)][WARM_UP:]
    terms = session.terms() | {"runtime": before if base.device.type != "cuda" else 0}
    terms["workspace"] = max(0, peak.peak_bytes - sum(terms.values()))
    medians = [statistics.median(column) for column in zip(*steps, strict=True)]
    trains = session.pack is not None
    return RankMeasurement(
        rank=rank,
        params=rank_map.params,
        peak_bytes=peak.peak_bytes,
        loading_peak_bytes=loading.peak_bytes,
        terms={name: terms.get(name, 0) for name in TERMS},
        forward_s=medians[0],
        backward_s=medians[1] if trains else None,
        optimizer_s=medians[2] if trains else None,
        processor_s=medians[3],
        generation=session.generate(),
    )


class _Peak:
    """Peak memory of the stretch within, by the kernel's or the allocator's mark and, on the host, by samples too."""

    def __init__(self, device: torch.device) -> None:
        self.peak_bytes = 0
        self._device = device

    def __enter__(self) -> "_Peak":
        self._mark = PeakMemory(self._device)
        self._samples = ResidentSampler()
        self._samples.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._samples.__exit__(None, None, None)
        if self._device.type == "cuda":
            self.peak_bytes = self._mark.peak_bytes()
        else:
            marked = self._mark.peak_bytes() if self._mark.is_of_stretch else 0
            self.peak_bytes = max(marked, self._samples.peak_bytes)


class _Session:
    """One base with one adapter on it (or none, at rank 0), and what is done with them."""

    def __init__(self, settings: ProfileSettings, base: LoadedBase, rank_map: RankMap) -> None:
        self.settings = settings
        self.base = base
        self.rank_map = rank_map
        self.vocab_size = int(base.model.config.get_text_config().vocab_size)
        self.examples = _examples(settings, self.vocab_size)
        self.micro_tokens = self._choose_micro_tokens()
        self.pack: AdapterPack | None = None
        if rank_map.params:
            plan = SlotPlan(rank_map=rank_map, init="kaiming", seed=0)
            dtype = next(p.dtype for p in base.model.parameters() if p.is_floating_point())
            self.pack = AdapterPack(base.model, [plan], compute_dtype=dtype)
            num_steps = WARM_UP + settings.repeats
            self.slot = Slot(
                0, _run(settings, num_steps), self.examples, self.pack.weights_KP[0], self.pack.grads_KP[0]
            )

    def _choose_micro_tokens(self) -> int:
        sites = [site.name for site in find_sites(self.base.model, self.settings.targets)]
        size = measure_activations(self.base.model, sites, gradient_checkpointing=self.settings.gradient_checkpointing)
        on_host = self.base.device.type != "cuda"
        return choose_micro_tokens(size, longest_tokens=self.settings.tokens, on_host=on_host)

    def step(self) -> tuple[float, float, float, float]:
        """Wall time of forward passes, backward passes and the optimizer; and processor time of all."""
        processor_s = time.process_time()
        forward_s = backward_s = optimizer_s = 0.0
        wait_for(self.base.device)
        started = time.perf_counter()
        for losses in self._passes():
            wait_for(self.base.device)
            forward_s, started = forward_s + time.perf_counter() - started, time.perf_counter()
            if self.pack is not None:
                losses.mean().backward()
                wait_for(self.base.device)
                backward_s, started = backward_s + time.perf_counter() - started, time.perf_counter()
        if self.pack is not None:
            self.pack.pull_gradients()
            self.slot.update(self.pack.gradient_norms()[0])
            self.slot.step += 1
            self.pack.zero_gradients()
            self.pack.refresh()
            wait_for(self.base.device)
            optimizer_s = time.perf_counter() - started
        return forward_s, backward_s, optimizer_s, time.process_time() - processor_s

    def _passes(self) -> Iterator[torch.Tensor]:
        """The answer-token losses of each micro-batch."""
        rows = [Row(0, example, position) for position, example in enumerate(self.examples)]
        model = self.base.model
        blocks = checkpointed_blocks(model) if self.settings.gradient_checkpointing else nullcontext()
        with torch.set_grad_enabled(self.pack is not None), blocks:
            for _, losses in token_losses(model, self.pack, rows, max_tokens=self.micro_tokens):
                yield losses.loss_M

    def terms(self) -> dict[str, int]:
        """Bytes by cause, counted on the tensors themselves in a pass that is neither timed nor part of the peak."""
        model = self.base.model
        layers = [module for module in model.modules() if isinstance(module, PackedLinear)]
        found = {
            "weights": _bytes([*model.parameters(), *model.buffers()]),
            "adapters": _bytes(self._adapter_tensors(layers)),
            "gradients": _bytes(self._gradient_tensors(layers)),
            "optimizer": _bytes(self.slot.tensors().values()) if self.pack is not None else 0,
        }
        known = [*model.parameters(), *model.buffers(), *self._adapter_tensors(layers), *self._gradient_tensors(layers)]
        with LiveTensors(known, self._is_logits) as live:
            found["activations"] = 0
            for losses in self._passes():
                found["activations"] = max(found["activations"], live.live_bytes - live.wide_bytes)
                if self.pack is not None:
                    losses.mean().backward()
                del losses
            found["logits"] = live.wide_peak_bytes
        if self.pack is None:
            found["activations"] = 0  # nothing is kept for a backward pass
        else:
            self.pack.zero_gradients()
        return found

    def _adapter_tensors(self, layers: Sequence[PackedLinear]) -> list[torch.Tensor]:
        own = [self.pack.weights_KP] if self.pack is not None else []
        return own + [t for layer in layers for t in (layer.site.down_KRD, layer.site.up_KFR, layer.site.gate_KR)]

    def _gradient_tensors(self, layers: Sequence[PackedLinear]) -> list[torch.Tensor]:
        own = [self.pack.grads_KP] if self.pack is not None else []
        return own + [t for layer in layers for t in (layer.site.grad_down_KRD, layer.site.grad_up_KFR)]

    def _is_logits(self, tensor: torch.Tensor) -> bool:
        return tensor.dim() > 1 and tensor.shape[-1] == self.vocab_size

    def generate(self) -> dict[Form, Decoding]:
        """Every form in turn; merging comes last, because it changes the base's weights."""
        if self.pack is None:
            return {"base": self._decode()}
        found: dict[Form, Decoding] = {"separate": self._decode()}
        layers = self._saved_layers(self.pack)
        self.pack.detach()
        model = self.base.model
        with TemporaryDirectory() as name:
            widest = max(layer.rank for layer in layers)
            write_adapter(Path(name), bake(layers, widest), model, base_name=self.settings.base.model)
            attach_peft_adapter(model, Path(name))
            found["baked"] = self._decode()
            detach_peft_adapter(model)
        if self.base.settings.quantization == "none":
            dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
            merge(model.float(), layers, dtype)
            found["merged"] = self._decode()
        return found

    def _saved_layers(self, pack: AdapterPack) -> list[SavedLayer]:
        return [
            SavedLayer(name=name, down_rD=down, up_Fr=up, scale=self.rank_map.scale_of(name))
            for name, (down, up) in pack.tensors(0).items()
        ]

    def _decode(self) -> Decoding:
        single = [self._timed_generation(1) for _ in range(1 + DECODE_REPEATS)][1:]
        batch = [self._timed_generation(self.settings.batch_size) for _ in range(1 + DECODE_REPEATS)][1:]
        num_new = self.settings.new_tokens
        return Decoding(
            first_token_s=statistics.median(marks[1] - marks[0] for marks in single),
            token_s=statistics.median((marks[-1] - marks[1]) / max(1, num_new - 1) for marks in single),
            tokens_per_s=self.settings.batch_size
            * num_new
            / statistics.median(marks[-1] - marks[0] for marks in batch),
        )

    @torch.no_grad()
    def _timed_generation(self, num_rows: int) -> list[float]:
        """When the prompts went in, and when each token came out."""
        model, num_new = self.base.model, self.settings.new_tokens
        prompt = torch.from_numpy(self.examples[0].input_ids[: max(1, self.settings.tokens // 2)])
        ids_NT = prompt.to(self.base.device).expand(num_rows, -1)
        clock = _Clock()
        shipped, model.generation_config = model.generation_config, _exactly(num_new, self.base.tokenizer.eos_token_id)
        slots_N = torch.zeros(num_rows, dtype=torch.long, device=self.base.device)
        try:
            if self.pack is None or not any(isinstance(module, PackedLinear) for module in model.modules()):
                model.generate(ids_NT, attention_mask=torch.ones_like(ids_NT), streamer=clock)
            else:
                with self.pack.active_rows(slots_N):
                    model.generate(ids_NT, attention_mask=torch.ones_like(ids_NT), streamer=clock)
        finally:
            model.generation_config = shipped
        return clock.marks


class _Clock(BaseStreamer):
    """Notes the time of the prompt and of every token; handing tokens over waits for the device."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def put(self, value: Any) -> None:
        self.marks.append(time.perf_counter())

    def end(self) -> None:
        """Nothing is held back."""


def _exactly(num_new: int, end: int) -> GenerationConfig:
    """Greedy, and never shorter: an early end would make a fast model of a terse one."""
    return GenerationConfig(
        do_sample=False, min_new_tokens=num_new, max_new_tokens=num_new, eos_token_id=end, pad_token_id=end
    )


def _examples(settings: ProfileSettings, vocab_size: int) -> tuple[TokenizedExample, ...]:
    """Rows of random tokens: what they say costs nothing."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, vocab_size, (settings.batch_size, settings.tokens))
    return tuple(TokenizedExample(row, max(1, settings.tokens // 2), index) for index, row in enumerate(ids))


def _run(settings: ProfileSettings, num_steps: int) -> Run:
    train = TrainSettings(batch_size=settings.batch_size, epochs=num_steps, learning_rates=(1e-4,))
    arm = Arm(name="profile", strategy="uniform", base=settings.base, budget=BudgetSettings(rank=1), train=train)
    return Run(arm=arm, learning_rate=1e-4, seed=0, base_fingerprint="", data_fingerprint="")


def _bytes(tensors: Any) -> int:
    """Of the distinct storages: views and tied weights count once."""
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())
