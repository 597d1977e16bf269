"""The same runs by Rankwise and by HF Trainer + PEFT one at a time, interleaved, in processes of their own.

    python benchmarks/against_peft.py                                  the embedded study's reported runs on `nano`
    python benchmarks/against_peft.py --model DIR --source FILE ...    another base model and data

Both sides get the same examples, batches, steps, rank maps, initial adapters, learning rates and schedule, train in the
dtype that is fastest on the machine, and score the validation and test splits at the end. The peer is what a careful
user would run: dynamic padding, scoring in large batches, no saving, no tracking. It runs twice: with its own defaults,
and with the attention kernel and allocator setting that Rankwise uses.

Prints a table and writes every number as JSON with --json.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROLES = ("rankwise", "peft-defaults", "peft-tuned")


@dataclass(frozen=True)
class Workload:
    """What both sides train."""

    study: Path
    model: str
    source: str
    max_tokens: int
    num_train: int
    num_eval: int
    batch_size: int
    num_runs: int
    epochs: float


def main() -> None:
    args = parse_arguments()
    if args.role:
        print(json.dumps(ROLE_RUNNERS[args.role](workload_of(args))))
        return
    found: dict[str, list[dict[str, Any]]] = {role: [] for role in ROLES}
    for _ in range(args.repeat):
        for role in ROLES:
            found[role].append(run_role(role))
            print(f"{role}: {found[role][-1]['wall_s']:.1f} s", file=sys.stderr, flush=True)
    report = summarise(found, args)
    print(render(report))
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--study", type=Path, default=Path("studies/embedded.yaml"), help="study whose arms are trained"
    )
    parser.add_argument("--model", default="nano", help="base model: nano, a folder or a hub id")
    parser.add_argument("--source", default="skills", help="data: skills or a file")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--train", type=int, default=64, help="training examples")
    parser.add_argument("--eval", type=int, default=64, help="validation and test examples, each")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=12, help="runs: arms of the study times as many seeds as needed")
    parser.add_argument("--repeat", type=int, default=3, help="times that every side is run; medians are reported")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--role", choices=ROLES, help=argparse.SUPPRESS)
    return parser.parse_args()


def workload_of(args: argparse.Namespace) -> Workload:
    return Workload(
        study=args.study,
        model=args.model,
        source=args.source,
        max_tokens=args.max_tokens,
        num_train=args.train,
        num_eval=args.eval,
        batch_size=args.batch_size,
        num_runs=args.runs,
        epochs=args.epochs,
    )


def run_role(role: str) -> dict[str, Any]:
    command = [sys.executable, __file__, *sys.argv[1:], "--role", role]
    # As the command `rankwise` sets it; the peer runs with OpenMP's default unless it is tuned.
    waiting = {} if role == "peft-defaults" else {"GOMP_SPINCOUNT": "10000"}
    finished = subprocess.run(command, env=waiting | os.environ, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(finished.stdout.splitlines()[-1])


def prepare(workload: Workload) -> tuple[Any, Any, list[Any]]:
    """The base model, the data and the allocated runs; the same in every process."""
    import torch

    from rankwise.data.prepare import prepare_data
    from rankwise.models.load import load_base
    from rankwise.study import load_study
    from rankwise.study.runs import Run
    from rankwise.training.allocate import Allocator

    study = load_study(workload.study)
    splits = {"train": workload.num_train, "validation": workload.num_eval, "test": workload.num_eval}
    data_settings = study.arms[0].data.model_copy(
        update=splits | {"source": workload.source, "max_tokens": workload.max_tokens}
    )
    base = load_base(study.arms[0].base.model_copy(update={"model": workload.model}))
    for module in base.model.modules():  # off in Rankwise; Trainer would switch it on, and the losses would differ
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    data = prepare_data(data_settings, base.tokenizer)
    allocator = Allocator(base)
    runs = []
    for number in range(workload.num_runs):
        arm = study.arms[number % len(study.arms)]
        train = arm.train.model_copy(
            update={"epochs": workload.epochs, "batch_size": workload.batch_size, "eval_every_frac": 1.0}
        )
        run = Run(
            arm=arm.model_copy(update={"train": train}),
            learning_rate=train.learning_rates[0],
            seed=number // len(study.arms),
            base_fingerprint=base.fingerprint,
            data_fingerprint=data.fingerprint,
        )
        runs.append(allocator.allocate(run, data))
    return base, data, runs


def train_with_rankwise(workload: Workload) -> dict[str, Any]:
    from rankwise.models.host_memory import keep_freed_memory
    from rankwise.records import Evaluated, StepDone
    from rankwise.training.engine import train_pack

    keep_freed_memory()
    base, data, runs = prepare(workload)
    started = time.perf_counter()
    records = [record for batch in train_pack(base, runs) for record in batch]
    wall_s = time.perf_counter() - started
    losses = {r.run.id: {"train": [], "test": None} for r in runs}
    for record in records:
        if isinstance(record, StepDone):
            losses[record.run_id]["train"].append(record.loss_nats)
        elif isinstance(record, Evaluated) and record.split == "test":
            losses[record.run_id]["test"] = record.loss_nats
    return measured(wall_s, [losses[r.run.id] for r in runs], base, data, runs)


def train_with_peft(workload: Workload, *, tuned: bool) -> dict[str, Any]:
    """One run after the other: `get_peft_model`, `Trainer.train`, `Trainer.evaluate` on both splits."""
    from rankwise.models.host_memory import keep_freed_memory

    warnings.simplefilter("ignore")
    if tuned:
        keep_freed_memory()
    base, data, runs = prepare(workload)
    initial = [initial_adapters(base, run) for run in runs]
    base.model.set_attn_implementation(base.settings.attention if tuned else "sdpa")
    started = time.perf_counter()
    losses = [train_one(base, data, run, tensors) for run, tensors in zip(runs, initial, strict=True)]
    return measured(time.perf_counter() - started, losses, base, data, runs)


def initial_adapters(base: Any, run: Any) -> dict[str, Any]:
    from rankwise.lora.pack import AdapterPack, SlotPlan

    plan = SlotPlan(rank_map=run.rank_map, init=run.run.arm.init, seed=run.run.seed)
    pack = AdapterPack(base.model, [plan], compute_dtype=base.model.dtype)
    tensors = pack.tensors(0)
    pack.detach()
    return tensors


def train_one(base: Any, data: Any, allocated: Any, initial: dict[str, Any]) -> dict[str, Any]:
    import math

    import torch
    from peft import get_peft_model
    from transformers import PrinterCallback, Trainer, TrainingArguments

    from rankwise.training.order import BatchOrder

    run, settings = allocated.run, allocated.run.arm.train
    model = get_peft_model(base.model, allocated.rank_map.to_peft())
    for name, (down, up) in initial.items():
        layer = model.get_submodule(f"base_model.model.{name}")
        layer.lora_A["default"].weight.data.copy_(torch.from_numpy(down))
        layer.lora_B["default"].weight.data.copy_(torch.from_numpy(up))
    order = BatchOrder(
        num_examples=len(data.train), batch_size=settings.batch_size, epochs=settings.epochs, seed=run.seed
    )
    ordered = [int(i) for step in range(order.num_steps) for i in order.batch(step)]

    class OrderedTrainer(Trainer):
        def _get_train_sampler(self, *_: Any) -> list[int]:
            return ordered

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=settings.batch_size,
            per_device_eval_batch_size=64,
            max_steps=order.num_steps,
            learning_rate=run.learning_rate,
            lr_scheduler_type=settings.schedule,
            warmup_steps=math.ceil(settings.warmup_frac * order.num_steps),
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.clip_norm or 0.0,
            logging_steps=1,
            save_strategy="no",
            eval_strategy="no",
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=False,
            bf16=base.settings.dtype == "bfloat16",
            prediction_loss_only=True,
            use_cpu=base.device.type == "cpu",
        )
        trainer = OrderedTrainer(
            model=model, args=arguments, train_dataset=examples_of(data.train), data_collator=collate(base.tokenizer)
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        trainer.evaluate(examples_of(data.validation))
        test_loss = token_weighted_loss(trainer, data.test)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    model.unload()
    return {"train": losses, "test": test_loss}


def token_weighted_loss(trainer: Any, examples: Any) -> float:
    """Trainer.evaluate averages batches, not tokens; each batch's mean is weighted by its answer tokens."""
    import torch

    total = tokens = 0.0
    trainer.model.eval()
    loader = trainer.get_eval_dataloader(examples_of(examples))
    with torch.no_grad():
        for batch in loader:
            num = int((batch["labels"][:, 1:] != -100).sum())
            total += float(trainer.model(**batch).loss) * num
            tokens += num
    return total / tokens


def examples_of(examples: Any) -> list[dict[str, list[int]]]:
    return [
        {
            "input_ids": e.input_ids.tolist(),
            "labels": [-100] * e.num_prompt_tokens + e.input_ids[e.num_prompt_tokens :].tolist(),
        }
        for e in examples
    ]


def collate(tokenizer: Any) -> Any:
    """Pad to the longest of the batch."""
    import torch

    def pad(features: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        longest = max(len(f["input_ids"]) for f in features)

        def column(key: str, filler: int) -> torch.Tensor:
            return torch.tensor([f[key] + [filler] * (longest - len(f[key])) for f in features])

        filled = {"input_ids": column("input_ids", tokenizer.pad_token_id or 0), "labels": column("labels", -100)}
        lengths = torch.tensor([len(f["input_ids"]) for f in features])
        filled["attention_mask"] = (torch.arange(longest)[None] < lengths[:, None]).long()
        return filled

    return pad


def measured(wall_s: float, losses: list[dict[str, Any]], base: Any, data: Any, runs: list[Any]) -> dict[str, Any]:
    from rankwise.profiling.speed import measure_matmul_flops
    from rankwise.training.order import BatchOrder

    tokens = 0
    for r in runs:
        order = BatchOrder(
            num_examples=len(data.train),
            batch_size=r.run.arm.train.batch_size,
            epochs=r.run.arm.train.epochs,
            seed=r.run.seed,
        )
        tokens += sum(len(data.train[i].input_ids) for step in range(order.num_steps) for i in order.batch(step))
    return {
        "wall_s": wall_s,
        "losses": losses,
        "train_tokens": tokens,
        "eval_tokens": len(runs) * sum(len(e.input_ids) for e in (*data.validation, *data.test)),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "dtype": base.settings.dtype,
        "attention": base.settings.attention,
        "num_params": base.num_params,
        "matmul_flops_per_s": measure_matmul_flops(2048, 256, 1024, dtype=base.model.dtype, device=base.device),
    }


def summarise(found: dict[str, list[dict[str, Any]]], args: argparse.Namespace) -> dict[str, Any]:
    from rankwise.profiling.processor import processor_name

    ours = found["rankwise"]
    report: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "machine": f"{platform.machine()}, {processor_name()}",
        "dtype": ours[0]["dtype"],
        "num_runs": args.runs,
        "sides": {},
    }
    for role, results in found.items():
        wall_s = statistics.median(r["wall_s"] for r in results)
        flops = 4 * results[0]["num_params"] * results[0]["train_tokens"] + (
            2 * results[0]["num_params"] * results[0]["eval_tokens"]
        )
        report["sides"][role] = {
            "wall_s": wall_s,
            "wall_s_all": [r["wall_s"] for r in results],
            "train_tokens_per_s": results[0]["train_tokens"] / wall_s,
            "peak_memory_bytes": max(r["peak_memory_bytes"] for r in results),
            "matmul_frac": flops / wall_s / statistics.median(r["matmul_flops_per_s"] for r in results),
            "speedup_of_rankwise": statistics.median(
                theirs["wall_s"] / own["wall_s"] for theirs, own in zip(results, ours, strict=True)
            ),
            "largest_train_loss_difference": largest_difference(results[0], ours[0], "train"),
            "largest_test_loss_difference": largest_difference(results[0], ours[0], "test"),
        }
    return report


def largest_difference(one: dict[str, Any], other: dict[str, Any], split: str) -> float:
    """Over all runs (and steps), in nats."""
    pairs = [(a[split], b[split]) for a, b in zip(one["losses"], other["losses"], strict=True)]
    if split == "test":
        return max(abs(a - b) for a, b in pairs)
    return max(abs(a - b) for ours, theirs in pairs for a, b in zip(ours, theirs, strict=True))


def render(report: dict[str, Any]) -> str:
    lines = [
        f"{report['num_runs']} runs, {report['dtype']}, {report['machine']}",
        f"{'side':<15}{'wall s':>9}{'tokens/s':>10}{'GiB':>7}{'of peak':>9}{'speed-up':>10}"
        f"{'train loss':>12}{'test loss':>11}",
    ]
    for role, side in report["sides"].items():
        lines.append(
            f"{role:<15}{side['wall_s']:>9.1f}{side['train_tokens_per_s']:>10.0f}"
            f"{side['peak_memory_bytes'] / 2**30:>7.2f}{side['matmul_frac']:>9.0%}{side['speedup_of_rankwise']:>9.2f}x"
            f"{side['largest_train_loss_difference']:>12.1e}{side['largest_test_loss_difference']:>11.1e}"
        )
    lines.append(
        "tokens/s: training tokens over the whole wall time, scoring included. of peak: float operations that plain"
    )
    lines.append(
        "training and scoring need, against the measured matrix-product speed; sharing prefixes can exceed 100 %."
    )
    lines.append(
        "speed-up: of rankwise over the side, median of pairs. losses: largest difference from rankwise, nats."
    )
    return "\n".join(lines)


ROLE_RUNNERS = {
    "rankwise": train_with_rankwise,
    "peft-defaults": lambda workload: train_with_peft(workload, tuned=False),
    "peft-tuned": lambda workload: train_with_peft(workload, tuned=True),
}

if __name__ == "__main__":
    main()
