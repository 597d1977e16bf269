"""Does it matter where the rank is, on data of your own? From a list of examples to a verdict and adapters.

    python examples/own_data.py

About a minute on two cores. Replace `examples()` by your own rows; `--model` takes a hub id or a folder.
"""

import argparse
import json
from pathlib import Path

import rankwise
from rankwise.execution.study_options import StudyOptions
from rankwise.study import parse_study

STUDY = """
name: own-data
hypothesis: Giving early layers more rank lowers held-out loss at an equal budget.
base: {{model: {model}}}
data: {{source: {data}, template: alpaca, max_tokens: 128, train: {train}, validation: 16, test: 32}}
budget: {{rank: 4}}
scaling: {{rule: constant, scale: 2.0}}
train: {{epochs: {epochs}, batch_size: 4, learning_rates: [2.0e-3, 8.0e-3]}}
arms:
  - uniform
  - {{strategy: linear_decay}}
  - {{strategy: random}}
seeds: {seeds}
compare: {{baseline: uniform, equivalence_nats: 0.02}}
"""


def examples(count: int) -> list[dict[str, str]]:
    """Rows with an instruction, perhaps an input, and the answer: here, times of day said in words."""
    hours = ("twelve", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")
    rows = []
    for minute in range(count):
        hour, rest = divmod(minute * 7 % 720, 60)
        past = f"{rest} past {hours[hour]}" if rest else f"{hours[hour]} o'clock"
        rows.append({"instruction": "Say the time in words.", "input": f"{hour or 12}:{rest:02d}", "output": past})
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano", help="nano, a hub id or a folder")
    parser.add_argument("--train", type=int, default=96, help="training examples")
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("results/own-data"))
    given = parser.parse_args(arguments)

    given.out.mkdir(parents=True, exist_ok=True)
    data = given.out / "own-data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in examples(given.train + 64)), encoding="utf-8")

    settings = {"model": given.model, "data": data, "train": given.train, "epochs": given.epochs, "seeds": given.seeds}
    study = parse_study(STUDY.format(**settings), origin="own_data.py")
    with rankwise.open_ledger() as ledger:
        results = rankwise.run_study(study, ledger, StudyOptions(out=given.out))
        report = rankwise.write_report(results, given.out)
        runs = ledger.to_pandas(study.name)

    print(report.verdict)
    reported = runs[runs["purpose"] == "report"]
    print(reported.groupby("arm")[["params", "test_loss", "test_token_accuracy"]].mean())
    print(f"report: {report.results}, adapters: {given.out / 'adapters'}")


if __name__ == "__main__":
    main()
