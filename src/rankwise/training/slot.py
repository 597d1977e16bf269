"""One run's place in a pack while it trains: its data order, optimizer and counters."""

import math
from typing import Any

import torch

from rankwise.data.batches import Row
from rankwise.data.examples import TokenizedExample
from rankwise.study.runs import Run
from rankwise.training.order import BatchOrder
from rankwise.training.schedule import lr_factor


class Slot:
    """Steps one run with stock `torch.optim.AdamW` on its row of the pack's flat weights, and of its gates."""

    def __init__(
        self,
        number: int,
        run: Run,
        examples: tuple[TokenizedExample, ...],
        weights_P: torch.Tensor,
        grads_P: torch.Tensor,
        gates: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> None:
        """`gates` are the run's gates (C,) and the place of their gradient, where its strategy has any."""
        train = run.arm.train
        self.number = number
        self.run = run
        self.examples = examples
        self.order = BatchOrder(
            num_examples=len(examples), batch_size=train.batch_size, epochs=train.epochs, seed=run.seed
        )
        self.step = 0
        self.diverged: str | None = None
        self.wall_s = 0.0
        self.tokens = 0
        self.padding_tokens = 0.0
        self._trained = {"": _parameter(weights_P, grads_P)}
        """What the optimizer steps, by the prefix of its state's names in a checkpoint."""
        if gates is not None:
            self._trained["gates."] = _parameter(*gates)
        self._optimizer = torch.optim.AdamW(
            list(self._trained.values()),
            lr=run.learning_rate,
            betas=train.betas,
            eps=train.eps,
            weight_decay=train.weight_decay,
        )

    @property
    def num_steps(self) -> int:
        return self.order.num_steps

    @property
    def is_done(self) -> bool:
        return self.step >= self.num_steps

    @property
    def learning_rate(self) -> float:
        """Of the step that comes next."""
        train = self.run.arm.train
        return self.run.learning_rate * lr_factor(train.schedule, self.step, self.num_steps, train.warmup_frac)

    def rows(self, *, share_prefixes: bool) -> list[Row]:
        """The sequences of the next optimizer step."""
        chosen = [self.examples[index] for index in self.order.batch(self.step)]
        return [
            Row(self.number, example, position, example.num_shared_tokens if share_prefixes else 0)
            for position, example in enumerate(chosen)
        ]

    def is_evaluation_due(self) -> bool:
        """Whether validation loss is measured after the steps done so far."""
        every = self.run.arm.train.eval_every_frac
        due = {math.ceil(round(i * every * self.num_steps, 9)) for i in range(1, math.ceil(1 / every))}
        return self.step in due or self.is_done

    def update(self, grad_norm: float) -> None:
        """Clip as `torch.nn.utils.clip_grad_norm_` does and take the AdamW step."""
        clip_norm = self.run.arm.train.clip_norm
        if clip_norm is not None:
            for parameter in self._trained.values():
                assert parameter.grad is not None
                parameter.grad.mul_(min(1.0, clip_norm / (grad_norm + 1e-6)))
        self._optimizer.param_groups[0]["lr"] = self.learning_rate
        self._optimizer.step()

    def averages(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """AdamW's running averages of the weights (P,) and of the gates (C,); none before the first step."""
        return self._averages_of(""), self._averages_of("gates.")

    def _averages_of(self, prefix: str) -> list[torch.Tensor]:
        if prefix not in self._trained:
            return []
        state = self._optimizer.state.get(self._trained[prefix], {})
        return [tensor for name, tensor in state.items() if name != "step"]

    def tensors(self) -> dict[str, torch.Tensor]:
        """The optimizer's state, for a checkpoint."""
        return {
            prefix + name: tensor
            for prefix, parameter in self._trained.items()
            for name, tensor in self._optimizer.state.get(parameter, {}).items()
        }

    def counters(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("step", "diverged", "wall_s", "tokens", "padding_tokens")}

    def restore(self, tensors: dict[str, torch.Tensor], counters: dict[str, Any]) -> None:
        """The inverse of `tensors` and `counters`."""
        for prefix, parameter in self._trained.items():
            names = ("step", "exp_avg", "exp_avg_sq")
            if prefix + "step" in tensors:
                state = {name: tensors[prefix + name].to(parameter.device) for name in names}
                self._optimizer.state[parameter] = state | {"step": tensors[prefix + "step"].cpu()}
        for name, value in counters.items():
            setattr(self, name, value)


def _parameter(values: torch.Tensor, grad: torch.Tensor) -> torch.nn.Parameter:
    parameter = torch.nn.Parameter(values)
    parameter.grad = grad
    return parameter
