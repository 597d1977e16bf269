"""What to change about a run that does not fit the memory by itself: each way with what the run would then need."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rankwise.data.examples import TokenizedExample
from rankwise.packing.memory import MemoryEstimate
from rankwise.study.config import Arm

if TYPE_CHECKING:
    from rankwise.execution.packing import SizedRun


def describe_ways(run: "SizedRun", limit_bytes: int, estimate: Callable[[Sequence["SizedRun"]], MemoryEstimate]) -> str:
    """Sentences: what takes the memory, which changes would bring how much, and which one is enough."""
    name, size = max(estimate([run]).terms().items(), key=lambda term: term[1])
    changed = [(words, estimate([other]).total_bytes) for words, other in _ways(run)]
    told = ", ".join(f"{_gib(needed)} with {words}" for words, needed in changed)
    if any(needed <= limit_bytes for _, needed in changed):
        first = next(words for words, needed in changed if needed <= limit_bytes)
        verdict = f"It fits with {first}"
    else:
        verdict = "None of these fits: choose a smaller base model, or raise --memory"
    return f"Its largest part is {name}, {_gib(size)}. It would need {told}. {verdict}."


def _ways(run: "SizedRun") -> Iterator[tuple[str, "SizedRun"]]:
    """From the one that changes the result least, each alone, then all together."""
    arm, together, named = run.planned.run.arm, run, []
    if run.checkpointed is not None and not arm.train.gradient_checkpointing:
        named.append("train.gradient_checkpointing true")
        activations, micro_tokens = run.checkpointed
        together = replace(together, activations=activations, micro_tokens=micro_tokens)
        yield named[-1], together
    if arm.base.quantization == "none":
        named.append("base.quantization nf4")
        together = replace(together, shape=run.packed_shape)
        yield named[-1], replace(run, shape=run.packed_shape)
    if arm.train.batch_size > 1:
        named.append("train.batch_size 1")
        train = arm.train.model_copy(update={"batch_size": 1})
        together = _with_arm(together, arm.model_copy(update={"train": train}))
        yield named[-1], _with_arm(run, arm.model_copy(update={"train": train}))
    half = run.data.longest_tokens // 2
    if any(example.num_tokens <= half for example in run.data.train):
        named.append(f"data.max_tokens {half}")
        together = _shortened(together, half)
        yield named[-1], _shortened(run, half)
    if max(run.rank_map.held_ranks) > 1:
        named.append("half the budget")
        together = _narrowed(together)
        yield named[-1], _narrowed(run)
    if len(named) > 1:
        yield "all of these", together


def _with_arm(run: "SizedRun", arm: Arm) -> "SizedRun":
    planned = run.planned
    return replace(run, planned=replace(planned, run=planned.run.model_copy(update={"arm": arm})))


def _shortened(run: "SizedRun", most: int) -> "SizedRun":
    def short(examples: tuple[TokenizedExample, ...]) -> tuple[TokenizedExample, ...]:
        return tuple(example for example in examples if example.num_tokens <= most)

    data = run.data
    data = replace(data, train=short(data.train), validation=short(data.validation), test=short(data.test))
    return replace(run, data=data, micro_tokens=max(most, run.micro_tokens // 2))


def _narrowed(run: "SizedRun") -> "SizedRun":
    halved = tuple(rank // 2 for rank in run.rank_map.held_ranks)
    return replace(run, rank_map=replace(run.rank_map, ranks=halved, places=None))


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"
