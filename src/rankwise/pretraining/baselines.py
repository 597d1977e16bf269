"""What counting alone achieves: unigram and bigram models of the same tokens, to hold the trained model against.

V = vocabulary.
"""

import numpy as np


def unigram_nats(train: np.ndarray, held_out: np.ndarray, vocab_size: int) -> float:
    """Total nats of `held_out` under the token frequencies of `train`, with one added to each count."""
    return float(-np.log(_unigram(train, vocab_size)[held_out]).sum())


def bigram_nats(train: np.ndarray, held_out: np.ndarray, vocab_size: int) -> float:
    """Total nats of `held_out` under bigrams of `train`, interpolated with unigrams (Witten and Bell 1991).

    After a token that was followed by d distinct tokens in n places, the bigram weighs n / (n + d). The first token
    is scored by its frequency.
    """
    frequency_V = _unigram(train, vocab_size)
    pairs, counts = np.unique(_pairs(train, vocab_size), return_counts=True)
    before = pairs // vocab_size
    times_V = np.bincount(before, weights=counts, minlength=vocab_size)
    distinct_V = np.bincount(before, minlength=vocab_size)
    asked = _pairs(held_out, vocab_size)
    place = np.minimum(np.searchsorted(pairs, asked), len(pairs) - 1)
    seen = np.where(pairs[place] == asked, counts[place], 0)
    previous, current = asked // vocab_size, asked % vocab_size
    mass = times_V[previous] + distinct_V[previous]
    backed_off = np.where(mass > 0, distinct_V[previous] / np.maximum(mass, 1), 1.0)
    probability = seen / np.maximum(mass, 1) + backed_off * frequency_V[current]
    return float(-np.log(probability).sum() - np.log(frequency_V[held_out[0]]))


def _unigram(train: np.ndarray, vocab_size: int) -> np.ndarray:
    counts_V = np.bincount(train, minlength=vocab_size) + 1.0
    return counts_V / counts_V.sum()


def _pairs(stream: np.ndarray, vocab_size: int) -> np.ndarray:
    return stream[:-1].astype(np.int64) * vocab_size + stream[1:]
