"""Tiny models, data and runs that many tests share: everything fits in a blink."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from rankwise.data.examples import TokenizedExample
from rankwise.data.prefixes import shared_prefix_tokens
from rankwise.data.prepare import PreparedData
from rankwise.models.load import LoadedBase
from rankwise.study import parse_study
from rankwise.study.config import Arm, BaseSettings
from rankwise.study.runs import Run
from rankwise.training.allocate import Allocator
from rankwise.training.allocated_run import AllocatedRun

VOCAB = 64

STUDY = """
name: tiny
hypothesis: A tiny study trains.
base: {model: nano, dtype: float32, attention: eager}
budget: {rank: 2}
train: {epochs: 2, batch_size: 2, learning_rates: [3.0e-2], warmup_frac: 0.1, eval_every_frac: 0.5}
seeds: 2
compare: {baseline: unused}
arms:
  - {name: unused, strategy: uniform}
"""


def tiny_llama(seed: int = 0) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    config._attn_implementation = "eager"
    torch.manual_seed(seed)
    return LlamaForCausalLM(config)


def tiny_base(model: PreTrainedModel | None = None) -> LoadedBase:
    model = (model or tiny_llama()).eval().requires_grad_(False)
    return LoadedBase(
        model=model,
        tokenizer=cast(Any, None),
        settings=BaseSettings(model="tiny", dtype="float32", attention="eager"),
        device=torch.device("cpu"),
        fingerprint="tiny",
        num_params=model.num_parameters(),
    )


def tiny_examples(num: int, seed: int) -> tuple[TokenizedExample, ...]:
    """Rows of 5 to 12 tokens whose answer continues an arithmetic sequence, so there is something to learn."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(num):
        length, step, start = rng.integers(5, 13), rng.integers(1, 4), rng.integers(0, VOCAB)
        ids = (start + step * np.arange(length)) % VOCAB
        found.append(TokenizedExample(ids.astype(np.int64), int(rng.integers(1, length - 1)), index))
    return tuple(found)


def tiny_data(num_train: int = 6) -> PreparedData:
    return PreparedData(
        train=tiny_examples(num_train, 1),
        validation=tiny_examples(5, 2),
        test=tiny_examples(7, 3),
        examples={},
        summary=cast(Any, None),
        fingerprint=f"tiny-{num_train}",
    )


def tiny_runs(arms: Sequence[str], *, seeds: Sequence[int] = (0,), head: str = STUDY) -> list[Run]:
    """One run per arm (YAML flow text) and seed."""
    study = parse_study(head + "".join(f"  - {arm}\n" for arm in arms), origin="tiny.yaml")
    return [
        Run(arm=arm, learning_rate=rate, seed=seed, base_fingerprint="tiny", data_fingerprint="tiny")
        for arm in study.arms[1:]
        for rate in arm.train.learning_rates
        for seed in seeds
    ]


def allocated(base: LoadedBase, runs: Sequence[Run], data: PreparedData | None = None) -> list[AllocatedRun]:
    allocator = Allocator(base)
    return [allocator.allocate(run, data or tiny_data()) for run in runs]


def templated_data() -> PreparedData:
    """Like `tiny_data`, with one of two templates of 9 and 11 tokens in front of every example."""

    def with_template(examples: Sequence[TokenizedExample]) -> tuple[TokenizedExample, ...]:
        longer = [
            replace(
                example,
                input_ids=np.concatenate([np.arange(7, 7 + length, dtype=np.int64) * 5 % VOCAB, example.input_ids]),
                num_prompt_tokens=example.num_prompt_tokens + length,
            )
            for example, length in zip(examples, itertools.cycle((9, 11)))
        ]
        shared = shared_prefix_tokens(longer)
        return tuple(replace(e, num_shared_tokens=num) for e, num in zip(longer, shared, strict=True))

    data = tiny_data()
    return replace(
        data,
        train=with_template(data.train),
        validation=with_template(data.validation),
        test=with_template(data.test),
        fingerprint="templated",
    )


def checkpointed(runs: Sequence[AllocatedRun]) -> list[AllocatedRun]:
    """The same runs with gradient checkpointing."""

    def switched(arm: Arm) -> Arm:
        return arm.model_copy(update={"train": arm.train.model_copy(update={"gradient_checkpointing": True})})

    return [replace(run, run=run.run.model_copy(update={"arm": switched(run.run.arm)})) for run in runs]
