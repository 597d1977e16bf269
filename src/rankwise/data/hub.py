"""Rows of a data set on the Hugging Face hub."""

from collections.abc import Mapping
from typing import Any

from rankwise.data.rows import Row
from rankwise.errors import DataError, first_line

NAMED = {"alpaca": "tatsu-lab/alpaca"}
"""Short names of data sets on the hub."""

ANSWER_TIMEOUT_S = 10
"""How long the hub may take to answer at all; downloads then take what they take."""

_LOCAL = (
    "a .json, .jsonl, .csv, .parquet or .txt file on this machine as data.source, or `skills`, which is generated and "
    "needs no network"
)


def download_rows(source: str, options: Mapping[str, Any]) -> list[Row]:
    """Every row of one split of a hub data set, from the local cache where it is there already.

    Args:
        source: A hub id, or a key of `NAMED`.
        options: `subset`, `split` (default `train`) and `revision`, as `datasets.load_dataset` knows them.

    Raises:
        DataError: the hub does not answer, has no such data set, or `datasets` cannot read it.
    """
    import datasets
    from huggingface_hub import constants

    repository = NAMED.get(source, source)
    if not constants.HF_HUB_OFFLINE:
        _check_reachable(source, repository, options.get("revision"))
    try:
        table = datasets.load_dataset(
            repository,
            options.get("subset"),
            split=options.get("split", "train"),
            revision=options.get("revision"),
        )
    except Exception as error:  # builders raise whatever their readers do
        raise DataError(_refusal(source, repository, error)) from error
    return [Row(f"row {number}", fields) for number, fields in enumerate(table, start=1)]


def _check_reachable(source: str, repository: str, revision: str | None) -> None:
    """Ask the hub once and briefly: `datasets` alone would retry for minutes before it gives up."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of the hub's own HTTP client

    try:
        HfApi().dataset_info(repository, revision=revision, timeout=ANSWER_TIMEOUT_S)
    except (HTTPError, OSError, ValueError) as error:
        raise DataError(_refusal(source, repository, error)) from error


def _refusal(source: str, repository: str, error: Exception) -> str:
    named = f" ({repository})" if source != repository else ""
    return (
        f"data.source: {source!r}{named} is not a file here and could not be downloaded from the hub "
        f"({type(error).__name__}: {first_line(error)}). Check the spelling, the network and, for private or gated "
        f"data, `hf auth login`; with HF_HUB_OFFLINE=1 a copy in the local cache is used. Or give {_LOCAL}."
    )
