"""What each planned run will need, from shapes alone, and what this machine has."""

from collections.abc import Sequence
from dataclasses import replace

import psutil
import torch

from rankwise.allocation.strategies.base import check_steps
from rankwise.execution.packing import SizedRun
from rankwise.execution.workbench import Workbench
from rankwise.models.context import context_tokens
from rankwise.models.prefix_cache import can_share_prefixes
from rankwise.models.sites import find_blocks, find_sites
from rankwise.packing.activations import ActivationSize, choose_micro_tokens
from rankwise.study.plan import PlannedRun
from rankwise.training.allocate import plan_rank_map
from rankwise.training.engine import EngineOptions

RESERVE_FRAC = 0.1
"""Share of the free memory that is left alone."""


def size_runs(planned: Sequence[PlannedRun], bench: Workbench, engine: EngineOptions) -> list[SizedRun]:
    """Planned runs with their rank maps, shapes and data. No weights are read.

    Raises:
        ModelError, AllocationError, DataError: an arm cannot be realised on its base model and data, or its runs are
            too short for its strategy.
    """
    by_arm: dict[str, SizedRun] = {}  # sizes do not depend on learning rate and seed, and solving a budget takes time
    for plan in planned:
        if plan.run.arm.name not in by_arm:
            by_arm[plan.run.arm.name] = _size(plan, bench, engine)
    return [replace(by_arm[plan.run.arm.name], planned=plan) for plan in planned]


def available_bytes() -> int:
    """Memory that one pack may fill: of the CUDA device where there is one, else of the host."""
    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        # What this process holds already is no other's: the base, which predictions count, and freed blocks.
        free += torch.cuda.memory_reserved()
    else:
        free = psutil.virtual_memory().available
    return int(free * (1 - RESERVE_FRAC))


def _size(plan: PlannedRun, bench: Workbench, engine: EngineOptions) -> SizedRun:
    run, arm = plan.run, plan.run.arm
    base = bench.shape(arm.base)
    if arm.build_strategy().required_signals():
        stand_in = arm.model_copy(update={"strategy": "uniform", "strategy_settings": {}})
        run = run.model_copy(update={"arm": stand_in})
    data, on_host = bench.data(arm), base.device.type != "cuda"
    sites = find_sites(base.model, arm.targets)

    def pass_size(gradient_checkpointing: bool) -> tuple[ActivationSize, int]:
        kept = bench.activations(arm.base, sites, gradient_checkpointing=gradient_checkpointing)
        chosen = choose_micro_tokens(kept, longest_tokens=data.longest_tokens, on_host=on_host)
        return kept, engine.micro_tokens or chosen

    activations, micro_tokens = pass_size(arm.train.gradient_checkpointing)
    sized = SizedRun(
        planned=plan,
        rank_map=plan_rank_map(run, sites, base.num_params, {}),
        shape=bench.model_shape(arm.base),
        data=data,
        general=bench.general(arm),
        context=context_tokens(base.model),
        activations=activations,
        working=bench.working(arm.base),
        checkpointed=pass_size(True) if find_blocks(base.model) else None,
        micro_tokens=micro_tokens,
        eval_tokens=engine.eval_tokens,
        on_host=on_host,
        packed_shape=bench.model_shape(arm.base, "nf4"),
        shares_prefixes=can_share_prefixes(base.model),
    )
    mover = arm.build_strategy().mover()
    if mover is not None:
        check_steps(mover, f"arm {arm.name} ({arm.strategy})", sized.num_steps)
    return sized
