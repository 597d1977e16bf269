"""A paper from its studies: which section holds what, and what is checked before anything is rendered."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path

from rankwise.errors import ReportError
from rankwise.reporting.paper.appendix_tables import appendix_tables
from rankwise.reporting.paper.blocks import Block, Bullets, Figure, Heading, Paper, Paragraph, Table
from rankwise.reporting.paper.config import PaperConfig
from rankwise.reporting.paper.facts import answers_of, arm_slugs, facts_of
from rankwise.reporting.paper.figures import CAPTIONS, COST, MAIN, figure_of
from rankwise.reporting.paper.overview_tables import (
    digests_table,
    environment_table,
    flaws_table,
    overview_table,
    setup_table,
)
from rankwise.reporting.paper.prose import expectations, parse, used_references, used_values
from rankwise.reporting.paper.sources import Prose, Source, read_prose
from rankwise.reporting.paper.study_tables import effects_table, main_table, runs_table
from rankwise.reporting.paper.warnings_table import warnings_table

TITLES = {
    "introduction": "Introduction",
    "method": "Method",
    "setup": "Experimental setup",
    "discussion": "Discussion",
    "limitations": "Limitations",
    "conclusion": "Conclusion",
    "reproducibility": "Reproducibility",
}


def write_document(
    sources: tuple[Source, ...], config: PaperConfig, references: Iterable[str]
) -> tuple[Paper, list[str]]:
    """The paper, and notes on what its author should look at.

    `references` are the keys that may be cited.

    Raises ReportError where a section file names a value, a reference, a table or a figure that does not exist.
    """
    _check_figures(sources, config)
    values = facts_of(sources)
    sections = _Sections(config, sources, values)
    abstract = tuple(sections.blocks("abstract"))
    body = tuple(_body(sections, sources, config))
    paper = Paper(
        title=config.title or _title(sources),
        authors=config.authors,
        abstract=abstract,
        body=body,
        values=values,
    )
    _check_references(paper, set(references))
    unfinished = [
        f"{source.comparison.study}: {values[f'{source.slug}.missing']}" for source in sources if _lacks(source)
    ]
    return paper, [*unfinished, *sections.notes]


def _title(sources: tuple[Source, ...]) -> str:
    if len(sources) == 1:
        return sources[0].comparison.hypothesis.strip().rstrip(".")
    return "Allocations of a LoRA parameter budget, compared at equal parameters"


def _lacks(source: Source) -> bool:
    return any(arm.missing_seeds for arm in source.comparison.arms)


def template(name: str) -> Prose:
    """A section that the package brings."""
    path = files("rankwise") / "assets" / "paper" / f"{name}.md"
    return Prose(path=Path(str(path)), text=path.read_text(encoding="utf-8"))


class _Sections:
    """Finds section files, checks what they name, and collects notes."""

    def __init__(self, config: PaperConfig, sources: tuple[Source, ...], values: Mapping[str, str]) -> None:
        self._config = config
        self._sources = sources
        self._values = values
        self.notes: list[str] = []

    def blocks(self, name: str) -> tuple[Block, ...]:
        """The blocks of a section; none where it is optional and was not written."""
        if name in self._config.sections:
            return self.from_prose(read_prose(self._config.sections[name]), level=2)
        if name in ("discussion", "conclusion"):
            return ()
        stem = "abstract-single" if name == "abstract" and len(self._sources) == 1 else name
        return self.from_template(stem, self._sources[0])

    def from_template(self, name: str, source: Source) -> tuple[Block, ...]:
        """A section of the package; `study` in it stands for one study."""
        prose = template(name)
        text = prose.text.replace("{{study.", f"{{{{{source.slug}.").replace("main-study", f"main-{source.slug}")
        return self.from_prose(Prose(path=prose.path, text=text), level=2)

    def from_prose(self, prose: Prose, *, level: int) -> tuple[Block, ...]:
        blocks = parse(prose.text, level=level)
        for block in blocks:
            for name in used_values(block):
                self._check_value(name, prose.path)
        changed = []
        for name, wanted in expectations(prose.text):
            self._check_value(name, prose.path)
            if self._values[name] != wanted:
                changed.append(f"{name} was “{wanted}” and is now “{self._values[name]}”")
        if not changed:
            return blocks
        note = f"This section was written for other results: {'; '.join(changed)}."
        self.notes.append(f"{prose.path}: {note} Rewrite it, or change what it expects.")
        return (Paragraph(text=f"**{note}**"), *blocks)

    def _check_value(self, name: str, path: Path) -> None:
        if name in self._values:
            return
        near = difflib.get_close_matches(name, self._values, n=3, cutoff=0.5)
        hint = f" Near it: {', '.join(near)}." if near else ""
        raise ReportError(
            f"{path}: there is no value {{{{{name}}}}}.{hint} Names are STUDY.ARM.WHAT, STUDY.WHAT or paper.WHAT; "
            "docs/paper.md lists them."
        )


def _body(sections: _Sections, sources: tuple[Source, ...], config: PaperConfig) -> Iterator[Block]:
    for name in ("introduction", "method"):
        yield Heading(level=1, text=TITLES[name], label=f"sec:{name}")
        yield from sections.blocks(name)
    yield Heading(level=1, text=TITLES["setup"], label="sec:setup")
    yield from sections.blocks("setup")
    yield overview_table(sources)
    yield from _present(setup_table(sources))
    yield Heading(level=1, text="Results", label="sec:results")
    for source in sources:
        yield from _results(sections, source)
    yield Heading(level=1, text=TITLES["discussion"], label="sec:discussion")
    yield from sections.blocks("discussion")
    for source in sources:
        yield from _discussion(sections, source)
    yield Heading(level=1, text=TITLES["limitations"], label="sec:limitations")
    yield from sections.blocks("limitations")
    yield from _present(warnings_table(sources), flaws_table(sources))
    if conclusion := sections.blocks("conclusion"):
        yield Heading(level=1, text=TITLES["conclusion"], label="sec:conclusion")
        yield from conclusion
    yield Heading(level=1, text=TITLES["reproducibility"], label="sec:reproducibility")
    yield from sections.blocks("reproducibility")
    yield digests_table(sources)
    yield from _present(environment_table(sources))
    if len(sources) == 1 and COST in config.figures:
        yield from _present(figure_of(sources[0], COST))
    yield from _appendix(sources, config)


def _present(*blocks: Block | None) -> Iterator[Block]:
    return (block for block in blocks if block is not None)


def _results(sections: _Sections, source: Source) -> Iterator[Block]:
    yield Heading(level=2, text=source.comparison.study, label=f"sec:{source.slug}")
    if _lacks(source):
        yield Paragraph(text=f"{{{{{source.slug}.missing}}}}")
    yield from sections.from_template("study", source)
    yield main_table(source)
    if answers := answers_of(source.comparison):
        numbers = range(1, len(answers) + 1)
        yield Bullets(items=tuple(f"{{{{{source.slug}.effect.answer-{number}}}}}" for number in numbers))
    yield from _present(*(figure_of(source, name) for name in MAIN), effects_table(source))


def _discussion(sections: _Sections, source: Source) -> Iterator[Block]:
    """What was decided, in generated sentences, then what was written by hand."""
    found = source.comparison
    slugs = arm_slugs(found)
    decided = [arm for arm in found.arms if arm.difference and arm.difference.outcome != "undecided"]
    if not decided and not source.discussion:
        return
    yield Heading(level=2, text=found.study)
    if decided:
        names = (f"{source.slug}.{slugs[arm.name]}" for arm in decided)
        yield Paragraph(text=f"Decided against {{{{{source.slug}.baseline}}}}:")
        yield Bullets(items=tuple(f"{{{{{name}.name}}}}: {{{{{name}.sentence}}}}." for name in names))
    if source.discussion:
        yield from sections.from_prose(source.discussion, level=3)


def _appendix(sources: tuple[Source, ...], config: PaperConfig) -> Iterator[Block]:
    is_first = True
    for source in sources:
        yield Heading(level=1, text=f"All numbers of {source.comparison.study}", is_appendix=is_first)
        is_first = False
        elsewhere = (*MAIN, COST) if len(sources) == 1 else MAIN
        yield from _present(*(figure_of(source, name) for name in config.figures if name not in elsewhere))
        yield from appendix_tables(source)
    yield Heading(level=1, text="Runs")
    yield from map(runs_table, sources)


def _check_figures(sources: tuple[Source, ...], config: PaperConfig) -> None:
    """A figure that one study lacks is left out of its part; one that no report could have is a slip."""
    drawn = {name for source in sources for name in source.figures} | set(CAPTIONS)
    for name in config.figures:
        if name not in drawn:
            raise ReportError(f"figures: no report has a figure “{name}”; there are {', '.join(sorted(drawn))}.")


def _check_references(paper: Paper, known: set[str]) -> None:
    labels = {f"tab:{block.name}" for block in paper.body if isinstance(block, Table)}
    labels |= {f"fig:{block.name}" for block in paper.body if isinstance(block, Figure)}
    labels |= {block.label for block in paper.body if isinstance(block, Heading) and block.label}
    for block in (*paper.abstract, *paper.body):
        for key in used_references(block):
            if key not in known | labels:
                near = difflib.get_close_matches(key, known | labels, n=3, cutoff=0.5)
                hint = f" Near it: {', '.join(near)}." if near else ""
                raise ReportError(f"The paper refers to [@{key}], which is neither a reference nor a label.{hint}")
