"""Predict and measure every rank of a profile, each in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from rankwise import errors
from rankwise.errors import DataError, PackError
from rankwise.execution.environment import device_name
from rankwise.execution.profile.predict import RankPredictor
from rankwise.execution.profile.ranks import check_ranks
from rankwise.execution.profile.values import Profile, ProfileSettings, RankMeasurement, RankProfile
from rankwise.execution.sizing import available_bytes
from rankwise.execution.workbench import Workbench
from rankwise.models.context import context_tokens
from rankwise.models.dtype import resolve_settings
from rankwise.models.sites import find_sites
from rankwise.models.source import locate_base
from rankwise.profiling.speed import measure_matmul_flops


def run_profile(
    settings: ProfileSettings, ranks: Sequence[int], *, on_rank: Callable[[int], None] = lambda _rank: None
) -> Profile:
    """Profile each of `ranks`, in that order; `on_rank` is told before each one.

    Raises:
        ModelError: the base model cannot be found or loaded.
        AllocationError: a rank that no layer can have.
        DataError: rows longer than the model's context.
        PackError: a rank does not fit the memory that is free, or its process was ended.
    """
    bench = Workbench()
    base = bench.shape(settings.base)
    locate_base(settings.base, "config", "tokenizer", "weights")
    predictor = RankPredictor(settings, bench)
    check_ranks(ranks, find_sites(base.model, settings.targets), settings.base.model)
    _check_length(settings, context_tokens(base.model))
    predicted = {rank: predictor.predict(rank) for rank in ranks}
    for rank in ranks:
        _check_fits(rank, predicted[rank].memory.total_bytes, settings)
    matmul = measure_matmul_flops(
        settings.batch_size * settings.tokens,
        predictor.shape.hidden_size,
        predictor.shape.mlp_size,
        dtype=getattr(torch, base.settings.dtype),
        device=base.device,
    )
    found = []
    for rank in ranks:
        on_rank(rank)
        measured = _measure_apart(settings, rank)
        found.append(
            RankProfile(
                measured=measured,
                predicted_bytes=predicted[rank].memory.total_bytes,
                predicted_terms=predicted[rank].terms(),
                flops=predicted[rank].flops,
                tokens_per_s=settings.batch_size * settings.tokens / measured.step_s,
                peak_frac=predicted[rank].flops / measured.step_s / matmul,
            )
        )
    return Profile(
        settings=settings.model_copy(update={"base": resolve_settings(settings.base, base.device)}),
        device=device_name(base.device),
        threads=torch.get_num_threads(),
        num_params=base.num_params,
        matmul_flops_per_s=matmul,
        ranks=tuple(found),
    )


def _measure_apart(settings: ProfileSettings, rank: int) -> RankMeasurement:
    request = json.dumps({"settings": settings.model_dump(mode="json"), "rank": rank})
    with TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-m", "rankwise.execution.profile.child", str(answer)]
        finished = subprocess.run(command, input=request, capture_output=True, text=True, check=False)  # noqa: S603
        if not answer.is_file():
            raise PackError(_describe_end(rank, finished))
        text = answer.read_text(encoding="utf-8")
    found = json.loads(text)
    if "error" in found:
        raise getattr(errors, found["kind"])(found["error"])
    return RankMeasurement.model_validate(found)


def _describe_end(rank: int, finished: "subprocess.CompletedProcess[str]") -> str:
    advice = (
        "Profile fewer or shorter rows (--batch-size, --tokens), a smaller --rank, or with --gradient-checkpointing or "
        "--quantization nf4."
    )
    if finished.returncode < 0:
        return (
            f"the process that measured rank {rank} was ended by signal {-finished.returncode}, as the system does "
            f"when memory runs out. {advice}"
        )
    last = (finished.stderr.strip().splitlines() or ["no message"])[-1]
    return f"measuring rank {rank} failed: {last}. {advice}"


def _check_length(settings: ProfileSettings, context: int) -> None:
    needed = max(settings.tokens, settings.tokens // 2 + settings.new_tokens)
    if needed > context:
        raise DataError(
            f"--tokens {settings.tokens} with {settings.new_tokens} new tokens does not fit the context of "
            f"{settings.base.model}, {context:,} tokens. Give fewer."
        )


def _check_fits(rank: int, predicted_bytes: int, settings: ProfileSettings) -> None:
    free = available_bytes()
    if predicted_bytes > free:
        raise PackError(
            f"--rank {rank} on {settings.base.model} needs {predicted_bytes / 2**30:.2f} GiB by prediction, and "
            f"{free / 2**30:.2f} GiB may be filled. Give fewer or shorter rows (--batch-size {settings.batch_size}, "
            f"--tokens {settings.tokens}), a smaller rank, "
            f"{'' if settings.gradient_checkpointing else '--gradient-checkpointing, '}or a --quantization."
        )
