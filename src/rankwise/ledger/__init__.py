"""The ledger: one database that holds every study, its runs and what they earned."""

from rankwise.ledger.claims import worker_name
from rankwise.ledger.ledger import Ledger, open_ledger
from rankwise.ledger.results import CurvePoint, RunRow, RunStatus, StudyResults

__all__ = ["CurvePoint", "Ledger", "RunRow", "RunStatus", "StudyResults", "open_ledger", "worker_name"]
