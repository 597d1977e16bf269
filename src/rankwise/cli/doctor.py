"""`rankwise doctor`: what this machine can do, measured rather than guessed."""

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rankwise import __version__
from rankwise.cli.console import console, print_json
from rankwise.errors import ModelError

if TYPE_CHECKING:
    import torch

EXTRAS = {
    "quant": ("bitsandbytes", "accelerate"),
    "bench": ("lm_eval",),
    "cluster": ("ray", "psycopg"),
    "trackers": ("mlflow", "tensorboard", "wandb"),
}
"""Optional parts and the modules that each needs, as in pyproject.toml."""
GIB = 2**30
CUBE = 1024
"""Largest edge of the measured matrix product; a slow number format is measured on smaller ones."""


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of the table.")] = False,
    ledger: Annotated[
        str | None, typer.Option(envvar="RANKWISE_LEDGER", help="Ledger to look at: a database URL or a file.")
    ] = None,
) -> None:
    """Example: rankwise doctor

    Show what this machine can do: devices, memory, number formats and their measured speed, the embedded model,
    optional parts, and where results would go.
    """
    findings = examine(ledger)
    if as_json:
        print_json(findings)
    else:
        _print_findings(findings)


def examine(ledger: str | None) -> dict[str, dict[str, Any]]:
    """Look at everything; a group of findings per key, plain values only."""
    return {
        "software": _software(),
        "host": _host(),
        "devices": _devices(),
        "speed_gflops": _speeds(),
        "extras": _extras(),
        "calibration": _calibration(),
        "embedded_model": _embedded_model(),
        "results": _results(ledger),
    }


def _software() -> dict[str, Any]:
    packages = ("torch", "transformers", "peft", "datasets", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {"rankwise": __version__, "python": platform.python_version(), "platform": platform.platform(), **versions}


def _host() -> dict[str, Any]:
    import psutil

    from rankwise.models.host_memory import keep_freed_memory
    from rankwise.profiling.processor import processor_name

    memory = psutil.virtual_memory()
    return {
        "processor": processor_name(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": memory.total,
        "available_memory_bytes": memory.available,
        "allocator_keeps_freed_memory": keep_freed_memory(),
    }


def _devices() -> dict[str, Any]:
    import torch

    from rankwise.models.dtype import multiplies_bfloat16_fast

    fast = multiplies_bfloat16_fast(torch.device("cpu"))
    devices: dict[str, Any] = {
        "cpu": {"threads": torch.get_num_threads(), "bfloat16_units": fast, "quantization": _forms(torch.device("cpu"))}
    }
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        devices[f"cuda:{index}"] = {
            "name": properties.name,
            "memory_bytes": properties.total_memory,
            "bfloat16_units": multiplies_bfloat16_fast(torch.device("cuda", index)),
            "quantization": _forms(torch.device("cuda", index)),
        }
    if torch.backends.mps.is_available():
        devices["mps"] = {"name": "Apple GPU"}
    return devices


def _forms(device: "torch.device") -> str:
    """Forms of quantized weights that work on the device; `none` where there is no bitsandbytes for it."""
    from rankwise.models.quantization import working_forms

    return " ".join(working_forms(device)) or "none"


def _speeds() -> dict[str, Any]:
    """Matrix products per device and number format, in GFLOP/s."""
    import torch

    from rankwise.profiling.speed import measure_matmul_flops

    def gflops(device: str, dtype: torch.dtype) -> float:
        return round(measure_matmul_flops(CUBE, CUBE, CUBE, dtype=dtype, device=torch.device(device)) / 1e9, 1)

    names = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    formats = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    return {device: {name: gflops(device, dtype) for name, dtype in formats.items()} for device in names}


def _calibration() -> dict[str, Any]:
    """What times are predicted from: where it is kept, and how fast the calibrated shapes train."""
    from rankwise.profiling.calibration_cache import FILE_NAME, cache_folder, read_calibrations

    found = read_calibrations()
    speeds = [round(calibration.training.flops_per_s / 1e9, 1) for calibration in found.values()]
    return {
        "file": str(cache_folder() / FILE_NAME),
        "num_calibrations": len(found),
        "slowest_training_gflops": min(speeds, default=None),
        "fastest_training_gflops": max(speeds, default=None),
    }


def _extras() -> dict[str, Any]:
    installed = {
        extra: all(importlib.util.find_spec(module) is not None for module in modules)
        for extra, modules in EXTRAS.items()
    }
    latex = next((name for name in ("latexmk", "tectonic", "pdflatex") if shutil.which(name)), None)
    return {**installed, "latex": latex or False}


def _embedded_model() -> dict[str, Any]:
    from rankwise.models.source import locate_base
    from rankwise.study.config import BaseSettings

    try:
        folder = locate_base(BaseSettings(), "config", "weights", "tokenizer")
    except ModelError as error:
        return {"usable": False, "problem": str(error)}
    weights = folder / "model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    return {"usable": True, "folder": str(folder), "weights_bytes": weights.stat().st_size, "weights_sha256": digest}


def _results(ledger: str | None) -> dict[str, Any]:
    from rankwise.ledger.connection import DEFAULT_URL, parse_url

    url = parse_url(ledger or DEFAULT_URL)
    file = Path(url.database).absolute() if url.get_backend_name() == "sqlite" and url.database else None
    return {
        "folder": str(Path.cwd()),
        "free_disk_bytes": shutil.disk_usage(Path.cwd()).free,
        "ledger": url.render_as_string(hide_password=True),
        "ledger_exists": file.exists() if file else None,
        "ledger_writable": _is_writable(file) if file else None,
    }


def _is_writable(file: Path) -> bool:
    """SQLite writes its journal beside the file, so the folder counts as well."""
    return os.access(file.parent, os.W_OK) and (not file.exists() or os.access(file, os.W_OK))


def _print_findings(findings: dict[str, dict[str, Any]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for group, values in findings.items():
        table.add_row(f"[bold]{group.replace('_', ' ')}[/]")
        for name, value in values.items():
            table.add_row(f"  {name.removesuffix('_bytes').replace('_', ' ')}", escape(_in_words(name, value)))
    console.print(table)
    for advice in advise(findings):
        console.print(f"- {escape(advice)}")


def _in_words(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(
            f"{key.removesuffix('_bytes').replace('_', ' ')} {_in_words(key, item)}" for key, item in value.items()
        )
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "unknown"}[value]
    if name.endswith("_bytes"):
        return f"{value / GIB:.1f} GiB" if value >= GIB else f"{value / 2**20:.1f} MiB"
    return str(value)


def advise(findings: dict[str, dict[str, Any]]) -> list[str]:
    """What a person should know before a study, one sentence each."""
    advice = []
    if findings["speed_gflops"]["cpu"]["bfloat16"] < findings["speed_gflops"]["cpu"]["float32"]:
        advice.append("The processor multiplies bfloat16 more slowly than float32: use float32 (dtype: auto does).")
    if not findings["host"]["allocator_keeps_freed_memory"]:
        advice.append("The C library cannot be told to keep freed memory: training is correct, but slower.")
    if not findings["embedded_model"]["usable"]:
        advice.append("The embedded model cannot be used: name another with --model, or install again.")
    if findings["results"]["ledger_writable"] is False:
        advice.append("The ledger cannot be written here: choose another with --ledger or RANKWISE_LEDGER.")
    return advice
