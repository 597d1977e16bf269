"""An adapter for other tools: written beside, loaded again, compared with the original, and only then put in place."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel

from rankwise import __version__
from rankwise.errors import AdapterError, ModelError
from rankwise.execution.adapter_record import RECORD_NAME, AdapterRecord, read_record
from rankwise.execution.same_logits import adapted_logits, compare, largest, logits, sample_ids, unverified
from rankwise.lora.export import bake, check_layers, merge, write_adapter
from rankwise.lora.peft_folder import replace_folder
from rankwise.lora.runtimes import BaseFacts, Verdict, judge
from rankwise.lora.saved_adapter import SavedAdapter, SavedLayer, read_adapter
from rankwise.models.load import LOAD_ERRORS, LoadedBase, load_base, load_skeleton
from rankwise.models.progress_bar import no_progress_bar
from rankwise.models.source import EMBEDDED, locate_base
from rankwise.study.config import BaseSettings

EXPORT_NAME = "rankwise-export.json"
"""Written into every export: what it was made of and how it was verified. It marks the folder as one."""

Kind = Literal["peft", "baked", "merged"]
Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to write where."""

    kind: Kind
    out: Path
    model: str | None = None
    """Base of the adapter; None for the one that its configuration names."""
    rank: int | None = None
    """The one rank of a baked adapter; None for the largest that any layer has."""
    dtype: Dtype = "float32"
    """Of merged weights; adapters are always written in float32."""
    base_name: str | None = None
    """What the export calls its base; None for a name that resolves on this machine."""
    replace: bool = False
    """Whether an export that is in `out` already is replaced."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written, and the evidence that it is the same model."""

    adapter: str
    kind: Kind
    out: str
    base_model: str
    """As the export names it."""
    dtype: Dtype
    num_layers: int
    """Adapted ones."""
    rank: int | None
    """Largest rank of a layer in the export; None for merged weights."""
    params: int
    """Adapter parameters written, padding included; 0 for merged weights."""
    files: dict[str, int]
    """Bytes by name."""
    num_tokens: int
    """On which logits were compared."""
    max_logit_difference: float
    """Largest absolute difference of a logit between the original on its base and the export, read from the disk."""
    allowed_difference: float | None
    """Above this the export would have been refused; None where `dtype` rounds: then the file was compared with the
    rounded weights."""
    adapter_effect: float
    """Largest absolute difference of a logit between the base with and without the adapter."""
    rounding_error_frac: float
    """See `rankwise.lora.export.merge`; 0 for adapters."""
    runtimes: tuple[Verdict, ...]
    """On the written files; none for merged weights, which are no adapter any more."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What runtimes would make of an adapter as it is."""

    adapter: str
    base_model: str | None
    num_layers: int
    ranks: tuple[int, ...]
    """That occur, ascending."""
    runtimes: tuple[Verdict, ...]


def check_adapter(folder: Path, model: str | None = None) -> Checked:
    """Judge an adapter for each runtime. Nothing is written, and of the base only config.json is read.

    Raises:
        AdapterError: it is not plain LoRA, or cannot be read.
        ModelError: `model` was given and cannot be found.
    """
    adapter = read_adapter(folder)
    name = model or _named_base(adapter)
    base = None
    try:
        if name is not None:
            base = BaseFacts.of(load_skeleton(BaseSettings(model=name)))
    except ModelError:
        if model is not None:
            raise
    return Checked(
        adapter=str(folder),
        base_model=name,
        num_layers=len(adapter.layers),
        ranks=tuple(sorted({layer.rank for layer in adapter.layers})),
        runtimes=judge(folder, adapter.scales, base),
    )


def export_adapter(folder: Path, options: ExportOptions) -> Exported:
    """Write an adapter in another form; `options.out` holds it whole and verified, or is as it was.

    The logits of the base with the original adapter, as PEFT computes them in float32, are compared with those of the
    written files, loaded again without anything else.

    Raises:
        AdapterError: it is not plain LoRA, does not fit its base, cannot be represented in the wanted form, the
            verification failed, or `out` holds something that is not to be replaced.
        ModelError: the base cannot be found or loaded.
    """
    adapter = read_adapter(folder)
    out = options.out.absolute()
    _check_target(folder, out, options.replace)
    rank = _check_rank(adapter, options)
    base = _load(adapter, options)
    ids_NT = sample_ids(base.model)
    bare_NTV = logits(base.model, ids_NT)
    expected_NTV = adapted_logits(base.model, folder, ids_NT, adapter.scales)
    if options.kind == "merged":
        check_layers(base.model, adapter.layers, folder)
    common: dict[str, Any] = {
        "adapter": str(folder),
        "kind": options.kind,
        "out": str(options.out),
        "base_model": options.base_name or _resolvable(base.settings),
        "dtype": options.dtype,
        "num_layers": len(adapter.layers),
        "num_tokens": ids_NT.numel(),
        "adapter_effect": largest(expected_NTV - bare_NTV),
    }
    with _partial_folder(out) as partial:
        if options.kind == "merged":
            found = _write_merged(base, adapter.layers, partial, options.dtype, ids_NT, expected_NTV)
        else:
            layers = adapter.layers if options.kind == "peft" else bake(adapter.layers, rank)
            found = _write_adapter(base, adapter, layers, partial, common["base_model"], ids_NT, expected_NTV)
        files = {path.name: path.stat().st_size for path in sorted(partial.iterdir())}
        exported = Exported(**common, **found, files=files)
        _write_record(partial, exported)
        replace_folder(partial, out)
    return exported


def _named_base(adapter: SavedAdapter) -> str | None:
    name = adapter.config.get("base_model_name_or_path")
    return name if isinstance(name, str) and name else None


def _load(adapter: SavedAdapter, options: ExportOptions) -> LoadedBase:
    """The base in float32, unquantized and without its own code: what an export is compared on."""
    name = options.model or _named_base(adapter)
    if name is None:
        raise AdapterError(f"{adapter.folder} does not say which base model it belongs to. Name it with --model.")
    record = read_record(adapter.folder)
    settings = BaseSettings(model=name, revision=_revision(adapter, record, name), dtype="float32")
    quantization = "none" if record is None else record.base.quantization
    try:
        if options.kind == "merged":
            _refuse_quantized(adapter.folder, settings, quantization)
        return load_base(settings)
    except ModelError as error:
        if options.model is not None:
            raise
        raise AdapterError(
            f"the base of {adapter.folder} cannot be loaded: {error} Or name it with --model."
        ) from error


def _revision(adapter: SavedAdapter, record: AdapterRecord | None, name: str) -> str | None:
    """The base's commit, tag or branch, where the adapter says one and `name` is the base that it names."""
    if name != _named_base(adapter) or name == EMBEDDED or Path(name).expanduser().is_dir():
        return None
    if record is not None and record.base.model == name:
        return record.base.revision
    revision = adapter.config.get("revision")
    return revision if isinstance(revision, str) and revision else None


def _refuse_quantized(folder: Path, settings: BaseSettings, trained_on: str) -> None:
    config = json.loads((locate_base(settings, "config") / "config.json").read_text(encoding="utf-8"))
    if not config.get("quantization_config") and trained_on == "none":
        return
    what = "is quantized" if config.get("quantization_config") else f"was quantized ({trained_on}) while it was trained"
    raise AdapterError(
        f"The base {settings.model} of {folder} {what}. An update cannot be added to quantized weights without "
        "rounding most of it away, and added to unquantized ones it makes another model than the one that was trained. "
        "Export with --to peft or --to baked, and keep the base quantized."
    )


def _resolvable(settings: BaseSettings) -> str:
    """The base's name as other tools on this machine find it: folders, the embedded one too, by their whole path."""
    folder = Path(settings.model).expanduser()
    if settings.model == EMBEDDED:
        return str(locate_base(settings, "config").absolute())
    return str(folder.absolute()) if folder.is_dir() else settings.model


def _check_rank(adapter: SavedAdapter, options: ExportOptions) -> int:
    rank = adapter.largest_rank if options.rank is None else options.rank
    if rank < adapter.largest_rank:
        widest = max(adapter.layers, key=lambda layer: layer.rank)
        raise AdapterError(
            f"--rank {rank} is below rank {widest.rank} of {widest.name}. Padding can only add to a rank, so give at "
            f"least {widest.rank}, or leave --rank out. The strategy `truncate` makes an adapter smaller."
        )
    return rank


def _check_target(folder: Path, out: Path, may_replace: bool) -> None:
    if out.resolve() == folder.resolve() or out.resolve() in folder.resolve().parents:
        raise AdapterError(f"--out {out} is, or holds, the adapter that is to be exported. Give another folder.")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / EXPORT_NAME).is_file():
        what = "is not empty and no export" if out.is_dir() else "is a file"
        raise AdapterError(f"--out {out} {what}, so it is left alone. Give a new folder.")
    if not may_replace:
        raise AdapterError(f"--out {out} holds an export already. Give --replace to replace it, or another folder.")


@contextmanager
def _partial_folder(out: Path) -> Iterator[Path]:
    """A new folder beside `out`; gone afterwards unless it was renamed."""
    partial = out.with_name(f"{out.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
    except (OSError, SafetensorError) as error:
        raise AdapterError(
            f"The export {out} cannot be written: {getattr(error, 'strerror', None) or error}. Nothing was left "
            "there; free space or give another folder with --out."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_adapter(
    base: LoadedBase,
    adapter: SavedAdapter,
    layers: tuple[SavedLayer, ...],
    partial: Path,
    base_name: str,
    ids_NT: torch.Tensor,
    expected_NTV: torch.Tensor,
) -> dict[str, Any]:
    write_adapter(partial, layers, base.model, base_name=base_name, revision=base.settings.revision)
    if (adapter.folder / RECORD_NAME).is_file():  # so that its own training examples are known, and never scored
        shutil.copyfile(adapter.folder / RECORD_NAME, partial / RECORD_NAME)
    scales = {layer.name: layer.scale for layer in layers}
    found_NTV = adapted_logits(base.model, partial, ids_NT, scales)
    difference, allowed = compare(found_NTV, expected_NTV, partial)
    return {
        "rank": max(layer.rank for layer in layers),
        "params": sum(layer.down_rD.size + layer.up_Fr.size for layer in layers),
        "max_logit_difference": difference,
        "allowed_difference": allowed,
        "rounding_error_frac": 0.0,
        "runtimes": judge(partial, scales, BaseFacts.of(base.model)),
    }


def _write_merged(
    base: LoadedBase,
    layers: tuple[SavedLayer, ...],
    partial: Path,
    dtype: Dtype,
    ids_NT: torch.Tensor,
    expected_NTV: torch.Tensor,
) -> dict[str, Any]:
    rounding = merge(base.model, layers, getattr(torch, dtype))
    with no_progress_bar():
        base.model.save_pretrained(partial)
        base.tokenizer.save_pretrained(partial)
    rounded_NTV = expected_NTV if dtype == "float32" else logits(base.model.float(), ids_NT)
    base.model.to("meta")  # its memory is needed for the copy that is read again
    found_NTV = logits(_load_merged(partial, base), ids_NT)
    difference, allowed = compare(found_NTV, rounded_NTV, partial)
    return {
        "rank": None,
        "params": 0,
        "max_logit_difference": difference if dtype == "float32" else largest(found_NTV - expected_NTV),
        "allowed_difference": allowed if dtype == "float32" else None,
        "rounding_error_frac": rounding,
        "runtimes": (),
    }


def _load_merged(folder: Path, base: LoadedBase) -> PreTrainedModel:
    try:
        with no_progress_bar():
            model, report = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=torch.float32,
                attn_implementation=base.settings.attention,
                use_safetensors=True,
                output_loading_info=True,
            )
    except LOAD_ERRORS as error:
        raise unverified(folder, f"Transformers cannot load it again ({' '.join(str(error).split())[:300]})") from error
    if report["missing_keys"]:
        raise unverified(folder, f"it lacks {sorted(report['missing_keys'])[0]}")
    return model.to(base.device).eval()


def _write_record(folder: Path, exported: Exported) -> None:
    document = {"version": __version__, **asdict(exported)}
    (folder / EXPORT_NAME).write_text(f"{json.dumps(document, indent=2, allow_nan=False)}\n", encoding="utf-8")
