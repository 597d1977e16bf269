"""PEFT's patterns: how a configuration gives single layers their own rank and alpha, and how to be sure that it does.

Of `rank_pattern` and `alpha_pattern` each, PEFT takes the first key, in the order of the dict, that matches a layer's
name (`get_pattern_key` of peft 0.18 and later); where none does, the shared value holds and nobody is told
(huggingface/peft#3582).
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from rankwise.errors import AuditError


def layer_patterns(values: Mapping[str, float]) -> dict[str, float]:
    """`values` by layer as a `rank_pattern` or `alpha_pattern`, of which every key means one layer."""
    return {"^" + re.escape(name): value for name, value in values.items()}


def compile_pattern(key: str) -> re.Pattern[str]:
    """What PEFT matches a layer's name with for the key of a pattern.

    Raises:
        re.error: the key is not a regular expression.
    """
    return re.compile(rf"(.*\.)?({key})$")


def check_patterns(config: Mapping[str, Any], module_names: Iterable[str]) -> None:
    """Makes sure that PEFT will give every site what the rank map says.

    PEFT takes the first pattern, in the order of the dict, for which `(.*\\.)?(PATTERN)$` matches the module's name,
    and adapts every module whose name is a target or ends in one. So each pattern must be the one taken for exactly
    one module, and each target must be exactly one module.

    Args:
        config: `target_modules`, `rank_pattern` and `alpha_pattern`, as in `RankMap.to_peft_dict`.
        module_names: all names of `model.named_modules()`.

    Raises:
        AuditError: a pattern or a target matches no module or more than one, or an earlier pattern hides it.
    """
    names = [name for name in module_names if name]
    endings = Counter(ending for name in names for ending in _endings(name))
    for target in config["target_modules"]:
        _expect_one(f"target_modules: {target!r}", endings[target])
    for field in ("rank_pattern", "alpha_pattern"):
        taken: set[str] = set()
        for key in config[field]:
            pattern = compile_pattern(key)
            matched = [name for name in names if pattern.match(name)]
            _expect_one(f"{field}: {key!r}", len(matched))
            if matched[0] in taken:
                raise AuditError(f"{field}: {key!r} is never used: an earlier pattern matches {matched[0]} too.")
            taken.update(matched)


def _expect_one(place: str, num_matched: int) -> None:
    if num_matched != 1:
        raise AuditError(
            f"{place} matches {num_matched or 'no'} modules of the model instead of one, so PEFT would train another "
            "allocation than the one planned. Use anchored full module names, as RankMap.to_peft writes them."
        )


def _endings(name: str) -> list[str]:
    """`a.b.c` -> [`c`, `b.c`, `a.b.c`]."""
    parts = name.split(".")
    return [".".join(parts[-length:]) for length in range(1, len(parts) + 1)]
