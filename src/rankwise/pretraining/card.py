"""Write the finished model with a card that says what it is, what it saw and how good it is."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from rankwise.pretraining.baselines import bigram_nats, unigram_nats
from rankwise.pretraining.config import PretrainConfig
from rankwise.pretraining.start import PRETRAINING, Start
from rankwise.pretraining.train import LOG, next_token_loss

PROMPTS = ("Question: What is the capital of France?\nAnswer:", "The heart is a muscle that", "She opened the door and")
EVAL_WINDOWS = 16


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Held-out quality on whole documents the training never saw."""

    num_tokens: int
    num_bytes: int
    loss_nats: float
    perplexity: float
    bits_per_byte: float
    unigram_bits_per_byte: float
    bigram_bits_per_byte: float


@torch.no_grad()
def measure_held_out(
    model: LlamaForCausalLM, train: np.ndarray, held_out: np.ndarray, num_bytes: int, window_tokens: int
) -> HeldOut:
    """Score `held_out` in windows that do not overlap, and count-based models of `train` on the same tokens."""
    num_windows = (len(held_out) - 1) // window_tokens
    starts = np.arange(num_windows)[:, None] * window_tokens
    windows = torch.from_numpy(held_out[starts + np.arange(window_tokens + 1)].astype(np.int64))
    nats = sum(next_token_loss(model, part).item() * len(part) * window_tokens for part in windows.split(EVAL_WINDOWS))
    num_tokens = num_windows * window_tokens
    loss_nats = nats / num_tokens
    bits = num_bytes * math.log(2)
    vocab_size = model.config.vocab_size
    return HeldOut(
        num_tokens=num_tokens,
        num_bytes=num_bytes,
        loss_nats=loss_nats,
        perplexity=math.exp(loss_nats),
        bits_per_byte=loss_nats * len(held_out) / bits,
        unigram_bits_per_byte=unigram_nats(train, held_out, vocab_size) / bits,
        bigram_bits_per_byte=bigram_nats(train, held_out, vocab_size) / bits,
    )


def write_model(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    config: PretrainConfig,
    held_out: HeldOut,
    start: Start,
    work: Path,
    out: Path,
) -> None:
    """Write bfloat16 safetensors, tokenizer, loss curve, numbers and README.md into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    samples = [(prompt, _continue(model, tokenizer, prompt)) for prompt in PROMPTS]
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    steps = [json.loads(line) for line in (work / LOG).read_text(encoding="utf-8").splitlines()]
    _draw_curve(steps, start.tokens_seen, held_out, out / "loss-curve.png")
    tokens_seen = start.tokens_seen + config.num_steps * config.batch_windows * config.context_tokens
    numbers = {"config": asdict(config), "tokens_seen": tokens_seen, "held_out": asdict(held_out)}
    (out / PRETRAINING).write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    (out / "README.md").write_text(_card(model, config, held_out, start, tokens_seen, samples), encoding="utf-8")


def _continue(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompt: str) -> str:
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    generated = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=32, do_sample=False)
    return tokenizer.decode(generated[0, ids.shape[1] :], skip_special_tokens=True)


def _draw_curve(steps: list[dict[str, float]], seen_before: int, held_out: HeldOut, path: Path) -> None:
    tokens = (seen_before + np.array([step["tokens"] for step in steps])) / 1e6
    losses = np.array([step["loss_nats"] for step in steps])
    width = max(1, len(losses) // 100)
    smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(tokens, losses, color="0.8", linewidth=0.6, label="each step")
    axes.plot(tokens[width - 1 :], smooth, color="#0072B2", label=f"mean of {width} steps")
    axes.axhline(held_out.loss_nats, color="#D55E00", linestyle="--", label="held out, at the end")
    axes.set(xlabel="tokens seen (millions)", ylabel="loss (nats per token)")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def _card(
    model: LlamaForCausalLM,
    config: PretrainConfig,
    held_out: HeldOut,
    start: Start,
    tokens_seen: int,
    samples: list[tuple[str, str]],
) -> str:
    shown = "\n\n".join(f"> {prompt.strip()} **{text.strip()}**".replace("\n", "  \n> ") for prompt, text in samples)
    return CARD.format(
        params=model.num_parameters() / 1e6,
        tokens=_tokens(start, tokens_seen),
        start_option="" if start.from_layers is None else " --start EARLIER",
        start_words="" if start.from_layers is None else EARLIER,
        samples=shown,
        **asdict(config) | asdict(held_out),
    )


def _tokens(start: Start, tokens_seen: int) -> str:
    if start.from_layers is None:
        return f"{tokens_seen / 1e6:.1f} million"
    before = f"{start.tokens_seen / 1e6:.1f} of them as a model of {start.from_layers} blocks that then grew"
    return f"{tokens_seen / 1e6:.1f} million, {before}"


EARLIER = """
`EARLIER` is the folder of the earlier model, written by the same command without `--start`: its blocks are kept, new ones
that change nothing are put between them, and training goes on behind the text that it has seen.
"""

# ruff: noqa: E501 - a table row is one line
CARD = """---
license: cc-by-sa-4.0
language: en
library_name: transformers
---

# nano

The base model that ships inside Rankwise, so that a fresh clone trains and compares adapters without a network. A Llama
decoder pretrained from scratch by `rankwise.pretraining`. It is far too small to be useful for anything else: it writes
locally grammatical English and knows next to nothing.

| | |
|---|---|
| parameters | {params:.2f} million, tied embeddings, stored in bfloat16 |
| shape | {num_layers} blocks, hidden size {hidden_size}, MLP {mlp_size}, {num_heads} heads, context {context_tokens} tokens |
| tokenizer | byte-level BPE, {vocab_size} entries, single digits |
| tokens seen | {tokens} |
| optimizer | Muon for the matrices (learning rate {matrix_lr}), AdamW for embedding and norms ({embedding_lr}); warm-up, stable, decay; {batch_windows} windows of {context_tokens} tokens a step |

## Quality on held-out documents

{num_tokens:,} tokens, {num_bytes:,} bytes that were not trained on, in windows of {context_tokens} tokens.

| model | bits per byte |
|---|---|
| unigram counts of the same tokens | {unigram_bits_per_byte:.3f} |
| bigram counts, Witten-Bell | {bigram_bits_per_byte:.3f} |
| **nano** | **{bits_per_byte:.3f}** (perplexity {perplexity:.1f} per token, {loss_nats:.3f} nats) |

![Loss against tokens seen](loss-curve.png)

## Samples

Greedy continuations (bold):

{samples}

## Data and licences

8,357 English documents, 109 MB: OpenStax textbooks (CC BY 4.0, OpenStax, Rice University); novels and stories in the
public domain in the United States, in the editions of ELTeC-eng (CC BY 4.0, COST Action CA16204), Standard Ebooks
(CC0 1.0) and "100 English Novels" of computationalstylistics; The World Factbook (CIA, public domain); OpenTriviaQA
(CC BY-SA 4.0); English Wikipedia articles (CC BY-SA 3.0); stories of the African Storybook and of Pratham Books'
StoryWeaver (CC BY 4.0, by their authors). One per cent of the documents, chosen by a hash of the source, is held out.
The weights are published under CC BY-SA 4.0. The fiction is old and carries the views of its time.

## Reproduce

    python -m rankwise.pretraining --data DIR --work WORK --tokens {total_tokens}{start_option} --out src/rankwise/assets/nano

`DIR` holds `train-*.jsonl.gz` and `valid*.jsonl.gz`, one document with a `text` per line. The seed is {seed}. The same
machine and thread count give the same weights; others differ by rounding. All numbers of this card are in
`pretraining.json`, written by that command.
{start_words}
"""
