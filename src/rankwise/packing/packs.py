"""Which runs train together: as many as memory allows, alike in base model and length."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from rankwise.errors import PackError

Item = TypeVar("Item")

DEFAULT_MAX_SLOTS = 16
"""Beyond this a step's rows already mix well (docs/log.md), and progress and checkpoints would become coarse."""


@dataclass(frozen=True)
class Pack(Generic[Item]):
    """Runs that share one pass over one base model."""

    items: tuple[Item, ...]
    predicted_bytes: int


def plan_packs(
    items: Sequence[Item],
    *,
    group: Callable[[Item], object],
    length: Callable[[Item], int],
    predict_bytes: Callable[[Sequence[Item]], int],
    limit_bytes: int | None,
    max_slots: int = DEFAULT_MAX_SLOTS,
    name: Callable[[Item], str] = str,
    advise: Callable[[Item, int], str] = lambda _item, _limit: "Make it smaller, or raise --memory.",
) -> list[Pack[Item]]:
    """Cut `items` into packs of about equal size that fit `limit_bytes` each.

    Args:
        group: Items share a pack only when this is equal (the base model).
        length: Optimizer steps; items of similar length go together, so that no slot idles.
        predict_bytes: Peak memory of a pack.
        limit_bytes: None for no limit.
        name: How an item is called in an error.
        advise: What would make an item fit the limit that it exceeds by itself.

    Raises:
        PackError: one item alone does not fit.
    """
    groups: dict[object, list[Item]] = {}
    for item in items:
        groups.setdefault(group(item), []).append(item)
    packs: list[Pack[Item]] = []
    for members in groups.values():
        members.sort(key=length, reverse=True)
        for part in _equal_parts(members, max_slots):
            packs += _fit(part, predict_bytes, limit_bytes, name, advise)
    return packs


def halve(pack: Pack[Item], predict_bytes: Callable[[Sequence[Item]], int]) -> list[Pack[Item]]:
    """Two packs of half the slots, for when memory ran out after all; empty where one slot is left."""
    if len(pack.items) == 1:
        return []
    middle = math.ceil(len(pack.items) / 2)
    return [Pack(part, predict_bytes(part)) for part in (pack.items[:middle], pack.items[middle:])]


def _equal_parts(members: Sequence[Item], max_slots: int) -> list[Sequence[Item]]:
    """36 items at most 16 wide become 12 + 12 + 12, not 16 + 16 + 4."""
    num_parts = math.ceil(len(members) / max_slots)
    bounds = [round(i * len(members) / num_parts) for i in range(num_parts + 1)]
    return [members[start:end] for start, end in itertools.pairwise(bounds)]


def _fit(
    members: Sequence[Item],
    predict_bytes: Callable[[Sequence[Item]], int],
    limit_bytes: int | None,
    name: Callable[[Item], str],
    advise: Callable[[Item, int], str],
) -> list[Pack[Item]]:
    pack = Pack(tuple(members), predict_bytes(members))
    if limit_bytes is None or pack.predicted_bytes <= limit_bytes:
        return [pack]
    halves = halve(pack, predict_bytes)
    if not halves:
        raise PackError(
            f"run {name(members[0])} alone needs {pack.predicted_bytes / 2**30:.2f} GiB and the limit is "
            f"{limit_bytes / 2**30:.2f} GiB. {advise(members[0], limit_bytes)}"
        )
    return [fitting for part in halves for fitting in _fit(part.items, predict_bytes, limit_bytes, name, advise)]
