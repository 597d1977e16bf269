"""The pretraining loop: resumable, and a pure function of its configuration, corpus and seed on one machine."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import LlamaForCausalLM

from rankwise.pretraining.config import PretrainConfig
from rankwise.pretraining.corpus import Windows
from rankwise.pretraining.muon import Muon

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"
CHECKPOINT_EVERY_S = 300.0


class Pretraining:
    """A model, its two optimizers and the step they are at."""

    def __init__(self, config: PretrainConfig, model: LlamaForCausalLM) -> None:
        self.config = config
        self.model = model
        self.step = 0
        matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed_tokens" not in n]
        others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed_tokens" in n]
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon(matrices, lr=config.matrix_lr, weight_decay=config.weight_decay),
            torch.optim.AdamW(others, lr=config.embedding_lr, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        self.base_lrs = [config.matrix_lr, config.embedding_lr]

    def train_step(self, windows_BT: torch.Tensor) -> float:
        """One optimizer step on windows (B, T+1); returns the mean loss in nats per token."""
        micro_batches = windows_BT.split(self.config.micro_windows)
        total = 0.0
        for micro in micro_batches:
            loss = next_token_loss(self.model, micro) * (len(micro) / len(windows_BT))
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        factor = self.config.lr_factor(self.step)
        for optimizer, base_lr in zip(self.optimizers, self.base_lrs, strict=True):
            optimizer.param_groups[0]["lr"] = base_lr * factor
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        return total

    def save(self, folder: Path) -> None:
        tensors = {f"model.{n}": p.detach() for n, p in self.model.named_parameters()}
        for number, optimizer in enumerate(self.optimizers):
            for index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{number}.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
        partial = folder / f"{CHECKPOINT}.partial"
        save_file({n: t.contiguous() for n, t in tensors.items()}, partial, metadata={"step": str(self.step)})
        partial.replace(folder / CHECKPOINT)

    def load(self, folder: Path) -> None:
        with safe_open(folder / CHECKPOINT, "pt") as opened:
            self.step = int(opened.metadata()["step"])
        tensors = load_file(folder / CHECKPOINT)
        with torch.no_grad():
            for name, param in self.model.named_parameters():
                param.copy_(tensors[f"model.{name}"])
        for number, optimizer in enumerate(self.optimizers):
            state: dict[int, dict[str, torch.Tensor]] = {}
            for name, tensor in tensors.items():
                kind, _, rest = name.partition(".")
                owner, _, rest = rest.partition(".")
                if kind == "optimizer" and owner == str(number):
                    index, _, key = rest.partition(".")
                    state.setdefault(int(index), {})[key] = tensor
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def next_token_loss(model: LlamaForCausalLM, windows_BT: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats of each next token in windows (B, T+1)."""
    logits = model(input_ids=windows_BT[:, :-1], use_cache=False).logits
    return functional.cross_entropy(logits.float().flatten(0, 1), windows_BT[:, 1:].flatten())


def pretrain(
    training: Pretraining, windows: Windows, folder: Path, report: Callable[[int, float, float], None]
) -> None:
    """Train until the configured length, resuming from the checkpoint in `folder` where there is one.

    Each step appends `{"step", "tokens", "loss_nats", "tokens_per_s"}` to the log; `report` is called with
    (step, loss, tokens per second) after each step.
    """
    config = training.config
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / CHECKPOINT).exists():
        training.load(folder)
    saved_at = time.monotonic()
    with (folder / LOG).open("a", encoding="utf-8") as log:
        while training.step < config.num_steps:
            started = time.monotonic()
            batch = torch.from_numpy(windows.batch(training.step, config.batch_windows))
            loss = training.train_step(batch)
            tokens_per_step = config.batch_windows * config.context_tokens
            speed = tokens_per_step / (time.monotonic() - started)
            line = {"step": training.step, "tokens": training.step * tokens_per_step, "loss_nats": round(loss, 5)}
            log.write(json.dumps(line | {"tokens_per_s": round(speed)}) + "\n")
            log.flush()
            report(training.step, loss, speed)
            if time.monotonic() - saved_at > CHECKPOINT_EVERY_S:
                training.save(folder)
                saved_at = time.monotonic()
    training.save(folder)
