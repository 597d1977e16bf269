"""Recorded reports without drawing: the comparison and the settings of a synthetic study, and one figure of the repository."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rankwise.reporting.comparison import compare_arms
from rankwise.reporting.write import comparison_json

ROOT = Path(__file__).parents[3]
FIGURE = ROOT / "docs" / "results" / "embedded" / "figures" / "differences.pdf"

HOSTILE = (
    "uniform",
    "\\input{/etc/passwd} \\write18{x} 100% $5 & #1_a {b} ~^",
    "]]\\\\[3cm] *x* `y` \"z\" 'w' -- <script>alert(1)</script> [link](http://x) @cite",
    "{{paper.num_runs}} [@hu2022lora] $x$ \x00\x1b\n\n\\end{document}",
    "ünïcödé 层 🙂 ﷽ Ωμ −×…",
    "a" * 150,
)


@pytest.fixture(scope="session")
def record(build_study) -> Callable[..., Path]:
    """record(folder, **settings of the synthetic study) -> folder, as `rankwise report` leaves it."""

    def write(folder: Path, *, name: str = "synthetic", rng_seed: int = 0, **settings) -> Path:
        results = build_study(**settings)
        document = json.loads(comparison_json(compare_arms(results, rng_seed=rng_seed))) | {"study": name}
        (folder / "figures").mkdir(parents=True)
        (folder / "comparison.json").write_text(json.dumps(document), encoding="utf-8")
        (folder / "study.resolved.json").write_text(json.dumps(results.study), encoding="utf-8")
        shutil.copy(FIGURE, folder / "figures" / "differences.pdf")
        return folder

    return write


@pytest.fixture(scope="session")
def recorded(record, tmp_path_factory) -> Path:
    """A finished study with a control, an arm of another budget and eight seeds."""
    return record(tmp_path_factory.mktemp("recorded") / "synthetic", num_seeds=8, num_layers=2)


@pytest.fixture(scope="session")
def hostile(record, tmp_path_factory) -> Path:
    strategies = ("uniform", "linear_decay", "attention_heavy", "empirical", "random", "linear_decay")
    arms = tuple(
        {"name": name, "strategy": strategy, "rank": 8, "effect": 0.01 * index}
        for index, (name, strategy) in enumerate(zip(HOSTILE, strategies, strict=True))
    )
    folder = tmp_path_factory.mktemp("hostile") / "hostile"
    return record(folder, name="% \\evil{} & co", arms=arms, num_seeds=2, num_layers=2)
