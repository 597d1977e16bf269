"""The short form of a study file to its full form: every arm with all of its settings, every seed written out.

    {train: {epochs: 3, batch_size: 4}, arms: [uniform, {strategy: random, draw: 1, train: {epochs: 1}}]}
 -> {arms: [{name: uniform, strategy: uniform, strategy_settings: {}, train: {epochs: 3, batch_size: 4}},
            {name: random, strategy: random, strategy_settings: {draw: 1}, train: {epochs: 1, batch_size: 4}}]}

What has the wrong type is passed on as it is, for validation to name.
"""

from typing import Any

from rankwise.study.config import Arm, Study
from rankwise.study.document import KeyPath

STRATEGY_KEY = "strategy_settings"
"""Where the full form keeps what the short form writes beside `strategy`."""
SHARED_KEYS = tuple(key for key in Arm.model_fields if key not in ("name", "strategy", STRATEGY_KEY))
"""Settings that stand study-wide and may be overridden in an arm."""
ARM_KEYS = ("name", "strategy", *SHARED_KEYS)
"""What an arm may hold besides its strategy's settings."""
STUDY_KEYS = (*(key for key in Study.model_fields if key != "arms"), *SHARED_KEYS, "arms")
"""What a study file may hold."""
BUDGET_SIZES = ("rank", "params", "fraction")
"""The ways to say how large a budget is; an arm that uses one takes the place of the study's."""
FIRST_TUNING_SEED = 1000
"""Also the largest number of reported seeds that can be asked for by count, so that the two never meet."""


def expand(short: dict[str, Any]) -> dict[str, Any]:
    """The full form, as `Study` takes it."""
    shared = {key: short[key] for key in SHARED_KEYS if key in short}
    full = {key: value for key, value in short.items() if key not in SHARED_KEYS}
    for key, start in (("seeds", 0), ("tuning_seeds", FIRST_TUNING_SEED)):
        count = full.get(key)
        if type(count) is int and 1 <= count <= FIRST_TUNING_SEED:
            full[key] = list(range(start, start + count))
    if isinstance(short.get("benchmarks"), list):
        full["benchmarks"] = [{"name": one} if isinstance(one, str) else one for one in short["benchmarks"]]
    if isinstance(short.get("arms"), list):
        full["arms"] = [_expand_arm(arm, shared) for arm in short["arms"]]
    return full


def _expand_arm(short: Any, shared: dict[str, Any]) -> Any:
    if isinstance(short, str):
        short = {"strategy": short}
    if not isinstance(short, dict):
        return short
    full = {key: short[key] for key in ("name", "strategy") if key in short}
    if "strategy" in full:
        full.setdefault("name", full["strategy"])
    full[STRATEGY_KEY] = {key: value for key, value in short.items() if key not in ARM_KEYS}
    sections = {key: _merged(key, shared.get(key), short[key]) for key in SHARED_KEYS if key in short}
    return full | shared | sections


def replace_in_arms(full: dict[str, Any], section: str, values: dict[str, Any]) -> None:
    """Put `values` in the place of what the file says, in a section of every arm of the full form."""
    arms = full.get("arms")
    for arm in arms if isinstance(arms, list) else ():
        if isinstance(arm, dict) and isinstance(arm.get(section, {}), dict):
            arm[section] = arm.get(section, {}) | values


def _merged(key: str, shared: Any, override: Any) -> Any:
    if not (isinstance(shared, dict) and isinstance(override, dict)):
        return override
    if key == "budget" and any(size in override for size in BUDGET_SIZES):
        shared = {name: value for name, value in shared.items() if name not in BUDGET_SIZES}
    return shared | override


def written_at(path: KeyPath, short: dict[str, Any]) -> KeyPath:
    """Where the short form says what the full form has at `path`: in the arm where it overrides, else study-wide."""
    match path:
        case ("arms", int(index), str(key), *rest) if key in SHARED_KEYS:
            arm = short["arms"][index]
            section = arm.get(key, {}) if isinstance(arm, dict) else {}
            in_arm = not isinstance(section, dict) or (rest[0] in section if rest else key in arm)
            return path if in_arm else (key, *rest)
        case ("arms", int(index), "name") if not (
            isinstance(short["arms"][index], dict) and "name" in short["arms"][index]
        ):
            return ("arms", index, "strategy")
    return path
