"""Is what I got what was recorded? Two comparison.json files run by run: ids, losses, learning rates, outcomes.

    python examples/check_recorded.py results/embedded docs/results/embedded

Needs Python alone. Exit code 1: ids, rates or outcomes differ. docs/reproduce.md says what to expect where.
"""

import argparse
import json
import sys
from pathlib import Path


def losses_by_run(comparison: dict) -> dict[str, float | None]:
    """Test loss of each reported run and validation loss of each tuning run, by the run's id; None: no loss."""
    found = {}
    for arm in comparison["arms"]:
        found |= {run["run_id"]: run["test_loss"] for run in arm["seeds"]}
        for candidate in arm["tuning"]:
            found |= dict(zip(candidate["run_ids"], candidate["validation_losses"], strict=True))
    return found


def outcomes(comparison: dict) -> dict[str, str | None]:
    return {arm["name"]: arm["difference"] and arm["difference"]["outcome"] for arm in comparison["arms"]}


def rates(comparison: dict) -> dict[str, float | None]:
    return {arm["name"]: arm["learning_rate"] for arm in comparison["arms"]}


def changes(mine: dict, recorded: dict) -> str:
    different = [
        f"{name}: {mine.get(name)} instead of {value}" for name, value in recorded.items() if mine.get(name) != value
    ]
    return "; ".join(different) or "the same"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mine", type=Path, help="results folder of a study")
    parser.add_argument("recorded", type=Path, help="the recorded one")
    given = parser.parse_args(arguments)
    mine, recorded = (
        json.loads((folder / "comparison.json").read_text(encoding="utf-8")) for folder in (given.mine, given.recorded)
    )

    my_losses, recorded_losses = losses_by_run(mine), losses_by_run(recorded)
    shared = my_losses.keys() & recorded_losses.keys()
    pairs = [(my_losses[run], recorded_losses[run]) for run in shared]
    apart = [abs(a - b) for a, b in pairs if a is not None and b is not None]
    equal = sum(difference == 0 for difference in apart)

    print(f"run ids: {len(shared)} of {len(recorded_losses)} recorded ones are there")
    print(f"losses: {equal} of {len(apart)} equal to the last bit, largest difference {max(apart, default=0):.1e} nats")
    print(f"learning rates: {changes(rates(mine), rates(recorded))}")
    print(f"outcomes: {changes(outcomes(mine), outcomes(recorded))}")
    same = (
        len(shared) == len(recorded_losses) and rates(mine) == rates(recorded) and outcomes(mine) == outcomes(recorded)
    )
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
