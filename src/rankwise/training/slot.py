"""One run's place in a pack while it trains: its data order, optimizer and counters."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from rankwise.data.batches import Row
from rankwise.data.examples import TokenizedExample
from rankwise.study.runs import Run
from rankwise.training.order import BatchOrder
from rankwise.training.schedule import lr_factor
from rankwise.training.stepped_row import AVERAGES, Part, SteppedRow


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
        parts: Sequence[Part] | None = None,
    ) -> None:
        """`gates` are the run's gates (C,) and the place of their gradient, where its strategy has any; `parts` are the
        parts of the row that have learning-rate factors, None where there is none."""
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
        self._trained = {"": SteppedRow(weights_P, grads_P, parts)}
        """What the optimizer steps, by the prefix of its state's names in a checkpoint."""
        if gates is not None:
            self._trained["gates."] = SteppedRow(*gates)
        self._optimizer = torch.optim.AdamW(
            [group for row in self._trained.values() for group in row.groups()],
            lr=run.learning_rate,
            betas=train.betas,
            eps=train.eps,
            weight_decay=train.weight_decay,
            fused=parts is not None,  # one call for all parts; a loop over them would cost more than the steps
        )
        for row in self._trained.values():
            row.attach(self._optimizer)

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
            for row in self._trained.values():
                row.grads_P.mul_(min(1.0, clip_norm / (grad_norm + 1e-6)))
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate * group["factor"]
        self._optimizer.step()

    def rate_factor(self, where: slice) -> float:
        """What the optimizer multiplies the learning rate with in this part of the row, which has one factor."""
        return next(factor for part, factor in self._trained[""].parts if part.start <= where.start < part.stop)

    def averages(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """AdamW's running averages of the weights (P,) and of the gates (C,)."""
        of_gates = self._trained.get("gates.")
        return self._trained[""].averages(), of_gates.averages() if of_gates else []

    def tensors(self) -> dict[str, torch.Tensor]:
        """The optimizer's state, for a checkpoint."""
        return {
            prefix + name: tensor
            for prefix, row in self._trained.items()
            for name, tensor in row.tensors(self._optimizer).items()
        }

    def counters(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("step", "diverged", "wall_s", "tokens", "padding_tokens")}

    def restore(self, tensors: dict[str, torch.Tensor], counters: dict[str, Any]) -> None:
        """The inverse of `tensors` and `counters`."""
        for prefix, row in self._trained.items():
            row.restore(self._optimizer, {name: tensors[prefix + name] for name in ("step", *AVERAGES)})
        for name, value in counters.items():
            setattr(self, name, value)
