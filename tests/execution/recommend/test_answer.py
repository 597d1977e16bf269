"""Whole races on a model of width 16: what is trained on what, what is kept, and what stops them."""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rankwise.allocation import STRATEGIES, Signal, SiteView
from rankwise.allocation.strategies.base import Strategy
from rankwise.errors import AdapterError, AllocationError, PackError, RunFailedError
from rankwise.execution.observer import Observer
from rankwise.execution.recommend.answer import Answer, answer
from rankwise.execution.recommend.candidates import variant
from rankwise.execution.recommend.document import answer_dict
from rankwise.execution.recommend.effort import Clock
from rankwise.execution.recommend.entrants import Entrants, find_entrants, probe_entrants
from rankwise.execution.recommend.fitting import race_engine
from rankwise.execution.recommend.question import Question
from rankwise.execution.study_options import StudyStopped
from rankwise.execution.workbench import Workbench
from rankwise.ledger import open_ledger
from rankwise.records import Record, StepDone
from rankwise.study.config import Arm, BaseSettings, BudgetSettings, DataSettings, TrainSettings
from rankwise.training.engine import EngineOptions


class Steps(Observer):
    """Counts optimizer steps, is a clock that ticks once a step, and may ask to stop."""

    def __init__(self, stop_after: int = 100_000) -> None:
        self.num = 0
        self.stop_after = stop_after
        self.phases: list[str] = []
        self.notes: list[str] = []

    def phase(self, name: str, num_runs: int, num_done: int, num_steps: int) -> None:
        self.phases.append(name)

    def records(self, records: Sequence[Record]) -> None:
        self.num += sum(isinstance(record, StepDone) for record in records)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def should_stop(self) -> bool:
        return self.num >= self.stop_after


@pytest.fixture(scope="module", autouse=True)
def without_bitsandbytes() -> Iterator[None]:
    """The same arms are raced whatever is installed."""
    find = importlib.util.find_spec
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            importlib.util, "find_spec", lambda name, *rest: None if name == "bitsandbytes" else find(name, *rest)
        )
        yield


@pytest.fixture(scope="module")
def question(small_model: Path) -> Question:
    """Six arms: ranks 4, 8 and 16, attention, MLP, and one shape; a first rung of 8 steps, a second of 24."""
    template = Arm(
        name="uniform r4",
        strategy="uniform",
        base=BaseSettings(model=str(small_model), dtype="float32"),
        data=DataSettings(max_tokens=128, train=24, validation=6, test=6),
        budget=BudgetSettings(rank=8),
        train=TrainSettings(epochs=2, batch_size=2, learning_rates=(3e-3, 1e-2)),
    )
    return Question(
        template=template,
        is_budget_given=False,
        are_rates_given=True,
        strategies=("linear_decay",),
        memory_bytes=None,
        num_seeds=6,
    )


def ask(
    question: Question, folder: Path, steps: Steps | None = None, *, time_s: float | None = None, name: str = "answer"
) -> Answer:
    steps = steps or Steps()
    with open_ledger(str(folder / "ledger.db")) as ledger:
        return answer(
            question,
            ledger,
            folder / name,
            Workbench(),
            time_s=time_s,
            observer=steps,
            should_stop=steps.should_stop,
            now=lambda: float(steps.num),
        )


@pytest.fixture(scope="module")
def finished(question: Question, tmp_path_factory: pytest.TempPathFactory) -> tuple[Answer, Path, Steps]:
    folder, steps = tmp_path_factory.mktemp("finished"), Steps()
    return ask(question, folder, steps), folder, steps


def scores(found: Answer) -> dict[str, object]:
    """All numbers of an answer but times."""
    document = answer_dict(found, {})
    document["training_wall_s"] = None
    document["race"] = [{**rung, "wall_s": None} for rung in document["race"]]
    return document


def test_all_arms_are_raced_and_a_third_of_each_kind_goes_on(finished):
    found, _, _ = finished
    first, second = found.rungs
    names = [score.arm.name for score in first.scores]
    assert names == [
        "uniform r8",
        "uniform r16",
        "linear_decay r8",
        "uniform r16 mlp",
        "uniform r15 attention",
        "uniform r4",
    ]
    assert [rung.epochs for rung in found.rungs] == [pytest.approx(2 / 3, abs=1e-3), 2]
    assert (first.seeds, second.seeds) == ((1000,), (1000,))
    kept = [score.arm for score in second.scores]
    assert [arm.strategy for arm in kept].count("uniform") == 2
    (shaped,) = (arm for arm in kept if arm.strategy == "linear_decay")
    best = min((s for s in first.scores if s.arm.strategy == "uniform"), key=lambda score: score.loss).arm
    assert (shaped.targets, shaped.budget) == (best.targets, best.budget), "moved to where the best uniform arm is"
    assert shaped.train.learning_rates == (3e-3, 1e-2), "both given rates are near the best"


def test_the_test_split_is_scored_by_confirming_runs_alone_and_their_seeds_are_fresh(finished):
    found, folder, _ = finished
    with open_ledger(str(folder / "ledger.db")) as ledger:
        raced = [run for rung in found.rungs for run in ledger.study_results(rung.study).runs]
    assert raced
    assert not any(name.startswith("test") for run in raced for name in run.scores)
    confirmed = [run for run in found.confirmed.runs if run.purpose == "report"]
    assert len(confirmed) == 2 * 6
    assert all("test_loss" in run.scores for run in confirmed)
    assert not {run.seed for run in confirmed} & {run.seed for run in raced}
    assert not {run.id for run in confirmed} & {run.id for run in raced}


def test_the_recommended_arm_is_a_finalist_and_the_uniform_question_is_answered(finished):
    found, _, steps = finished
    judgement = found.judgement
    assert any(finalist.arm.strategy == "uniform" for finalist in judgement.finalists)
    assert judgement.seeds == (0, 1, 2, 3, 4, 5)
    assert judgement.recommended in {finalist.arm.name for finalist in judgement.finalists}
    assert not found.is_cut_short
    assert any(finalist.arm.strategy != "uniform" for finalist in judgement.finalists)
    assert "uniform rank is" in answer_dict(found, {})["advice"]
    assert any("predicted" in note for note in steps.notes)
    assert steps.phases[0].startswith("rung 1 of 2")
    assert steps.phases[-1].startswith("confirming 2 finalists")


def test_the_same_question_trains_nothing_again_and_has_the_same_answer(finished, question):
    found, folder, _ = finished
    steps = Steps()
    assert scores(ask(question, folder, steps)) == scores(found)
    assert steps.num == 0


@pytest.mark.parametrize("stop_after", [5, 200])
def test_a_stopped_race_goes_on_to_the_same_answer(stop_after, finished, question, tmp_path):
    first, second = Steps(stop_after), Steps()
    with pytest.raises(StudyStopped):
        ask(question, tmp_path, first)
    assert scores(ask(question, tmp_path, second)) == scores(finished[0])
    assert first.num + second.num == finished[2].num, "no step was trained twice"


def test_a_time_limit_in_the_race_gives_an_unconfirmed_uniform_arm(question, finished, tmp_path):
    steps_of_first_rung = 6 * 2 * 8
    found = ask(question, tmp_path, time_s=steps_of_first_rung + 10.0)
    assert found.is_cut_short
    assert found.judgement.best is None
    assert found.confirmed is None
    recommended = found.judgement.finalist(found.judgement.recommended)
    assert recommended.arm.strategy == "uniform"
    advice = answer_dict(found, {})["advice"]
    assert "not confirmed" in advice
    assert "longer --time" in advice
    again = ask(question, tmp_path)
    assert again.judgement == finished[0].judgement, "without a limit it goes on to the whole answer"


def test_a_time_limit_while_confirming_judges_by_the_seeds_that_are_there(question, tmp_path, monkeypatch):
    monkeypatch.setattr("rankwise.execution.recommend.answer.StudyOptions", small_packs)
    race = 6 * 2 * 8 + 3 * 2 * 2 * 24  # so much time pays for a second race seed in the second rung
    found = ask(question, tmp_path, time_s=float(race + 2 * 2 * 24 + 10))
    assert found.is_cut_short
    assert found.judgement.seeds == (0, 1)
    assert "could have been significant" in answer_dict(found, {})["advice"]


def small_packs(**options):
    from rankwise.execution.study_options import StudyOptions

    return StudyOptions(**options, max_slots=4)


def test_a_time_limit_before_any_arm_is_through_is_a_failure_that_says_so(question, tmp_path, monkeypatch):
    monkeypatch.setattr(Clock, "total_s", lambda *_: 0.0)  # a prediction that is far too short
    with pytest.raises(RunFailedError, match=r"before the first arm was trained.*longer --time"):
        ask(question, tmp_path, time_s=0.5)


def test_a_time_that_no_race_fits_is_refused_before_training(question, tmp_path):
    steps = Steps()
    with pytest.raises(PackError, match=r"--time: 0.0 s is too short.*predicted to take.*Nothing was trained"):
        ask(question, tmp_path, steps, time_s=1e-6)
    assert steps.num == 0
    assert not (tmp_path / "answer").exists()


def test_a_given_budget_races_arms_of_equal_parameters_and_answers_half_and_double(question, tmp_path):
    template = variant(question.template, budget=BudgetSettings(rank=4))
    found = ask(replace(question, template=template, is_budget_given=True), tmp_path)
    params = {run.params for run in found.confirmed.runs}
    assert len({score.arm.name for score in found.rungs[0].scores}) == 4
    assert len(params) == 1, "every finalist stores the same number of parameters"
    (budget,) = params
    assert sorted(arm.budget_params for arm in found.budgets.arms) == [budget // 2, budget, 2 * budget]
    assert "At other budgets" in answer_dict(found, {})["advice"]


def test_arms_that_do_not_fit_the_memory_are_left_out_with_what_they_need(question):
    sizes = {entry.arm.name: entry.solo_bytes for entry in entrants(question).sized}
    limit = (min(sizes.values()) + max(sizes.values())) // 2
    limited = entrants(replace(question, memory_bytes=limit))
    assert {entry.arm.name for entry in limited.sized} == {name for name, size in sizes.items() if size <= limit}
    assert dict(limited.left_out).keys() == {name for name, size in sizes.items() if size > limit} != set()
    assert all("predicted to need" in reason for _, reason in limited.left_out)


def entrants(question: Question) -> Entrants:
    bench = Workbench()
    return find_entrants(question, bench, race_engine(question.template, bench))


def test_a_memory_that_nothing_fits_is_one_paragraph_with_what_would(question, tmp_path):
    with pytest.raises(
        PackError, match=r"--memory: no arm.* in 10 MiB.*--gradient-checkpointing.*--batch-size 1.*4-bit"
    ):
        ask(replace(question, memory_bytes=10 * 2**20), tmp_path)
    assert not (tmp_path / "answer").exists()


class Unmeasurable(Strategy):
    """Fails after its probe, as on a model that a published rule was not made for."""

    needs = frozenset({Signal.GRADIENT_RMS})

    def ideal_ranks(self, sites: SiteView) -> np.ndarray:
        raise AllocationError("this rule cannot be applied here")


def test_a_strategy_that_cannot_be_measured_is_left_out_and_harms_no_other(question, tmp_path, monkeypatch):
    monkeypatch.setitem(STRATEGIES, "unmeasurable", Unmeasurable)
    found = ask(replace(question, strategies=("unmeasurable",)), tmp_path)
    assert dict(found.left_out) == {"unmeasurable r8": "this rule cannot be applied here"}
    assert {score.arm.strategy for score in found.rungs[0].scores} == {"uniform"}
    assert found.judgement.best is not None


def test_a_strategy_whose_schedule_is_longer_than_the_first_rung_is_left_out(question):
    found = entrants(replace(question, strategies=("adalora",)))
    assert "adalora r8" in [entry.arm.name for entry in found.sized]
    probed = probe_entrants(found, 0.1, Workbench(), EngineOptions())
    assert [name for name, _ in probed.left_out] == ["adalora r8"]
    assert len(probed.sized) == len(found.sized) - 1


def test_shapes_that_are_uniform_here_are_left_out(question):
    only_mlp = variant(question.template, targets="mlp")
    assert "linear_decay r8 mlp" in [entry.arm.name for entry in entrants(replace(question, template=only_mlp)).sized]
    favoured = replace(question, template=only_mlp, strategies=("attention_heavy",))
    assert [entry.arm.strategy for entry in entrants(favoured).sized].count("attention_heavy") == 0


def test_a_folder_of_another_question_or_of_other_files_is_refused(question, finished, tmp_path):
    _, folder, _ = finished
    other = replace(question, num_seeds=7)
    with pytest.raises(AdapterError, match=r"another question.*--out"):
        ask(other, folder)
    (tmp_path / "answer").mkdir()
    (tmp_path / "answer" / "thesis.tex").write_text("years of work")
    with pytest.raises(AdapterError, match="--out"):
        ask(question, tmp_path)
    assert (tmp_path / "answer" / "thesis.tex").read_text() == "years of work"


def test_a_quantized_twin_is_raced_only_where_it_can_be(question, monkeypatch):
    find: Callable[[str], object] = lambda name: object() if name == "bitsandbytes" else None  # noqa: E731
    assert not [entry for entry in entrants(question).sized if entry.arm.base.quantization != "none"]
    monkeypatch.setattr("rankwise.execution.recommend.entrants.importlib.util.find_spec", find)
    names = [entry.arm.name for entry in entrants(question).sized if entry.arm.base.quantization != "none"]
    assert names == ["uniform r8 nf4"]
