"""Runs in the experiment tracker that a team already looks at: MLflow, TensorBoard, Weights & Biases.

The ledger stays the place where everything is kept; a tracker gets a copy, and pushing again adds only what it lacks.
The libraries are the extra `trackers`, imported when a push begins.
"""

from rankwise.tracking.entry import Entry, Outcome, Tracker
from rankwise.tracking.open import Place, TrackerName, open_tracker
from rankwise.tracking.push import Pushed, PushOptions, push

__all__ = ["Entry", "Outcome", "Place", "PushOptions", "Pushed", "Tracker", "TrackerName", "open_tracker", "push"]
