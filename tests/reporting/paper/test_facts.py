from pathlib import Path

from rankwise.reporting.format import format_difference, format_p
from rankwise.reporting.paper.facts import ARM_FACTS, arm_slugs, facts_of
from rankwise.reporting.paper.sources import read_sources, unique_slugs

ROOT = Path(__file__).parents[3]


def test_values_are_those_of_the_comparison(recorded):
    (source,) = read_sources([(recorded, None)])
    facts, found = facts_of([source]), source.comparison
    assert facts["synthetic.hypothesis"] == "Ranks that follow the gradient lower held-out loss at an equal budget"
    assert facts["synthetic.num_runs"] == facts["paper.num_runs"] == "48"
    empirical = found.arm("empirical")
    assert facts["synthetic.empirical.difference"] == format_difference(empirical.difference.estimate)
    assert facts["synthetic.empirical.p_holm"] == format_p(empirical.difference.p_holm)
    assert facts["synthetic.empirical.sentence"].startswith(f"{empirical.difference.outcome}, ")
    assert facts["synthetic.uniform.outcome"] == "baseline"
    assert facts["synthetic.rates"] == "1e-4, 3e-4, 1e-3"
    assert facts["paper.num_equal"] == "4"  # of five arms, one has another budget
    assert facts["paper.num_controls"] == "1"
    assert facts["synthetic.verdict"].startswith("At the same budget of ")


def test_names_are_letters_digits_and_few_signs_and_never_meet(hostile, recorded):
    sources = read_sources([(hostile, None), (recorded, None)])
    facts = facts_of(sources)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") for name in facts)
    assert len(set(arm_slugs(sources[0].comparison).values())) == 6
    assert len(facts) > 12 * len(ARM_FACTS)


def test_reserved_and_equal_names_get_a_number():
    assert unique_slugs(["a b", "a, b", "paper", "", "%%"], {"paper"}) == [
        "a-b", "a-b-2", "paper-2", "unnamed", "unnamed-2",
    ]  # fmt: skip


def test_every_value_is_described(recorded):
    page = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    facts = facts_of(read_sources([(recorded, None)]))
    last_parts = {name.rpartition(".")[2] for name in facts if ".effect." not in name}
    assert not {part for part in last_parts if f"`{part}`" not in page}
