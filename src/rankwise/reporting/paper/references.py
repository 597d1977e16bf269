"""The works that a paper may cite: BibTeX entries, read as far as Markdown needs them. LaTeX gets the file as it is."""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_ENTRY = re.compile(r"@(\w+)\s*\{\s*([^\s,{}]+)\s*,")
_FIELD = re.compile(r"(\w+)\s*=\s*")
_ACCENT = re.compile(r"\{?\\([\"'`^~])\{?(\w)\}?\}?")
_COMBINING = {'"': "\u0308", "'": "\u0301", "`": "\u0300", "^": "\u0302", "~": "\u0303"}


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One entry, as plain text."""

    key: str
    fields: Mapping[str, str]

    @property
    def authors(self) -> tuple[str, ...]:
        """As `Given Family`."""
        people = (person for person in self.fields.get("author", "").split(" and ") if person)
        return tuple(" ".join(reversed([part.strip() for part in person.split(",", 1)])) for person in people)

    @property
    def label(self) -> str:
        """`Hu et al., 2022`."""
        families = [person.split(",")[0].strip() for person in self.fields.get("author", self.key).split(" and ")]
        names = families[0] if len(families) == 1 else f"{families[0]} et al."
        if len(families) == 2:
            names = " and ".join(families)
        return f"{names}, {self.fields.get('year', 'n. d.')}"

    @property
    def text(self) -> str:
        """A line for a list of references."""
        where = self.fields.get("journal") or self.fields.get("booktitle") or self.fields.get("publisher")
        volume = self.fields.get("volume")
        pages = self.fields.get("pages")
        issue = f"({self.fields['number']})" if "number" in self.fields else ""
        place = ", ".join(filter(None, [where, volume and f"{volume}{issue}", pages and f"pages {pages}"]))
        parts = [", ".join(self.authors), self.fields.get("title"), place, self.fields.get("note")]
        parts += [self.fields.get("howpublished"), self.fields.get("year")]
        return ". ".join(filter(None, parts)) + "."


def read_references(bibtex: str) -> dict[str, Reference]:
    """Key -> entry. What is no entry is skipped."""
    return {key: Reference(key=key, fields=dict(_fields(body))) for key, body in _entries(bibtex)}


def _entries(bibtex: str) -> Iterator[tuple[str, str]]:
    for match in _ENTRY.finditer(bibtex):
        if match[1].lower() not in ("comment", "string", "preamble"):
            yield match[2], bibtex[match.end() : match.end() + _closing(bibtex[match.end() :])]


def _closing(text: str) -> int:
    """Where the brace that was open before `text` closes."""
    depth = 1
    for position, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return position
    return len(text)


def _fields(body: str) -> Iterator[tuple[str, str]]:
    position = 0
    while match := _FIELD.search(body, position):
        start = match.end()
        if body[start : start + 1] == "{":
            length = _closing(body[start + 1 :])
            value, position = body[start + 1 : start + 1 + length], start + length + 2
        elif body[start : start + 1] == '"':
            end = body.find('"', start + 1)
            end = len(body) if end < 0 else end
            value, position = body[start + 1 : end], end + 1
        else:
            end = body.find(",", start)
            end = len(body) if end < 0 else end
            value, position = body[start:end], end
        yield match[1].lower(), _plain(value)


def _plain(value: str) -> str:
    """`B{\\"u}y{\\"u}k` -> `Büyük`, without braces and commands."""
    accented = _ACCENT.sub(lambda match: unicodedata.normalize("NFC", match[2] + _COMBINING[match[1]]), value)
    bare = re.sub(r"\\url\{([^{}]*)\}", r"\1", accented).replace(r"\&", "&").replace("--", "–")
    return " ".join(re.sub(r"[{}]", "", bare).split())
