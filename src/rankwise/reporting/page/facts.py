"""What the page holds beside its text: each run with its configuration and environment, and the files to download."""

import base64
import csv
import gzip
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from rankwise.ledger.results import RunRow, StudyResults
from rankwise.reporting.collect import chosen_rate, deviations
from rankwise.reporting.page.rank_maps import map_data
from rankwise.reporting.style import FigureFiles
from rankwise.reporting.values import StudyComparison

RUN_COLUMNS = (
    "id", "arm", "purpose", "strategy", "learning_rate", "seed", "status", "error", "steps", "budget_params", "params",
    "stored_params", "held_params", "wall_s", "probe_wall_s", "predicted_wall_s", "peak_memory_bytes",
    "predicted_memory_bytes", "micro_tokens", "pack_id", "pack_slots", "tokens", "padding_tokens",
)  # fmt: skip


def page_facts(results: StudyResults, comparison: StudyComparison) -> dict[str, Any]:
    """The document that the page's script reads. What many runs share is said once: their configurations and
    environments, and the names of their values, of which each run has a row."""
    configurations: dict[str, int] = {}
    environments: list[Mapping[str, str]] = []
    columns = [*RUN_COLUMNS, *score_names(results), "spent_params", "configuration", "environment"]
    runs: dict[str, list[list[Any]]] = {}
    for run in results.runs:
        text = json.dumps(_configuration(run), sort_keys=True)
        found = _run_facts(run) | {"configuration": configurations.setdefault(text, len(configurations))}
        if environment := results.environments.get(run.id):
            if environment not in environments:
                environments.append(environment)
            found["environment"] = environments.index(environment)
        runs.setdefault(run.id, []).append([found.get(name) for name in columns])
    return {
        "study": results.name,
        "baseline": comparison.baseline,
        "arms": [
            {
                "name": arm["name"],
                "learning_rate": chosen_rate(results, arm["name"]),
                "deviations": deviations(results, arm["name"]),
                "settings": arm,
            }
            for arm in results.study["arms"]
        ],
        "run_columns": columns,
        "runs": runs,
        "configurations": [json.loads(text) for text in configurations],
        "environment": dict(results.environment),
        "environments": environments,
        "maps": map_data(results),
    }


def _configuration(run: RunRow) -> dict[str, Any]:
    """What the run's id is the hash of, without its seed and learning rate, which stand beside it."""
    return {key: value for key, value in run.spec.items() if key not in ("seed", "learning_rate")}


def _run_facts(run: RunRow) -> dict[str, Any]:
    """What was measured of one run."""
    found = {name: getattr(run, name) for name in RUN_COLUMNS}
    found |= {name: value for name, value in run.scores.items() if math.isfinite(value)}
    if run.sites:
        found["spent_params"] = run.spent_params
    return found


def score_names(results: StudyResults) -> list[str]:
    return sorted({name for run in results.runs for name in run.scores})


def runs_csv(results: StudyResults) -> str:
    """One row a run, with every score."""
    scores = score_names(results)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*RUN_COLUMNS, *scores])
    for run in results.runs:
        cells = [*(getattr(run, name) for name in RUN_COLUMNS), *(run.scores.get(name) for name in scores)]
        writer.writerow(["" if cell is None else cell for cell in cells])
    return stream.getvalue()


def held_files(
    comparison_text: str, results: StudyResults, figures: Sequence[FigureFiles], *, limit_bytes: int
) -> dict[str, str]:
    """Name in the results folder -> the file, compressed with gzip and written in base64.

    Where they exceed the limit, the largest figures' data are left out first; they lie beside the page. The numbers of
    the comparison and the runs always stay.
    """
    texts = {"comparison.json": comparison_text, "runs.csv": runs_csv(results)}
    on_disk = [figure for figure in figures if figure.csv.is_file()]
    texts |= {f"figures/{figure.name}.csv": figure.csv.read_text(encoding="utf-8") for figure in on_disk}
    packed = {name: _pack(text) for name, text in texts.items()}
    for name in sorted(packed, key=lambda name: -len(packed[name])):
        if sum(map(len, packed.values())) <= limit_bytes:
            break
        if name.startswith("figures/"):
            del packed[name]
    return packed


def _pack(text: str) -> str:
    """The same bytes on any day: gzip's header has no time."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode("ascii")


def script_json(document: Mapping[str, Any]) -> Markup:
    """JSON that ends no script element: what HTML, or JavaScript before 2019, reads as more than text is escaped."""
    text = json.dumps(_finite(document), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)  # noqa: S704 - escaped above


def _finite(value: Any) -> Any:
    match value:
        case Mapping():
            return {str(key): _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case float() if not math.isfinite(value):
            return None
    return value
