"""Which trackers there are, and what each needs: its library, its place, its options."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from rankwise.errors import TrackerError
from rankwise.tracking.entry import Tracker

TrackerName = Literal["mlflow", "tensorboard", "wandb"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a tracker keeps things. None: its default."""

    uri: str | None = None
    """Of MLflow."""
    out: Path | None = None
    """Folder of TensorBoard, and of Weights & Biases' offline runs."""
    project: str | None = None
    """MLflow's experiment, Weights & Biases' project."""
    offline: bool = False
    """For Weights & Biases."""


def open_tracker(name: TrackerName, place: Place) -> Tracker:
    """Raises TrackerError where its library is not installed, an option is not for it, or it cannot be reached."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:  # a folder of this name in the working directory is no library
        raise TrackerError(f"--to {name} needs {name}, which is not installed: pip install 'rankwise[trackers]'.")
    given = {
        "--uri": place.uri is not None,
        "--out": place.out is not None,
        "--project": place.project is not None,
        "--offline": place.offline,
    }
    foreign = [option for option, is_given in given.items() if is_given and option not in OPTIONS[name]]
    if foreign:
        raise TrackerError(f"--to {name} has no {', '.join(foreign)}; its options are {', '.join(OPTIONS[name])}.")
    return _OPENERS[name](place)


OPTIONS: Mapping[TrackerName, tuple[str, ...]] = MappingProxyType(
    {"mlflow": ("--uri", "--project"), "tensorboard": ("--out",), "wandb": ("--out", "--project", "--offline")}
)


def _open_mlflow(place: Place) -> Tracker:
    from rankwise.tracking.to_mlflow import MlflowTracker

    return MlflowTracker(place.uri, place.project)


def _open_tensorboard(place: Place) -> Tracker:
    from rankwise.tracking.to_tensorboard import TensorBoardTracker

    return TensorBoardTracker(place.out or Path("tracking/tensorboard"))


def _open_wandb(place: Place) -> Tracker:
    from rankwise.tracking.to_wandb import OfflineWandbTracker, WandbTracker

    project = place.project or "rankwise"
    if place.offline or os.environ.get("WANDB_MODE") == "offline":
        return OfflineWandbTracker(place.out or Path("tracking/wandb"), project)
    return WandbTracker(project)


_OPENERS: Mapping[TrackerName, Callable[[Place], Tracker]] = {
    "mlflow": _open_mlflow,
    "tensorboard": _open_tensorboard,
    "wandb": _open_wandb,
}
