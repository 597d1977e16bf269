"""What serving runtimes would make of an adapter folder: exact, wrongly scaled, or refused, and why.

No runtime is started. Each function below restates what the runtime's own loader requires and computes, read in its
source at the commit that `SOURCES` names; docs/export.md says the same for people. The files themselves are judged:
`adapter_config.json` as JSON, and names, shapes and number formats of the tensors from the header of the safetensors.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rankwise.errors import AdapterError
from rankwise.lora.peft_folder import CONFIG_NAME, DOWN, PREFIX, UP, WEIGHTS_NAME, read_peft_config
from rankwise.lora.saved_adapter import CHANGES_THE_BASE

Outcome = Literal["exact", "wrong scale", "refused"]

SOURCES = {
    "PEFT": "huggingface/peft 0.21.2: tuners/lora/model.py, utils/other.py (get_pattern_key)",
    "vLLM": "vllm-project/vllm: lora/peft_helper.py@e745baff, lora/lora_model.py@0306474e, lora/utils.py@0fd15707, "
    "lora/layers/base_linear.py@01235a49, config/lora.py@01230b40, model_executor/models/gpt2.py@01768942",
    "llama.cpp": "ggml-org/llama.cpp: convert_lora_to_gguf.py@0b03adaa, conversion/gpt2.py@5535795b, "
    "src/llama-adapter.h@d66c5cd4, src/llama-adapter.cpp@0650ea8c",
    "SGLang": "sgl-project/sglang under srt/lora: lora.py@002c60aa, lora_config.py@0ceb81fe, mem_pool.py@00639c4d, "
    "utils.py@01235a16",
}
"""Repository, files and commits that each verdict was read from."""

VLLM_MAX_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM accepts as `max_lora_rank` (`MaxLoRARanks`); 16 where it is not given."""

SGLANG_LAYERS = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj", "qkv_proj"), "qkv_proj"),
    **dict.fromkeys(("gate_proj", "up_proj", "gate_up_proj"), "gate_up_proj"),
    **{name: name for name in ("o_proj", "out_proj", "down_proj", "in_proj", "q_b_proj", "kv_b_proj", "lm_head")},
}
"""Last parts of the names of layers that SGLang's memory pool has a place for; experts are not looked into."""

SAME = 1e-6
"""Relative difference up to which two scales are the same."""

UNSEEN = "the base model was not at hand, so its layers were not looked at"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one runtime makes of a folder."""

    runtime: str
    outcome: Outcome
    num_wrong: int = 0
    """Layers that it would scale otherwise than PEFT."""
    smallest_factor: float | None = None
    """Smallest ratio, over all layers, of its scale to PEFT's; None where it refuses the folder."""
    largest_factor: float | None = None
    reasons: tuple[str, ...] = ()
    """Why it refuses or mis-scales it."""
    notes: tuple[str, ...] = ()
    """What to give it, and what could not be looked at here."""


@dataclass(frozen=True, kw_only=True)
class BaseFacts:
    """What the verdicts need to know about the base model."""

    conv1d: frozenset[str]
    """Names of its `Conv1D` layers, whose weights are stored the other way round (GPT-2)."""
    head: str | None
    """Name of the output head."""
    is_head_tied: bool
    """Whether the head shares the input embeddings' weights."""

    @classmethod
    def of(cls, model: PreTrainedModel) -> "BaseFacts":
        """Read from a model; one on the meta device will do."""
        head = model.get_output_embeddings()
        return cls(
            conv1d=frozenset(name for name, module in model.named_modules() if isinstance(module, Conv1D)),
            head=next((name for name, module in model.named_modules() if module is head), None),
            is_head_tied=head is not None and is_tied(model),
        )


def is_tied(model: nn.Module) -> bool:
    """Whether the output head has no weights of its own."""
    return bool(getattr(model.config, "tie_word_embeddings", False))


@dataclass(frozen=True, kw_only=True)
class _Files:
    """A folder as a runtime's loader finds it."""

    config: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    """By tensor name."""
    dtypes: dict[str, str]
    scales: Mapping[str, float]
    """By layer: what PEFT computes."""
    ranks: dict[str, int]
    """By layer, from the tensors."""
    base: BaseFacts | None

    @property
    def conv1d(self) -> list[str]:
        return [name for name in self.ranks if self.base is not None and name in self.base.conv1d]

    @property
    def adapts_head(self) -> bool:
        return self.base is not None and self.base.head in self.ranks


def judge(folder: Path, scales: Mapping[str, float], base: BaseFacts | None = None) -> tuple[Verdict, ...]:
    """One verdict per runtime on the files in `folder`.

    Args:
        folder: An adapter that `read_adapter` accepts.
        scales: Per layer the right scale, as PEFT resolves it.
        base: None where the base model is not at hand; what depends on it is then a note.

    Raises:
        AdapterError: the files cannot be read.
    """
    files = _read_files(folder, scales, base)
    verdicts = (_peft(files), _vllm(files), _llama_cpp(files), _sglang(files))
    if base is not None:
        return verdicts
    return tuple(replace(verdict, notes=(*verdict.notes, UNSEEN)) for verdict in verdicts)


def _read_files(folder: Path, scales: Mapping[str, float], base: BaseFacts | None) -> _Files:
    try:
        with safe_open(folder / WEIGHTS_NAME, "np") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
            dtypes = {name: part.get_dtype() for name, part in slices.items()}
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"{folder / WEIGHTS_NAME} cannot be read: {error}. Copy or download it again.") from error
    return _Files(
        config=read_peft_config(folder),
        shapes=shapes,
        dtypes=dtypes,
        scales=scales,
        ranks={
            name.removesuffix(DOWN).removeprefix(PREFIX): shape[0]
            for name, shape in shapes.items()
            if name.endswith(DOWN)
        },
        base=base,
    )


def _peft(files: _Files) -> Verdict:
    name = files.config.get("base_model_name_or_path")
    notes = () if name != "nano" else ("give it the base model's folder: the name `nano` is known to rankwise alone",)
    return _scaled("PEFT", files, files.scales, notes=notes)


def _vllm(files: _Files) -> Verdict:
    """`PEFTHelper.from_dict` keeps the fields that it knows, the patterns not among them, and computes one scale."""
    refusals = [*_missing(files.config), *_misnamed(files), *_unreadable_dtypes(files), *_more_than_plain(files.config)]
    init = files.config.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(CHANGES_THE_BASE):
        refusals.append(f"init_lora_weights is {init}, which changes the base")
    if files.conv1d:
        refusals.append("no model class with Conv1D layers (GPT-2) takes LoRA there")
    largest = max(files.ranks.values())
    if largest > VLLM_MAX_RANKS[-1]:
        refusals.append(f"rank {largest} is above its largest max_lora_rank, {VLLM_MAX_RANKS[-1]}")
    if refusals:
        return Verdict(runtime="vLLM", outcome="refused", reasons=tuple(refusals))
    limit = next(rank for rank in VLLM_MAX_RANKS if rank >= largest)
    notes = [f"needs --max-lora-rank {limit}"] if limit > 16 else []
    if files.adapts_head:
        notes.append("whether it adapts the output head depends on the model's class")
    one = _global_scale(files.config, rslora=True)
    reasons = ["it ignores rank_pattern and alpha_pattern"] if _patterns(files.config) else []
    return _scaled("vLLM", files, dict.fromkeys(files.ranks, one), reasons, notes)


def _llama_cpp(files: _Files) -> Verdict:
    """The converter stores `lora_alpha` once; the runtime divides it by each tensor's own rank."""
    refusals = [*_missing(files.config, "lora_alpha"), *_misnamed(files), *_unreadable_dtypes(files)]
    if files.conv1d:
        refusals.append(
            "its converter transposes Conv1D weights (GPT-2), which swaps the two matrices of an adapter: "
            "layers that are not square are refused, square ones computed wrongly"
        )
    if files.adapts_head and files.base is not None and files.base.is_head_tied:
        refusals.append("the output head shares the embeddings' weights and is skipped")
    if refusals:
        return Verdict(runtime="llama.cpp", outcome="refused", reasons=tuple(refusals))
    alpha = float(files.config["lora_alpha"])
    scales = {name: alpha / rank for name, rank in files.ranks.items()}
    ignored = [name for name in ("alpha_pattern", "use_rslora") if files.config.get(name)]
    reasons = [f"it ignores {' and '.join(ignored)}"] if ignored else []
    notes = ["convert_lora_to_gguf.py needs --base BASE_FOLDER"] if not _has_base(files.config) else []
    return _scaled("llama.cpp", files, scales, reasons, notes)


def _sglang(files: _Files) -> Verdict:
    """One rank and one scale, alpha / r, for all layers; q, k, v and gate, up are fused."""
    refusals = [*_missing(files.config), *_misnamed(files), *_more_than_plain(files.config)]
    targets = files.config.get("target_modules")
    if isinstance(targets, str) and targets not in ("all", "all-linear"):
        refusals.append("target_modules is a regular expression")
    leaves = {name: name.rpartition(".")[2] for name in files.ranks}
    unknown = sorted(set(leaves.values()) - SGLANG_LAYERS.keys())
    if unknown:
        refusals.append(f"it knows no layers called {', '.join(unknown[:4])}")
    if set(files.ranks.values()) != {files.config.get("r")}:
        refusals.append(f"layers have other ranks than r ({files.config.get('r')})")
    refusals += _half_fused(files)
    if refusals:
        return Verdict(runtime="SGLang", outcome="refused", reasons=tuple(refusals))
    ignored = [name for name in ("alpha_pattern", "use_rslora") if files.config.get(name)]
    reasons = [f"it ignores {' and '.join(ignored)}"] if ignored else []
    one = _global_scale(files.config, rslora=False)
    return _scaled("SGLang", files, dict.fromkeys(files.ranks, one), reasons)


def _half_fused(files: _Files) -> list[str]:
    """`normalize_qkv_proj` builds on q and v, `normalize_gate_up_proj` on gate."""
    problems = []
    for name in files.ranks:
        parent, _, leaf = name.rpartition(".")
        needed = {"q_proj": "v_proj", "k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}.get(leaf)
        if needed and f"{parent}.{needed}" not in files.ranks:
            problems.append(f"{name} is adapted without {needed}, with which it is fused")
    return problems[:1]


def _scaled(
    runtime: str, files: _Files, scales: Mapping[str, float], reasons: Sequence[str] = (), notes: Sequence[str] = ()
) -> Verdict:
    """The verdict on a folder that is accepted and in which each layer gets the scale in `scales`."""
    factors = {name: scales[name] / right for name, right in files.scales.items()}
    num_wrong = sum(not math.isclose(factor, 1, rel_tol=SAME) for factor in factors.values())
    return Verdict(
        runtime=runtime,
        outcome="wrong scale" if num_wrong else "exact",
        num_wrong=num_wrong,
        smallest_factor=min(factors.values()),
        largest_factor=max(factors.values()),
        reasons=tuple(reasons) if num_wrong else (),
        notes=tuple(notes),
    )


def _global_scale(config: Mapping[str, Any], *, rslora: bool) -> float:
    rank = config["r"]
    return float(config["lora_alpha"] / (math.sqrt(rank) if rslora and config.get("use_rslora") else rank))


def _patterns(config: Mapping[str, Any]) -> bool:
    return bool(config.get("rank_pattern") or config.get("alpha_pattern"))


def _has_base(config: Mapping[str, Any]) -> bool:
    """Whether the base is named in a way that the hub or the disk knows."""
    name = config.get("base_model_name_or_path")
    return isinstance(name, str) and name not in ("", "nano")


def _missing(config: Mapping[str, Any], *fields: str) -> list[str]:
    """The fields that a loader reads without asking whether they are there."""
    found = [field for field in fields or ("r", "lora_alpha", "target_modules") if not config.get(field)]
    return [f"{', '.join(found)} missing in {CONFIG_NAME}"] if found else []


def _misnamed(files: _Files) -> list[str]:
    """Each tensor is `base_model.model.LAYER.lora_A.weight` or `...lora_B.weight`, in pairs of matrices that fit."""
    for name, shape in files.shapes.items():
        if not name.startswith(PREFIX) or not name.endswith((DOWN, UP)):
            return [f"unexpected tensor {name}"]
        other = name.removesuffix(DOWN) + UP if name.endswith(DOWN) else name.removesuffix(UP) + DOWN
        if len(shape) != 2 or other not in files.shapes:
            return [f"{name} is not one of a pair of matrices"]
        if name.endswith(DOWN) and files.shapes[other][1:] != shape[:1]:
            return [f"{name} {shape} does not fit {other} {files.shapes[other]}"]
    return []


def _unreadable_dtypes(files: _Files) -> list[str]:
    other = sorted(set(files.dtypes.values()) - {"F32", "F16", "BF16"})
    return [f"number format {', '.join(other)}"] if other else []


def _more_than_plain(config: Mapping[str, Any]) -> list[str]:
    fields = ("modules_to_save", "use_dora", "lora_bias", "alora_invocation_tokens", "layer_replication")
    found = [f"{field} is not supported" for field in fields if config.get(field)]
    return found + (["trained biases are not supported"] if config.get("bias", "none") != "none" else [])
