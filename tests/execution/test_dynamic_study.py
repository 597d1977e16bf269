"""A study of dynamic strategies from file to adapters: what is stored is the budget, and other tools load it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from rankwise.execution.run_study import run_study
from rankwise.execution.study_options import StudyOptions
from rankwise.execution.train_one import train_one
from rankwise.ledger import open_ledger
from rankwise.lora.peft_folder import read_peft_folder
from rankwise.study import parse_study
from rankwise.study.config import Study

ARMS = """
arms:
  - uniform
  - adalora
  - elastic
  - l1
  - truncate
  - {name: control, strategy: inverted, of: adalora}
"""
HEAD = """
name: moving
hypothesis: Ranks that move end at the same budget.
base: {{model: {folder}, dtype: float32}}
data: {{source: skills, max_tokens: 128, train: 8, validation: 6, test: 6}}
budget: {{rank: 2}}
train: {{epochs: 3, batch_size: 2, learning_rates: [1.0e-2], eval_every_frac: 0.5}}
seeds: 1
"""


@pytest.fixture
def study(small_model: Path) -> Study:
    return parse_study(HEAD.format(folder=small_model) + ARMS, origin="moving.yaml")


def test_every_arm_stores_the_budget_and_loads_in_peft(study: Study, small_model: Path, tmp_path: Path) -> None:
    with open_ledger(str(tmp_path / "ledger.db")) as ledger:
        results = run_study(study, ledger, StudyOptions(out=tmp_path / "out"))
    (uniform,) = (run for run in results.runs if run.arm == "uniform")
    cheapest = min(site.in_features + site.out_features for site in uniform.sites)
    assert len(results.runs) == 6
    ids = torch.arange(3, 20)[None]
    for run in results.runs:
        assert run.status == "finished"
        assert run.budget_params == uniform.params
        assert 0 <= run.budget_params - run.stored_params < cheapest
        assert run.held_params >= run.stored_params
        folder = tmp_path / "out" / "adapters" / run.id
        _, tensors = read_peft_folder(folder)
        assert {name: len(down) for name, (down, _) in tensors.items()} == {
            s.site: s.rank for s in run.outcomes if s.rank
        }
        model = AutoModelForCausalLM.from_pretrained(small_model).eval()
        expected = {name: model.get_submodule(name).weight.detach().clone() for name in tensors}
        scales = {site.site: site.scale for site in run.outcomes}
        adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(small_model), str(folder)).eval()
        with torch.no_grad():
            for name, (down, up) in tensors.items():
                delta = scales[name] * up.astype(np.float64) @ down
                model.get_submodule(name).weight.copy_(expected[name] + torch.from_numpy(delta).float())
            np.testing.assert_allclose(adapted(ids).logits.numpy(), model(ids).logits.numpy(), atol=1e-5)


def test_one_trained_adapter_says_what_it_stores(small_model: Path, tmp_path: Path) -> None:
    head = HEAD.format(folder=small_model)
    study = parse_study(head + "arms: [adalora]\ncompare: {baseline: adalora}\n", origin="one.yaml")
    with open_ledger(str(tmp_path / "ledger.db")) as ledger:
        record = train_one(study, ledger, tmp_path / "adapter")
    _, tensors = read_peft_folder(tmp_path / "adapter")
    assert record.params == sum(down.size + up.size for down, up in tensors.values())
    assert {name: rank for name, rank in record.ranks.items() if rank} == {n: len(d) for n, (d, _) in tensors.items()}
    written = json.loads((tmp_path / "adapter" / "rankwise.json").read_text())
    assert written["params"] <= written["budget_params"]
