"""Several adapters of one base in one pass: each scores and answers as it does alone, and as PEFT makes it answer."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from rankwise.data.examples import TokenizedExample
from rankwise.errors import AdapterError
from rankwise.evaluation.held_out import answer_examples, score_examples
from rankwise.execution.load_adapted import load_adapted
from rankwise.execution.side_by_side import load_side_by_side
from rankwise.lora.peft_folder import read_peft_folder, write_weights
from tests.lora.foreign import CONFIGS, write_foreign
from tests.models.conftest import VOCABULARY, save_tiny_model

KINDS = ("plain", "patterns", "rslora")
END = VOCABULARY["</s>"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = save_tiny_model(tmp_path_factory.mktemp("base") / "model")
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.mul_(12 if parameter.ndim > 1 else 1)
    loaded.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapters(model, tmp_path_factory) -> list[str]:
    """Three that differ in ranks, scales and layers."""
    folder = tmp_path_factory.mktemp("adapters")
    for kind in KINDS:
        write_foreign(folder / kind, AutoModelForCausalLM.from_pretrained(model), **CONFIGS[kind])
    return [str(folder / kind) for kind in KINDS]


@pytest.fixture(scope="module")
def examples() -> list[TokenizedExample]:
    rng = np.random.default_rng(3)
    lengths = (4, 7, 3, 9, 5, 9, 6, 8)
    ids = [np.concatenate([[0], rng.integers(3, 6, length), [END]]).astype(np.int64) for length in lengths]
    return [TokenizedExample(tokens, len(tokens) - 3, index) for index, tokens in enumerate(ids)]


def with_peft(model: Path, adapter: str | None, prompt: np.ndarray, num: int, tokenizer) -> str:
    loaded = AutoModelForCausalLM.from_pretrained(model)
    if adapter is not None:
        loaded = PeftModel.from_pretrained(loaded, adapter)
    ids = torch.from_numpy(prompt)[None]
    mask = torch.ones_like(ids)
    found = loaded.generate(
        input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=num, eos_token_id=END, pad_token_id=END
    )
    new = found[0, ids.shape[1] :].tolist()
    return tokenizer.decode(new[: new.index(END)] if END in new else new, skip_special_tokens=True)


def test_each_is_scored_as_alone(model, adapters, examples):
    together = load_side_by_side([adapters[0], str(model), *adapters[1:]])
    found = score_examples(together.base, together.pack, together.slots, examples)
    assert together.slots == (0, None, 1, 2)
    for name, scores in zip([adapters[0], str(model), *adapters[1:]], found, strict=True):
        base, _ = load_adapted(name)
        [alone] = score_examples(base, None, (None,), examples)
        np.testing.assert_allclose(scores.loss_nats_E, alone.loss_nats_E, rtol=1e-4)
        assert np.array_equal(scores.correct_tokens_E, alone.correct_tokens_E)
        np.testing.assert_allclose(scores.confidence_gap_EB.sum(), alone.confidence_gap_EB.sum(), rtol=1e-3)
    assert len({round(float(scores.loss_nats_E.sum()), 3) for scores in found}) == 4


def test_each_answers_as_alone_and_as_peft_generates(model, adapters, examples):
    names = [*adapters, str(model)]
    together = load_side_by_side(names)
    found = answer_examples(together.base, together.pack, together.slots, examples, max_new_tokens=5)
    for name, answers in zip(names, found, strict=True):
        base, _ = load_adapted(name)
        [alone] = answer_examples(base, None, (None,), examples, max_new_tokens=5)
        assert answers == alone
        prompts = [example.input_ids[: example.num_prompt_tokens] for example in examples]
        folder = None if name == str(model) else name
        assert [a.text for a in answers] == [with_peft(model, folder, p, 5, base.tokenizer) for p in prompts]
    assert len({tuple(answers) for answers in found}) > 2


def test_the_base_alone_is_there_for_comparison(model, adapters, examples):
    [bare] = score_examples(load_adapted(str(model))[0], None, (None,), examples)
    for names in ([adapters[0]], adapters):
        together = load_side_by_side(names)
        before = score_examples(together.base, together.pack, together.slots, examples)
        with together.base_alone() as base:
            [found] = score_examples(base, None, (None,), examples)
        np.testing.assert_allclose(found.loss_nats_E, bare.loss_nats_E, rtol=1e-6)
        after = score_examples(together.base, together.pack, together.slots, examples)
        assert all(np.array_equal(a.loss_nats_E, b.loss_nats_E) for a, b in zip(before, after, strict=True))
        assert not any(p.requires_grad for p in together.base.model.parameters())


def test_components_of_zeros_are_left_out(model, adapters, examples, tmp_path):
    for file in Path(adapters[0]).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    _, tensors = read_peft_folder(tmp_path)
    name = next(iter(tensors))
    tensors[name][0][1] = 0
    write_weights(tmp_path, tensors)
    together = load_side_by_side([str(tmp_path), adapters[1]])
    base, _ = load_adapted(str(tmp_path))
    [alone] = score_examples(base, None, (None,), examples)
    found = score_examples(together.base, together.pack, together.slots, examples)[0]
    np.testing.assert_allclose(found.loss_nats_E, alone.loss_nats_E, rtol=1e-4)


def rewritten(adapter: str, folder: Path, **changes) -> str:
    folder.mkdir()
    for file in Path(adapter).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}))
    return str(folder)


def test_adapters_of_different_bases_are_refused(adapters, tmp_path):
    other = rewritten(adapters[0], tmp_path / "other", base_model_name_or_path="nano")
    with pytest.raises(AdapterError, match=r"do not share a base model .*nano.* name one base for all with --model"):
        load_side_by_side([adapters[0], other])


def test_an_adapter_that_does_not_fit_is_named(adapters, tmp_path):
    same = [rewritten(adapters[i], tmp_path / str(i), base_model_name_or_path="nano") for i in (0, 1)]
    with pytest.raises(AdapterError, match=r"0 does not fit the base model: size mismatch at .*, which maps 8 inputs"):
        load_side_by_side(same)


def test_an_adapter_of_the_output_head_is_evaluated_alone(model, adapters, tmp_path):
    loaded = AutoModelForCausalLM.from_pretrained(model)
    head = str(write_foreign(tmp_path, loaded, r=2, target_modules=["lm_head", "q_proj"]))
    assert load_side_by_side([head]).pack is None
    with pytest.raises(AdapterError, match=r"adapts the output head.*Evaluate it alone"):
        load_side_by_side([head, adapters[0]])
