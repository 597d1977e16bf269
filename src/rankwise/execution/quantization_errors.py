"""What each way of quantizing the base changes, measured once for a study that has quantized arms.

The whole base is needed for it, so where that does not fit the memory nothing is measured, and that is said.
"""

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from itertools import islice
from typing import Any

from rankwise.errors import ModelError
from rankwise.execution.workbench import DTYPE_BYTES, Workbench
from rankwise.models.quantization import requantize
from rankwise.models.sites import find_sites
from rankwise.probing.quantization_error import quantization_errors
from rankwise.study.config import FOUR_BIT, Arm, BaseSettings, Study
from rankwise.study.runs import Run
from rankwise.training.probe_batches import probe_batches

NUM_BATCHES = 2
"""Batches of the first quantized arm's training order that outputs are compared on."""


def quantized_bases(study: Study) -> dict[BaseSettings, list[Arm]]:
    """The quantized bases of a study with their arms; how weights are multiplied does not change what they are."""
    found: dict[BaseSettings, list[Arm]] = {}
    for arm in study.arms:
        if arm.base.quantization != "none":
            found.setdefault(arm.base.model_copy(update={"compute_dtype": "auto"}), []).append(arm)
    return found


def measure_errors(study: Study, bench: Workbench, limit_bytes: int) -> Iterator[dict[str, Any]]:
    """For each quantized base its settings, its arms and the errors of its layers, as plain values.

    In place of the errors stands `missing`, the reason, where they cannot be measured.
    """
    for base, arms in quantized_bases(study).items():
        found: dict[str, Any] = {
            "form": form_name(base),
            "model": base.model,
            "arms": [arm.name for arm in arms],
        }
        shape = bench.shape(base)
        whole_bytes = shape.num_params * DTYPE_BYTES[shape.settings.dtype]
        if whole_bytes > limit_bytes:
            yield found | {"missing": f"the whole base needs {whole_bytes / 2**30:.1f} GiB, and there is not as much"}
            continue
        try:
            yield found | {"num_batches": NUM_BATCHES, "sites": _measure(study, arms[0], bench)}
        except ModelError as error:
            yield found | {"missing": str(error)}


def form_name(base: BaseSettings) -> str:
    """int8; nf4; nf4 without double quantization."""
    single = base.quantization in FOUR_BIT and not base.double_quantization
    return base.quantization + (" without double quantization" if single else "")


def _measure(study: Study, arm: Arm, bench: Workbench) -> list[dict[str, Any]]:
    whole = type(arm.base).model_validate({**dict(arm.base), "quantization": "none"})
    base = bench.base(whole)
    try:
        sites = find_sites(base.model)
    except ModelError:  # a model whose layers cannot be told apart
        head = base.model.get_output_embeddings()
        sites = tuple(s for s in find_sites(base.model, arm.targets) if base.model.get_submodule(s.name) is not head)
    run = Run(
        arm=arm.model_copy(update={"base": whole}),
        learning_rate=arm.train.learning_rates[0],
        seed=study.seeds[0],
        base_fingerprint=base.fingerprint,
        data_fingerprint=bench.data(arm).fingerprint,
    )
    batches = islice(probe_batches(base, run, bench.data(arm)), NUM_BATCHES)
    errors = quantization_errors(base.model, sites, batches, partial(requantize, arm.base))
    return [asdict(error) for error in errors]
