"""A rule of your own against a uniform rank and its own ranks shuffled, at exactly the same number of parameters.

    python examples/custom_strategy.py

About a minute on two cores. docs/add-a-strategy.md explains what a strategy sees and how to keep one in the repository.
"""

import argparse
from pathlib import Path

import numpy as np
from pydantic import Field

import rankwise
from rankwise.execution.study_options import StudyOptions
from rankwise.study import parse_study
from rankwise.testing import check_strategy


class Ends(rankwise.Strategy):
    """More rank in the first and the last block than between them."""

    ratio: float = Field(3.0, ge=1)
    """Ideal rank of the outermost blocks, as a multiple of the middle's."""

    def ideal_ranks(self, sites: rankwise.SiteView) -> np.ndarray:
        distance_L = np.abs(2 * sites.depth_L - 1)  # 1 in the first and the last block, 0 in the middle
        return 1 + (self.ratio - 1) * distance_L


STUDY = """
name: custom-strategy
hypothesis: Ranks at both ends of the model lower held-out loss at an equal budget.
base: {{model: {model}}}
data: {{source: skills, max_tokens: 128, train: {train}, validation: 32, test: 64}}
budget: {{rank: 8}}
scaling: {{rule: constant, scale: 2.0}}
train: {{epochs: 1, batch_size: 4, learning_rates: [4.0e-3, 1.2e-2]}}
arms:
  - uniform
  - {{strategy: ends, ratio: 3.0}}
  - {{strategy: shuffled, of: ends}}
seeds: {seeds}
compare: {{baseline: uniform, equivalence_nats: 0.005}}
"""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano", help="nano, a hub id or a folder")
    parser.add_argument("--train", type=int, default=64, help="training examples")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("results/custom-strategy"))
    given = parser.parse_args(arguments)

    check_strategy(Ends())  # what every strategy keeps: finite preferences, the budget, the same answer each time
    rankwise.STRATEGIES["ends"] = Ends  # from here on, study files know the name

    text = STUDY.format(model=given.model, train=given.train, seeds=given.seeds)
    study = parse_study(text, origin="custom_strategy.py")
    with rankwise.open_ledger() as ledger:
        results = rankwise.run_study(study, ledger, StudyOptions(out=given.out))

    for arm in rankwise.compare_arms(results).arms:
        loss = "no loss yet" if arm.test_loss is None else f"{arm.test_loss.value:.4f} nats"
        verdict = "baseline" if arm.difference is None else arm.difference.outcome
        spent = (
            f"ranks {arm.ranks.low} to {arm.ranks.high}, {arm.params.low:,} parameters" if arm.ranks else "untrained"
        )
        print(f"{arm.name:10} {spent}: {loss}, {verdict}")


if __name__ == "__main__":
    main()
