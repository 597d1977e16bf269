"""Paper files: which studies enter a paper, under which title, and with which hand-written sections.

    title: Where does a LoRA parameter budget pay off?
    authors: [A. Author, B. Author]
    studies:
      - results/embedded
      - {results: results/adaptive, discussion: studies/adaptive.discussion.md}
    sections: {abstract: abstract.md, discussion: discussion.md}

Paths are relative to the paper file.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from rankwise.errors import ReportError, StudyError
from rankwise.study.document import read_document

MAX_BYTES = 1 << 20

Section = Literal[
    "abstract", "introduction", "method", "setup", "discussion", "limitations", "conclusion", "reproducibility"
]


class PaperStudy(BaseModel):
    """One study of the paper."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    results: Path
    """Folder of the report."""
    discussion: Path | None = None
    """Section file about this study; None: `discussion.md` in `results`, or NAME.discussion.md by its study file."""


class PaperConfig(BaseModel):
    """What a paper file says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str | None = Field(default=None, min_length=1, max_length=300)
    """None: the hypothesis of a single study, or a sentence about all."""
    authors: tuple[str, ...] = ()
    studies: tuple[PaperStudy, ...] = Field(min_length=1)
    sections: dict[Section, Path] = {}
    """Section files that take the place of the generated ones; `discussion` and `conclusion` are added."""
    figures: tuple[str, ...] = (
        "loss_against_params", "rank_maps", "ranks_over_time", "signals", "learning_curves", "tuning", "stability",
        "predictions",
    )  # fmt: skip
    """Figures of each study in the appendix, by the name of their file; the main text has `differences`. Those of a
    single study's `predictions` stand with what reproduces it."""
    references: Path | None = None
    """A BibTeX file whose entries are added to the project's own."""

    @field_validator("studies", mode="before")
    @classmethod
    def _folders(cls, value: object) -> object:
        return (
            [{"results": item} if isinstance(item, str) else item for item in value]
            if isinstance(value, list)
            else value
        )

    def below(self, folder: Path) -> "PaperConfig":
        """The same with every path taken from `folder`."""
        studies = tuple(
            PaperStudy(results=folder / one.results, discussion=one.discussion and folder / one.discussion)
            for one in self.studies
        )
        sections = {name: folder / path for name, path in self.sections.items()}
        return self.model_copy(
            update={
                "studies": studies,
                "sections": sections,
                "references": self.references and folder / self.references,
            }
        )


def load_paper(path: Path) -> PaperConfig:
    """Read a paper file; its paths come back relative to the working directory.

    Raises ReportError where it cannot be read, and for all settings in it that cannot be used.
    """
    try:
        content = path.read_bytes()[: MAX_BYTES + 1]
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ReportError(f"{path}: byte {error.start} is not UTF-8; a paper file is UTF-8 text.") from None
    except OSError as error:
        raise ReportError(
            f"{path} cannot be read ({error.strerror or error}). Check the path of the paper file."
        ) from None
    if len(content) > MAX_BYTES:
        raise ReportError(f"{path} is larger than {MAX_BYTES:,} bytes, the limit of a paper file.")
    try:
        document = read_document(text, origin=str(path))
    except StudyError as error:
        raise ReportError(str(error)) from None
    if not isinstance(document.value, dict):
        raise ReportError(f"{path} is no mapping; a paper file has the keys {', '.join(PaperConfig.model_fields)}.")
    try:
        return PaperConfig.model_validate(document.value).below(path.parent)
    except ValidationError as error:
        lines = [
            f"{path}:{document.line(problem['loc'])}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}."
            for problem in error.errors(include_url=False)
        ]
        allowed = f"Keys of a paper file: {', '.join(PaperConfig.model_fields)}."
        raise ReportError("\n".join([*lines, allowed])) from None
