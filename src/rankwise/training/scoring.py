"""What the slots of a pack are scored on, and when: the base before training, validation on the way, test at the end.

Time is shared out among the slots that a pass scores.
"""

import time
from collections import defaultdict
from collections.abc import Sequence

from rankwise.data.examples import TokenizedExample
from rankwise.evaluation.held_out import answer_examples, answered
from rankwise.evaluation.loss import Scores, score_slots
from rankwise.lora.pack import AdapterPack
from rankwise.models.load import LoadedBase
from rankwise.records import Record, Split
from rankwise.training.allocated_run import AllocatedRun
from rankwise.training.slot import Slot


class PackScoring:
    """Scores of the slots of one pack, in training."""

    def __init__(
        self,
        base: LoadedBase,
        pack: AdapterPack,
        runs: Sequence[AllocatedRun],
        slots: Sequence[Slot],
        *,
        eval_tokens: int,
        share_prefixes: bool,
    ) -> None:
        """`runs` and `slots` are those of `pack`, in its order; `eval_tokens` are the padded tokens of one pass."""
        self._base = base
        self._pack = pack
        self._runs = runs
        self._slots = slots
        self._eval_tokens = eval_tokens
        self._share_prefixes = share_prefixes

    def untrained(self) -> list[Record]:
        """Validation at step 0. Most slots are the bare base model then, which is scored once per data set."""
        started = time.monotonic()
        scored: dict[str, Scores] = {}
        moved: dict[int, Sequence[TokenizedExample]] = {
            k: r.data.validation for k, r in enumerate(self._runs) if r.initial and not r.initial.starts_at_base
        }
        for r in self._runs:
            if r.data.fingerprint not in scored:
                scored[r.data.fingerprint] = self._score(None, {0: r.data.validation})[0]
        own = self._score(self._pack, moved) if moved else {}
        for slot in self._slots:
            slot.wall_s += (time.monotonic() - started) / len(self._slots)
        return self._general_untrained() + [
            own.get(k, scored[r.data.fingerprint]).to_record(r.run.id, "validation", 0)
            for k, r in enumerate(self._runs)
        ]

    def _general_untrained(self) -> list[Record]:
        """General text of the base alone, which is what all runs forget from; scored once."""
        asked = [slot for slot in self._slots if self._measures_forgetting(slot)]
        if not asked:
            return []
        started = time.monotonic()
        scores = self._score(None, {0: self._runs[asked[0].number].general})[0]
        for slot in asked:
            slot.wall_s += (time.monotonic() - started) / len(asked)
        return [scores.to_record(slot.run.id, "general", 0) for slot in asked]

    def _measures_forgetting(self, slot: Slot) -> bool:
        return slot.run.scores_test and bool(self._runs[slot.number].general)

    def after_step(self, due: Sequence[Slot]) -> list[Record]:
        """Validation for all slots that are due; test, and what else was asked for, for those that are done and report
        it."""
        records: list[Record] = []
        reporting = [s for s in due if s.is_done and s.run.scores_test]
        forgetting = [s for s in reporting if self._measures_forgetting(s)]
        splits: tuple[tuple[Split, Sequence[Slot]], ...] = (
            ("validation", due),
            ("test", reporting),
            ("general", forgetting),
        )
        for split, chosen in splits:
            started = time.monotonic()
            scores = self._score(self._pack, {s.number: self._examples(s, split) for s in chosen})
            # Rows of a frozen slot stay in the mix, as in training: leaving them out would change its neighbours' bits.
            records += [scores[s.number].to_record(s.run.id, split, s.step) for s in chosen if s.diverged is None]
            for slot in chosen:
                slot.wall_s += (time.monotonic() - started) / len(chosen)
        return records + self._answer(reporting)

    def _examples(self, slot: Slot, split: Split) -> Sequence[TokenizedExample]:
        run = self._runs[slot.number]
        return run.general if split == "general" else getattr(run.data, split)

    def _answer(self, reporting: Sequence[Slot]) -> list[Record]:
        """Answers to the test examples of all slots that ask for them, those of one data set together."""
        by_data: dict[str, list[Slot]] = defaultdict(list)
        for slot in reporting:
            if slot.run.arm.evaluate.generate and slot.diverged is None and self._has_prompts(slot):
                by_data[self._runs[slot.number].data.fingerprint].append(slot)
        records: list[Record] = []
        for fingerprint, slots in by_data.items():
            started = time.monotonic()
            data = self._runs[slots[0].number].data
            numbers = [slot.number for slot in slots]
            written = answer_examples(self._base, self._pack, numbers, data.test, batch_tokens=self._eval_tokens)
            for slot, answers in zip(slots, written, strict=True):
                records.append(answered(slot.run.id, slot.step, fingerprint, answers, data.examples["test"]))
                slot.wall_s += (time.monotonic() - started) / len(slots)
        return records

    def _has_prompts(self, slot: Slot) -> bool:
        """Plain text has none, so there is nothing to answer."""
        return self._runs[slot.number].data.examples["test"][0].has_prompt

    def _score(self, pack: AdapterPack | None, examples: dict[int, Sequence[TokenizedExample]]) -> dict[int, Scores]:
        return score_slots(
            self._base.model,
            pack,
            examples,
            max_tokens=self._eval_tokens,
            share_prefixes=self._share_prefixes,
        )
