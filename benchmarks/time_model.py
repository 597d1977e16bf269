"""The predicted time of packs against the taken one, over models, ranks and forms of the base.

    python benchmarks/time_model.py                     all configurations, one process each
    python benchmarks/time_model.py --only opt          those whose name contains the text

Configurations are those of `memory_model.py`. Each process calibrates on its own, with one thread, and then trains its
pack as `rankwise study` does; both sides count processor time, which other work on the machine does not stretch. What
is not predicted is not counted: loading, the initial adapters, checkpoints and the ledger. Prints a table; --json
writes every number.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from memory_model import CONFIGURATIONS, Configuration, study_text

CHOSEN = (
    Configuration(model="nano", rank=8, slots=4),
    Configuration(model="nano", rank=64, slots=8),
    Configuration(model="llama", rank=8, slots=4),
    Configuration(model="dialogpt", rank=8, slots=4),
    Configuration(model="opt", rank=64, slots=2, template="plain"),
    Configuration(model="pythia", rank=16, slots=8),
    Configuration(model="phi", rank=8, slots=4),
    Configuration(model="llama", rank=8, slots=4, quantization="nf4"),
    Configuration(model="llama", rank=8, slots=4, quantization="int8"),
    Configuration(model="nano", rank=8, slots=4, evaluate="answers"),
)
assert {c.name for c in CHOSEN} <= {c.name for c in CONFIGURATIONS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="text that the names of the configurations contain")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(next(c for c in CHOSEN if c.name == arguments.only))))
        return
    found = []
    print(f"{'configuration':<36}{'predicted s':>12}{'taken s':>10}{'error':>8}")
    for name in (c.name for c in CHOSEN if arguments.only in c.name):
        case = {"name": name} | measure_apart(name)
        found.append(case)
        print(f"{name:<36}{case['predicted_s']:>12.1f}{case['taken_s']:>10.1f}{case['error_frac']:>+8.1%}", flush=True)
    errors = [abs(case["error_frac"]) for case in found]
    print(f"median error {statistics.median(errors):.1%}, largest {max(errors):.1%}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"configurations": found}, indent=2) + "\n", encoding="utf-8")


def measure_apart(name: str) -> dict[str, Any]:
    """In a process of its own with one thread and a calibration of its own."""
    from rankwise.models.host_memory import without_thread_caches

    with tempfile.TemporaryDirectory() as cache:
        environment = without_thread_caches(os.environ | {"OMP_NUM_THREADS": "1", "RANKWISE_CACHE": cache})
        command = [sys.executable, __file__, "--child", "--only", name]
        finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(finished.stdout.splitlines()[-1])


def measure(configuration: Configuration) -> dict[str, Any]:
    from rankwise.execution.duration import DurationPredictor
    from rankwise.execution.packing import micro_tokens_of
    from rankwise.execution.sizing import size_runs
    from rankwise.execution.workbench import Workbench
    from rankwise.models.host_memory import keep_freed_memory
    from rankwise.study import parse_study
    from rankwise.study.plan import report_runs
    from rankwise.training.engine import EngineOptions, train_pack

    keep_freed_memory()
    with tempfile.TemporaryDirectory() as name:
        study = parse_study(study_text(configuration, Path(name)), origin="time.yaml")
        bench = Workbench()
        planned = report_runs(study, {"uniform": 1e-4}, bench.fingerprints(study))
        sized = size_runs(planned, bench, EngineOptions())
        predicted_s = DurationPredictor(bench).predict_s(sized)
        settings = planned[0].run.arm.base
        runs = list(bench.allocator(settings).allocate_all((one.planned.run, one.data) for one in sized))
        options = EngineOptions(micro_tokens=micro_tokens_of(sized))
        started = time.process_time()
        for _ in train_pack(bench.base(settings), runs, options=options):
            pass
        taken_s = time.process_time() - started
    return {"predicted_s": predicted_s, "taken_s": taken_s, "error_frac": predicted_s / taken_s - 1}


if __name__ == "__main__":
    main()
