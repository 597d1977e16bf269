"""All signals that are wanted, from one pass over the batches.

| signal | pass | held while it runs | then |
|---|---|---|---|
| gradient_rms, fisher | forward, backward | the gradients of one batch | |
| gradient_sensitivity | forward, backward | and their running sum | |
| gradient_spectrum | forward, backward | and D x D per distinct input | a factorisation per input, an SVD per site |
| activation_variance | forward | K x D per distinct input, an SVD per batch | |
| weight_spectrum | none | one weight | an SVD per site |

L = sites, B = batches, F = outputs, D = inputs, K = components.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from rankwise.allocation.sites import Signal, Site
from rankwise.probing.activations import activation_statistics
from rankwise.probing.batch import ProbeBatch
from rankwise.probing.gradient import add_to, weight_gradients
from rankwise.probing.inputs import InputStatistics, watched_inputs
from rankwise.probing.weights import padded, weight_of, weight_singular_values
from rankwise.probing.whitening import factorise, second_moments, whitened_singular_values

OF_GRADIENTS = frozenset(
    {Signal.GRADIENT_RMS, Signal.FISHER, Signal.GRADIENT_SENSITIVITY, Signal.GRADIENT_SPECTRUM},
)
OF_MEAN_GRADIENT = frozenset({Signal.GRADIENT_SENSITIVITY, Signal.GRADIENT_SPECTRUM})


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was measured together, and how long it took."""

    values: Mapping[Signal, np.ndarray]
    """float64, one entry or row per site."""
    pass_wall_s: float
    """The passes through the model, which the signals share."""
    own_wall_s: Mapping[Signal, float]
    """What each signal took on top."""

    def wall_s(self, signals: Iterable[Signal]) -> float:
        """What `signals` took: the passes, and their own share."""
        return self.pass_wall_s + sum(self.own_wall_s[signal] for signal in signals)


def measure(
    model: PreTrainedModel,
    sites: Sequence[Site],
    batches: Iterable[ProbeBatch],
    signals: Iterable[Signal],
    *,
    num_components: int = 1,
) -> Measurement:
    """Measures `signals` at all sites and leaves the model as it was.

    `num_components` is the number of columns of activation_variance. `batches` is not touched for weights alone.

    Raises:
        ModelError: a signal looks at the weights and one of them cannot be read.
    """
    seen = _Seen(model, sites, frozenset(signals), num_components)
    started = time.perf_counter()
    for batch in batches if any(signal.needs_data for signal in seen.signals) else ():
        seen.add(batch)
    pass_wall_s = time.perf_counter() - started - seen.spectra.wall_s - seen.moments.wall_s
    values: dict[Signal, np.ndarray] = {}
    own_wall_s = {Signal.ACTIVATION_VARIANCE: seen.spectra.wall_s, Signal.GRADIENT_SPECTRUM: seen.moments.wall_s}
    for signal in sorted(seen.signals):
        started = time.perf_counter()
        values[signal] = _FINISH[signal](seen)
        own_wall_s[signal] = own_wall_s.get(signal, 0.0) + time.perf_counter() - started
    return Measurement(values=values, pass_wall_s=max(0.0, pass_wall_s), own_wall_s=own_wall_s)


class _Seen:
    """What the signals are made of, batch by batch."""

    def __init__(
        self, model: PreTrainedModel, sites: Sequence[Site], signals: frozenset[Signal], num_components: int
    ) -> None:
        self.model = model
        self.sites = sites
        self.signals = signals
        self.num_components = num_components
        self.mean_squares_BL: list[list[float]] = []
        self.gradient_sums: dict[str, torch.Tensor] = {}
        self.spectra = activation_statistics(num_components)
        self.moments = second_moments()
        self._modules = {site.name: model.get_submodule(site.name) for site in sites}

    def add(self, batch: ProbeBatch) -> None:
        """One forward pass, and a backward pass where a gradient is wanted."""
        with_gradients = bool(self.signals & OF_GRADIENTS)
        watching: dict[Signal, InputStatistics[Any]] = {
            Signal.ACTIVATION_VARIANCE: self.spectra,
            Signal.GRADIENT_SPECTRUM: self.moments,
        }
        statistics = [statistic for signal, statistic in watching.items() if signal in self.signals]
        gradients: dict[str, torch.Tensor] = {}
        with ExitStack() as around:
            if with_gradients:
                gradients = around.enter_context(weight_gradients(self.model, self._modules))
            else:
                around.enter_context(torch.no_grad())
            # Not around the backward pass, in which blocks that are checkpointed see their inputs a second time.
            with watched_inputs(self._modules, statistics, batch):
                loss = batch.loss()
            if with_gradients:
                loss.backward()
        if gradients:
            self._add_gradients(gradients)

    def _add_gradients(self, gradients: dict[str, torch.Tensor]) -> None:
        squares = [gradients[site.name].square().mean() if site.name in gradients else 0.0 for site in self.sites]
        self.mean_squares_BL.append([float(square) for square in squares])
        if self.signals & OF_MEAN_GRADIENT:
            add_to(self.gradient_sums, gradients)

    def mean_gradient(self, site: Site) -> torch.Tensor | None:
        """(F, D) float32; None where the site was never called."""
        total_FD = self.gradient_sums.get(site.name)
        return None if total_FD is None else total_FD / len(self.mean_squares_BL)


def _gradient_rms(seen: _Seen) -> np.ndarray:
    return np.sqrt(np.array(seen.mean_squares_BL)).mean(axis=0)


def _fisher(seen: _Seen) -> np.ndarray:
    return np.array(seen.mean_squares_BL).mean(axis=0)


def _sensitivity(seen: _Seen) -> np.ndarray:
    def of(site: Site) -> float:
        gradient_FD = seen.mean_gradient(site)
        return 0.0 if gradient_FD is None else float((weight_of(seen.model, site) * gradient_FD).abs().mean())

    return np.array([of(site) for site in seen.sites])


def _gradient_spectrum(seen: _Seen) -> np.ndarray:
    factors = {id(moment): (moment, factorise(moment)) for moment in seen.moments.states.values()}

    def of(site: Site) -> np.ndarray:
        gradient_FD = seen.mean_gradient(site)
        if gradient_FD is None:
            return np.zeros(1)
        return whitened_singular_values(gradient_FD, factors[id(seen.moments.states[site.name])][1])

    return padded([of(site) for site in seen.sites])


def _activation_variance(seen: _Seen) -> np.ndarray:
    rows = [
        seen.spectra.states[site.name].ratios_K.double().cpu().numpy()
        if site.name in seen.spectra.states
        else np.zeros(1)
        for site in seen.sites
    ]
    return padded(rows, seen.num_components)


def _weight_spectrum(seen: _Seen) -> np.ndarray:
    return weight_singular_values(seen.model, seen.sites)


_FINISH: dict[Signal, Callable[[_Seen], np.ndarray]] = {
    Signal.GRADIENT_RMS: _gradient_rms,
    Signal.FISHER: _fisher,
    Signal.GRADIENT_SENSITIVITY: _sensitivity,
    Signal.GRADIENT_SPECTRUM: _gradient_spectrum,
    Signal.ACTIVATION_VARIANCE: _activation_variance,
    Signal.WEIGHT_SPECTRUM: _weight_spectrum,
}
