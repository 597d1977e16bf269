"""Benchmarks: lm-evaluation-harness (github.com/EleutherAI/lm-evaluation-harness) on a model that is loaded.

The harness makes the prompts, decodes, judges and averages; a test holds the number against the harness's own on the
exported adapter. It is the extra `bench`, and imported nowhere else.
"""

import difflib
import importlib.util
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from rankwise.errors import EvaluationError
from rankwise.evaluation.benchmark_tasks import LOCAL_TASKS, NEEDS_FILE, TaskInputs
from rankwise.models.load import LoadedBase
from rankwise.records import BenchmarkScore

BATCH_SIZE = 16
"""Prompts decoded together."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkResult:
    """All that the harness said about one model."""

    name: str
    harness: str
    """Version of lm-eval."""
    num_examples: int
    scores: tuple[BenchmarkScore, ...]
    examples: tuple[Mapping[str, Any], ...]
    """Per example and way of reading: prompt, expected and written answer, scores."""


def require_benchmark(name: str) -> None:
    """See that the benchmark can be run, before anything is loaded.

    Raises:
        EvaluationError: the extra is not installed, or there is no such task.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise EvaluationError(
            f"--benchmark {name} needs lm-evaluation-harness, which is not installed. Install the extra with "
            "`pip install 'rankwise[bench]'`."
        )
    if name in LOCAL_TASKS:
        return
    known = _own_tasks().all_tasks
    if name not in known:
        close = difflib.get_close_matches(name, {*LOCAL_TASKS, *known}, n=3, cutoff=0.6)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise EvaluationError(
            f"--benchmark {name}: lm-evaluation-harness has no such task.{hint} Without a hub there are "
            f"{' and '.join(LOCAL_TASKS)}; `lm-eval ls tasks` lists all {len(known):,}."
        )


def run_benchmark(
    base: LoadedBase, name: str, inputs: TaskInputs, *, limit: int | None = None, show_progress: bool = True
) -> BenchmarkResult:
    """Run one benchmark on `base.model` with whatever adapter it carries; `limit` takes the first examples only.

    The harness's own bars are drawn where `show_progress` and there is a terminal.

    Raises:
        EvaluationError: its data set cannot be had, or the harness cannot run it.
    """
    from lm_eval import __version__ as version
    from lm_eval import simple_evaluate
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    with _quiet(), _bars(show_progress):
        local = name in LOCAL_TASKS and (name not in NEEDS_FILE or inputs.file is not None)
        task = ConfigurableTask(config=LOCAL_TASKS[name](inputs)) if local else name
        manager = TaskManager(include_defaults=False) if local else _own_tasks()
        harnessed = HFLM(pretrained=base.model, tokenizer=base.tokenizer, batch_size=BATCH_SIZE)
        try:
            found = simple_evaluate(model=harnessed, tasks=[task], limit=limit, task_manager=manager)
        except (OSError, ValueError, RuntimeError, KeyError, AssertionError, ImportError) as error:
            raise _failed(name, error) from error
    counts = found["n-samples"].values()
    return BenchmarkResult(
        name=name,
        harness=version,
        num_examples=sum(count["effective"] for count in counts),
        scores=tuple(_scores(found["results"])),
        examples=tuple(_example(sample) for samples in found["samples"].values() for sample in samples),
    )


@cache
def _own_tasks() -> Any:
    """The harness's index of its tasks; it reads every one of them, which takes seconds."""
    from lm_eval.tasks import TaskManager

    with _quiet():
        return TaskManager()


def _failed(name: str, error: Exception) -> EvaluationError:
    cause = " ".join(str(error).split())[:400]
    if isinstance(error, OSError):
        return EvaluationError(
            f"--benchmark {name}: its data set cannot be had from the hub ({cause}). Connect, or use a benchmark that "
            f"needs no hub: skills, or gsm8k with --benchmark-data FILE."
        )
    return EvaluationError(
        f"--benchmark {name}: lm-evaluation-harness cannot run it here ({type(error).__name__}: {cause}). `--debug` "
        "shows where; a task with examples before each question may not fit a model of short context."
    )


def _scores(results: Mapping[str, Mapping[str, Any]]) -> Iterator[BenchmarkScore]:
    """`{"skills": {"exact_match,none": 0.5, "exact_match_stderr,none": 0.05}}` as scores."""
    for task, values in results.items():
        for key, value in values.items():
            metric, comma, how = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, (int, float)):
                continue
            stderr = values.get(f"{metric}_stderr,{how}")
            error = float(stderr) if isinstance(stderr, (int, float)) and math.isfinite(stderr) else None
            yield BenchmarkScore(task=task, metric=metric, filter=how, value=float(value), stderr=error)


def _example(sample: Mapping[str, Any]) -> dict[str, Any]:
    names = [name for name in sample.get("metrics", ()) if isinstance(sample.get(name), (int, float))]
    written = sample.get("filtered_resps") or [None]
    return {
        "index": sample["doc_id"],
        "prompt": _prompt(sample),
        "expected": sample.get("target"),
        "got": written[0] if isinstance(written[0], str) else None,
        "filter": sample.get("filter"),
        **{name: float(sample[name]) for name in names},
    }


def _prompt(sample: Mapping[str, Any]) -> str | None:
    arguments = sample.get("arguments")
    if isinstance(arguments, Mapping):
        arguments = list(arguments.values())
    while isinstance(arguments, (list, tuple, Mapping)) and arguments:
        arguments = next(iter(arguments.values())) if isinstance(arguments, Mapping) else arguments[0]
    return arguments if isinstance(arguments, str) else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the harness's running commentary, which is not about anything the caller could change."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _bars(show_progress: bool) -> Iterator[None]:
    """Bars only where somebody sees them, and no question to git about the working directory, which complains aloud
    where that is no repository. The harness (0.4.13) has no option for either."""
    from lm_eval import evaluator
    from lm_eval.api import task
    from lm_eval.models import huggingface

    draw = huggingface.tqdm

    def bars(*args: Any, **settings: Any) -> Any:
        return draw(*args, **settings | {"disable": None if show_progress else True})  # None: on a terminal only

    replaced: tuple[tuple[Any, str, Any], ...] = (
        (evaluator, "get_git_commit_hash", lambda: None),
        (task, "tqdm", bars),
        (huggingface, "tqdm", bars),
    )
    before = [getattr(module, name) for module, name, _ in replaced]
    for module, name, value in replaced:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _), value in zip(replaced, before, strict=True):
            setattr(module, name, value)
