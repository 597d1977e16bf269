"""Documentation that cannot rot: links and headings resolve, numbers are recorded ones, commands are described."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import typer

from rankwise.cli.main import app
from rankwise.study import load_study

ROOT = Path(__file__).parents[1]
COMMANDS_PAGE = ROOT / "docs" / "commands.md"
FOLDERS = ("docs", "examples", "benchmarks", "studies", "paper", "src")
LINK = re.compile(r"""\]\(\s*<?([^)\s>]+)|<(?:img|a)\s[^>]*(?:src|href)=["']([^"']+)""")
ADDRESS = re.compile(r"https?://[^\s<>\"'`)\]|,;}…]+")
NAMED_FILE = re.compile(r"(?<![\w/.])(?:docs|examples|studies|benchmarks|tests|paper)/[\w/.-]+\.(?:md|py|yaml|ipynb)\b")
MADE_UP = {"studies/depth.yaml", "studies/NAME.discussion.md"}
"""Files that the documentation names as examples."""
FENCED = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def pages() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])


def texts() -> list[Path]:
    """Pages, and the studies and programs that people read as well."""
    return sorted([*pages(), *(ROOT / "studies").glob("*.yaml"), *(ROOT / "examples").glob("*.*")])


def links(text: str) -> list[str]:
    return [first or second for first, second in LINK.findall(FENCED.sub("", text))]


def is_relative(target: str) -> bool:
    return re.match(r"[a-z]+:|//", target) is None


@cache
def anchors(page: Path) -> frozenset[str]:
    """What `page#...` may name: its headings as GitHub writes them, and its own <a id>."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    slugs = [anchor_of(heading) for heading in headings]
    numbered = [
        slug if slugs[:place].count(slug) == 0 else f"{slug}-{slugs[:place].count(slug)}"
        for place, slug in enumerate(slugs)
    ]
    return frozenset([*numbered, *re.findall(r"""<a (?:id|name)=["']([^"']+)""", text)])


def anchor_of(heading: str) -> str:
    shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "").lower()
    return re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")


def broken_links(page: Path) -> list[str]:
    """Targets of a page's relative links that are no file, or no heading of it."""
    found = []
    for target in filter(is_relative, links(page.read_text(encoding="utf-8"))):
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            found.append(target)
    return found


NUMBER = r"([-−+]?\d+\.\d+)"
INTERVAL = re.compile(rf"{NUMBER}(?:\s+#)?(?:\s+nats)?(?:\s+#)?\s+\[{NUMBER},\s+{NUMBER}\]")
QUOTING = ["README.md", "docs/guide-practitioner.md", "docs/guide-researcher.md", "docs/results/README.md"]
SUPERSEDED = {"0.244 [0.139, 0.348]", "0.292 [0.185, 0.399]", "0.142 [0.097, 0.187]"}
"""What earlier recordings found, quoted in docs/results/README.md beside what today's find."""
OTHER_PAIRS = {"0.11 [0.05, 0.17]"}
"""Of two arms of which neither is the baseline: in `stability`, a constant scale against uniform, both at the low rate."""


def intervals(text: str) -> list[tuple[str, str, str]]:
    """Every estimate with its interval, as written: `0.066 nats [0.010, 0.122]`, `−0.0345 [−0.0577, −0.0112]`."""
    return INTERVAL.findall(text.replace("−", "-"))


@cache
def recorded_intervals() -> frozenset[tuple[float, float, float]]:
    """Of all reports, to four decimals, each also the other way round: what is +0.07 worse is lower by -0.07."""
    found = set()
    for report in (ROOT / "docs" / "results").glob("*/RESULTS.md"):
        for written in intervals(report.read_text(encoding="utf-8")):
            value, low, high = map(float, written)
            found |= {(value, low, high), (-value, -high, -low)}
    return frozenset(found)


def is_recorded(written: tuple[str, str, str]) -> bool:
    tolerances = [0.5 * 10.0 ** -len(number.partition(".")[2]) + 0.5e-4 + 1e-9 for number in written]
    numbers = [float(number) for number in written]
    return any(
        all(abs(a - b) <= tolerance for a, b, tolerance in zip(numbers, candidate, tolerances, strict=True))
        for candidate in recorded_intervals()
    )


def commands(group: typer.core.TyperGroup, path: str = "rankwise") -> Iterator[tuple[str, typer.core.TyperCommand]]:
    """Every command that does something, with the words that call it."""
    for name, command in group.commands.items():
        if isinstance(command, typer.core.TyperGroup):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


COMMANDS = dict(commands(typer.main.get_command(app)))


def shown_commands() -> list[tuple[str, str]]:
    """Every line of a code block that calls `rankwise`, with its page; an example's comment is not part of it."""
    found = []
    for page in pages():
        for block in FENCED.finditer(page.read_text(encoding="utf-8")):
            joined = re.sub(r"\\\n\s*", "", block.group())
            lines = re.findall(r"^(?:\$ )?(rankwise .+?)(?:\s+#.*|\s+\|.*)?$", joined, re.MULTILINE)
            found += [(str(page.relative_to(ROOT)), line) for line in lines]
    return sorted(set(found))


def parse_command(line: str) -> None:
    """Raises what the command line would, for a command, an option or a choice that does not exist. Runs nothing."""
    words, command, path = shlex.split(line)[1:], typer.main.get_command(app), "rankwise"
    while isinstance(command, typer.core.TyperGroup) and words and not words[0].startswith("-"):
        path = f"{path} {words[0]}"
        assert words[0] in command.commands, f"there is no command {path!r}"
        command = command.commands[words.pop(0)]
    context = command.context_class(command, info_name=path)
    values, _, _ = command.make_parser(context).parse_args(list(words))
    for param in command.params:
        value = values.get(param.name)
        if param.param_type_name == "option" and value is not None and not str(value).isupper():  # N, FILE, ...
            param.process_value(context, value)  # its choices and bounds


def section(path: str) -> str:
    """The part of the commands page under the heading of one command."""
    parts = re.split(r"^##+ `(.+?)`\s*$", COMMANDS_PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True)).get(path, "")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_resolves(page):
    assert not broken_links(page)


def test_links_are_found_in_every_form():
    text = 'a [b](c.md#d) ![e](<f.png>) <img width="3" src="g.png"> [h](https://i) [j](#k)\n```\n[l](m)\n```\n'
    assert links(text) == ["c.md#d", "f.png", "g.png", "https://i", "#k"]
    assert [target for target in links(text) if not is_relative(target)] == ["https://i"]


def test_a_link_to_a_heading_that_is_not_there_is_noticed(tmp_path):
    page = tmp_path / "a.md"
    page.write_text(
        "# A `b`: c, d\n## Twice\n## Twice\n<a id='e'></a>\n```\n# f\n```\n"
        + "".join(f"[x](#{anchor})\n" for anchor in ("a-b-c-d", "twice", "twice-1", "e", "f", "twice-2"))
    )
    (tmp_path / "b.md").write_text("[x](a.md#twice) [y](a.md#thrice) [z](c.md)")
    assert broken_links(page) == ["#f", "#twice-2"]
    assert broken_links(tmp_path / "b.md") == ["a.md#thrice", "c.md"]


@pytest.mark.parametrize("file", texts(), ids=lambda file: str(file.relative_to(ROOT)))
def test_every_address_is_well_formed(file):
    """Nothing is asked over the net: an address has a scheme, a host with a domain, and ends where it should."""
    wrong = []
    for address in ADDRESS.findall(file.read_text(encoding="utf-8")):
        parts = urlsplit(address)
        known = re.fullmatch(r"(www\.)?arxiv\.org", parts.netloc)
        is_host = re.fullmatch(r"127\.0\.0\.1(:\d+)?|localhost(:\d+)?|([a-z0-9-]+\.)+[a-z]{2,}", parts.netloc)
        if not is_host or (known and not re.fullmatch(r"/(abs|pdf)/\d{4}\.\d{4,5}(v\d+)?", parts.path)):
            wrong.append(address)
    assert not wrong


@pytest.mark.parametrize("file", texts(), ids=lambda file: str(file.relative_to(ROOT)))
def test_every_file_of_the_repository_that_is_named_exists(file):
    """In comments, commands and prose: `docs/memory.md`, `examples/own_data.py`, `studies/embedded.yaml`, ..."""
    named = set(NAMED_FILE.findall(file.read_text(encoding="utf-8"))) - MADE_UP
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize(
    "name", [*QUOTING, *(f"studies/{file.name}" for file in sorted((ROOT / "studies").glob("*.yaml")))]
)
def test_every_number_with_an_interval_is_in_a_recorded_report(name):
    written = intervals((ROOT / name).read_text(encoding="utf-8"))
    known = [triple for text in SUPERSEDED | OTHER_PAIRS for triple in intervals(text)]
    assert not [triple for triple in written if triple not in known and not is_recorded(triple)]


def test_a_number_that_no_report_has_is_noticed():
    assert is_recorded(("0.066", "0.010", "0.122"))  # embedded: linear decay is worse
    assert is_recorded(("-0.0661", "-0.1219", "-0.0102"))
    assert not is_recorded(("0.067", "0.010", "0.122"))
    assert not is_recorded(("0.066", "0.010", "0.120"))


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_every_page_is_in_the_index(page):
    targets = links((ROOT / "docs" / "README.md").read_text(encoding="utf-8"))
    assert page.name == "README.md" or page.name in targets


@pytest.mark.parametrize("path", COMMANDS)
def test_help_opens_with_a_working_example(path):
    first_line = (COMMANDS[path].help or "").strip().splitlines()[0]
    assert re.match(rf"(Example:|\$)\s*{path}\b", first_line), f"help of {path} opens with {first_line!r}"


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_has_a_line_in_the_overview(path):
    assert COMMANDS[path].short_help, f"{path} has no short_help"


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_and_option_is_documented(path):
    text = section(path)
    assert text, f"docs/commands.md has no section `{path}`"
    options = [name for param in COMMANDS[path].params for name in param.opts if name.startswith("--")]
    missing = [name for name in options if f"`{name}" not in text]
    assert not missing, f"docs/commands.md does not describe {missing} of {path}"


def test_the_commands_page_describes_only_commands_that_exist():
    documented = re.findall(r"^##+ `(rankwise .+?)`\s*$", COMMANDS_PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(documented) == set(COMMANDS)


@pytest.mark.parametrize(("page", "line"), shown_commands())
def test_every_command_line_that_is_shown_exists(page, line):
    parse_command(line)


@pytest.mark.parametrize(
    "line",
    [
        "rankwise studdy x.yaml",
        "rankwise runs lost",
        "rankwise runs list --fromat csv",
        "rankwise runs list --format xls",
    ],
)
def test_a_command_line_that_does_not_exist_is_noticed(line):
    with pytest.raises(Exception, match=r"no command|No such option|is not one of|Invalid"):
        parse_command(line)


@pytest.mark.parametrize("file", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda file: file.name)
def test_every_shipped_study_loads_and_names_its_command(file):
    study = load_study(file)
    assert study.name
    assert file.read_text(encoding="utf-8").startswith("#"), "the head comment gives command, time and finding"


def test_the_installed_package_carries_the_studies():
    shipped = ROOT / "src" / "rankwise" / "assets" / "studies"
    assert shipped.resolve() == (ROOT / "studies").resolve()
    assert (shipped / "embedded.yaml").is_file()
