import itertools

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankwise.data.batches import Row, cut_micro_batches, micro_batches
from rankwise.data.examples import TokenizedExample

CPU = torch.device("cpu")


def row(length: int, *, num_prompt: int = 1, num_shared: int = 0, slot: int = 0, position: int = 0) -> Row:
    ids = np.arange(100 * position, 100 * position + length, dtype=np.int64)
    return Row(slot, TokenizedExample(ids, num_prompt, position), position, num_shared)


lengths_and_shared = st.lists(
    st.integers(2, 30).flatmap(lambda length: st.tuples(st.just(length), st.integers(0, length - 1))), max_size=40
)


def test_the_example_of_the_docstring():
    cut = cut_micro_batches([row(length) for length in (5, 3, 5, 2)], 10)
    assert [[r.num_tokens for r in part] for part in cut] == [[5, 5], [3, 2]]


@given(lengths_and_shared, st.integers(1, 80))
def test_every_row_comes_once_and_tokens_are_bounded(lengths, max_tokens):
    rows = [row(n, num_shared=shared, position=i) for i, (n, shared) in enumerate(lengths)]
    cut = cut_micro_batches(rows, max_tokens)
    assert sorted(r.position for part in cut for r in part) == list(range(len(rows)))
    for part in cut:
        longest = max(r.num_own_tokens for r in part)
        assert len(part) == 1 or len(part) * longest <= max_tokens


@given(lengths_and_shared, st.integers(1, 80))
def test_no_two_neighbouring_micro_batches_could_be_one(lengths, max_tokens):
    cut = cut_micro_batches([row(n, num_shared=shared) for n, shared in lengths], max_tokens)
    for first, second in itertools.pairwise(cut):
        assert (len(first) + 1) * first[0].num_own_tokens > max_tokens
        assert first[-1].num_own_tokens >= second[0].num_own_tokens


@given(st.lists(st.integers(2, 12), min_size=1, max_size=8), st.integers(0, 1))
def test_a_micro_batch_holds_each_rows_own_tokens_and_answer(lengths, num_shared):
    rows = [
        row(n, num_prompt=max(1, n // 2), num_shared=num_shared if n > 3 else 0, slot=i % 3, position=i)
        for i, n in enumerate(lengths)
    ]
    (batch,) = micro_batches(rows, 10_000, CPU)
    assert batch.slots_N.tolist() == [r.slot for r in batch.rows]
    for n, r in enumerate(batch.rows):
        own = r.example.input_ids[r.num_shared :]
        assert batch.input_ids_NT[n, : len(own)].tolist() == own.tolist()
        is_answer = np.arange(len(r.example.input_ids)) >= r.example.num_prompt_tokens
        assert batch.answer_NT[n, : len(own)].tolist() == is_answer[r.num_shared :].tolist()
        assert not batch.answer_NT[n, len(own) :].any()
    assert batch.num_padding_tokens == batch.input_ids_NT.numel() - sum(r.num_own_tokens for r in rows)


def test_a_prefix_is_the_leading_tokens_that_are_shared():
    assert row(6, num_shared=3, position=1).prefix == (100, 101, 102)
    assert row(6).prefix == ()


def test_no_rows_give_no_micro_batches():
    assert list(micro_batches([], 10, CPU)) == []
