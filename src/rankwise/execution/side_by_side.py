"""One model or several that share a base, loaded once: several adapters are the slots of one pack."""

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from rankwise.errors import AdapterError, ModelError
from rankwise.execution.load_adapted import NamedModel, find_model, load_base_of
from rankwise.lora.attach_peft import attach_peft_adapter, peft_adapter_off
from rankwise.lora.pack import AdapterPack, SlotPlan
from rankwise.lora.saved_adapter import SavedAdapter, read_adapter
from rankwise.lora.saved_slot import saved_slot
from rankwise.models.load import LoadedBase
from rankwise.models.sites import find_sites
from rankwise.study.config import BaseSettings


@dataclass(frozen=True, kw_only=True, eq=False)
class SideBySide:
    """Models that are ready to be evaluated together."""

    base: LoadedBase
    models: tuple[NamedModel, ...]
    """In the order in which they were named."""
    pack: AdapterPack | None = None
    """None for one model, whose adapter (if it is one) PEFT has attached to `base`."""
    slots: tuple[int | None, ...]
    """Of each model its slot; None for the base alone, and without a pack."""

    @contextmanager
    def base_alone(self) -> Iterator[LoadedBase]:
        """Within, `base.model` is the bare base."""
        attached = self.pack is None and self.models[0].folder is not None
        bare: AbstractContextManager[None] = peft_adapter_off(self.base.model) if attached else nullcontext()
        with bare:
            yield self.base


def load_side_by_side(names: Sequence[str], model: str | None = None) -> SideBySide:
    """Load each of `names` (see `find_model`): one as it is, several on the one base that they must share.

    Raises:
        AdapterError: an adapter cannot be read, does not fit its base, or belongs to another base than the first; or
            several are to share a pass and one adapts the output head.
        ModelError: the base model cannot be found or loaded.
    """
    models = tuple(find_model(name, model) for name in names)
    _check_same_base(models)
    adapters = [read_adapter(m.folder) if m.folder and len(models) > 1 else None for m in models]
    base = load_base_of(models[0], is_named=model is not None)
    if len(models) == 1:
        if models[0].folder is not None:
            attach_peft_adapter(base.model, models[0].folder)
        return SideBySide(base=base, models=models, slots=(None,))
    plans = [_plan(base, adapter) for adapter in adapters if adapter is not None]
    places = iter(range(len(plans)))
    slots = tuple(None if adapter is None else next(places) for adapter in adapters)
    dtype = next(p.dtype for p in base.model.parameters() if p.is_floating_point())
    pack = AdapterPack(base.model, plans, compute_dtype=dtype) if plans else None
    return SideBySide(base=base, models=models, pack=pack, slots=slots)


def _check_same_base(models: Sequence[NamedModel]) -> None:
    first = models[0]
    for other in models[1:]:
        mine, theirs = _identity(first.base), _identity(other.base)
        differing = [key for key in mine if mine[key] != theirs[key]]
        if differing:
            what = ", ".join(f"{key} {mine[key]} and {theirs[key]}" for key in differing)
            raise AdapterError(
                f"{first.name} and {other.name} do not share a base model ({what}), so they cannot go through it "
                "together. Evaluate them one at a time, or name one base for all with --model."
            )


def _identity(base: BaseSettings) -> dict[str, object]:
    """What must be the same for one loaded model to serve both. Kernels do not count, and number formats follow."""
    path = Path(base.model).expanduser()
    model = str(path.resolve()) if path.is_dir() else base.model
    return {"model": model, "revision": base.revision, "dtype": base.dtype, "quantization": base.quantization}


def _plan(base: LoadedBase, adapter: SavedAdapter) -> SlotPlan:
    try:
        sites = find_sites(base.model, [re.escape(layer.name) for layer in adapter.layers])
    except ModelError as error:
        raise AdapterError(
            f"The adapter {adapter.folder} does not fit the base model: {error} Give the model that it was trained on "
            "with --model."
        ) from error
    head = base.model.get_output_embeddings()
    if any(base.model.get_submodule(site.name) is head for site in sites):
        raise AdapterError(
            f"The adapter {adapter.folder} adapts the output head, which sees tokens of all rows mixed, so it cannot "
            "share a pass with others. Evaluate it alone."
        )
    return saved_slot(adapter, sites)
