"""Rankwise finds where a LoRA parameter budget pays off.

The public names load on first use, so `import rankwise` imports neither torch nor anything else that is slow.
"""

import logging
from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_MODULE_OF = {
    "STRATEGIES": "rankwise.allocation",
    "Ledger": "rankwise.ledger",
    "RankMap": "rankwise.allocation",
    "RankwiseError": "rankwise.errors",
    "Run": "rankwise.study",
    "Site": "rankwise.allocation",
    "SiteView": "rankwise.allocation",
    "Strategy": "rankwise.allocation",
    "Study": "rankwise.study",
    "StudyResults": "rankwise.ledger",
    "allocate": "rankwise.allocation",
    "compare_arms": "rankwise.reporting.comparison",
    "fit": "rankwise.allocation",
    "load_study": "rankwise.study",
    "open_ledger": "rankwise.ledger",
    "run_study": "rankwise.execution.run_study",
    "train_pack": "rankwise.training.engine",
    "write_report": "rankwise.reporting.write",
}
"""Where each public name lives."""

__all__ = ["__version__", *_MODULE_OF]  # noqa: PLE0604 - all of them are strings


# PEFT imports bitsandbytes wherever it is installed, quantized base or not, and on processors with AVX512-BF16 that
# tells every process that an optional kernel from the hub is missing. It is not missed here: quantized products are
# computed with the library's own. Only this one message of this one logger is held back.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: not str(record.msg).startswith("Failed to load CPU gemm_4bit_forward")
)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'rankwise' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
