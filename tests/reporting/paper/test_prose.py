from rankwise.reporting.paper.blocks import Bullets, Code, Equation, Heading, Paragraph
from rankwise.reporting.paper.prose import expectations, parse, spans, used_references, used_values


def test_a_line_falls_into_its_pieces():
    found = spans("**bold {{a.b}}** *it* `c_d` $x^2$ [@k1; @k2] [here](https://e.org/x_y) rest")
    assert [span.kind for span in found if span.kind != "plain"] == [
        "strong", "emphasis", "code", "math", "cite", "link",
    ]  # fmt: skip
    assert found[0].spans[1].text == "a.b"
    assert found[8].references == ("k1", "k2")
    assert found[10].url == "https://e.org/x_y"
    assert found[-1].text == " rest"


def test_a_file_falls_into_blocks():
    text = """# Title {#sec:title}
goes on

- one
  more
- two

$$ a = b $$

```
x  y

z
```
## Sub
<!-- a comment -->
"""
    assert parse(text, level=2) == (
        Heading(level=2, text="Title", label="sec:title"),
        Paragraph(text="goes on"),
        Bullets(items=("one more", "two")),
        Equation(text="a = b"),
        Code(text="x  y\n\nz"),
        Heading(level=3, text="Sub"),
    )


def test_what_a_text_uses_and_rests_on_is_known():
    text = "{{ a.b.c }} and **{{d.e}}** [@tab:main-x; @hu2022lora]\n<!-- expects: a.b.c = practically the same -->"
    (paragraph,) = parse(text)
    assert used_values(paragraph) == ("a.b.c", "d.e")
    assert used_references(paragraph) == ("tab:main-x", "hu2022lora")
    assert expectations(text) == (("a.b.c", "practically the same"),)


def test_raw_latex_and_html_are_plain_text():
    (span,) = spans(r"\input{x} <b>y</b> [z](javascript:alert) 5_000 # % &")
    assert span.kind == "plain"
