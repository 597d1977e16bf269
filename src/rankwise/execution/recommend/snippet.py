"""A script that trains the recommended adapter with PEFT alone, for those who go on without this package.

It does what a run here does: the same tokens (prompt and answer apart, the loss on the answer), batches, optimizer,
schedule and clipping. Not the same random numbers, so its losses differ as those of another seed.
"""

from string import Template

from rankwise.models.source import EMBEDDED, locate_base
from rankwise.study.config import FOUR_BIT, Arm, BaseSettings

SCRIPT_NAME = "train_with_peft.py"
TRAIN_NAME = "train.jsonl"

_SCRIPT = Template('''\
"""Train the recommended adapter with PEFT: python $script

Reads adapter_config.json and $train beside this file and writes the folder peft-adapter. $train holds the
$num_examples examples that were raced on; put your whole training set in its place, a prompt and an answer a line.
"""

import json
import math
import random
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer$quantization_import, get_scheduler

HERE = Path(__file__).parent
MODEL = $model
LEARNING_RATE = $learning_rate
EPOCHS = $epochs
BATCH_SIZE = $batch_size
SCHEDULE = $schedule
WARMUP_FRAC = $warmup_frac
WEIGHT_DECAY = $weight_decay
CLIP_NORM = $clip_norm
MAX_TOKENS = $max_tokens  # longer examples are left out, never cut

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
tokenizer = AutoTokenizer.from_pretrained(MODEL$revision)
base = AutoModelForCausalLM.from_pretrained(MODEL$revision, dtype=torch.$dtype$quantization)
${checkpointing}model = get_peft_model(base, LoraConfig.from_pretrained(HERE))
model.to(device)
model.print_trainable_parameters()

start = [tokenizer.bos_token_id] if tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id else []
examples = []
for line in (HERE / "$train").read_text(encoding="utf-8").splitlines():
    row = json.loads(line)
    prompt = tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]
    prompt = prompt if prompt[: len(start)] == start else start + prompt
    answer = [*tokenizer(row["answer"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    if len(prompt) + len(answer) <= MAX_TOKENS:
        examples.append((prompt + answer, [-100] * len(prompt) + answer))

steps_per_epoch = math.ceil(len(examples) / BATCH_SIZE)
num_steps = math.ceil(EPOCHS * steps_per_epoch)
weights = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, betas=$betas, eps=$eps, weight_decay=WEIGHT_DECAY)
scheduler = get_scheduler(SCHEDULE, optimizer, math.ceil(WARMUP_FRAC * num_steps), num_steps)

model.train()
for step in range(num_steps):
    if step % steps_per_epoch == 0:
        order = random.Random(step).sample(range(len(examples)), len(examples))
    first = step % steps_per_epoch * BATCH_SIZE
    batch = [examples[i] for i in order[first : first + BATCH_SIZE]]
    longest = max(len(ids) for ids, _ in batch)
    ids = torch.tensor([ids + [tokenizer.eos_token_id] * (longest - len(ids)) for ids, _ in batch], device=device)
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in batch], device=device)
    labels = torch.tensor([row + [-100] * (longest - len(row)) for _, row in batch], device=device)
    loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(weights, CLIP_NORM)
    optimizer.step()
    scheduler.step()
    optimizer.zero_grad()
    if step % 10 == 0 or step + 1 == num_steps:
        print(f"step {step + 1}/{num_steps}: loss {loss.item():.4f} nats per answer token", flush=True)

model.save_pretrained(HERE / "peft-adapter")
print(f"written: {HERE / 'peft-adapter'}")
''')

_CHECKPOINTING = """\
enable = getattr(base, "activation_checkpointing_enable", None) or base.gradient_checkpointing_enable
enable({"use_reentrant": False})
"""
"""The first name is the one of newer versions of Transformers."""

_QUANTIZATIONS = {
    "none": "",
    "int8": ", quantization_config=BitsAndBytesConfig(load_in_8bit=True)",
    **dict.fromkeys(
        FOUR_BIT,
        ', quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="$form", '
        "bnb_4bit_use_double_quant=$double, bnb_4bit_compute_dtype=torch.$compute)",
    ),
}


def training_script(arm: Arm, resolved: BaseSettings, *, num_examples: int) -> str:
    """The text of the script.

    Args:
        arm: the recommended arm, with its learning rate as the only one.
        resolved: its base, with what was `auto` resolved.
    """
    train, base = arm.train, arm.base
    quantization = Template(_QUANTIZATIONS[base.quantization]).substitute(
        form=base.quantization, double=base.double_quantization, compute=resolved.compute_dtype
    )
    return _SCRIPT.substitute(
        script=SCRIPT_NAME,
        train=TRAIN_NAME,
        num_examples=num_examples,
        model=repr(loadable_name(base)),
        revision="" if base.revision is None else f", revision={base.revision!r}",
        dtype=resolved.dtype,
        quantization_import=", BitsAndBytesConfig" if quantization else "",
        quantization=quantization,
        checkpointing=_CHECKPOINTING if train.gradient_checkpointing else "",
        learning_rate=repr(train.learning_rates[0]),
        epochs=repr(train.epochs),
        batch_size=train.batch_size,
        schedule=repr(_SCHEDULES[train.schedule]),
        warmup_frac=repr(train.warmup_frac),
        weight_decay=repr(train.weight_decay),
        clip_norm=repr(train.clip_norm if train.clip_norm is not None else float("inf")).replace("inf", "math.inf"),
        betas=repr(train.betas),
        eps=repr(train.eps),
        max_tokens=arm.data.max_tokens,
    )


_SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
"""The names that Transformers has for the schedules of a study."""


def loadable_name(base: BaseSettings) -> str:
    """What `from_pretrained` takes: of the embedded model its folder in this installation."""
    return str(locate_base(base, "config")) if base.model == EMBEDDED else base.model
