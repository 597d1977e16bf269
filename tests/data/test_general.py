import pytest

from rankwise.data.general import GENERAL, load_general
from rankwise.errors import DataError
from rankwise.models.tokenizer import load_tokenizer
from rankwise.study.config import BaseSettings


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(BaseSettings(model="nano"))


def test_the_embedded_passages_fit_the_embedded_model(tokenizer):
    found = load_general(GENERAL, tokenizer, max_tokens=256)
    assert len(found.passages) == 34
    assert found.num_over_long == 0
    assert all(passage.num_prompt_tokens == 1 for passage in found.passages)
    assert "lost his tail" not in tokenizer.decode(found.passages[0].input_ids)
    assert len({tuple(passage.input_ids) for passage in found.passages}) == 34


def test_long_passages_are_left_out_and_counted(tokenizer, tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("A first paragraph.\n\nA second one.\n\n" + "Very long. " * 50)
    found = load_general(str(file), tokenizer, max_tokens=64)
    assert (len(found.passages), found.num_over_long) == (2, 1)
    with pytest.raises(DataError, match=r"3 passages, of which 0 have at most 3 tokens; at least 2"):
        load_general(str(file), tokenizer, max_tokens=3)


def test_instructions_are_no_general_text(tokenizer, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"instruction": "a", "output": "b"}\n')
    with pytest.raises(DataError, match="instructions with answers"):
        load_general(str(file), tokenizer, max_tokens=64)
