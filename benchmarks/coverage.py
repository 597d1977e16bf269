"""How often the intervals cover the truth and the tests claim what is not there, over simulated studies of a few seeds.

    python benchmarks/coverage.py --json benchmarks/coverage.json

A study is one baseline and five arms. Losses of a run are its arm's, its seed's (shared by all arms, which pairing
takes out), and noise of its own. The baseline's is normal; the arms' has the same variance and is normal, heavy-tailed
(Student's t with 4 degrees of freedom) or skewed (gamma of shape 2), so that paired differences are skewed, too. What
is counted is what a report prints: the interval of the paired difference, and the verdict after Holm's adjustment.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rankwise.statistics.multiplicity import holm
from rankwise.statistics.paired import compare_paired
from rankwise.statistics.verdict import verdict

NUM_ARMS = 5
NOISE_NATS = 0.05
"""Standard deviation of a run's own noise. No arm truly differs: coverage does not depend on where the truth lies."""
MARGIN = 0.005
NOISES: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "heavy tails": lambda rng, shape: rng.standard_t(4, size=shape) / np.sqrt(2),
    "skewed": lambda rng, shape: (rng.gamma(2, size=shape) - 2) / np.sqrt(2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=400, help="simulated studies a cell")
    parser.add_argument("--seeds", type=int, nargs="+", default=[5, 8, 10], help="seeds of a study")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    args = parser.parse_args()
    cells = []
    print("seeds  noise        coverage  false claims, Holm  unadjusted")
    for num_seeds in args.seeds:
        for noise in NOISES:
            cell = simulate(noise, num_seeds, args.studies)
            cells.append(cell)
            print(
                f"{num_seeds:5}  {noise:<11}  {cell['coverage']:8.1%}  {cell['false_claims']:18.1%}  "
                f"{cell['false_claims_unadjusted']:10.1%}",
                flush=True,
            )
    if args.json:
        command = f"python benchmarks/coverage.py --studies {args.studies} --seeds {' '.join(map(str, args.seeds))}"
        args.json.write_text(json.dumps({"command": command, "cells": cells}, indent=2) + "\n", encoding="utf-8")


def simulate(noise: str, num_seeds: int, num_studies: int) -> dict[str, object]:
    """One cell: the same noise and number of seeds."""
    rng = np.random.default_rng([num_seeds, list(NOISES).index(noise)])
    covered, claimed, claimed_unadjusted = [], [], []
    for _ in range(num_studies):
        own_AS = np.vstack([rng.normal(size=num_seeds), NOISES[noise](rng, (NUM_ARMS, num_seeds))])
        loss_AS = 2 + 0.2 * rng.normal(size=num_seeds) + NOISE_NATS * own_AS
        found = [
            compare_paired(loss_S, loss_AS[0], level=0.95, equivalence_margin=MARGIN, rng=rng) for loss_S in loss_AS[1:]
        ]
        # The first arm alone: arms share the baseline's noise, so they would not be independent trials.
        covered.append(not found[0].interval.excludes(0.0))
        adjusted = holm([one.p_value for one in found], level=0.95).adjusted_p_M
        words = [verdict(one, float(p), num_comparisons=NUM_ARMS).word for one, p in zip(found, adjusted, strict=True)]
        claimed.append("better" in words or "worse" in words)
        claimed_unadjusted.append(any(one.p_value <= 0.05 for one in found))
    return {
        "noise": noise,
        "num_seeds": num_seeds,
        "num_studies": num_studies,
        "coverage": float(np.mean(covered)),
        "false_claims": float(np.mean(claimed)),
        "false_claims_unadjusted": float(np.mean(claimed_unadjusted)),
    }


if __name__ == "__main__":
    main()
