"""Pretraining in miniature: the tokenizer, the windows, Muon, resuming, the card."""

import gzip
import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from rankwise.pretraining.__main__ import train_nano
from rankwise.pretraining.baselines import bigram_nats, unigram_nats
from rankwise.pretraining.config import PretrainConfig
from rankwise.pretraining.corpus import Windows, find_shards
from rankwise.pretraining.muon import Muon, orthogonalize
from rankwise.pretraining.start import grow, start_from
from rankwise.pretraining.train import Pretraining, pretrain

TINY = replace(
    PretrainConfig(),
    vocab_size=300,
    hidden_size=16,
    mlp_size=24,
    num_layers=1,
    num_heads=2,
    context_tokens=16,
    total_tokens=4 * 16 * 12,
    batch_windows=4,
    micro_windows=2,
)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    texts = [f"The cat number {i} sat on mat {i * 7}. The dog saw it and sat too." for i in range(60)]
    for name, part in (("train-00", texts[:40]), ("train-01", texts[40:55]), ("valid", texts[55:])):
        with gzip.open(folder / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in part)
    return folder


def test_the_whole_command_writes_a_model_that_loads_with_its_card(corpus: Path, tmp_path: Path) -> None:
    train_nano(TINY, corpus, tmp_path / "work", tmp_path / "nano")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "nano")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "nano")
    assert model.dtype == torch.bfloat16
    assert tokenizer("12 cats")["input_ids"][0] == tokenizer.bos_token_id
    assert tokenizer.decode(tokenizer("Zürich 007!", add_special_tokens=False)["input_ids"]) == "Zürich 007!"
    assert len(tokenizer("2024", add_special_tokens=False)["input_ids"]) == 4, "digits are single tokens"
    measured = json.loads((tmp_path / "nano" / "pretraining.json").read_text())["held_out"]
    assert measured["perplexity"] == pytest.approx(math.exp(measured["loss_nats"]))
    assert f"{measured['bits_per_byte']:.3f}" in (tmp_path / "nano" / "README.md").read_text()
    assert (tmp_path / "nano" / "loss-curve.png").stat().st_size > 1000


def test_a_resumed_training_ends_with_the_same_weights(corpus: Path, tmp_path: Path) -> None:
    stream = np.random.default_rng(0).integers(3, 300, 2000).astype(np.uint16)
    windows = Windows(stream, TINY.context_tokens, seed=0)

    def fresh() -> Pretraining:
        torch.manual_seed(0)
        return Pretraining(TINY, LlamaForCausalLM(TINY.to_llama(0, 1, 2)))

    whole = fresh()
    pretrain(whole, windows, tmp_path / "whole", lambda *_: None)

    class StoppedError(Exception):
        pass

    def stop_at_five(step: int, _loss: float, _speed: float) -> None:
        if step == 5:
            raise StoppedError

    first = fresh()
    with pytest.raises(StoppedError):
        pretrain(first, windows, tmp_path / "parts", stop_at_five)
    first.save(tmp_path / "parts")
    second = fresh()
    pretrain(second, windows, tmp_path / "parts", lambda *_: None)
    for ours, theirs in zip(second.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_windows_cover_the_stream_once_an_epoch() -> None:
    windows = Windows(np.arange(161, dtype=np.uint16), window_tokens=16, seed=3)
    seen = Counter(int(start) for step in range(5) for start in windows.batch(step, 2)[:, 0])
    assert seen == Counter(range(0, 160, 16))
    assert windows.batch(0, 2).shape == (2, 17)


def test_muon_is_torchs_muon_up_to_its_bfloat16() -> None:
    torch.manual_seed(0)
    start = torch.randn(24, 16)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizers = [
        Muon([ours], lr=0.02, momentum=0.95, weight_decay=0.1),
        torch.optim.Muon([theirs], lr=0.02, momentum=0.95, weight_decay=0.1, adjust_lr_fn="original"),
    ]
    for step in range(5):
        gradient = torch.randn(24, 16, generator=torch.Generator().manual_seed(step))
        for param, optimizer in zip((ours, theirs), optimizers, strict=True):
            param.grad = gradient.clone()
            optimizer.step()
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() < 0.02 * moved


def test_orthogonalize_brings_singular_values_near_one() -> None:
    matrix = torch.randn(20, 50, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values = torch.linalg.svdvals(orthogonalize(matrix))
    assert values.min() > 0.5
    assert values.max() < 1.5


def test_count_models_against_plain_loops() -> None:
    rng = np.random.default_rng(5)
    train, held_out = rng.integers(0, 6, 200).astype(np.uint16), rng.integers(0, 8, 50).astype(np.uint16)
    counts = Counter(train.tolist())
    frequency = {t: (counts[t] + 1) / (200 + 8) for t in range(8)}
    unigram = -sum(math.log(frequency[int(t)]) for t in held_out)
    assert unigram_nats(train, held_out, 8) == pytest.approx(unigram)
    pairs = Counter(zip(train[:-1].tolist(), train[1:].tolist(), strict=True))
    total = -math.log(frequency[int(held_out[0])])
    for a, b in zip(held_out[:-1].tolist(), held_out[1:].tolist(), strict=True):
        times = sum(n for (x, _), n in pairs.items() if x == a)
        distinct = sum(1 for (x, _) in pairs if x == a)
        if times:
            total -= math.log((pairs[a, b] + distinct * frequency[b]) / (times + distinct))
        else:
            total -= math.log(frequency[b])
    assert bigram_nats(train, held_out, 8) == pytest.approx(total)


def test_the_schedule_warms_up_holds_and_decays() -> None:
    config = replace(PretrainConfig(), total_tokens=PretrainConfig.batch_windows * PretrainConfig.context_tokens * 1000)
    factors = [config.lr_factor(step) for step in range(config.num_steps)]
    assert factors[0] == pytest.approx(1 / 20)
    assert set(factors[20:700]) == {1.0}
    assert factors[-1] == pytest.approx(1 / 300)


def test_a_folder_without_shards_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no train-"):
        find_shards(tmp_path, "train-")


def test_a_grown_model_computes_what_it_did(corpus: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    earlier = LlamaForCausalLM(replace(TINY, num_layers=3).to_llama(0, 1, 2)).eval()
    grown = grow(earlier, replace(TINY, num_layers=5).to_llama(0, 1, 2)).eval()
    ids = torch.randint(0, TINY.vocab_size, (2, TINY.context_tokens))
    assert grown.num_parameters() > earlier.num_parameters()
    torch.testing.assert_close(grown(ids).logits, earlier(ids).logits, rtol=1e-5, atol=1e-6)
    grown(ids).logits.square().sum().backward()
    assert all(block.mlp.down_proj.weight.grad.any() for block in grown.model.layers), "new blocks learn too"
    with pytest.raises(ValueError, match="cannot grow"):
        grow(grown, replace(TINY, num_layers=3).to_llama(0, 1, 2))


def test_training_goes_on_behind_what_the_earlier_model_saw(corpus: Path, tmp_path: Path) -> None:
    train_nano(TINY, corpus, tmp_path / "work", tmp_path / "earlier")
    deeper = replace(TINY, num_layers=2)
    train_nano(deeper, corpus, tmp_path / "work2", tmp_path / "later", start=tmp_path / "earlier")
    first, second = (json.loads((tmp_path / f / "pretraining.json").read_text()) for f in ("earlier", "later"))
    assert second["tokens_seen"] == 2 * first["tokens_seen"] == 2 * TINY.total_tokens
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "later").config.num_hidden_layers == 2
    assert "--start EARLIER" in (tmp_path / "later" / "README.md").read_text()
    with pytest.raises(ValueError, match="only depth can grow"):
        start_from(tmp_path / "earlier", replace(TINY, hidden_size=32).to_llama(0, 1, 2))


def test_skipped_tokens_are_whole_batches_of_the_same_order() -> None:
    stream = np.arange(4 * 16 * 10 + 1)
    whole, rest = Windows(stream, 16, seed=0), Windows(stream, 16, seed=0, skip_tokens=2 * 4 * 16)
    assert np.array_equal(rest.batch(0, 4), whole.batch(2, 4))
