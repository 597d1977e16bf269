"""The predicted peak memory of packs against the measured one, over models, ranks, slots and lengths.

    python benchmarks/memory_model.py                     all configurations, one process each
    python benchmarks/memory_model.py --only nano-r8-k4   those whose name contains the text

Each configuration is a small study, run as `rankwise study` runs it: the same planner predicts, the same engine
measures, the ledger keeps both, and a checkpoint is written after every step so that its cost counts. Data are
`skills`, or long pieces of the general text that comes with Rankwise. Models other than `nano` have the shape of a
known family, fewer blocks and random weights, which cost the same memory.

Add a configuration by adding a line to CONFIGURATIONS. Prints a table; --json writes every number.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

GPT2 = {"vocab_size": 50257, "n_embd": 1024, "n_head": 16, "n_layer": 4, "n_positions": 1024}
"""microsoft/DialoGPT-medium, of 24 blocks four."""
LLAMA = {
    "vocab_size": 32000,
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 4,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
}
"""TinyLlama's proportions (grouped queries, a third of the width)."""
OPT = {"vocab_size": 50272, "hidden_size": 768, "ffn_dim": 3072, "num_hidden_layers": 6, "num_attention_heads": 12}
"""facebook/opt-125m, of twelve blocks six."""
NEOX = {
    "vocab_size": 50304,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
}
"""EleutherAI/pythia-70m."""
PHI = {
    "vocab_size": 51200,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 3,
    "num_attention_heads": 16,
    "partial_rotary_factor": 0.5,
}
"""microsoft/phi-2's proportions (untied head, biases), two fifths of its width."""
NARROW = {
    "vocab_size": 8192,
    "hidden_size": 64,
    "intermediate_size": 172,
    "num_hidden_layers": 5,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}
"""The 260 thousand weights of karpathy/tinyllamas' stories260K, with the vocabulary of `nano`."""
SHAPES = {
    "dialogpt": ("GPT2", GPT2),
    "llama": ("Llama", LLAMA),
    "opt": ("OPT", OPT),
    "pythia": ("GPTNeoX", NEOX),
    "phi": ("Phi", PHI),
    "narrow": ("Llama", NARROW),
}


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One pack: equal slots on one model."""

    model: str
    rank: int
    slots: int
    targets: str = "all-linear"
    template: str = "alpaca"
    max_tokens: int = 128
    families: str = "[arithmetic_digits, opposite, passage, record, translation]"
    dtype: str = "float32"
    batch: int = 4
    epochs: float = 0.75
    """Of 16 examples. Strategies that move ranks need more steps for their schedules."""
    strategy: str = "uniform"
    init: str = "kaiming"
    quantization: str = "none"
    attention: str = "eager"
    dropout: float = 0.0
    text: str = "skills"
    """`skills`, or `long`: pieces of general text, half of each the prompt, up to `max_tokens` long."""
    evaluate: str = "none"
    """`none`, or `answers`: answers are written and general text is scored at the end."""
    blocks: str = "kept"
    """`kept`, or `checkpointed`: gradient checkpointing."""

    @property
    def name(self) -> str:
        named = f"{self.model}-r{self.rank}-k{self.slots}"
        defaults = Configuration(model="", rank=1, slots=1)
        for field in fields(self)[3:]:
            value = getattr(self, field.name)
            if value != getattr(defaults, field.name) and field.name not in ("families", "epochs"):
                named += f"-{field.name}{value}" if field.name in ("batch", "dropout") else f"-{value}"
        return named


CONFIGURATIONS = (
    Configuration(model="nano", rank=8, slots=1),
    Configuration(model="nano", rank=8, slots=4),
    Configuration(model="nano", rank=8, slots=16),
    Configuration(model="nano", rank=64, slots=8),
    Configuration(model="nano", rank=8, slots=16, template="plain"),
    Configuration(model="nano", rank=8, slots=16, targets="mlp", max_tokens=256),
    Configuration(model="nano", rank=8, slots=8, dtype="bfloat16"),
    Configuration(model="llama", rank=8, slots=4),
    Configuration(model="llama", rank=32, slots=12, template="plain"),
    Configuration(model="dialogpt", rank=8, slots=4),
    Configuration(model="dialogpt", rank=4, slots=8, targets="attention"),
    Configuration(model="opt", rank=8, slots=8),
    Configuration(model="opt", rank=64, slots=2, template="plain"),
    Configuration(model="pythia", rank=16, slots=8),
    Configuration(model="pythia", rank=4, slots=16, targets="attention", template="plain"),
    Configuration(model="nano", rank=256, slots=2),
    Configuration(model="nano", rank=8, slots=4, batch=16, epochs=3),
    Configuration(model="nano", rank=8, slots=4, attention="sdpa"),
    Configuration(model="phi", rank=8, slots=4),
    Configuration(model="phi", rank=16, slots=2, template="plain", dtype="bfloat16"),
    Configuration(model="nano", rank=8, slots=8, strategy="l1", epochs=3),
    Configuration(model="nano", rank=16, slots=8, strategy="adalora", epochs=3),
    Configuration(model="nano", rank=8, slots=4, strategy="elastic", epochs=3),
    Configuration(model="nano", rank=32, slots=8, init="pissa"),
    Configuration(model="llama", rank=16, slots=4, init="pissa"),
    Configuration(model="llama", rank=8, slots=4, quantization="nf4"),
    Configuration(model="llama", rank=8, slots=4, quantization="int8"),
    Configuration(model="phi", rank=8, slots=4, quantization="nf4"),
    Configuration(model="opt", rank=16, slots=4, quantization="nf4", template="plain"),
    Configuration(model="opt", rank=16, slots=4, quantization="int8", dtype="bfloat16"),
    Configuration(model="opt", rank=8, slots=4, quantization="fp4"),
    Configuration(model="phi", rank=16, slots=2, quantization="fp4", dtype="bfloat16"),
    Configuration(model="dialogpt", rank=8, slots=2, quantization="int8"),
    Configuration(model="nano", rank=8, slots=4, dropout=0.1),
    Configuration(model="llama", rank=8, slots=2, dropout=0.1, template="plain"),
    Configuration(model="opt", rank=16, slots=4, init="pissa"),
    Configuration(model="narrow", rank=8, slots=4, text="long", template="plain", max_tokens=512),
    Configuration(model="narrow", rank=8, slots=4, text="long", max_tokens=512),
    Configuration(model="nano", rank=8, slots=4, text="long", template="plain", max_tokens=256),
    Configuration(model="nano", rank=8, slots=8, text="long", max_tokens=256),
    Configuration(model="llama", rank=8, slots=2, text="long", max_tokens=512),
    Configuration(model="llama", rank=8, slots=1, text="long", template="plain", max_tokens=1024, batch=2),
    Configuration(model="llama", rank=8, slots=2, text="long", max_tokens=512, blocks="checkpointed"),
    Configuration(model="dialogpt", rank=8, slots=4, blocks="checkpointed"),
    Configuration(model="nano", rank=8, slots=4, blocks="checkpointed"),
    Configuration(model="nano", rank=8, slots=16, blocks="checkpointed"),
    Configuration(model="opt", rank=8, slots=8, blocks="checkpointed"),
    Configuration(model="phi", rank=8, slots=4, blocks="checkpointed"),
    Configuration(model="llama", rank=8, slots=4, quantization="nf4", blocks="checkpointed"),
    Configuration(model="nano", rank=8, slots=4, evaluate="answers"),
    Configuration(model="llama", rank=8, slots=4, evaluate="answers"),
    Configuration(model="opt", rank=8, slots=8, evaluate="answers", template="plain"),
)

STUDY = """
name: memory
hypothesis: The predicted peak is the measured one.
base: {{model: {folder}, dtype: {dtype}, quantization: {quantization}, attention: {attention}}}
data: {{source: {source}, template: {template}, max_tokens: {max_tokens}, train: 16, validation: 24, test: 24,
       options: {options}}}
targets: {targets}
budget: {{rank: {rank}}}
train: {{epochs: {epochs}, batch_size: {batch}, learning_rates: [1.0e-4], eval_every_frac: 1.0,
        gradient_checkpointing: {checkpointed}}}
evaluate: {{generate: {answers}, forgetting: {answers}}}
arms: [{{name: uniform, strategy: {strategy}, init: {init}, dropout: {dropout}}}]
seeds: {slots}
"""


def main() -> None:
    arguments = parse_arguments()
    chosen = [c for c in CONFIGURATIONS if arguments.only in c.name]
    if arguments.child:
        print(json.dumps(measure(next(c for c in chosen if c.name == arguments.only))))
        return
    found = []
    print(f"{'configuration':<36}{'predicted MiB':>14}{'measured MiB':>14}{'error':>8}{'micro tokens':>14}")
    for configuration in chosen:
        found.append(asdict(configuration) | {"name": configuration.name} | measure_apart(configuration))
        print(row(found[-1]), flush=True)
    errors = [abs(case["error_frac"]) for case in found]
    summary = {"median_error_frac": statistics.median(errors), "largest_error_frac": max(errors)}
    print(f"median error {summary['median_error_frac']:.1%}, largest {summary['largest_error_frac']:.1%}")
    report = {"system": f"{platform.system()} {platform.machine()}", **summary, "configurations": found}
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if arguments.plot:
        draw(report, arguments.plot)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="text that the names of the configurations contain")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--plot", type=Path, help="folder for a scatter plot as PNG, PDF and CSV")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure_apart(configuration: Configuration) -> dict[str, Any]:
    """In a process of its own, so that no earlier peak counts, with the allocator as the command `rankwise` sets it."""
    from rankwise.models.host_memory import without_thread_caches

    command = [sys.executable, __file__, "--child", "--only", configuration.name]
    environment = without_thread_caches(os.environ)
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(finished.stdout.splitlines()[-1])


def measure(configuration: Configuration) -> dict[str, Any]:
    from rankwise.execution.observer import Observer
    from rankwise.execution.packing import estimate_memory, micro_tokens_of
    from rankwise.execution.run_study import run_study
    from rankwise.execution.sizing import size_runs
    from rankwise.execution.study_options import StudyOptions
    from rankwise.execution.workbench import Workbench
    from rankwise.ledger import open_ledger
    from rankwise.profiling.memory import resident_bytes
    from rankwise.study import parse_study
    from rankwise.study.plan import report_runs
    from rankwise.training.engine import EngineOptions

    engine = EngineOptions(checkpoint_every_s=0.0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = parse_study(study_text(configuration, folder), origin="memory.yaml")
        bench = Workbench()
        planned = report_runs(study, {"uniform": 1e-4}, bench.fingerprints(study))
        sized = size_runs(planned, bench, engine)
        terms = estimate_memory(sized).terms()
        before = resident_bytes()
        with open_ledger(str(folder / "memory.db")) as ledger:
            options = StudyOptions(out=folder, engine=engine, memory_bytes=2**40, max_slots=configuration.slots)
            results = run_study(study, ledger, options, observer=Observer())
        run = results.runs[0]
    assert run.pack_slots == configuration.slots
    assert run.predicted_memory_bytes == sum(terms.values())
    return {
        "predicted_bytes": run.predicted_memory_bytes,
        "measured_bytes": run.peak_memory_bytes,
        "error_frac": run.predicted_memory_bytes / run.peak_memory_bytes - 1,
        "micro_tokens": micro_tokens_of(sized),
        "before_loading_bytes": before,
        "terms": dict(terms),
    }


def study_text(configuration: Configuration, work: Path) -> str:
    """The study as YAML; a made model and long texts are written into `work`."""
    is_long = configuration.text == "long"
    return STUDY.format(
        folder=model_folder(configuration.model, work),
        source=write_long_texts(work / "long.json", configuration.max_tokens) if is_long else "skills",
        options="{}" if is_long else f"{{families: {configuration.families}}}",
        checkpointed=str(configuration.blocks == "checkpointed").lower(),
        answers=str(configuration.evaluate == "answers").lower(),
        **asdict(configuration),
    )


def write_long_texts(path: Path, max_tokens: int) -> Path:
    """Pieces of general text of three fifths to all of `max_tokens` of nano's tokens, an Alpaca template left room."""
    from rankwise.data.general import GENERAL, load_general
    from rankwise.models.tokenizer import load_tokenizer
    from rankwise.study.config import BaseSettings

    tokenizer = load_tokenizer(BaseSettings())
    passages = load_general(GENERAL, tokenizer, max_tokens=2**20).passages
    ids = [int(token) for passage in passages for token in passage.input_ids]
    lengths = [max_tokens * share // 100 for share in range(40, 80)]
    rows = []
    for row in range(90):
        length = lengths[row * 7 % len(lengths)]
        start = row * 131 % (len(ids) - length)
        piece = [tokenizer.decode(ids[start + half * length // 2 :][: length // 2]) for half in (0, 1)]
        rows.append({"instruction": piece[0], "output": piece[1]})
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def model_folder(model: str, work: Path) -> str:
    """`nano`, or a folder with random weights in the shape of that name and nano's tokenizer."""
    if model == "nano":
        return model
    import torch
    import transformers

    from rankwise.models.tokenizer import load_tokenizer
    from rankwise.study.config import BaseSettings

    family, shape = SHAPES[model]
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**shape, bos_token_id=0, eos_token_id=1)
    getattr(transformers, f"{family}ForCausalLM" if family != "GPT2" else "GPT2LMHeadModel")(config).save_pretrained(
        work / "model"
    )
    load_tokenizer(BaseSettings()).save_pretrained(work / "model")
    return str(work / "model")


def draw(report: dict[str, Any], folder: Path) -> None:
    """Predicted against measured, one point a configuration, a colour a model; a band of 15 % around equality."""
    import matplotlib

    from rankwise.reporting.style import COLOURS, FAINT, MARKERS, RC, SINGLE_COLUMN_IN, new_figure, save_figure

    cases = report["configurations"]
    models = dict.fromkeys(c["model"] for c in cases)
    colours, markers = (*COLOURS, "black"), MARKERS
    assert len(models) <= len(colours), "every model needs a colour of its own"
    with matplotlib.rc_context(RC):
        figure = new_figure(SINGLE_COLUMN_IN * 1.25, SINGLE_COLUMN_IN)
        axis = figure.subplots()
        ends = [
            min(c["measured_bytes"] for c in cases) / 2**20 * 0.9,
            max(c["measured_bytes"] for c in cases) / 2**20 * 1.1,
        ]
        axis.fill_between(ends, [0.85 * end for end in ends], [1.15 * end for end in ends], color=FAINT, linewidth=0)
        axis.plot(ends, ends, color="black", linewidth=0.6)
        for model, colour, marker in zip(models, colours, markers, strict=False):
            points = [(c["measured_bytes"] / 2**20, c["predicted_bytes"] / 2**20) for c in cases if c["model"] == model]
            axis.plot(*zip(*points, strict=True), linestyle="none", marker=marker, color=colour, label=model)
        axis.set(xscale="log", yscale="log", xlabel="measured peak (MiB)", ylabel="predicted peak (MiB)")
        ticks = [600, 800, 1000, 1500, 2000, 3000]
        for one in (axis.xaxis, axis.yaxis):
            one.set_ticks(ticks, [f"{tick:,}" for tick in ticks])
            one.set_ticks([], minor=True)
        figure.legend(loc="outside right upper")
        caption = "Predicted against measured peak memory of packs; the band is 15 % around equality."
        header = ("configuration", "predicted_bytes", "measured_bytes", "error_frac")
        rows = [[c["name"], *(c[name] for name in header[1:])] for c in cases]
        folder.mkdir(parents=True, exist_ok=True)
        save_figure(figure, folder, "memory_model", caption, header, rows)


def row(case: dict[str, Any]) -> str:
    return (
        f"{case['name']:<36}{case['predicted_bytes'] / 2**20:>14.0f}{case['measured_bytes'] / 2**20:>14.0f}"
        f"{case['error_frac']:>+8.1%}{case['micro_tokens']:>14}"
    )


if __name__ == "__main__":
    main()
