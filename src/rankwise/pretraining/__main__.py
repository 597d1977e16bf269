"""Pretrain the embedded base model `nano` from text.

    python -m rankwise.pretraining --data DIR --work WORK --out src/rankwise/assets/nano

DIR holds `train-*.jsonl.gz` and `valid*.jsonl.gz`, one JSON document with a `text` per line. Stop it at any time; the
same command goes on. `--start FOLDER` takes up an earlier model, behind what it has seen of the corpus.
"""

import argparse
import dataclasses
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from rankwise.models.host_memory import keep_freed_memory
from rankwise.pretraining.card import measure_held_out, write_model
from rankwise.pretraining.config import PretrainConfig
from rankwise.pretraining.corpus import Windows, find_shards, read_texts, tokenize_shards
from rankwise.pretraining.start import start_at_random, start_from
from rankwise.pretraining.tokenizer import train_tokenizer
from rankwise.pretraining.train import Pretraining, pretrain


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m rankwise.pretraining", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the gzip JSON-lines shards")
    parser.add_argument("--work", type=Path, required=True, help="folder for tokens, checkpoint and log")
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished model and its card")
    parser.add_argument("--tokens", type=int, default=PretrainConfig.total_tokens, help="tokens to train on")
    parser.add_argument("--start", type=Path, help="folder of an earlier model to go on with; it may have fewer blocks")
    args = parser.parse_args()
    config = dataclasses.replace(PretrainConfig(), total_tokens=args.tokens)
    train_nano(config, args.data, args.work, args.out, start=args.start)


def train_nano(config: PretrainConfig, data: Path, work: Path, out: Path, *, start: Path | None = None) -> None:
    """Tokenizer, training, held-out score, card: each step is skipped where `work` already has its result."""
    keep_freed_memory()
    work.mkdir(parents=True, exist_ok=True)
    shards = find_shards(data, "train-")
    tokenizer = load_or_train_tokenizer(config, shards, start or work / "tokenizer")
    train_stream = tokenize_shards(shards, tokenizer, work)
    llama = config.to_llama(tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    started = start_from(start, llama) if start else start_at_random(llama, config.seed)
    windows = Windows(train_stream, config.context_tokens, config.seed, skip_tokens=started.tokens_seen)
    training = Pretraining(config, started.model)
    pretrain(training, windows, work, lambda step, loss, speed: _print_progress(config, step, loss, speed))
    valid_shards = find_shards(data, "valid")
    num_bytes = sum(len(text.encode()) for text in read_texts(valid_shards))
    model = training.model.eval()
    held_out = measure_held_out(
        model, train_stream, tokenize_shards(valid_shards, tokenizer, work), num_bytes, config.context_tokens
    )
    write_model(model, tokenizer, config, held_out, started, work, out)
    print(
        f"held out: {held_out.loss_nats:.4f} nats per token, {held_out.bits_per_byte:.3f} bits per byte; model in {out}"
    )


def load_or_train_tokenizer(config: PretrainConfig, shards: list[Path], folder: Path) -> PreTrainedTokenizerFast:
    if not folder.exists():
        tokenizer = train_tokenizer(read_texts(shards), config.vocab_size, config.context_tokens)
        tokenizer.save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def _print_progress(config: PretrainConfig, step: int, loss: float, tokens_per_s: float) -> None:
    remaining_s = (config.num_steps - step) * config.batch_windows * config.context_tokens / tokens_per_s
    left = f"{remaining_s / 60:.0f} min left"
    print(f"step {step}/{config.num_steps}  loss {loss:.4f}  {tokens_per_s:,.0f} tokens/s  {left}", flush=True)


if __name__ == "__main__":
    main()
