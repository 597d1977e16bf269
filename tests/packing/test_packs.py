from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankwise.errors import PackError
from rankwise.packing.packs import Pack, halve, plan_packs

SHARED_BYTES = 100
"""What a pack needs besides its items, like the base weights."""


unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=50)
"""A busy machine is no failure."""


@dataclass(frozen=True)
class Item:
    name: int
    base: str = "a"
    length: int = 1
    size: int = 10


def needed(items) -> int:
    return SHARED_BYTES + sum(item.size for item in items)


def planned(items, *, limit_bytes=None, max_slots=16):
    return plan_packs(
        items,
        group=lambda item: item.base,
        length=lambda item: item.length,
        predict_bytes=needed,
        limit_bytes=limit_bytes,
        max_slots=max_slots,
        name=lambda item: f"item {item.name}",
    )


@st.composite
def items(draw):
    num = draw(st.integers(1, 60))
    fields = st.tuples(st.sampled_from("ab"), st.integers(1, 5), st.integers(1, 50))
    return [Item(name, *draw(fields)) for name in range(num)]


@unhurried
@given(items(), st.integers(1, 20), st.one_of(st.none(), st.integers(SHARED_BYTES + 50, 1000)))
def test_every_item_is_in_exactly_one_pack_within_all_limits(chosen, max_slots, limit_bytes):
    packs = planned(chosen, limit_bytes=limit_bytes, max_slots=max_slots)
    assert sorted(item.name for pack in packs for item in pack.items) == list(range(len(chosen)))
    for pack in packs:
        assert 1 <= len(pack.items) <= max_slots
        assert len({item.base for item in pack.items}) == 1
        assert pack.predicted_bytes == needed(pack.items)
        assert limit_bytes is None or pack.predicted_bytes <= limit_bytes


@unhurried
@given(st.integers(1, 200), st.integers(1, 20))
def test_without_a_memory_limit_there_are_as_few_packs_as_possible_of_equal_size(num, max_slots):
    sizes = [len(pack.items) for pack in planned([Item(name) for name in range(num)], max_slots=max_slots)]
    assert len(sizes) == -(-num // max_slots)
    assert max(sizes) - min(sizes) <= 1


@unhurried
@given(items())
def test_packs_of_a_base_go_from_long_runs_to_short_ones(chosen):
    for base in "ab":
        lengths = [item.length for pack in planned(chosen, max_slots=4) for item in pack.items if item.base == base]
        assert lengths == sorted(lengths, reverse=True)


def test_the_items_given_stay_in_their_order():
    given_items = [Item(0, length=1), Item(1, length=9)]
    planned(given_items)
    assert [item.name for item in given_items] == [0, 1]


def test_an_item_that_fits_no_pack_is_named_with_its_need_and_the_limit():
    big = Item(7, size=3 * 2**30)
    with pytest.raises(PackError) as error:
        planned([Item(1), big, Item(2)], limit_bytes=2 * 2**30)
    message = str(error.value)
    assert "item 7" in message
    assert "3.00 GiB" in message
    assert "2.00 GiB" in message
    assert "--memory" in message


@unhurried
@given(items())
def test_halving_keeps_all_items_and_differs_by_at_most_one(chosen):
    halves = halve(Pack(tuple(chosen), needed(chosen)), needed)
    if len(chosen) == 1:
        assert halves == []
        return
    first, second = halves
    assert first.items + second.items == tuple(chosen)
    assert 0 <= len(first.items) - len(second.items) <= 1
    assert [half.predicted_bytes for half in halves] == [needed(half.items) for half in halves]


def test_no_items_need_no_pack():
    assert planned([]) == []
