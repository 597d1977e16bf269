"""What a profile's step needs, from shapes alone."""

from dataclasses import dataclass

from rankwise.allocation import RankMap
from rankwise.execution.profile.ranks import uniform_map
from rankwise.execution.profile.values import ProfileSettings
from rankwise.execution.workbench import Workbench
from rankwise.models.sites import find_sites
from rankwise.packing.activations import ActivationSize, choose_micro_tokens
from rankwise.packing.flops import (
    TokenCounts,
    count_recomputed_flops,
    count_scoring_flops,
    count_training_flops,
)
from rankwise.packing.memory import MemoryEstimate, ModelShape, predict_memory
from rankwise.packing.passes import PassSize


@dataclass(frozen=True, kw_only=True)
class RankPrediction:
    """Of one rank."""

    rank_map: RankMap
    memory: MemoryEstimate
    flops: int

    def terms(self) -> dict[str, int]:
        """By the causes that are measured too."""
        found = self.memory
        return {
            "runtime": found.runtime,
            "weights": found.weights,
            "adapters": found.adapters,
            "gradients": found.gradients,
            "optimizer": found.optimizer,
            "activations": found.activations + found.prefixes,
            "logits": found.logits,
            "workspace": found.working + found.slack + found.scoring + found.checkpoint,
        }


@dataclass(frozen=True)
class RankPredictor:
    """Everything that does not depend on the rank is asked once."""

    settings: ProfileSettings
    bench: Workbench

    def predict(self, rank: int) -> RankPrediction:
        """Memory and operations of a step at `rank`; of forward passes alone at 0."""
        settings, base = self.settings, self.bench.shape(self.settings.base)
        sites = find_sites(base.model, settings.targets)
        rank_map = uniform_map(sites, rank)
        is_checkpointed = settings.gradient_checkpointing
        size = self.bench.activations(settings.base, sites, gradient_checkpointing=is_checkpointed)
        memory = self._memory(rank_map, size)
        counts = TokenCounts(
            num_tokens=settings.batch_size * settings.tokens,
            num_answer_tokens=settings.batch_size * (settings.tokens - settings.tokens // 2),
            num_token_pairs=settings.batch_size * settings.tokens**2,
        )
        counted = (count_training_flops if rank else count_scoring_flops, count_recomputed_flops)
        flops = sum(
            count(self.shape, counts, num_block_params=base.num_block_params, num_adapter_params=rank_map.params)
            for count in counted[: 2 if rank and is_checkpointed else 1]
        )
        return RankPrediction(rank_map=rank_map, memory=memory, flops=flops)

    @property
    def shape(self) -> ModelShape:
        return self.bench.model_shape(self.settings.base)

    def _memory(self, rank_map: RankMap, size: ActivationSize) -> MemoryEstimate:
        settings = self.settings
        on_host = self.bench.shape(settings.base).device.type != "cuda"
        micro_tokens = choose_micro_tokens(size, longest_tokens=settings.tokens, on_host=on_host)
        rows = max(1, min(settings.batch_size, micro_tokens // settings.tokens))
        of_pass = PassSize(
            num_rows=rows,
            own_tokens=settings.tokens,
            num_answers=rows * (settings.tokens - max(1, settings.tokens // 2)),
        )
        return predict_memory(
            self.shape,
            [rank_map],
            size,
            self.bench.working(settings.base),
            training=[of_pass] if rank_map.params else [],
            scoring=[] if rank_map.params else [of_pass],
            on_host=on_host,
            writes_checkpoint=False,
        )
