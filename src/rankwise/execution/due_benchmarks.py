"""Which benchmarks of a study the ledger still lacks. Light: a finished study is recognised by it without torch."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankwise.ledger.results import RunRow, StudyResults
from rankwise.study.config import Arm, BaseSettings, BenchmarkSettings, Study

Fingerprinted = Mapping[BenchmarkSettings, str]
"""Benchmarks with the fingerprints that results of them carry."""


@dataclass(frozen=True, kw_only=True)
class SharedBase:
    """A base model in one form, and the arms that stand on it."""

    settings: BaseSettings
    arms: tuple[Arm, ...]

    @property
    def key(self) -> dict[str, Any]:
        """What tells it from others, as the ledger keeps it."""
        return {
            "model": self.settings.model,
            "form": self.settings.quantization,
            "arms": [arm.name for arm in self.arms],
        }


def benchmark_file(benchmark: BenchmarkSettings) -> Path | None:
    return Path(benchmark.data).expanduser() if benchmark.data is not None else None


def benchmark_fingerprint(benchmark: BenchmarkSettings) -> str:
    """Of the settings, and of the content of the file. Raises OSError where that cannot be read."""
    file = benchmark_file(benchmark)
    content = hashlib.sha256(file.read_bytes()).hexdigest() if file else None
    text = json.dumps([benchmark.name, benchmark.limit, content])
    return hashlib.sha256(text.encode()).hexdigest()


def wanted_benchmarks(study: Study) -> Fingerprinted:
    """The benchmarks of a study with their fingerprints. Raises OSError where a file cannot be read."""
    return {benchmark: benchmark_fingerprint(benchmark) for benchmark in study.benchmarks}


def is_due(study: Study, results: StudyResults, folder: Path) -> bool:
    """Whether the ledger lacks any benchmark of a base, or of an adapter in `folder`."""
    wanted = wanted_benchmarks(study)
    return any(due_bases(study, wanted, results)) or any(due_runs(wanted, results, folder))


def benchmarked_runs(results: StudyResults, folder: Path) -> list[RunRow]:
    """Finished reported runs whose adapters are in `folder`, each once. A run that another study trained earlier has
    its adapter there."""
    runs = {run.id: run for run in results.runs if run.purpose == "report" and run.status == "finished"}
    return [run for run in runs.values() if (folder / "adapters" / run.id).is_dir()]


def due_runs(wanted: Fingerprinted, results: StudyResults, folder: Path) -> Iterator[tuple[RunRow, BenchmarkSettings]]:
    """Runs with the benchmarks that they still lack."""
    for run in benchmarked_runs(results, folder):
        known = {(found.benchmark, found.fingerprint) for found in run.benchmarks}
        for benchmark, fingerprint in wanted.items():
            if (benchmark.label, fingerprint) not in known:
                yield run, benchmark


def due_bases(
    study: Study, wanted: Fingerprinted, results: StudyResults
) -> Iterator[tuple[SharedBase, BenchmarkSettings]]:
    """Bases with the benchmarks that they still lack."""
    kept = [(key_of(entry), entry["results"]) for entry in results.base_benchmarks.get("bases", ())]
    for base in _shared_bases(study):
        own = [found for key, of_base in kept if key == base.key for found in of_base]
        known = {(found["benchmark"], found["fingerprint"]) for found in own}
        for benchmark, fingerprint in wanted.items():
            if (benchmark.label, fingerprint) not in known:
                yield base, benchmark


def key_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The key of a base that the ledger keeps."""
    return {name: value for name, value in entry.items() if name != "results"}


def _shared_bases(study: Study) -> Iterator[SharedBase]:
    arms: dict[BaseSettings, list[Arm]] = {}
    for arm in study.arms:
        arms.setdefault(arm.base, []).append(arm)
    for settings, sharing in arms.items():
        yield SharedBase(settings=settings, arms=tuple(sharing))
