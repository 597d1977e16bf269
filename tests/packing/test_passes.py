from rankwise.allocation.rank_map import Scaling
from rankwise.data.batches import Row
from rankwise.packing.forward import token_losses
from rankwise.packing.passes import pass_sizes
from tests.families import mixed_rank_map, random_pack
from tests.tiny import templated_data, tiny_llama


def templated_rows(num_slots: int) -> list[Row]:
    examples = templated_data().train
    return [
        Row(slot, example, e, example.num_shared_tokens)
        for slot in range(num_slots)
        for e, example in enumerate(examples)
    ]


def test_sizes_are_those_of_the_passes_that_the_engine_makes():
    model = tiny_llama().requires_grad_(False)
    pack = random_pack(model, [mixed_rank_map(model, Scaling())] * 3)
    rows = templated_rows(3)
    assert {row.num_shared for row in rows} == {9, 11}
    for max_tokens in (20, 60, 10_000):
        sizes = pass_sizes(rows, max_tokens)
        made = []
        for batch, losses in token_losses(model, pack, rows, max_tokens=max_tokens):
            losses.loss_M.sum().backward()
            made.append((*batch.input_ids_NT.shape, len(losses.loss_M), batch.rows[0].num_shared))
        assert [(s.num_rows, s.own_tokens, s.num_answers, s.prefix_tokens) for s in sizes] == made
        assert sum(size.num_rows for size in sizes) == len(rows)
    pack.detach()


def test_as_many_prefixes_are_computed_together_as_a_pass_holds_tokens():
    rows = [row for row in templated_rows(4) if row.num_shared == 9]
    assert {size.num_prefixes for size in pass_sizes(rows, 18)} == {2}
    assert {size.num_prefixes for size in pass_sizes(rows, 1000)} == {4}


def test_rows_that_share_nothing_have_no_prefix():
    rows = [Row(0, example) for example in templated_data().train]
    (size,) = pass_sizes(rows, 10_000)
    assert (size.prefix_tokens, size.num_prefixes) == (0, 0)
    assert size.num_tokens == len(rows) * max(len(row.example.input_ids) for row in rows)
    assert size.row_tokens == size.own_tokens
