"""`l1` in the engine against a slow loop: gates as a parameter of their own, autograd, and a soft threshold by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from rankwise.records import StepDone
from rankwise.training.allocated_run import AllocatedRun
from rankwise.training.engine import EngineOptions, _PackTraining
from tests.tiny import allocated, tiny_base, tiny_llama, tiny_runs

SHRINKAGE = 2.0


class Gated(nn.Module):
    """W x + scale · up · diag(gate) · down · x, written as it stands."""

    def __init__(self, base: nn.Linear, down: torch.Tensor, up: torch.Tensor, scale: float) -> None:
        super().__init__()
        self.base, self.scale = base, scale
        self.down, self.up = nn.Parameter(down.clone()), nn.Parameter(up.clone())
        self.gate = nn.Parameter(torch.ones(len(down)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.scale * (((x @ self.down.T) * self.gate) @ self.up.T)


@pytest.mark.parametrize("clip_norm", [1000.0, 0.05])
def test_gates_and_losses_are_those_of_the_slow_loop(clip_norm: float) -> None:
    arm = (
        f"{{strategy: l1, shrinkage: {SHRINKAGE}, budget: {{rank: 2, min_rank: 0}}, "
        f"train: {{epochs: 4, schedule: constant, warmup_frac: 0, clip_norm: {clip_norm}}}}}"
    )
    (run,) = allocated(tiny_base(), tiny_runs([arm]))
    training = _PackTraining(tiny_base(), [run], EngineOptions())
    training.begin()
    model, layers = _reference(run, training)
    parameters = [p for layer in layers.values() for p in (layer.down, layer.up, layer.gate)]
    optimizer = torch.optim.AdamW(parameters, lr=run.run.learning_rate, weight_decay=0.0)
    last, alive = 6, {name: torch.ones(len(layer.gate), dtype=torch.bool) for name, layer in layers.items()}
    for step in range(1, 13):
        loss = _loss(model, run, training.slots[0].order.batch(step - 1))
        (done,) = (r for r in training.train_step() if isinstance(r, StepDone))
        assert done.loss_nats == pytest.approx(loss.item(), abs=2e-6)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
        optimizer.step()
        with torch.no_grad():
            for name, layer in layers.items():
                if step < last:
                    threshold = run.run.learning_rate * SHRINKAGE
                    for j, gate in enumerate(layer.gate.tolist()):
                        layer.gate[j] = np.sign(gate) * max(abs(gate) - threshold, 0.0)
                if step == last:
                    alive[name] = torch.from_numpy(training.pack.active(0)[name].copy())
                    kept, left = layer.gate[alive[name]].abs(), layer.gate[~alive[name]].abs()
                    assert not len(kept) or not len(left) or kept.min() >= left.max(), "a larger gate was cut"
                layer.gate[~alive[name]] = 0
                layer.down[~alive[name]] = 0
                layer.up[:, ~alive[name]] = 0
                gates = dict(training.pack.gate_views(0, training.pack.gates.values_KC[0]))
                ours = next(gate for site, gate in gates.items() if site.name == name)
                np.testing.assert_allclose(ours.numpy(), layer.gate.numpy(), atol=1e-5)  # measured: 3e-6
    spent = sum(int(alive[site.name].sum()) * site.cost for site in run.rank_map.sites)
    assert 0 <= run.rank_map.budget_params - spent < min(site.cost for site in run.rank_map.sites)
    training.close()


def _reference(run: AllocatedRun, training: _PackTraining) -> tuple[nn.Module, dict[str, Gated]]:
    model = tiny_llama().eval().requires_grad_(False)
    layers = {}
    for site, down, up in training.pack.slot_views(0, training.pack.weights_KP[0]):
        parent, _, leaf = site.name.rpartition(".")
        layers[site.name] = Gated(model.get_submodule(site.name), down, up, run.rank_map.scale_of(site.name))
        setattr(model.get_submodule(parent), leaf, layers[site.name])
    return model, layers


def _loss(model: nn.Module, run: AllocatedRun, indices: np.ndarray) -> torch.Tensor:
    examples = [run.data.train[index] for index in indices]
    num_answers = sum(len(e.input_ids) - e.num_prompt_tokens for e in examples)
    total = torch.zeros(())
    for example in examples:
        ids = torch.from_numpy(example.input_ids)
        logits = model(input_ids=ids[None]).logits[0, example.num_prompt_tokens - 1 : -1]
        total = total + nn.functional.cross_entropy(logits, ids[example.num_prompt_tokens :], reduction="sum")
    return total / num_answers
