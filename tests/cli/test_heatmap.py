import io

import pytest
from rich.console import Console

from rankwise.allocation import RankMap, Site
from rankwise.cli.heatmap import PALETTE, heat_map

LEAVES = ("self_attn.q_proj", "mlp.up_proj")


def rank_map(num_layers: int, rank_of=lambda layer, leaf: 1 + layer, missing=()) -> RankMap:
    sites = [
        Site(name=f"layers.{layer}.{leaf}", kind="other", layer=layer, in_features=64, out_features=64)
        for layer in range(num_layers)
        for leaf in LEAVES
        if (layer, leaf) not in missing
    ]
    ranks = tuple(rank_of(site.layer, site.name.split(".", 2)[2]) for site in sites)
    return RankMap(sites=tuple(sites), ranks=ranks, scales=(1.0,) * len(sites), budget_params=10**6)


def printed(lines, *, color: bool = False) -> str:
    console = Console(file=io.StringIO(), width=1000, color_system="truecolor" if color else None, force_terminal=color)
    for line in lines:
        console.print(line, soft_wrap=True)
    return console.file.getvalue()


def test_without_colour_every_rank_stands_in_its_cell():
    text = printed(heat_map(rank_map(4, lambda layer, leaf: 10 * (layer + 1) + (leaf == LEAVES[1])), width=80))
    assert text.splitlines()[:3] == ["layer    0  1  2  3", "q_proj  10 20 30 40", "up_proj 11 21 31 41"]


def test_colours_run_from_the_lowest_rank_to_the_highest():
    text = printed(heat_map(rank_map(len(PALETTE)), width=80), color=True)
    row = text.splitlines()[1]
    colours = [f"48;2;{int(c[1:3], 16)};{int(c[3:5], 16)};{int(c[5:7], 16)}" for c in PALETTE]
    places = [row.index(colour) for colour in colours]
    assert places == sorted(places)


@pytest.mark.parametrize("num_layers", [1, 24, 32, 80])
@pytest.mark.parametrize("width", [40, 80, 200])
def test_many_layers_wrap_within_the_width_and_none_is_lost(num_layers, width):
    lines = [line.plain for line in heat_map(rank_map(num_layers), width)]
    assert max(map(len, lines)) <= width
    headers = [line.split()[1:] for line in lines if line.startswith("layer")]
    assert [int(number) for header in headers for number in header] == list(range(num_layers))
    ranks = [int(cell) for line in lines if line.startswith("q_proj") for cell in line.split()[1:]]
    assert ranks == [1 + layer for layer in range(num_layers)]
    assert max(map(len, headers)) - min(map(len, headers)) <= 1


def test_a_terminal_narrower_than_a_label_still_shows_all():
    lines = [line.plain for line in heat_map(rank_map(3), width=5)]
    assert sum(line.startswith("layer") for line in lines) == 3


def test_a_layer_without_the_module_is_told_from_rank_zero():
    lines = heat_map(rank_map(2, lambda layer, leaf: layer, missing={(1, LEAVES[1])}), width=80)
    assert [line.plain.split() for line in lines[1:3]] == [["q_proj", "0", "1"], ["up_proj", "0", "·"]]


def test_equal_ranks_are_said_in_words():
    assert heat_map(rank_map(3, lambda *_: 8), width=80)[-1].plain == "every rank is 8"
