"""The plain training loop that the engine is compared with: a `peft` model, one run, stock PyTorch."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from peft import PeftModel
from transformers import get_scheduler

from rankwise.training.allocated_run import AllocatedRun
from rankwise.training.order import BatchOrder


def set_adapter(model: PeftModel, tensors: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Give every adapted layer its `down` and `up`."""
    for name, (down, up) in tensors.items():
        layer = model.get_submodule(f"base_model.model.{name}")
        layer.lora_A["default"].weight.data = torch.from_numpy(down.copy())
        layer.lora_B["default"].weight.data = torch.from_numpy(up.copy())


def train_with_peft(
    model: PeftModel, allocated: AllocatedRun, optimizer: torch.optim.Optimizer | None = None
) -> list[float]:
    """The loss of each step of `allocated`'s run, with `torch.optim.AdamW` where no other optimizer is given."""
    run, train = allocated.run, allocated.run.arm.train
    trainable = [p for p in model.parameters() if p.requires_grad]
    if optimizer is None:
        optimizer = torch.optim.AdamW(trainable, lr=run.learning_rate, weight_decay=train.weight_decay)
    data = allocated.data.train
    order = BatchOrder(num_examples=len(data), batch_size=train.batch_size, epochs=train.epochs, seed=run.seed)
    num_warmup = math.ceil(train.warmup_frac * order.num_steps)
    scheduler = get_scheduler(train.schedule, optimizer, num_warmup, order.num_steps)
    found = []
    for step in range(order.num_steps):
        batch = [data[index] for index in order.batch(step)]
        num_answers = sum(len(e.input_ids) - e.num_prompt_tokens for e in batch)
        loss = torch.zeros(())
        for example in batch:
            ids = torch.from_numpy(example.input_ids)[None]
            labels = ids.clone()
            labels[:, : example.num_prompt_tokens] = -100
            loss = loss + model(input_ids=ids, labels=labels, num_items_in_batch=num_answers).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, train.clip_norm)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found
