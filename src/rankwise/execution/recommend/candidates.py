"""Which arms are raced, all in one place.

Without a given budget two things are asked at once: where adapters go and how wide they are (uniform arms of several
ranks and targets), and how a budget is spread (one arm for each strategy, at the centre rank). With a given budget all
arms store the same number of parameters.
"""

from collections.abc import Sequence
from typing import Any

from rankwise.allocation import Site, resolve_budget
from rankwise.errors import ModelError
from rankwise.execution.recommend.question import CENTRE_RANK, Question
from rankwise.execution.workbench import Workbench
from rankwise.models.sites import find_sites
from rankwise.study.config import Arm, BudgetSettings

STRATEGIES_RACED = (
    "linear_decay",
    "linear_growth",
    "attention_heavy",
    "mlp_heavy",
    "empirical",
    "eva",
    "gora",
)
"""Uneven allocations that are raced by default, where this version has them. No controls: nobody would use one. None
that moves ranks during training: a PEFT configuration could not say what to do."""
RANKS_RACED = (CENTRE_RANK, 16, 4, 32)
"""Uniform ranks on all linear layers, the most informative first: with little time the last ones are left out."""
TARGETS_RACED = ("mlp", "attention")
"""Beside all linear layers, at about the parameters of the centre rank there."""
QUANTIZATIONS = ("nf4",)
"""Ways to hold the base that are raced beside the plain one where bitsandbytes is installed."""


def guess_rates(hidden_size: int) -> tuple[float, float, float]:
    """Three learning rates around 7.5e-4 x (2000 / width)^0.781, a factor of 2 apart.

    The rule of the Tinker cookbook for Llama models (`hyperparam_utils.py`: 10 x 5e-5 x (2000 / H)^0.781), times 1.5
    for short runs ("LoRA Without Regret", Thinking Machines 2025: about 15 instead of 10 times the rate of full
    training). On `nano` it gives 1.9e-3, 3.7e-3 and 7.5e-3, where 4e-3 was the best measured. The race leaves the range
    where its edge is best.
    """
    centre = 7.5e-4 * (2000 / hidden_size) ** 0.781
    low, middle, high = (float(f"{centre * factor:.1e}") for factor in (0.5, 1.0, 2.0))
    return low, middle, high


def propose_arms(question: Question, bench: Workbench) -> tuple[list[Arm], list[tuple[str, str]]]:
    """Every arm that could be raced, the most informative first; and (name, reason) of each that cannot be.

    Raises:
        ModelError: the base model has no linear layers to adapt, or cannot be read.
        AllocationError: the given budget cannot be spent on all linear layers.
    """
    template = question.template
    model = bench.shape(template.base).model
    sites = find_sites(model, template.targets)
    budget_params = resolve_budget(sites, rank=template.budget.rank, params=template.budget.params)
    sites_of, left_out = _other_targets(model, sites)
    if question.is_budget_given:
        uniform = [template, *(_on(template, targets, {"params": budget_params}) for targets in sites_of)]
    else:
        uniform = _open_budget(template, sites, budget_params, sites_of)
    uneven = [named(variant(template, strategy=name, strategy_settings={})) for name in question.strategies]
    return _interleave([named(arm) for arm in uniform], uneven), left_out


def _other_targets(model: Any, sites: Sequence[Site]) -> tuple[dict[str, tuple[Site, ...]], list[tuple[str, str]]]:
    """Sites of each of TARGETS_RACED that is a proper part of `sites`."""
    found: dict[str, tuple[Site, ...]] = {}
    left_out = []
    for targets in TARGETS_RACED:
        try:
            chosen = find_sites(model, targets)
        except ModelError as error:
            left_out.append((f"uniform on {targets}", str(error)))
            continue
        if len(chosen) < len(sites):
            found[targets] = chosen
    return found, left_out


def _open_budget(
    template: Arm, sites: Sequence[Site], budget_params: int, sites_of: dict[str, tuple[Site, ...]]
) -> list[Arm]:
    """Ranks on all linear layers; on other targets the largest uniform rank that stores no more than the centre."""
    largest = max(site.max_rank for site in sites)
    ranks = [rank for rank in RANKS_RACED if rank <= largest]
    arms = [_on(template, template.targets, {"rank": rank}) for rank in ranks]
    elsewhere = []
    for targets, part in sites_of.items():
        rank = min(budget_params // sum(site.cost for site in part), max(site.max_rank for site in part))
        elsewhere.append(_on(template, targets, {"rank": max(1, rank)}))
    return arms[:2] + elsewhere + arms[2:]


def _interleave(uniform: Sequence[Arm], uneven: Sequence[Arm]) -> list[Arm]:
    """Two uniform arms first, then one of each kind in turn, so that a shorter list still asks both questions."""
    arms, rest = list(uniform[:2]), list(uniform[2:])
    others = list(uneven)
    while rest or others:
        arms += others[:1] + rest[:1]
        others, rest = others[1:], rest[1:]
    return arms


def _on(template: Arm, targets: Any, budget: dict[str, int]) -> Arm:
    limits = {"min_rank": template.budget.min_rank, "max_rank": template.budget.max_rank}
    return variant(template, targets=targets, budget=BudgetSettings(**limits, **budget))


def variant(arm: Arm, **changes: Any) -> Arm:
    """A validated copy of `arm` with other settings."""
    return Arm.model_validate({**dict(arm), **changes})


def with_training(arm: Arm, **changes: Any) -> Arm:
    """A copy of `arm` with other settings of its section `train`."""
    return variant(arm, train=type(arm.train).model_validate({**dict(arm.train), **changes}))


def named(arm: Arm) -> Arm:
    """The arm under a name made of what sets it apart: `uniform r16 mlp`, `linear_decay 500000 params nf4`."""
    size = f"r{arm.budget.rank}" if arm.budget.rank else f"{arm.budget.params} params"
    targets = "" if arm.targets == "all-linear" else str(arm.targets)
    quantization = "" if arm.base.quantization == "none" else arm.base.quantization
    return variant(arm, name=" ".join(part for part in (arm.strategy, size, targets, quantization) if part))


def quantized(arm: Arm, quantization: str) -> Arm:
    base = type(arm.base).model_validate({**dict(arm.base), "quantization": quantization})
    return named(variant(arm, base=base))


def is_uniform(arm: Arm) -> bool:
    return arm.strategy == "uniform"
