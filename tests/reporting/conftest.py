"""A synthetic study: what a ledger would hold after six arms, three learning rates and five seeds."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rankwise.allocation.sites import site_group
from rankwise.ledger.results import CurvePoint, RunRow, RunStatus, StudyResults
from rankwise.records import SiteAllocation, SiteOutcome, StepTrace

MODULES = {
    "q_proj": ("attention", 256, 256),
    "k_proj": ("attention", 256, 128),
    "v_proj": ("attention", 256, 128),
    "o_proj": ("attention", 256, 256),
    "gate_proj": ("mlp", 256, 704),
    "up_proj": ("mlp", 256, 704),
    "down_proj": ("mlp", 704, 256),
}
ARMS: tuple[dict[str, Any], ...] = (
    {"name": "uniform", "strategy": "uniform", "rank": 8, "effect": 0.0},
    {"name": "uniform-r16", "strategy": "uniform", "rank": 16, "effect": -0.031},
    {"name": "linear_decay", "strategy": "linear_decay", "rank": 8, "effect": 0.016},
    {"name": "attention_heavy", "strategy": "attention_heavy", "rank": 8, "effect": 0.0004},
    {"name": "empirical", "strategy": "empirical", "rank": 8, "effect": -0.019},
    {"name": "random", "strategy": "random", "rank": 8, "effect": 0.004},
)
RATES = (1e-4, 3e-4, 1e-3)


def ideal_rank(strategy: str, layer: int, kind: str, num_layers: int, seed: int) -> float:
    depth = layer / max(1, num_layers - 1)
    match strategy:
        case "linear_decay":
            return 1.5 - depth
        case "attention_heavy":
            return 2.0 if kind == "attention" else 1.0
        case "empirical":
            return 0.6 + depth * (1.4 if kind == "mlp" else 0.7)
        case "random":
            return float(np.random.default_rng([seed, layer, len(kind)]).uniform(0.4, 1.6))
    return 1.0


def make_sites(strategy: str, rank: int, num_layers: int, seed: int) -> tuple[SiteAllocation, ...]:
    """Ranks near the strategy's ideal, within the budget of a uniform `rank` and close to it."""
    measures = strategy == "empirical"
    shapes = [(layer, leaf, *spec) for layer in range(num_layers) for leaf, spec in MODULES.items()]
    costs = np.array([fan_in + fan_out for *_, fan_in, fan_out in shapes])
    ideal = np.array([ideal_rank(strategy, layer, kind, num_layers, seed) for layer, _, kind, *_ in shapes])
    target = ideal * rank * costs.sum() / (ideal @ costs)
    ranks = np.maximum(1, np.floor(target)).astype(int)
    for site in np.argsort(ranks - target, kind="stable"):
        if costs @ ranks + costs[site] <= rank * costs.sum():
            ranks[site] += 1
    return tuple(
        SiteAllocation(
            site=f"model.layers.{layer}.{'self_attn' if kind == 'attention' else 'mlp'}.{leaf}",
            kind=kind,
            layer=layer,
            in_features=fan_in,
            out_features=fan_out,
            planned_rank=int(site_rank),
            realised_rank=int(site_rank),
            scale=16.0 / int(site_rank),
            params=int(site_rank) * (fan_in + fan_out),
            signal=float(site_ideal) if measures else None,
        )
        for (layer, leaf, kind, fan_in, fan_out), site_rank, site_ideal in zip(shapes, ranks, ideal, strict=True)
    )


def make_outcomes(sites: tuple[SiteAllocation, ...]) -> tuple[SiteOutcome, ...]:
    """As every run of a strategy whose ranks stay ends: everything stored, everything moved."""
    return tuple(
        SiteOutcome(
            site=site.site, rank=site.realised_rank, scale=site.scale, params=site.params, num_unmoved=0,
            num_revisions=0,
        )
        for site in sites
    )  # fmt: skip


def make_traces(run_id: str, sites: tuple[SiteAllocation, ...], steps: np.ndarray, rate: float) -> list[StepTrace]:
    """Steps of the size that the scale and rank of each site make expect, fading with the learning rate."""
    squares: dict[str, float] = {}
    num_layers = 1 + max(site.layer for site in sites)
    for site in sites:
        group = site_group(site.kind, site.layer, num_layers)
        squares[group] = squares.get(group, 0.0) + site.scale**2 * site.realised_rank * site.out_features / 3
    sizes = np.sqrt(list(squares.values()))
    return [
        StepTrace(
            run_id=run_id,
            step=int(step),
            groups=tuple(squares),
            grad_norms=tuple(float(1 / (index + 2)) for index in range(len(squares))),
            update_norms=tuple(map(float, rate * (1 - step / 151) * sizes)),
            weight_norms=tuple(map(float, rate * step**0.5 * sizes)),
        )
        for step in steps
    ]


def make_run(
    arm: dict[str, Any], *, purpose: str, learning_rate: float, seed: int, status: RunStatus, num_layers: int
) -> RunRow:
    run_id = f"{hash_text(f'{arm}{purpose}{learning_rate}{seed}'):012x}"
    if status in ("pending", "running"):
        return RunRow(
            id=run_id, arm=arm["name"], strategy=arm["strategy"], purpose=purpose, learning_rate=learning_rate,
            seed=seed, status=status, spec={},
        )  # fmt: skip
    noise = np.random.default_rng([seed, hash_text(arm["name"]) % 1000])
    examples = np.random.default_rng(7)
    tokens = examples.integers(3, 30, size=80)
    rate_penalty = 0.05 * np.log10(learning_rate / 4e-4) ** 2
    per_token = examples.gamma(6.0, 0.3, size=80) + 0.02 * np.random.default_rng(seed).standard_normal()
    losses = tokens * (per_token + arm["effect"] + rate_penalty + 0.002 * noise.standard_normal())
    losses = losses + tokens * 0.01 * noise.standard_normal(80)
    test_loss = float(losses.sum() / tokens.sum())
    sites = make_sites(arm["strategy"], arm["rank"], num_layers, seed)
    budget = arm["rank"] * sum(site.in_features + site.out_features for site in sites)
    params = sum(site.params for site in sites)
    steps = np.arange(1, 151)
    training = test_loss + 0.9 * np.exp(-steps / 25) + 0.15 * noise.standard_normal(150)
    checks = np.array([0, 38, 75, 113, 150])
    validation = test_loss + 0.02 + 1.1 * np.exp(-checks / 22) + 0.004 * noise.standard_normal(5)
    scores = {
        "validation_loss": float(validation[-1]),
        "initial_validation_loss": float(validation[0]),
        "test_loss": test_loss,
        "test_perplexity": float(np.exp(test_loss)),
        "test_token_accuracy": 0.62 - 0.2 * (test_loss - 1.8),
        "validation_token_accuracy": 0.61 - 0.2 * (test_loss - 1.8),
    }
    diverged = status in ("diverged", "failed")
    shown = 40 if diverged else 150
    grad_norms = np.exp(0.2 * noise.standard_normal(150)) * (1 + 9 * (steps == 90) * (arm["strategy"] == "empirical"))
    return RunRow(
        id=run_id,
        arm=arm["name"],
        strategy=arm["strategy"],
        purpose=purpose,
        learning_rate=learning_rate,
        seed=seed,
        status=status,
        spec={},
        error="step 41: the loss is not finite" if diverged else None,
        params=params,
        budget_params=budget,
        residual_params=budget - params,
        stored_params=None if diverged else params,
        held_params=None if diverged else params,
        sites=sites,
        outcomes=() if diverged else make_outcomes(sites),
        traces=tuple(make_traces(run_id, sites, steps[:shown:10], learning_rate)),
        scores={"initial_validation_loss": float(validation[0])} if diverged else scores,
        example_loss_nats=None if diverged else losses,
        example_answer_tokens=None if diverged else tokens,
        training_curve=tuple(
            CurvePoint(step=int(s), value=float(v)) for s, v in zip(steps, training, strict=True) if s <= shown
        ),
        grad_norm_curve=tuple(
            CurvePoint(step=int(s), value=float(v)) for s, v in zip(steps, grad_norms, strict=True) if s <= shown
        ),
        learning_rate_curve=tuple(
            CurvePoint(step=int(s), value=float(learning_rate * (1 - s / 151))) for s in steps if s <= shown
        ),
        validation_curve=tuple(
            CurvePoint(step=int(s), value=float(v)) for s, v in zip(checks, validation, strict=True) if s <= shown
        ),
        steps=shown,
        wall_s=9.5 + 0.1 * seed,
        probe_wall_s=1.4 if arm["strategy"] == "empirical" else 0.0,
        probe_peak_memory_bytes=610_271_232 if arm["strategy"] == "empirical" else 0,
        signal="RMS gradient (nats per unit weight)" if sites[0].signal is not None else None,
        peak_memory_bytes=731_906_048,
        predicted_memory_bytes=702_545_920,
        predicted_wall_s=8.4 + 0.1 * seed,
        micro_tokens=2048,
        pack_id=f"{purpose}-{seed}"[:16],
        pack_slots=6,
        tokens=41_233,
        padding_tokens=812,
    )


def hash_text(text: str) -> int:
    """Stable between processes, unlike `hash`."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16)


def make_study(
    arms: tuple[dict[str, Any], ...] = ARMS,
    *,
    num_seeds: int = 5,
    rates: tuple[float, ...] = RATES,
    num_layers: int = 6,
    status_of: Callable[[str, str, float, int], RunStatus] = lambda arm, purpose, rate, seed: "finished",
    tuned: bool = True,
) -> StudyResults:
    """`status_of(arm, purpose, learning rate, seed)` decides what became of each run."""
    chosen = {arm["name"]: arm.get("chosen", rates[len(rates) // 2]) for arm in arms} if tuned else {}
    seeds = tuple(range(1, num_seeds + 1))
    runs = []
    for arm in arms:
        wanted = [("tuning", rate, seed) for rate in rates for seed in (1001, 1002)] if len(rates) > 1 else []
        wanted += [("report", chosen[arm["name"]], seed) for seed in seeds] if tuned else []
        for purpose, rate, seed in wanted:
            status = status_of(arm["name"], purpose, rate, seed)
            runs.append(
                make_run(arm, purpose=purpose, learning_rate=rate, seed=seed, status=status, num_layers=num_layers)
            )
    study = {
        "name": "synthetic",
        "hypothesis": "Ranks that follow the gradient lower held-out loss at an equal budget.",
        "arms": [
            {
                "name": arm["name"],
                "strategy": arm["strategy"],
                "strategy_settings": {},
                "base": {"model": "nano", "quantization": "none"},
                "data": {"source": "skills", "max_tokens": 256},
                "targets": "all-linear",
                "budget": {"rank": arm["rank"]},
                "train": {"learning_rates": list(rates), "epochs": 3, "batch_size": 4},
                "scaling": {"rule": "alpha_over_r", "alpha": 16.0},
                "init": "kaiming",
                "dropout": 0.0,
            }
            for arm in arms
        ],
        "seeds": list(seeds),
        "tuning_seeds": [1001, 1002],
        "compare": {"baseline": arms[0]["name"], "metric": "test_loss", "level": 0.95, "equivalence_nats": 0.005},
    }
    return StudyResults(
        name="synthetic",
        hypothesis=study["hypothesis"],
        study=study,
        runs=tuple(runs),
        environment={
            "rankwise": "0.1.0",
            "python": "3.11.9",
            "torch": "2.13.0",
            "device": "cpu",
            "processor": "2 cores",
        },
        chosen_learning_rates=chosen,
        data_summary={
            "num_loaded": 512,
            "num_kept": 497,
            "num_unused_turns": 0,
            "excluded": {"empty_prompt": 0, "empty_answer": 0, "duplicates": 12, "over_long": 3},
            "split_overlap": 0,
            "splits": {
                "train": {"num_examples": 200, "num_tokens": 9120, "num_answer_tokens": 3187},
                "validation": {"num_examples": 200, "num_tokens": 9033, "num_answer_tokens": 3120},
                "test": {"num_examples": 80, "num_tokens": 3870, "num_answer_tokens": 1303},
            },
        },
    )


@pytest.fixture(scope="session")
def build_study() -> Callable[..., StudyResults]:
    return make_study


@pytest.fixture(scope="session")
def full_study() -> StudyResults:
    return make_study()
