"""Arms as a factorial: which factors they vary, at which levels, and what each level does by itself.

Factors are allocation, initialisation, scaling, layer-wise learning rates, and the learning rate where it was not
tuned. Only arms that share everything else with the baseline take part: another budget is no level of any of them.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rankwise.ledger.results import StudyResults
from rankwise.reporting.audit import init_in_words, scaling_in_words
from rankwise.reporting.collect import arm_settings, candidate_rates, is_scored, reported_runs
from rankwise.reporting.estimates import to_estimate
from rankwise.reporting.format import format_rate
from rankwise.reporting.values import Factorial, InteractionEffect, MainEffect, MixedEffect, SeedVariance
from rankwise.statistics.factorial import FactorEffect, Interaction, interactions, main_effects
from rankwise.statistics.mixed import fit_mixed_model
from rankwise.streams import stream

Settings = Mapping[str, Any]


def factorial_of(results: StudyResults, rng_seed: int) -> Factorial | None:
    """None where fewer than two factors vary, or no seed finished in every arm of the factorial."""
    baseline = results.study["compare"]["baseline"]
    arms = _company(results, baseline)
    level_of = {arm: _levels(results, arm) for arm in arms}
    arms = [arm for arm in arms if next(a for a in arms if level_of[a] == level_of[arm]) == arm]  # of twins the first
    factors = {
        factor: tuple(dict.fromkeys([level_of[baseline][factor], *(level_of[arm][factor] for arm in arms)]))
        for factor in level_of[baseline]
    }
    factors = {factor: levels for factor, levels in factors.items() if len(levels) > 1}
    if len(factors) < 2:
        return None
    runs = {arm: {s: r for s, r in reported_runs(results, arm).items() if is_scored(r)} for arm in arms}
    seeds = tuple(seed for seed in results.study["seeds"] if all(seed in found for found in runs.values()))
    if not seeds:
        return None
    loss_AS = np.array([[runs[arm][seed].scores["test_loss"] for seed in seeds] for arm in arms])
    levels_of = {factor: [level_of[arm][factor] for arm in arms] for factor in factors}
    reference = {factor: levels[0] for factor, levels in factors.items()}
    level = results.study["compare"]["level"]

    def effects_of(compute: Callable[..., Any], name: str) -> Any:
        return compute(loss_AS, levels_of, reference, level=level, rng=stream(rng_seed, "bootstrap", name))

    return Factorial(
        factors=factors,
        arms=tuple(arms),
        num_combinations=int(np.prod([len(levels) for levels in factors.values()])),
        seeds=seeds,
        left_out_seeds=tuple(seed for seed in results.study["seeds"] if seed not in seeds),
        main_effects=tuple(map(_main_effect, effects_of(main_effects, "main effects"))),
        interactions=tuple(map(_interaction, effects_of(interactions, "interactions"))),
        mixed=_mixed(
            [
                (run.scores["test_loss"], {f: level_of[arm][f] for f in factors}, run.seed)
                for arm in arms
                for run in runs[arm].values()
            ],
            reference,
            level,
        ),
    )


def _company(results: StudyResults, baseline: str) -> list[str]:
    """The baseline and the arms that differ from it in nothing but factors, the baseline first."""
    rest = _rest(arm_settings(results, baseline))
    others = [arm for arm in results.arm_names if arm != baseline and _rest(arm_settings(results, arm)) == rest]
    return [baseline, *others]


def _rest(settings: Settings) -> Settings:
    """What is no factor."""
    names = ("name", "strategy", "strategy_settings", "init", "scaling", "train")
    rates = ("learning_rates", "lr_factors", "lora_plus_ratio")
    train = {key: value for key, value in settings["train"].items() if key not in rates}
    return {key: value for key, value in settings.items() if key not in names} | {"train": train}


def _levels(results: StudyResults, arm: str) -> dict[str, str]:
    settings, rates = arm_settings(results, arm), candidate_rates(results, arm)
    return {
        "allocation": _allocation_in_words(settings),
        "initialisation": init_in_words(settings.get("init", "kaiming")),
        "scaling": scaling_in_words(settings.get("scaling", {})),
        "layer-wise learning rates": _factors_in_words(settings["train"]),
        "learning rate": format_rate(rates[0]) if len(rates) == 1 else "tuned",
    }


def _allocation_in_words(settings: Settings) -> str:
    """`attention_heavy (ratio 4)`; settings that hold their defaults are not known here, so all are given."""
    given = settings.get("strategy_settings") or {}
    listed = ", ".join(f"{key} {_short(value)}" for key, value in given.items())
    return f"{settings['strategy']} ({listed})" if listed else str(settings["strategy"])


def _factors_in_words(train: Settings) -> str:
    """`rank_power 0.5`; `none` where every site and matrix learns at the run's rate."""
    factors = {**(train.get("lr_factors") or {}), "lora_plus_ratio": train.get("lora_plus_ratio", 1.0)}
    neutral = {"rank_power": 0.0}
    listed = [f"{key} {_short(value)}" for key, value in factors.items() if value != neutral.get(key, 1.0)]
    return ", ".join(listed) or "none"


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def _mixed(
    runs: Sequence[tuple[float, Mapping[str, str], int]], reference: Mapping[str, str], level: float
) -> SeedVariance | None:
    """The mixed model of (loss, levels, seed) of every finished run, those without a partner included."""
    found = fit_mixed_model(
        [loss for loss, _, _ in runs],
        {factor: [levels[factor] for _, levels, _ in runs] for factor in reference},
        [seed for _, _, seed in runs],
        reference,
        level=level,
    )
    if found is None:
        return None
    return SeedVariance(
        effects=tuple(
            MixedEffect(
                factor=effect.factor,
                level=effect.level,
                reference=effect.reference,
                estimate=to_estimate(effect.effect, effect.interval),
            )
            for effect in found.effects
        ),
        sd_seed=found.sd_seed,
        sd_rest=found.sd_rest,
        seed_frac=found.seed_frac,
        num_runs=found.num_runs,
        method=found.method,
    )


def _main_effect(found: FactorEffect) -> MainEffect:
    return MainEffect(
        factor=found.factor,
        level=found.level,
        reference=found.reference,
        estimate=to_estimate(found.effect, found.interval),
        num_cells=found.num_cells,
        num_all_cells=found.num_all_cells,
    )


def _interaction(found: Interaction) -> InteractionEffect:
    return InteractionEffect(
        factors=found.factors,
        levels=found.levels,
        estimate=to_estimate(found.effect, found.interval),
        num_cells=found.num_cells,
    )
