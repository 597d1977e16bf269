"""The spread between seeds, taken from runs that are already there: what says how many seeds a new study needs.

A pilot is an earlier study of any name: in a ledger, or as the report that was recorded of it. Only the spread of its
paired differences is used, never their means: planning for the effect that a small pilot happened to show is planning
for its luck.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, stdev
from typing import Any

from rankwise.errors import LedgerError, ReportError
from rankwise.ledger import open_ledger
from rankwise.ledger.results import StudyResults
from rankwise.reporting.collect import deviations, is_scored, reported_runs
from rankwise.reporting.recorded import COMPARISON, read_comparison
from rankwise.study.config import Study

RESOLVED = "study.resolved.json"
"""Beside a report: the study with every setting in it."""
METRIC = "test_loss"
"""The only one that a spread in nats can be taken of."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Standard deviations of paired differences in test loss."""

    sd_nats: float
    """The median over comparisons."""
    num_comparisons: int
    num_seeds: tuple[int, int]
    """Fewest and most pairs behind one of them."""


@dataclass(frozen=True, kw_only=True)
class Pilot:
    """What is known of an earlier study's reported seeds."""

    source: str
    """Where it was found, as a sentence names it."""
    baseline: str
    losses: Mapping[str, Mapping[int, float]]
    """Arm -> seed -> test loss in nats per answer token, of the runs that have one."""
    unequal: frozenset[str]
    """Arms that differ from the baseline in more than where their ranks are."""
    settings: Mapping[str, Any]
    """The resolved study; empty where it is not known."""

    def spread_for(self, study: Study) -> Spread | None:
        """Of the comparisons that `study` will make, where the pilot made some of them; else of the pilot's own against
        its baseline, unequal arms only where there are no others. None where no two arms share two seeds.
        """
        declared = [arm.name for arm in study.arms if arm.name != study.compare.baseline]
        own = [arm for arm in self.losses if arm != self.baseline]
        equal = [arm for arm in own if arm not in self.unequal]
        for baseline, arms in ((study.compare.baseline, declared), (self.baseline, equal), (self.baseline, own)):
            if found := self._spread(baseline, arms):
                return found
        return None

    def _spread(self, baseline: str, arms: list[str]) -> Spread | None:
        theirs = self.losses.get(baseline, {})
        pairs = [
            [losses[seed] - theirs[seed] for seed in losses if seed in theirs]
            for losses in (self.losses.get(arm, {}) for arm in arms)
        ]
        pairs = [differences for differences in pairs if len(differences) > 1]
        if not pairs:
            return None
        numbers = [len(differences) for differences in pairs]
        return Spread(
            sd_nats=median(map(stdev, pairs)),
            num_comparisons=len(pairs),
            num_seeds=(min(numbers), max(numbers)),
        )

    def is_of_other_data(self, study: Study) -> bool:
        """Whether its baseline is known to have another base model, source or test size than that of `study`."""
        theirs = next((arm for arm in self.settings.get("arms", ()) if arm["name"] == self.baseline), None)
        if theirs is None:
            return False
        mine = next(arm for arm in study.arms if arm.name == study.compare.baseline).model_dump(mode="json")
        keys = (("base", "model"), ("data", "source"), ("data", "test"))
        return any(theirs[part].get(key) != mine[part].get(key) for part, key in keys)


def pilot_of(results: StudyResults, source: str) -> Pilot:
    """From what a ledger holds; details are not needed."""
    return Pilot(
        source=source,
        baseline=results.study["compare"]["baseline"],
        losses={
            arm: {seed: run.scores["test_loss"] for seed, run in reported_runs(results, arm).items() if is_scored(run)}
            for arm in results.arm_names
        },
        unequal=frozenset(arm for arm in results.arm_names if deviations(results, arm)),
        settings=results.study,
    )


def find_pilot(place: str, studies: Sequence[Study], ledger: str | None) -> Pilot:
    """The pilot called `place`, for planning `studies`: a folder with a recorded report, or a name in the ledger.

    Args:
        ledger: Path or URL; None for the default.

    Raises:
        ReportError: there is no such folder, its report cannot be read, or the pilot has another metric or no two arms
            with a score on the same two seeds.
        LedgerError: there is no such study in the ledger, or no ledger.
    """
    folder = Path(place)
    found = _recorded(folder) if folder.is_dir() else _in_ledger(place, ledger)
    compare = found.settings.get("compare")
    metric = compare.get("metric", METRIC) if isinstance(compare, Mapping) else METRIC
    if metric != METRIC:
        raise ReportError(
            f"--pilot {place}: it compares {metric!r}, and the spread of that says nothing about {METRIC!r}, which a "
            "study compares. Name a pilot that compares the same."
        )
    if any(found.spread_for(study) is None for study in studies if len(study.arms) > 1):
        counts = ", ".join(f"{arm} {len(losses)}" for arm, losses in found.losses.items()) or "no arm"
        raise ReportError(
            f"--pilot {place}: no arm of it has a test loss on two of the seeds of its baseline {found.baseline} "
            f"(finished seeds: {counts}), so there is no spread between seeds. Name a study of two arms and at least "
            "two finished seeds; more of them make the spread surer."
        )
    return found


def _recorded(folder: Path) -> Pilot:
    if not (folder / COMPARISON).is_file():
        raise ReportError(
            f"--pilot {folder}: the folder has no {COMPARISON}. Name the results folder of a reported study (write it "
            "with rankwise report), or a study's name in the ledger."
        )
    comparison = read_comparison(folder)
    return Pilot(
        source=f"the report of {comparison.study} in {folder}",
        baseline=comparison.baseline,
        losses={
            arm.name: {
                score.seed: score.test_loss
                for score in arm.seeds
                if score.test_loss is not None and math.isfinite(score.test_loss)
            }
            for arm in comparison.arms
        },
        unequal=frozenset(arm.name for arm in comparison.arms if arm.deviations),
        settings=_settings(folder),
    )


def _settings(folder: Path) -> Mapping[str, Any]:
    try:
        found = json.loads((folder / RESOLVED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    arms = found.get("arms") if isinstance(found, dict) else None
    return found if isinstance(arms, list) and all(map(_is_arm, arms)) else {}


def _is_arm(value: object) -> bool:
    return isinstance(value, dict) and "name" in value and all(isinstance(value.get(k), dict) for k in ("base", "data"))


def _in_ledger(name: str, ledger: str | None) -> Pilot:
    if Path(name).name != name:
        raise ReportError(
            f"--pilot {name}: there is no such folder. Give a study's results folder, or its name in the ledger."
        )
    try:
        with open_ledger(ledger, create=False) as opened:
            results = opened.study_results(name, with_details=False)
            return pilot_of(results, f"the study {name} in the ledger")
    except LedgerError as error:
        raise LedgerError(f"--pilot {name}: no folder here is called so, and in the ledger: {error}") from None
