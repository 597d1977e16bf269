"""A base model with a saved adapter on it, or alone."""

from pathlib import Path

from rankwise.errors import AdapterError, ModelError
from rankwise.execution.adapter_record import AdapterRecord, read_record
from rankwise.lora.attach_peft import attach_peft_adapter
from rankwise.lora.peft_folder import read_peft_folder
from rankwise.models.load import LoadedBase, load_base
from rankwise.study.config import BaseSettings


def load_adapted(name: str, model: str | None = None) -> tuple[LoadedBase, AdapterRecord | None]:
    """Load what `name` says: an adapter folder on its base, or a base model alone.

    Args:
        name: Folder of a PEFT adapter, or `nano`, a hub id or a model's folder.
        model: Base of the adapter; None for the one that its configuration names.

    Returns:
        The loaded model, and what `rankwise train` wrote beside the adapter, if it did.

    Raises:
        AdapterError: the adapter cannot be read, or does not fit its base.
        ModelError: the base model cannot be found or loaded.
    """
    folder = Path(name).expanduser()
    if folder.is_dir() and not (folder / "config.json").is_file():  # no whole model, so errors speak of adapters
        return _load_adapter(folder, model)
    if model is not None:
        raise AdapterError(
            f"--model names the base of an adapter, but {name} is not an adapter folder. Give the folder that PEFT or "
            "`rankwise train` wrote, or leave out --model to use a base model alone."
        )
    return load_base(BaseSettings(model=name)), None


def _load_adapter(folder: Path, model: str | None) -> tuple[LoadedBase, AdapterRecord | None]:
    config, _ = read_peft_folder(folder)
    record = read_record(folder)
    settings = _base_settings(folder, model or config.get("base_model_name_or_path"), record)
    try:
        base = load_base(settings)
    except ModelError as error:
        if model is not None:
            raise
        raise AdapterError(f"the base of {folder} cannot be loaded: {error} Or name it with --model.") from error
    attach_peft_adapter(base.model, folder)
    return base, record


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
