"""A base model with a saved adapter on it, or alone."""

from dataclasses import dataclass
from pathlib import Path

from rankwise.errors import AdapterError, ModelError
from rankwise.execution.adapter_record import AdapterRecord, read_record
from rankwise.lora.attach_peft import attach_peft_adapter
from rankwise.lora.peft_folder import read_peft_folder
from rankwise.models.load import LoadedBase, load_base
from rankwise.study.config import BaseSettings


@dataclass(frozen=True, kw_only=True)
class NamedModel:
    """What a name on the command line stands for; nothing is loaded yet."""

    name: str
    folder: Path | None
    """Of the adapter; None for a base model alone."""
    base: BaseSettings
    """The base in the form in which the adapter was trained on it."""
    record: AdapterRecord | None = None
    """What `rankwise train` wrote beside the adapter, if it did."""


def find_model(name: str, model: str | None = None) -> NamedModel:
    """What `name` says: an adapter folder with its base, or a base model alone.

    Args:
        name: Folder of a PEFT adapter, or `nano`, a hub id or a model's folder.
        model: Base of the adapter; None for the one that its configuration names.

    Raises:
        AdapterError: the adapter cannot be read, does not say what its base is, or `model` is given for no adapter.
    """
    folder = Path(name).expanduser()
    if folder.is_dir() and not (folder / "config.json").is_file():  # no whole model, so errors speak of adapters
        config, _ = read_peft_folder(folder)
        record = read_record(folder)
        base = _base_settings(folder, model or config.get("base_model_name_or_path"), record)
        return NamedModel(name=name, folder=folder, base=base, record=record)
    if model is not None:
        raise AdapterError(
            f"--model names the base of an adapter, but {name} is not an adapter folder. Give the folder that PEFT or "
            "`rankwise train` wrote, or leave out --model to use a base model alone."
        )
    return NamedModel(name=name, folder=None, base=BaseSettings(model=name))


def load_adapted(name: str, model: str | None = None) -> tuple[LoadedBase, AdapterRecord | None]:
    """Load what `name` says (see `find_model`), with the adapter attached by PEFT.

    Raises:
        AdapterError: the adapter cannot be read, or does not fit its base.
        ModelError: the base model cannot be found or loaded.
    """
    found = find_model(name, model)
    base = load_base_of(found, is_named=model is not None)
    if found.folder is not None:
        attach_peft_adapter(base.model, found.folder)
    return base, found.record


def load_base_of(found: NamedModel, *, is_named: bool) -> LoadedBase:
    """The base model itself. `is_named`: someone gave it by --model, so an error is about that and not the adapter.

    Raises:
        AdapterError: the base that the adapter names cannot be loaded.
        ModelError: a base that a person named cannot.
    """
    try:
        return load_base(found.base)
    except ModelError as error:
        if is_named or found.folder is None:
            raise
        raise AdapterError(f"the base of {found.folder} cannot be loaded: {error} Or name it with --model.") from error


def _base_settings(folder: Path, name: object, record: AdapterRecord | None) -> BaseSettings:
    """The base in the form in which the adapter was trained on it.

    A file never decides that code is run, so `trust_remote_code` stays off.
    """
    if not isinstance(name, str) or not name:
        raise AdapterError(f"{folder} does not say which base model it belongs to. Name it with --model.")
    if record is None:
        return BaseSettings(model=name)
    revision = record.base.revision if name == record.base.model else None
    return record.base.model_copy(update={"model": name, "revision": revision, "trust_remote_code": False})
