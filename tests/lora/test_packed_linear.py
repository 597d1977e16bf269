"""The packed layer against the slow loop of `lora/reference.py` and against autograd."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from rankwise.errors import ModelError
from rankwise.lora.packed_linear import PackedLinear, RowSlots, SiteTensors
from rankwise.lora.reference import reference_forward

RANKS = (3, 1, 4)
SCALES = (2.0, 0.5, 1.25)
IN, OUT = 6, 5
SLOTS = [2, 0, 1, 0]


def _adapters() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    downs = [torch.randn(rank, IN, generator=generator, dtype=torch.float64) for rank in RANKS]
    ups = [torch.randn(OUT, rank, generator=generator, dtype=torch.float64) for rank in RANKS]
    return downs, ups


def _packed(base: nn.Module, downs: list[torch.Tensor], ups: list[torch.Tensor]) -> PackedLinear:
    widest = max(RANKS)
    down, up = torch.zeros(len(RANKS), widest, IN).double(), torch.zeros(len(RANKS), OUT, widest).double()
    gate = torch.zeros(len(RANKS), widest).double()
    for slot, rank in enumerate(RANKS):
        down[slot, :rank], up[slot, :, :rank], gate[slot, :rank] = downs[slot], ups[slot], SCALES[slot]
    site = SiteTensors(down, up, gate, torch.zeros_like(down), torch.zeros_like(up))
    rows = RowSlots(slots_N=torch.tensor(SLOTS))
    return PackedLinear("site", base, site, torch.zeros((), requires_grad=True), rows)


def _x() -> torch.Tensor:
    return torch.randn(len(SLOTS), 7, IN, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize("make_base", [lambda: nn.Linear(IN, OUT), lambda: Conv1D(OUT, IN)], ids=["linear", "conv1d"])
def test_output_is_the_reference(make_base) -> None:
    base = make_base().double()
    downs, ups = _adapters()
    weight = base.weight if isinstance(base, nn.Linear) else base.weight.T
    expected = reference_forward(weight, base.bias, _x(), SLOTS, downs, ups, SCALES)
    torch.testing.assert_close(_packed(base, downs, ups)(_x()), expected)


def test_gradients_are_those_of_the_reference() -> None:
    base = nn.Linear(IN, OUT).double().requires_grad_(False)
    downs, ups = ([t.requires_grad_() for t in side] for side in _adapters())
    x_reference = _x().requires_grad_()
    reference_forward(base.weight, base.bias, x_reference, SLOTS, downs, ups, SCALES).square().sum().backward()

    layer = _packed(base, [d.detach() for d in downs], [u.detach() for u in ups])
    x_packed = _x().requires_grad_()
    layer(x_packed).square().sum().backward()

    torch.testing.assert_close(x_packed.grad, x_reference.grad)
    for slot, rank in enumerate(RANKS):
        torch.testing.assert_close(layer.site.grad_down_KRD[slot, :rank], downs[slot].grad)
        torch.testing.assert_close(layer.site.grad_up_KFR[slot, :, :rank], ups[slot].grad)


def test_padding_components_get_no_gradient() -> None:
    layer = _packed(nn.Linear(IN, OUT).double(), *_adapters())
    layer(_x()).square().sum().backward()
    for slot, rank in enumerate(RANKS):
        assert not layer.site.grad_down_KRD[slot, rank:].any()
        assert not layer.site.grad_up_KFR[slot, :, rank:].any()


def test_a_nan_in_one_slot_changes_no_bit_of_another() -> None:
    def gradients(poisoned: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        torch.manual_seed(0)
        layer = _packed(nn.Linear(IN, OUT).double(), *_adapters())
        if poisoned:
            layer.site.up_KFR[1] = float("nan")
        y = layer(_x())
        y.square().sum().backward()
        keep = [n for n, slot in enumerate(SLOTS) if slot != 1]
        return y[keep].detach(), layer.site.grad_down_KRD[[0, 2]], layer.site.grad_up_KFR[[0, 2]]

    for healthy, beside_nan in zip(gradients(False), gradients(True), strict=True):
        assert torch.equal(healthy, beside_nan)


def test_rows_flattened_into_tokens_are_told_apart() -> None:
    layer = _packed(nn.Linear(IN, OUT).double(), *_adapters())
    flat = layer(_x().flatten(0, 1))
    torch.testing.assert_close(flat.view(len(SLOTS), 7, OUT), layer(_x()))


def test_an_input_whose_rows_cannot_be_told_apart_is_refused() -> None:
    layer = _packed(nn.Linear(IN, OUT).double(), *_adapters())
    with pytest.raises(ModelError, match=r"site.*targets"):
        layer(torch.zeros(9, IN).double())


def test_without_rows_the_layer_is_its_base() -> None:
    base = nn.Linear(IN, OUT).double()
    layer = _packed(base, *_adapters())
    layer.rows.slots_N = None
    assert torch.equal(layer(_x()), base(_x()))
