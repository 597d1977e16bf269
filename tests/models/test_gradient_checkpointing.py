import pytest
import torch
from torch import nn

from rankwise.errors import ModelError
from rankwise.models.gradient_checkpointing import checkpointed_blocks
from rankwise.models.sites import find_blocks
from tests.families import FAMILIES, family


def counted(model) -> list[int]:
    """How often each block has run; a list that goes on counting."""
    runs = [0] * len(find_blocks(model))

    def count(place: int):
        def hook(*_):
            runs[place] += 1

        return hook

    for place, block in enumerate(find_blocks(model)):
        first = next(child for child in block.modules() if child is not block)
        first.register_forward_pre_hook(count(place))
    return runs


def loss(model, ids):
    embedded = model.get_input_embeddings()(ids).requires_grad_()
    return embedded, model(inputs_embeds=embedded, use_cache=False).logits.square().mean()


@pytest.mark.parametrize("name", FAMILIES)
def test_every_block_runs_again_in_the_backward_pass_and_gradients_stay_to_the_bit(name):
    model, ids = family(name), torch.tensor([[5, 6, 7, 8, 9]])
    plain, value = loss(model, ids)
    value.backward()
    runs = counted(model)
    with checkpointed_blocks(model):
        again, same_value = loss(model, ids)
        assert runs == [1] * len(runs)
        same_value.backward()
    assert runs == [2] * len(runs)
    assert value.item() == same_value.item()
    assert torch.equal(plain.grad, again.grad)


def test_a_pass_without_gradients_runs_once():
    model = family("llama")
    runs = counted(model)
    with checkpointed_blocks(model), torch.no_grad():
        model(torch.tensor([[5, 6, 7]]))
    assert runs == [1] * len(runs)


def test_the_blocks_are_put_back_with_what_a_library_had_put_there():
    model = family("llama")
    first, second = find_blocks(model)
    own = first.forward = first.forward
    with pytest.raises(TypeError), checkpointed_blocks(model):
        first.forward()
    assert vars(first)["forward"] is own
    assert "forward" not in vars(second)


def test_a_model_without_a_list_of_blocks_is_refused():
    refused = pytest.raises(ModelError, match=r"Sequential has no list of repeated blocks.*Leave the setting out")
    with refused, checkpointed_blocks(nn.Sequential(nn.Linear(2, 2))):
        pass
