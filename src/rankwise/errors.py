"""Every error a person can meet. Each is also the stdlib error that people already catch.

A message is one paragraph: the place, the value, what is allowed, what to do next. Errors cross process borders, so
each must survive pickling: they take one message and nothing else.
"""


class RankwiseError(Exception):
    """The parent of all errors raised for what a person, a file or a strategy supplied."""

    exit_code = 2
    """What the command line returns: 2 is bad input, 1 a run that failed."""


class StudyError(RankwiseError, ValueError):
    """A study file, or a setting in it, cannot be used."""


class DataError(RankwiseError, ValueError):
    """A data set is missing, unreadable, empty or without answers."""


class ModelError(RankwiseError, ValueError):
    """A base model cannot be found or loaded, or its layers cannot be told apart."""


class AllocationError(RankwiseError, ValueError):
    """A budget cannot be spent on the sites it was given, or a strategy broke its contract."""


class PackError(RankwiseError, ValueError):
    """A run does not fit the memory or the device it was meant for."""


class AdapterError(RankwiseError, ValueError):
    """An adapter folder is not one, belongs to another base, or holds what is refused."""


class EvaluationError(RankwiseError, ValueError):
    """A benchmark cannot be run, or results of an evaluation cannot be written."""


class LedgerError(RankwiseError, RuntimeError):
    """The ledger cannot be opened, read or written."""


class ReportError(RankwiseError, ValueError):
    """A report cannot be made from what is there."""


class TrackerError(RankwiseError, RuntimeError):
    """An experiment tracker is not installed, cannot be reached, or refuses what it is given."""


class AuditError(RankwiseError, RuntimeError):
    """What was trained is not what was planned; the run is failed, never reported."""

    exit_code = 1


class RunFailedError(RankwiseError, RuntimeError):
    """At least one run of a study did not finish."""

    exit_code = 1


def first_line(error: Exception) -> str:
    """What an error of another library says, for the middle of a message of ours."""
    return (str(error).strip().splitlines() or ["no details"])[0]
