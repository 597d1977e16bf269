"""Study files: YAML to validated values to runs. Pure apart from reading the one file; no torch."""

from rankwise.study.config import Arm, Study
from rankwise.study.load import load_resolved, load_study, parse_study, resolved_json
from rankwise.study.plan import Fingerprints, PlannedRun, report_runs, tuning_runs, unique
from rankwise.study.runs import Purpose, Run

__all__ = [
    "Arm",
    "Fingerprints",
    "PlannedRun",
    "Purpose",
    "Run",
    "Study",
    "load_resolved",
    "load_study",
    "parse_study",
    "report_runs",
    "resolved_json",
    "tuning_runs",
    "unique",
]
