"""How much each component of a slot matters: smoothed |weight x gradient|, times how uncertain it is.

Zhang et al., "Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning", arXiv:2303.10512, equations 7 to 11. Of
every single weight, with I = |w · dLoss/dw|:

    sensitivity <- β1 · sensitivity + (1 - β1) · I
    uncertainty <- β2 · uncertainty + (1 - β2) · |I - sensitivity|

and of a component the product of both: its gate's, plus the mean over its row of `down`, plus that over its column of
`up`. Weights are those after the optimizer step, gradients those that made it (clipped), as in PEFT.

P = a slot's weights, C = its gates.
"""

import numpy as np
import torch

from rankwise.lora.pack import AdapterPack


class Sensitivity:
    """The running averages of one slot with gates."""

    def __init__(self, pack: AdapterPack, slot: int, beta_sensitivity: float, beta_uncertainty: float) -> None:
        assert pack.gates is not None
        self._pack = pack
        self._slot = slot
        self._betas = beta_sensitivity, beta_uncertainty
        self._pairs = {
            "": (pack.weights_KP[slot], pack.grads_KP[slot]),
            "gates.": (pack.gates.values_KC[slot], pack.gates.grads_KC[slot]),
        }
        self._averages = {
            prefix + name: torch.zeros_like(values)
            for prefix, (values, _) in self._pairs.items()
            for name in ("sensitivity", "uncertainty")
        }

    def measure(self) -> None:
        """After an optimizer step, while its gradients are still there."""
        beta_1, beta_2 = self._betas
        for prefix, (values, grads) in self._pairs.items():
            now = (values * grads).abs()
            sensitivity = self._averages[prefix + "sensitivity"].mul_(beta_1).add_(now, alpha=1 - beta_1)
            deviation = (now - sensitivity).abs()
            self._averages[prefix + "uncertainty"].mul_(beta_2).add_(deviation, alpha=1 - beta_2)

    def importance(self) -> dict[str, np.ndarray]:
        """Per site name one number for each of the slot's places, float64."""
        score_P = self._averages["sensitivity"] * self._averages["uncertainty"]
        score_C = self._averages["gates.sensitivity"] * self._averages["gates.uncertainty"]
        of_gates = self._pack.gate_views(self._slot, score_C)
        of_weights = self._pack.slot_views(self._slot, score_P)
        return {
            site.name: (gate_R + (down_RD.mean(dim=1) + up_FR.mean(dim=0))).double().cpu().numpy()
            for (site, down_RD, up_FR), (_, gate_R) in zip(of_weights, of_gates, strict=True)
        }

    def tensors(self) -> dict[str, torch.Tensor]:
        """The averages, by name; those of gates begin with `gates.`."""
        return self._averages

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """The inverse of `tensors`."""
        for name, average in self._averages.items():
            average.copy_(tensors[name])
