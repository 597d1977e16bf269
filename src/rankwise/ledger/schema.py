"""The tables of the current schema version.

A change here needs a new entry in `migrations.MIGRATIONS`, and a database file of the version before it in the tests.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

METADATA = MetaData()


def _run_id() -> Column[str]:
    return Column("run_id", String(64), ForeignKey("runs.id"), primary_key=True)


SCHEMA_MIGRATIONS = Table(
    "schema_migrations",
    METADATA,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("name", String(80), nullable=False),
    Column("applied_at", Double, nullable=False),
)

STUDIES = Table(
    "studies",
    METADATA,
    Column("name", String(80), primary_key=True),
    Column("hypothesis", Text, nullable=False),
    Column("study", JSON, nullable=False),
    Column("chosen_learning_rates", JSON, nullable=False),
    Column("data_summary", JSON, nullable=False),
    # Of studies with quantized arms, once it was measured; see `StudyResults.quantization_errors`.
    Column("quantization_errors", JSON),
    # Of each base that benchmarks were run on alone: see `StudyResults.base_benchmarks`.
    Column("base_benchmarks", JSON),
    Column("registered_at", Double, nullable=False),
)

RUNS = Table(
    "runs",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("spec", JSON, nullable=False),
    Column("strategy", String(80), nullable=False),
    Column("learning_rate", Double, nullable=False),
    Column("seed", BigInteger, nullable=False),
    # Who works on it. A finished run keeps its worker, so that the same records may be written twice.
    Column("status", String(16), nullable=False, index=True),
    Column("worker", String(200)),
    Column("claimed_at", Double),
    Column("heartbeat_at", Double),
    Column("error", Text),
    # The audited allocation.
    Column("budget_params", BigInteger),
    Column("params", BigInteger),
    Column("residual_params", BigInteger),
    Column("probe_wall_s", Double),
    Column("probe_peak_memory_bytes", BigInteger),
    Column("signal", Text),
    # The adapter as it was stored.
    Column("stored_params", BigInteger),
    Column("held_params", BigInteger),
    # The end of the run.
    Column("diverged_step", Integer),
    Column("diverged_cause", Text),
    Column("steps", Integer),
    Column("wall_s", Double),
    Column("peak_memory_bytes", BigInteger),
    Column("predicted_memory_bytes", BigInteger),
    Column("predicted_wall_s", Double),
    Column("micro_tokens", Integer),
    Column("pack_id", String(16)),
    Column("pack_slots", Integer),
    Column("tokens", BigInteger),
    Column("padding_tokens", BigInteger),
    Column("finished_at", Double),
    CheckConstraint("status IN ('pending', 'running', 'finished', 'diverged', 'failed')", name="known_status"),
)

STUDY_RUNS = Table(
    "study_runs",
    METADATA,
    Column("study", String(80), ForeignKey("studies.name"), primary_key=True),
    Column("arm", String(80), primary_key=True),
    Column("purpose", String(16), primary_key=True),
    Column("run_id", String(64), ForeignKey("runs.id"), primary_key=True, index=True),
    CheckConstraint("purpose IN ('tuning', 'report')", name="known_purpose"),
)

ENVIRONMENTS = Table(
    "environments",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("study", String(80), ForeignKey("studies.name"), nullable=False, index=True),
    Column("recorded_at", Double, nullable=False),
    Column("environment", JSON, nullable=False),
)

ALLOCATIONS = Table(
    "allocations",
    METADATA,
    _run_id(),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("site", Text, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("layer", Integer, nullable=False),
    Column("in_features", Integer, nullable=False),
    Column("out_features", Integer, nullable=False),
    Column("planned_rank", Integer, nullable=False),
    Column("realised_rank", Integer, nullable=False),
    Column("scale", Double, nullable=False),
    Column("params", BigInteger, nullable=False),
    Column("lr_factor_down", Double, nullable=False, server_default="1.0"),
    Column("lr_factor_up", Double, nullable=False, server_default="1.0"),
    # What the strategy went by at the site; `runs.signal` says what that is.
    Column("signal", Double),
)

# What each site's adapter was at the end of training, in the order of `allocations`.
OUTCOMES = Table(
    "outcomes",
    METADATA,
    _run_id(),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("site", Text, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("scale", Double, nullable=False),
    Column("params", BigInteger, nullable=False),
    Column("num_unmoved", Integer, nullable=False),
    Column("num_revisions", Integer, nullable=False),
)

# What a dynamic strategy did: active components of each site after `step`, in the order of `allocations`.
REVISIONS = Table(
    "revisions",
    METADATA,
    _run_id(),
    Column("step", Integer, primary_key=True, autoincrement=False),
    Column("ranks", JSON, nullable=False),
    sqlite_with_rowid=False,
)

# SQLite stores NaN as NULL; in the loss and norm columns below NULL therefore means "not a number", never "missing".
MEASUREMENTS = Table(
    "measurements",
    METADATA,
    _run_id(),
    Column("step", Integer, primary_key=True, autoincrement=False),
    Column("num_steps", Integer, nullable=False),
    Column("loss_nats", Double),
    Column("grad_norm", Double),
    Column("learning_rate", Double, nullable=False),
    Column("num_tokens", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# A step is one row a group of sites (`attention.early`, …).
TRACES = Table(
    "traces",
    METADATA,
    _run_id(),
    Column("step", Integer, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("site_group", String(40), nullable=False),
    Column("grad_norm", Double),
    Column("update_norm", Double),
    Column("weight_norm", Double),
    sqlite_with_rowid=False,
)

EVALUATIONS = Table(
    "evaluations",
    METADATA,
    _run_id(),
    Column("split", String(16), primary_key=True),
    Column("step", Integer, primary_key=True, autoincrement=False),
    Column("loss_nats", Double),
    Column("token_accuracy", Double),
    Column("num_examples", BigInteger, nullable=False),
    Column("num_answer_tokens", BigInteger, nullable=False),
    Column("calibration_error", Double),
)

# What runs were asked, once for all runs of the same data.
QUESTIONS = Table(
    "questions",
    METADATA,
    Column("data_fingerprint", String(64), primary_key=True),
    Column("split", String(16), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("question", Text, nullable=False),
    Column("expected", Text, nullable=False),
    sqlite_with_rowid=False,
)

# What each run answered, in the order of its questions.
ANSWERS = Table(
    "answers",
    METADATA,
    _run_id(),
    Column("split", String(16), primary_key=True),
    Column("step", Integer, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("data_fingerprint", String(64), nullable=False),
    Column("written", Text, nullable=False),
    Column("num_tokens", Integer, nullable=False),
    Column("exact_match", Integer, nullable=False),
    Column("rouge_l", Double, nullable=False),
    Column("chrf", Double, nullable=False),
    sqlite_with_rowid=False,
)

# What lm-evaluation-harness said of each run's adapter.
BENCHMARKS = Table(
    "benchmarks",
    METADATA,
    _run_id(),
    Column("benchmark", String(120), primary_key=True),
    Column("task", String(120), primary_key=True),
    Column("metric", String(80), primary_key=True),
    Column("filter", String(80), primary_key=True),
    Column("value", Double),
    Column("stderr", Double),
    Column("num_examples", BigInteger, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("harness", String(32), nullable=False),
)

EXAMPLE_LOSSES = Table(
    "example_losses",
    METADATA,
    Column("run_id", String(64), primary_key=True),
    Column("split", String(16), primary_key=True),
    Column("step", Integer, primary_key=True, autoincrement=False),
    Column("name", String(32), primary_key=True),
    # One array a row: little-endian bytes in C order, numpy's name of the number format, and the shape.
    Column("dtype", String(8), nullable=False),
    Column("shape", JSON, nullable=False),
    Column("data", LargeBinary, nullable=False),
    ForeignKeyConstraint(
        ["run_id", "split", "step"], ["evaluations.run_id", "evaluations.split", "evaluations.step"], ondelete="CASCADE"
    ),
)
