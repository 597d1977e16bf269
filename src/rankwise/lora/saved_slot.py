"""A saved adapter as one slot of a pack, so that several are evaluated in one pass over their base."""

from collections.abc import Sequence

from rankwise.allocation.rank_map import RankMap
from rankwise.allocation.sites import Site
from rankwise.errors import AdapterError
from rankwise.lora.init.rule import InitialAdapter, Matrices
from rankwise.lora.pack import SlotPlan
from rankwise.lora.saved_adapter import SavedAdapter, SavedLayer


def saved_slot(adapter: SavedAdapter, sites: Sequence[Site]) -> SlotPlan:
    """The plan of a slot that holds `adapter`; `sites` has the model's layer of each of the adapter's names.

    Raises:
        AdapterError: a matrix does not have the shape of its layer.
    """
    layers = {layer.name: layer for layer in adapter.layers}
    tensors = {site.name: _living(adapter, layers[site.name], site) for site in sites}
    ranks = tuple(len(tensors[site.name][0]) for site in sites)
    rank_map = RankMap(
        sites=tuple(sites),
        ranks=ranks,
        scales=tuple(layers[site.name].scale for site in sites),
        budget_params=sum(rank * site.cost for rank, site in zip(ranks, sites, strict=True)),
    )
    initial = InitialAdapter(tensors=tensors, subtracted=False, starts_at_base=False)
    return SlotPlan(rank_map=rank_map, init="kaiming", seed=0, initial=initial)


def _living(adapter: SavedAdapter, layer: SavedLayer, site: Site) -> Matrices:
    """The components that do something. A pack takes a component of zeros for padding, and its audit would say so."""
    found, expected = (layer.down_rD.shape[1], layer.up_Fr.shape[0]), (site.in_features, site.out_features)
    if found != expected:
        raise AdapterError(
            f"The adapter {adapter.folder} does not fit the base model: size mismatch at {layer.name}, which maps "
            f"{found[0]} inputs to {found[1]} outputs in the adapter and {expected[0]} to {expected[1]} in the model. "
            "Give the model that it was trained on with --model."
        )
    lives_r = (layer.down_rD != 0).any(axis=1) & (layer.up_Fr != 0).any(axis=0)
    return layer.down_rD[lives_r], layer.up_Fr[:, lives_r]
