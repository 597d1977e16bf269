"""Loaded base models, their shapes and prepared data, each once."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import PreTrainedModel

from rankwise.allocation import Site
from rankwise.data.examples import TokenizedExample
from rankwise.data.general import GENERAL, load_general
from rankwise.data.prepare import PreparedData, prepare_data
from rankwise.errors import DataError
from rankwise.evaluation.forgetting import general_tokens
from rankwise.models.context import check_context
from rankwise.models.dtype import default_device, resolve_settings
from rankwise.models.fingerprint import fingerprint_base
from rankwise.models.load import LoadedBase, load_base, load_skeleton
from rankwise.models.tokenizer import load_tokenizer
from rankwise.packing.activations import ActivationSize, measure_activations
from rankwise.packing.memory import ModelShape
from rankwise.packing.stored_weights import count_stored
from rankwise.packing.working import WorkingSize, measure_working
from rankwise.study.config import Arm, BaseSettings, Study
from rankwise.study.plan import Fingerprints
from rankwise.training.allocate import Allocator

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, kw_only=True, eq=False)
class BaseShape:
    """A base model without its weights: all that can be known from config.json."""

    model: PreTrainedModel = field(repr=False)
    """On the meta device."""
    settings: BaseSettings
    """As given, with what was `auto` resolved."""
    device: torch.device
    """Where it would be loaded."""
    num_params: int
    """Of the unquantized model; tied weights count once."""

    num_block_params: int
    """Weights that every token is multiplied with: all matrices but embeddings and the output head."""


@dataclass
class Workbench:
    """Keeps one base model in memory at a time, and every shape and data set."""

    device: torch.device | None = None
    _base: tuple[BaseSettings, LoadedBase] | None = None
    _allocator: Allocator | None = None
    _shapes: dict[BaseSettings, BaseShape] = field(default_factory=dict)
    _activations: dict[tuple[BaseSettings, tuple[str, ...], bool], ActivationSize] = field(default_factory=dict)
    _working: dict[BaseSettings, WorkingSize] = field(default_factory=dict)
    _data: dict[tuple[str, str, str | None], PreparedData] = field(default_factory=dict)
    _general: dict[BaseSettings, tuple[TokenizedExample, ...]] = field(default_factory=dict)

    def base(self, settings: BaseSettings) -> LoadedBase:
        if self._base is None or self._base[0] != settings:
            self._base = self._allocator = None  # free the old one before the new one comes
            self._base = (settings, load_base(settings, self.device))
        return self._base[1]

    def shape(self, settings: BaseSettings) -> BaseShape:
        """Raises ModelError where the configuration cannot be found, downloaded or read."""
        if settings not in self._shapes:
            device = self.device or default_device()
            resolved = resolve_settings(settings, device)
            model = load_skeleton(resolved)
            self._shapes[settings] = BaseShape(
                model=model,
                settings=resolved,
                device=device,
                num_params=model.num_parameters(),
                num_block_params=_count_block_params(model),
            )
        return self._shapes[settings]

    def model_shape(self, settings: BaseSettings, quantization: str | None = None) -> ModelShape:
        """What memory and time depend on; with `quantization`, as if the base were stored so."""
        base = self.shape(settings)
        compute_bytes = DTYPE_BYTES[base.settings.dtype]
        stored = count_stored(base.model, quantization or base.settings.quantization, compute_bytes)
        return ModelShape.from_config(
            base.model.config,
            num_params=base.num_params,
            param_bytes=stored.num_bytes / base.num_params,
            compute_bytes=compute_bytes,
            unpacked_params=stored.largest_quantized,
        )

    def activations(
        self, settings: BaseSettings, sites: Sequence[Site], *, gradient_checkpointing: bool = False
    ) -> ActivationSize:
        """What training adapters at `sites` keeps; no weights are needed.

        Raises:
            ModelError: gradient checkpointing is asked for, and the model has no list of blocks.
        """
        names = tuple(site.name for site in sites)
        key = (settings, names, gradient_checkpointing)
        if key not in self._activations:
            self._activations[key] = measure_activations(
                self.shape(settings).model, names, gradient_checkpointing=gradient_checkpointing
            )
        return self._activations[key]

    def working(self, settings: BaseSettings) -> WorkingSize:
        """What a pass holds for a moment; no weights are needed."""
        if settings not in self._working:
            self._working[settings] = measure_working(self.shape(settings).model)
        return self._working[settings]

    def allocator(self, settings: BaseSettings) -> Allocator:
        base = self.base(settings)
        if self._allocator is None or self._allocator.base is not base:
            self._allocator = Allocator(base)
        return self._allocator

    def data(self, arm: Arm) -> PreparedData:
        """Raises DataError where it cannot be read, or asks for longer examples than the base takes."""
        key = (arm.data.model_dump_json(), arm.base.model, arm.base.revision)
        if key not in self._data:
            check_context(self.shape(arm.base).model, arm.base.model, arm.data.max_tokens)
            self._data[key] = prepare_data(arm.data, load_tokenizer(arm.base))
        return self._data[key]

    def general(self, arm: Arm) -> tuple[TokenizedExample, ...]:
        """The general text that `arm` is scored on; nothing where it does not ask for it.

        Raises:
            DataError: the base takes fewer tokens than the passages of general text have.
        """
        if not arm.evaluate.forgetting:
            return ()
        if arm.base in self._general:
            return self._general[arm.base]
        longest = general_tokens(self.shape(arm.base).model)
        try:
            self._general[arm.base] = load_general(GENERAL, load_tokenizer(arm.base), max_tokens=longest).passages
        except DataError as error:
            raise DataError(
                f"evaluate.forgetting: true cannot be done on {arm.base.model}, which takes {longest} tokens: hardly a "
                "passage of the general text is that short, and none is ever cut. Set evaluate.forgetting: false, or "
                "choose a model with a longer context."
            ) from error
        return self._general[arm.base]

    def fingerprints(self, study: Study) -> Fingerprints:
        return {arm.name: (fingerprint_base(arm.base), self.data(arm).fingerprint) for arm in study.arms}


def _count_block_params(model: PreTrainedModel) -> int:
    head = model.get_output_embeddings()
    modules = [module for module in model.modules() if module is not head and not isinstance(module, nn.Embedding)]
    return sum(p.numel() for module in modules for p in module.parameters(recurse=False) if p.ndim > 1)
