"""The pretraining text: gzip JSON-lines shards in, fixed windows of token ids out.

B = windows in a batch, T = tokens in a window.
"""

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast


def find_shards(folder: Path, prefix: str) -> list[Path]:
    """The shards `prefix*.jsonl.gz` of `folder` in name order.

    Raises:
        FileNotFoundError: when there is none.
    """
    shards = sorted(folder.glob(f"{prefix}*.jsonl.gz"))
    if not shards:
        raise FileNotFoundError(
            f"{folder} holds no {prefix}*.jsonl.gz; give the folder of the pretraining shards with --data"
        )
    return shards


def read_texts(shards: list[Path]) -> Iterator[str]:
    """The `text` of every document, in file order."""
    for shard in shards:
        with gzip.open(shard, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)["text"]


def tokenize_shards(shards: list[Path], tokenizer: PreTrainedTokenizerFast, cache_dir: Path) -> np.ndarray:
    """All documents as one stream of ids, `<s> document </s> <s> document </s> ...`, as a memory-mapped uint16 array.

    The stream is cached under a name that contains a hash of the tokenizer and of the shards' names and sizes.
    """
    key = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode())
    for shard in shards:
        key.update(f"{shard.name}:{shard.stat().st_size}".encode())
    cached = cache_dir / f"tokens-{key.hexdigest()[:16]}.npy"
    if not cached.exists():
        cache_dir.mkdir(parents=True, exist_ok=True)
        stream = np.concatenate([_encode_documents(shard, tokenizer) for shard in shards])
        partial = cached.with_suffix(".partial.npy")
        np.save(partial, stream)
        partial.rename(cached)
    return np.load(cached, mmap_mode="r")


def _encode_documents(shard: Path, tokenizer: PreTrainedTokenizerFast) -> np.ndarray:
    encoded = tokenizer(list(read_texts([shard])), add_special_tokens=False)["input_ids"]
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    return np.concatenate([np.array([bos, *ids, eos], dtype=np.uint16) for ids in encoded])


class Windows:
    """Shuffled windows of T+1 ids (inputs and their next ids); epoch e is permuted by a generator of (seed, e).

    `skip_tokens` of this order were seen by an earlier training, rounded down to whole batches.
    """

    def __init__(self, stream: np.ndarray, window_tokens: int, seed: int, *, skip_tokens: int = 0) -> None:
        self.stream = stream
        self.window_tokens = window_tokens
        self.seed = seed
        self.skip_tokens = skip_tokens
        self.num_windows = (len(stream) - 1) // window_tokens

    def batch(self, step: int, batch_size: int) -> np.ndarray:
        """The int64 windows (B, T+1) of optimizer step `step`: a pure function, so resuming is exact."""
        steps_per_epoch = self.num_windows // batch_size
        skipped_steps = self.skip_tokens // (batch_size * self.window_tokens)
        epoch, position = divmod(step + skipped_steps, steps_per_epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(self.num_windows)
        chosen = order[position * batch_size : (position + 1) * batch_size]
        starts = chosen[:, None] * self.window_tokens
        return self.stream[starts + np.arange(self.window_tokens + 1)].astype(np.int64)
