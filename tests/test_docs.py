"""Documentation that cannot rot: links resolve, commands and options are described, shipped studies load."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from rankwise.cli.main import app
from rankwise.study import load_study

ROOT = Path(__file__).parents[1]
COMMANDS_PAGE = ROOT / "docs" / "commands.md"
FOLDERS = ("docs", "examples", "benchmarks", "studies", "paper", "src")
LINK = re.compile(r"""\]\(\s*<?([^)\s>]+)|<(?:img|a)\s[^>]*(?:src|href)=["']([^"']+)""")
FENCED = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def pages() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])


def relative_links(text: str) -> list[str]:
    targets = (first or second for first, second in LINK.findall(FENCED.sub("", text)))
    return [target.split("#")[0] for target in targets if not re.match(r"[a-z]+:|#|//", target)]


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
    broken = [link for link in relative_links(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()]
    assert not broken


def test_links_are_found_in_every_form():
    text = 'a [b](c.md#d) ![e](<f.png>) <img width="3" src="g.png"> [h](https://i) [j](#k)\n```\n[l](m)\n```\n'
    assert relative_links(text) == ["c.md", "f.png", "g.png"]


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
