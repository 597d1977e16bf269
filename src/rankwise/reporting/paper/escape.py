"""Text from outside made harmless in LaTeX: it shows as it is written, and can start no command, group or comment.

Every character that LaTeX gives a meaning becomes a command for its glyph. Letters of the Latin scripts are left to
`inputenc` and the T1 encoding, typographic signs have commands, and any other character becomes its code point in
brackets, because a font without it would stop the build.
"""

import unicodedata

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
    "-": r"-{}",  # so that two hyphens of a name do not join to a dash
    "[": "{[}",  # so that a cell that begins with a bracket is no option of \\
    "]": "{]}",
    "*": "{*}",
    "–": "--",
    "—": "---",
    "−": r"\ensuremath{-}",
    "×": r"\ensuremath{\times}",
    "±": r"\ensuremath{\pm}",
    "·": r"\ensuremath{\cdot}",
    "≤": r"\ensuremath{\leq}",
    "≥": r"\ensuremath{\geq}",
    "≈": r"\ensuremath{\approx}",
    "→": r"\ensuremath{\rightarrow}",
    "←": r"\ensuremath{\leftarrow}",
    "∞": r"\ensuremath{\infty}",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "§": r"\S{}",
    "…": r"\ldots{}",
    "°": r"\ensuremath{^\circ}",
    "‘": r"\textquoteleft{}",
    "’": r"\textquoteright{}",
    "“": r"\textquotedblleft{}",
    "”": r"\textquotedblright{}",
    "α": r"\ensuremath{\alpha}",
    "β": r"\ensuremath{\beta}",
    "Δ": r"\ensuremath{\Delta}",
    "λ": r"\ensuremath{\lambda}",
    "μ": r"\ensuremath{\mu}",
    "ρ": r"\ensuremath{\rho}",
    "σ": r"\ensuremath{\sigma}",
    "τ": r"\ensuremath{\tau}",
}
_LATIN = range(0x00C0, 0x0180)
"""Latin-1 letters and Latin Extended-A, the letters of T1."""
_ABSENT_FROM_T1 = frozenset("ĦħĸĿŀŊŦŧŉſĈĉĊċĜĝĠġĤĥĨĩĬĭĴĵŎŏŜŝŨũŬŭŴŵŶŷĀāĒēĔĕĖėĢģĪīĮįĶķĻļŅņŌōŖŗŪūŲų")


LONGEST_WORD = 16
"""Characters after which a word of a narrow column may break anywhere."""
LONGEST_SHOWN_WORD, LONGEST_LINE = 200, 2000
"""Characters after which a word, and what TeX sets on one line first, are cut: it fails on boxes wider than 5.7 m."""


def escape(text: object) -> str:
    """One line of LaTeX that shows `text` as it is; line breaks and other control characters become spaces."""
    return "".join(map(_glyph, _one_line(text)))


def escape_line(text: object) -> str:
    """The same for captions and cells that do not wrap, which TeX measures as a single line."""
    return "".join(map(_glyph, _cut(_one_line(text), LONGEST_LINE)))


def breakable(text: object) -> str:
    """The same for a narrow column: a word may break after a sign that joins its parts, and where it is very long."""
    return " ".join(_breakable_word(word) for word in _one_line(text).split(" "))


def _one_line(text: object) -> str:
    composed = unicodedata.normalize("NFC", str(text))
    words = "".join(char if char.isprintable() else " " for char in composed).split()
    return " ".join(_cut(word, LONGEST_SHOWN_WORD) for word in words)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _breakable_word(word: str) -> str:
    parts, unbroken = [], 0
    for char in word:
        unbroken += 1
        parts.append(_glyph(char))
        if char in "_/.,=-" or unbroken == LONGEST_WORD:
            parts.append(r"\allowbreak{}")
            unbroken = 0
    return "".join(parts)


def _glyph(char: str) -> str:
    if char in _SPECIAL:
        return _SPECIAL[char]
    if char.isascii() or (ord(char) in _LATIN and char not in _ABSENT_FROM_T1):
        return char
    return f"{{[}}U+{ord(char):04X}{{]}}"
