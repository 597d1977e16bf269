"""A made-up study of many arms, as large as one likes: for tests and timings of what reads a whole ledger."""

from rankwise.ledger import Ledger
from rankwise.study.config import Study
from rankwise.testing.sample_ledger import RATES, SMALL, SampleSize, run_records, sample_arm, sample_runs, sample_study

REAL = SampleSize(
    num_layers=8,
    modules=(
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
        "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
    ),
    num_steps=150,
    steps_per_trace=10,
    num_examples=200,
)  # fmt: skip
"""What a run of a study on the embedded model has to tell."""


def large_study(num_arms: int, num_seeds: int, name: str = "large") -> Study:
    """`uniform` and random maps, each tuned over two rates with one seed: num_arms x (2 + num_seeds) runs."""
    others = (sample_arm("random", name=f"random-{draw}", draw=draw) for draw in range(1, num_arms))
    arms = (sample_arm("uniform"), *others)
    return sample_study(name).model_copy(update={"arms": arms, "seeds": tuple(range(num_seeds))})


def write_large(ledger: Ledger, *, num_arms: int, num_seeds: int, size: SampleSize = SMALL) -> Study:
    """Every run of it finished."""
    study = large_study(num_arms, num_seeds)
    runs = sample_runs(study)
    worker = "machine:1:0"
    ledger.register_study(study, runs)
    ledger.set_environment(study.name, {"device": "cpu", "command": "rankwise study large.yaml"})
    ledger.set_chosen_learning_rates(study.name, {arm.name: RATES[0] for arm in study.arms})
    ledger.claim([run.id for run, _ in runs], worker)
    for run, purpose in runs:
        ledger.write(run_records(run, score_test=purpose == "report", size=size), worker)
    return study
