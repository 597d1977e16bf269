"""The learning rate of each arm, chosen on validation loss over its tuning runs. Test data plays no part."""

import numpy as np

from rankwise.errors import RunFailedError
from rankwise.ledger.results import StudyResults
from rankwise.statistics.selection import choose_learning_rate
from rankwise.study.config import Arm, Study


def choose_learning_rates(study: Study, results: StudyResults) -> dict[str, float]:
    """Per arm the candidate with the smallest mean validation loss; the only one where there is one.

    Raises:
        RunFailedError: every candidate of an arm diverged on every tuning seed.
    """
    return {arm.name: _choose(arm, study, results) for arm in study.arms}


def _choose(arm: Arm, study: Study, results: StudyResults) -> float:
    rates = arm.train.learning_rates
    if len(rates) == 1:
        return rates[0]
    tuned = {(r.learning_rate, r.seed): r for r in results.runs if r.arm == arm.name and r.purpose == "tuning"}
    losses_RS = np.array(
        [[tuned[rate, seed].scores.get("validation_loss", np.nan) for seed in study.tuning_seeds] for rate in rates]
    )
    try:
        return choose_learning_rate(losses_RS, np.array(rates)).rate
    except ValueError as error:
        raise RunFailedError(
            f"arm {arm.name}: no learning rate of {', '.join(f'{rate:g}' for rate in rates)} can be chosen ({error}). "
            "Add smaller ones to train.learning_rates and run the study again; finished runs are kept."
        ) from error
