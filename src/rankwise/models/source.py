"""Where a base model's files are: the embedded asset, a local folder, or the hub. All three end as one local folder."""

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Literal

from rankwise.errors import ModelError, first_line
from rankwise.study.config import BaseSettings

Part = Literal["config", "tokenizer", "weights"]

EMBEDDED = "nano"
INDEX_FILE = "model.safetensors.index.json"

PART_FILES: dict[Part, tuple[str, ...]] = {
    "config": ("config.json", "generation_config.json"),
    "tokenizer": (
        "tokenizer.json",
        "tokenizer.model",
        "spiece.model",
        "sentencepiece.bpe.model",
        "vocab.json",
        "vocab.txt",
        "*.tiktoken",
        "merges.txt",
        "added_tokens.json",
        "special_tokens_map.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    ),
    "weights": ("model*.safetensors", INDEX_FILE),
}
"""File name patterns of each part, at the top of a model's folder or repository; nothing else is downloaded."""

VOCABULARY_FILES = PART_FILES["tokenizer"][:7]
"""A tokenizer has at least one of these."""

PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def locate_base(settings: BaseSettings, *parts: Part) -> Path:
    """The folder that holds the model's files, downloaded first where the model is on the hub.

    Args:
        settings: Names the model: `nano`, an existing folder, or a hub id.
        parts: What the caller is going to read; only this is downloaded and checked.

    Raises:
        ModelError: The model is not there, cannot be downloaded, or lacks one of the parts.
    """
    folder = _find_folder(settings, parts)
    for part in parts:
        _CHECKS[part](folder)
    return folder


def local_folder(settings: BaseSettings) -> Path | None:
    """The folder of a model that comes with the package or lies on this machine; None for one of the hub's.

    Raises ModelError where the embedded model is missing.
    """
    if settings.model == EMBEDDED:
        return _embedded_folder()
    folder = Path(settings.model).expanduser()
    return folder if folder.is_dir() else None


def part_files(folder: Path, part: Part) -> list[Path]:
    """The existing files of a part, by name. Of the weights, exactly those that are going to be loaded."""
    if part == "weights":
        return _weight_files(folder)
    return sorted({path for pattern in PART_FILES[part] for path in folder.glob(pattern)})


def _find_folder(settings: BaseSettings, parts: tuple[Part, ...]) -> Path:
    if settings.model == EMBEDDED:
        _refuse_revision(settings)
        return _embedded_folder()
    folder = Path(settings.model).expanduser()
    if folder.is_dir():
        _refuse_revision(settings)
        return folder
    if folder.exists():
        raise ModelError(
            f"base.model: {folder} is a file. Give the folder in Transformers' format that holds config.json, "
            f"the tokenizer and the safetensors weights, a hub id, or `{EMBEDDED}`."
        )
    if settings.model.startswith(("/", "./", "../", "~")) or settings.model.count("/") > 1:
        raise ModelError(
            f"base.model: there is no folder {folder}. Give an existing folder in Transformers' format, a hub id "
            f"such as microsoft/phi-2, or `{EMBEDDED}`, the embedded model."
        )
    return _download(settings, parts)


def _embedded_folder() -> Path:
    folder = Path(str(files("rankwise").joinpath("assets", EMBEDDED)))
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"base.model: the embedded model is not in this installation: {folder} has no config.json. Install "
            "rankwise again, or give a folder in Transformers' format or a hub id."
        )
    return folder


def _refuse_revision(settings: BaseSettings) -> None:
    if settings.revision is not None:
        raise ModelError(
            f"base.revision: {settings.revision!r} is given, but {settings.model!r} is not on the hub, and only hub "
            "repositories have revisions. Leave it out, or give a hub id as base.model."
        )


def _download(settings: BaseSettings, parts: tuple[Part, ...]) -> Path:
    """The repository's files in the hub's cache; needs no network where they are all there already."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    patterns = [pattern for part in parts for pattern in PART_FILES[part]]
    place = f"base.model: {settings.model!r}"
    try:
        folder = snapshot_download(
            settings.model,
            revision=settings.revision,
            allow_patterns=[*patterns, *(["*.py"] if settings.trust_remote_code else [])],
            ignore_patterns=["*/*"],
        )
    except HFValidationError as error:
        raise ModelError(
            f"{place} is neither a folder here nor a possible hub id. Give `{EMBEDDED}` (the embedded model), an "
            "existing folder in Transformers' format, or an id such as microsoft/phi-2."
        ) from error
    except GatedRepoError as error:
        raise ModelError(
            f"{place} is on the hub, but its licence must be accepted there first. Do so on its page and log in with "
            "`hf auth login`, or use another model."
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"{place} is neither a folder here nor a repository on the hub that this account may see. Check the "
            f"spelling, log in with `hf auth login` if it is private, or use `{EMBEDDED}`, the embedded model."
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(
            f"base.revision: {settings.model} has no commit, tag or branch {settings.revision!r} on the hub. Leave "
            "it out for the default branch."
        ) from error
    except Exception as error:  # a lost connection also surfaces as errors of the HTTP client and of its threads
        raise ModelError(
            f"{place} is not a folder here and could not be downloaded from the hub "
            f"({type(error).__name__}: {first_line(error)}). Connect to the network and try again, download it "
            f"elsewhere and give its folder, or use `{EMBEDDED}`, the embedded model, which needs no network."
        ) from error
    return Path(folder)


def _check_config(folder: Path) -> None:
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            f"base.model: {folder} holds a PEFT adapter. Give the base model that the adapter was trained on: "
            "`base_model_name_or_path` in its adapter_config.json names it."
        )
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"base.model: {folder} has no config.json, so it is not a model in Transformers' format. Give a "
            "folder written by `save_pretrained`, or a hub id."
        )


def _check_tokenizer(folder: Path) -> None:
    if not any(next(folder.glob(pattern), None) for pattern in VOCABULARY_FILES):
        raise ModelError(
            f"base.model: {folder} has no tokenizer (looked for {', '.join(VOCABULARY_FILES)}). Save the one the "
            "model was trained with into the same folder with `tokenizer.save_pretrained`."
        )


def _weight_files(folder: Path) -> list[Path]:
    """What `from_pretrained` reads: one file, or the shards that the index names. Empty where there are none."""
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    index = folder / INDEX_FILE
    if not index.is_file():
        return []
    try:
        shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"base.model: {index} is not a safetensors index ({error}). Download it again.") from error
    return [folder / shard for shard in shards]


def _check_weights(folder: Path) -> None:
    _refuse_stored_quantized(folder)
    weights = _weight_files(folder)
    missing = [path.name for path in weights if not path.is_file()]
    if missing:
        raise ModelError(
            f"base.model: {folder} lacks {len(missing)} of the {len(weights)} weight files that {INDEX_FILE} names, "
            f"first {missing[0]}. Copy or download them again."
        )
    if weights:
        return
    pickled = sorted(path.name for pattern in PICKLE_PATTERNS for path in folder.glob(pattern))
    if pickled:
        raise ModelError(
            f"base.model: {folder} holds only pickled weights ({pickled[0]}), and reading a pickle can run any code. "
            'Convert them once, where you trust the file, with `python -c "from transformers import '
            f"AutoModelForCausalLM as M; M.from_pretrained('{folder}').save_pretrained('NEW')\"`, copy the tokenizer "
            "files, and give NEW."
        )
    raise ModelError(
        f"base.model: {folder} has no safetensors weights: neither model.safetensors nor {INDEX_FILE}. Copy them there "
        "or give another folder. A hub repository with pickled weights alone often has a converted copy in a pull "
        "request (`Adding safetensors variant of this model`): give it as base.revision, such as refs/pr/1."
    )


def _refuse_stored_quantized(folder: Path) -> None:
    """Their arithmetic is their own, and an arm that says `quantization: none` would not be what it says."""
    try:
        method = json.loads((folder / "config.json").read_text(encoding="utf-8"))["quantization_config"]["quant_method"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # Transformers tells what is wrong with a broken file
    raise ModelError(
        f"base.model: the weights in {folder} are stored quantized ({method}). Give the original model, and choose how "
        "its weights are held with base.quantization: int8, nf4 or fp4."
    )


_CHECKS: dict[Part, Callable[[Path], None]] = {
    "config": _check_config,
    "tokenizer": _check_tokenizer,
    "weights": _check_weights,
}
