"""`adalora` in the engine against `peft.AdaLoraModel` with `update_and_allocate`: same masks, gates and losses.

All sites have the same cost here, so that a budget in parameters and PEFT's budget in triplets are the same thing.
"""

import math

import numpy as np
import pytest
import torch
from peft import AdaLoraConfig, get_peft_model
from torch.nn import functional
from transformers import get_scheduler

from rankwise.data.examples import TokenizedExample
from rankwise.records import StepDone
from rankwise.training.allocated_run import AllocatedRun
from rankwise.training.engine import EngineOptions, _PackTraining
from tests.tiny import allocated, tiny_base, tiny_llama, tiny_runs

NUM_STEPS, INITIAL, FINAL = 18, 3, 6
ALPHA = 6.0
TOLERANCE = 2e-6
"""Nats; float32 sums in another order. Measured: 5e-7 over 18 steps."""


def run_of(interval: int, clip_norm: float) -> AllocatedRun:
    arm = (
        "{strategy: adalora, targets: mlp, budget: {rank: 2, min_rank: 0}, "
        f"initial_frac: {INITIAL / NUM_STEPS}, final_frac: {FINAL / NUM_STEPS}, interval_frac: {interval / NUM_STEPS}, "
        f"orthogonality: 0.2, scaling: {{rule: constant, scale: {ALPHA / (3 + 1e-5)}}}, "
        f"train: {{epochs: 6, learning_rates: [3.0e-2], clip_norm: {clip_norm}}}}}"
    )
    (run,) = allocated(tiny_base(), tiny_runs([arm]))
    return run


@pytest.mark.parametrize(("interval", "clip_norm"), [(1, 1000.0), (1, 0.05), (4, 1000.0)])
def test_masks_gates_and_losses_are_pefts(interval: int, clip_norm: float) -> None:
    run = run_of(interval, clip_norm)
    base = tiny_base()
    training = _PackTraining(base, [run], EngineOptions())
    training.begin()
    peer = Peer(run, training, interval)
    num_masked = set()
    for step in range(1, NUM_STEPS + 1):
        (done,) = (r for r in training.train_step() if isinstance(r, StepDone))
        assert done.loss_nats == pytest.approx(peer.step(step, training.slots[0].order.batch(step - 1)), abs=TOLERANCE)
        active = training.pack.active(0)
        for name, gates in peer.gates().items():
            ours = dict(training.pack.gate_views(0, training.pack.gates.values_KC[0]))
            ours_R = next(gate_R for site, gate_R in ours.items() if site.name == name).numpy()
            np.testing.assert_allclose(ours_R, gates, atol=TOLERANCE)
            if step > INITIAL and (step % interval == 0 or step >= NUM_STEPS - FINAL):
                np.testing.assert_array_equal(active[name], gates != 0, err_msg=f"{name} after step {step}")
        num_masked.add(sum(int((~mask).sum()) for mask in active.values()))
    training.close()
    assert max(num_masked) == 6, "18 triplets were not cut to 12"
    assert interval > 1 or len(num_masked) > 3, "the budget did not fall step by step"


class Peer:
    """PEFT's AdaLoRA with stock AdamW, starting from the same triplets."""

    def __init__(self, run: AllocatedRun, training: _PackTraining, interval: int) -> None:
        self.names = [site.name for site in run.rank_map.sites]
        config = AdaLoraConfig(
            init_r=3,
            target_r=2,
            tinit=INITIAL,
            tfinal=FINAL,
            deltaT=interval,
            total_step=NUM_STEPS,
            lora_alpha=ALPHA,
            orth_reg_weight=0.2,
            target_modules=self.names,
            task_type="CAUSAL_LM",
        )
        self.model = get_peft_model(tiny_llama(), config)
        for site, down_RD, up_FR in training.pack.slot_views(0, training.pack.weights_KP[0]):
            layer = self.model.get_submodule(f"base_model.model.{site.name}")
            layer.lora_A["default"].data.copy_(down_RD)
            layer.lora_B["default"].data.copy_(up_FR)
        settings = run.run.arm.train
        self.clip_norm = settings.clip_norm
        self.data = run.data.train
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=run.run.learning_rate, weight_decay=0.0)
        num_warmup = math.ceil(settings.warmup_frac * NUM_STEPS)
        self.scheduler = get_scheduler(settings.schedule, self.optimizer, num_warmup, NUM_STEPS)

    def step(self, number: int, indices: np.ndarray) -> float:
        """One optimizer step as PEFT's documentation says; the loss without the penalty."""
        inputs = _padded([self.data[index] for index in indices])
        outputs = self.model(**inputs)
        outputs.loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, self.clip_norm)
        self.optimizer.step()
        self.model.base_model.update_and_allocate(number)
        self.optimizer.zero_grad()
        self.scheduler.step()
        logits, labels = outputs.logits[:, :-1].flatten(0, 1), inputs["labels"][:, 1:].flatten()
        return functional.cross_entropy(logits.detach(), labels).item()

    def gates(self) -> dict[str, np.ndarray]:
        layers = {name: self.model.get_submodule(f"base_model.model.{name}") for name in self.names}
        return {name: layer.lora_E["default"].detach().flatten().numpy().copy() for name, layer in layers.items()}


def _padded(examples: list[TokenizedExample]) -> dict[str, torch.Tensor]:
    longest = max(len(example.input_ids) for example in examples)
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, example in enumerate(examples):
        num = len(example.input_ids)
        ids[row, :num] = torch.from_numpy(example.input_ids)
        mask[row, :num] = 1
        labels[row, example.num_prompt_tokens : num] = ids[row, example.num_prompt_tokens : num]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
