import re
from pathlib import Path

import pytest

from rankwise.reporting.paper import references
from rankwise.reporting.paper.references import read_references

BIBTEX = (Path(references.__file__).parents[2] / "assets" / "paper" / "references.bib").read_text(encoding="utf-8")
WORKS = read_references(BIBTEX)


def test_every_entry_of_the_file_is_read():
    assert len(WORKS) == BIBTEX.count("\n@") > 25


@pytest.mark.parametrize("key", WORKS)
def test_an_entry_says_who_what_and_when_and_where_it_can_be_found(key):
    fields = WORKS[key].fields
    assert {"author", "title", "year"} <= set(fields)
    assert re.fullmatch(r"(19|20)\d\d", fields["year"])
    assert key.endswith(tuple("abcdefghijklmnopqrstuvwxyz"))
    assert fields["year"] in key
    assert {"journal", "booktitle", "publisher", "howpublished"} & set(fields) or "arXiv:" in fields["note"]
    assert re.fullmatch(r"arXiv:\d{4}\.\d{4,5}", fields.get("note", "arXiv:2106.09685"))


def test_names_and_titles_read_as_plain_text():
    assert WORKS["buyukakyuz2024olora"].authors == ("Kerim Büyükakyüz",)
    assert WORKS["hu2022lora"].label == "Hu et al., 2022"
    assert WORKS["chang2025elalora"].fields["title"].startswith("ElaLoRA: Elastic & Learnable")
    assert WORKS["holm1979procedure"].text.endswith("Scandinavian Journal of Statistics, 6(2), pages 65–70. 1979.")
    assert not any(re.search(r"[{}\\]", work.text) for work in WORKS.values())
