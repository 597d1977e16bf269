"""Initial adapters: one file per rule, with its paper on top."""

from collections.abc import Mapping

from rankwise.lora.init.drawn import gaussian, kaiming
from rankwise.lora.init.eva import eva
from rankwise.lora.init.gora import gora
from rankwise.lora.init.loraga import loraga
from rankwise.lora.init.olora import olora
from rankwise.lora.init.pissa import pissa
from rankwise.lora.init.rule import InitialAdapter, InitRule, initial_adapter

__all__ = ["INITS", "InitRule", "InitialAdapter", "initial_adapter"]

INITS: Mapping[str, InitRule] = {
    "kaiming": InitRule(matrices=kaiming),
    "gaussian": InitRule(matrices=gaussian),
    "pissa": InitRule(matrices=pissa, needs="weights", subtracted=True),
    "olora": InitRule(matrices=olora, needs="weights", subtracted=True),
    "eva": InitRule(matrices=eva, needs="activations"),
    "gora": InitRule(matrices=gora, needs="gradients", starts_at_base=False),
    "loraga": InitRule(matrices=loraga, needs="gradients", subtracted=True),
}
"""Every value of the setting `init`."""
