"""Every number of the embedded model's pretraining, in one frozen place."""

from dataclasses import dataclass

from transformers import LlamaConfig


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Shape of `nano` and how it is trained."""

    vocab_size: int = 8192
    """Entries of the byte-level BPE vocabulary, bytes and special tokens included."""
    hidden_size: int = 256
    mlp_size: int = 768
    num_layers: int = 8
    num_heads: int = 4
    context_tokens: int = 256
    """Tokens of one training window, and the longest input the model accepts."""

    total_tokens: int = 25_000_000
    """Tokens seen over the whole training; about one epoch of the corpus."""
    batch_windows: int = 32
    """Windows per optimizer step."""
    micro_windows: int = 8
    """Windows per forward pass; gradients add up to one step. Changes memory, not the result."""
    matrix_lr: float = 0.015
    """Muon's learning rate, for the weight matrices of the layers."""
    embedding_lr: float = 3e-3
    """AdamW's learning rate, for the tied embedding and the norms."""
    warmup_frac: float = 0.02
    """Share of the steps in which the learning rates grow linearly from zero."""
    decay_frac: float = 0.3
    """Share of the steps, at the end, in which they fall linearly to zero (warm-up, stable, decay)."""
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    seed: int = 0

    @property
    def num_steps(self) -> int:
        return self.total_tokens // (self.batch_windows * self.context_tokens)

    def lr_factor(self, step: int) -> float:
        """What the learning rates are multiplied with at `step`.

        Until the decay begins, the factor does not depend on `total_tokens` beyond the warm-up, so a training can be
        resumed with another length.
        """
        warmup = max(1, round(self.warmup_frac * self.num_steps))
        decay = max(1, round(self.decay_frac * self.num_steps))
        return min(1.0, (step + 1) / warmup, (self.num_steps - step) / decay)

    def to_llama(self, bos: int, eos: int, pad: int) -> LlamaConfig:
        return LlamaConfig(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=self.mlp_size,
            num_hidden_layers=self.num_layers,
            num_attention_heads=self.num_heads,
            num_key_value_heads=self.num_heads,
            max_position_embeddings=self.context_tokens,
            tie_word_embeddings=True,
            bos_token_id=bos,
            eos_token_id=eos,
            pad_token_id=pad,
        )
