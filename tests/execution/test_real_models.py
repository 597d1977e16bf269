"""Shapes of published models at reduced depth, with random weights; and a small real model on its own kind of text.

Width, vocabulary, attention and tying are those of the published configuration, two blocks are left of the depth. The
tokenizers and the data are real.
"""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.initialization import no_init_weights
from typer.testing import CliRunner

from rankwise.cli.main import app
from rankwise.data.prepare import PreparedData, prepare_data
from rankwise.records import AdapterTrained, Evaluated, Record, StepDone
from rankwise.study.config import DataSettings
from rankwise.training.allocated_run import AllocatedRun
from rankwise.training.engine import EngineOptions, train_pack
from tests.tiny import allocated, tiny_base, tiny_runs

NUM_BLOCKS = 2
ARMS = (
    "{strategy: uniform, budget: {rank: 4}}",
    "{strategy: linear_decay, targets: attention, train: {batch_size: 1}}",
)
SITES_OF_A_BLOCK = {"DialoGPT-medium": 4, "phi-2": 6, "TinyLlama-1.1B-Chat-v1.0": 7}
HEAD = """
name: real
hypothesis: A published shape trains.
base: {model: nano, dtype: float32, attention: eager}
budget: {rank: 2}
train: {epochs: 2, batch_size: 2, learning_rates: [2.0e-3], eval_every_frac: 1.0}
seeds: 1
compare: {baseline: unused}
arms:
  - {name: unused, strategy: uniform}
"""


def random_weights(folder: Path) -> PreTrainedModel:
    """Of the shape in `folder`, two blocks deep. A normal draw per matrix would take most of the test's time."""
    config = AutoConfig.from_pretrained(folder)
    config.num_hidden_layers = NUM_BLOCKS
    config._attn_implementation = "eager"
    with no_init_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.tie_weights()
    drawn = 0.02 * torch.randn(2**20 + 7, generator=torch.Generator().manual_seed(0))
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            flat = parameter.data.view(-1)
            for first in range(0, len(flat), len(drawn)):
                flat[first : first + len(drawn)] = drawn[: len(flat) - first]
        else:
            parameter.data.fill_(0.0 if name.endswith("bias") else 1.0)
    return model


def short_rows(shared_data: Path, folder: Path) -> PreparedData:
    settings = DataSettings(
        source=str(shared_data / "instruct" / "alpaca_en_demo.json"),
        template="plain",
        max_tokens=24,
        train=3,
        validation=1,
        test=1,
    )
    return prepare_data(settings, AutoTokenizer.from_pretrained(folder))


def train(model: PreTrainedModel, runs: list[AllocatedRun]) -> list[Record]:
    return list(itertools.chain(*train_pack(tiny_base(model), runs, options=EngineOptions())))


def losses(records: list[Record], run_id: str) -> list[float]:
    return [r.loss_nats for r in records if isinstance(r, StepDone | Evaluated) and r.run_id == run_id]


@pytest.mark.parametrize("name", SITES_OF_A_BLOCK)
def test_a_published_shape_trains_in_a_pack_as_it_does_alone(shared_data: Path, name: str) -> None:
    folder = shared_data / "models" / name
    model = random_weights(folder)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert tied == (name == "DialoGPT-medium")
    runs = allocated(tiny_base(model), tiny_runs(ARMS, head=HEAD), short_rows(shared_data, folder))
    assert len(runs[0].rank_map.sites) == NUM_BLOCKS * SITES_OF_A_BLOCK[name]
    packed = train(model, runs)
    for run in runs:
        course = losses(packed, run.run.id)
        assert abs(course[0] - math.log(model.config.vocab_size)) < 1.5, "random weights know nothing"
        steps = [r.loss_nats for r in packed if isinstance(r, StepDone) and r.run_id == run.run.id]
        assert steps[-1] < steps[0] - 0.02, "but learn"
        (trained,) = (r for r in packed if isinstance(r, AdapterTrained) and r.run_id == run.run.id)
        assert sum(d.size + u.size for d, u in trained.tensors.values()) == run.rank_map.params
    alone = train(model, runs[:1])
    np.testing.assert_allclose(losses(alone, runs[0].run.id), losses(packed, runs[0].run.id), atol=2e-5, rtol=0)


def test_a_short_training_lowers_the_perplexity_of_real_stories(shared_data: Path, tmp_path: Path) -> None:
    """A list of texts is read as it is."""
    model, stories = shared_data / "models" / "tinystories-llama-260k", shared_data / "lm" / "tinystories_1000.json"
    options = "--template plain --max-tokens 320 --train-examples 32 --validation 8 --test 16 --epochs 1 --json"
    options += " --learning-rate 2e-3 --rank 4"
    arguments = ["--model", str(model), "--data", str(stories), "--out", str(tmp_path / "adapter"), *options.split()]
    result = CliRunner().invoke(app, ["train", *arguments])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    before, after = (document["scores"][f"{which}validation_loss"] for which in ("initial_", ""))
    assert 3 < math.exp(before) < 10, "real weights know real text"
    assert math.exp(after) < math.exp(before) - 0.15
