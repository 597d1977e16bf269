import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from rankwise.allocation.rank_map import Scaling
from rankwise.evaluation.generation import Answer, generate_answers, is_exact_match
from tests.families import FAMILIES, family, mixed_rank_map, random_pack, random_prompts
from tests.tiny import VOCAB

END = 1
LENGTHS = (3, 9, 1, 5, 5, 12)


@pytest.fixture(scope="module")
def tokenizer():
    """Each token is a word that names it."""
    vocabulary = {"<s>": 0, "</s>": END, "<unk>": 2} | {f"w{index}": index for index in range(3, VOCAB)}
    words = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def texts(*arguments, **options) -> list[str]:
    return [answer.text for answer in generate_answers(*arguments, **options)]


def greedy_reference(model, prompt: np.ndarray, max_new_tokens: int, context: int = 64) -> list[int]:
    """One token at a time over the whole text: no cache, no padding, no batch."""
    ids = torch.from_numpy(prompt)[None]
    found: list[int] = []
    with torch.no_grad():
        while len(found) < max_new_tokens and ids.shape[1] < context:
            token = int(model(input_ids=ids).logits[0, -1].argmax())
            if token == END:
                break
            found.append(token)
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_a_padded_batch_answers_as_each_prompt_alone_without_a_cache(name, tokenizer):
    model, prompts = family(name), random_prompts(LENGTHS)
    answers = texts(model, tokenizer, prompts, max_new_tokens=6, batch_tokens=60)
    expected = [tokenizer.decode(greedy_reference(model, prompt, 6), skip_special_tokens=True) for prompt in prompts]
    assert answers == expected
    assert len(set(answers)) > 1


@pytest.mark.parametrize("name", FAMILIES)
def test_each_row_of_a_pack_is_answered_with_its_own_adapter(name, tokenizer):
    model, prompts = family(name), random_prompts(LENGTHS)
    rank_maps = [mixed_rank_map(model, Scaling()), mixed_rank_map(model, Scaling(rule="rslora"), (2, 1))]
    slots = [0, 1, 1, 0, 1, 0]
    pack = random_pack(model, rank_maps)
    packed = texts(model, tokenizer, prompts, max_new_tokens=6, batch_tokens=1000, pack=pack, slots=slots)
    for slot in (0, 1):
        mine = [index for index, of_row in enumerate(slots) if of_row == slot]
        solo = texts(
            model,
            tokenizer,
            [prompts[i] for i in mine],
            max_new_tokens=6,
            batch_tokens=1,
            pack=pack,
            slots=[slot] * len(mine),
        )
        assert [packed[i] for i in mine] == solo
        with pack.active_rows(torch.tensor([slot])):
            expected = [
                tokenizer.decode(greedy_reference(model, prompts[i], 6), skip_special_tokens=True) for i in mine
            ]
        assert solo == expected
    pack.detach()
    assert packed != texts(model, tokenizer, prompts, max_new_tokens=6, batch_tokens=1000)


def model_that_says(*tokens: int):
    """A GPT-2 whose answer is these tokens whatever the prompt, by position: the prompt has one token."""
    model = family("gpt2")
    with torch.no_grad():
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.zero_()
        for block in model.transformer.h:
            block.attn.c_proj.weight.zero_()
            block.mlp.c_proj.weight.zero_()
        model.transformer.ln_f.weight.fill_(1.0)
        model.transformer.wte.weight.zero_()
        model.transformer.wpe.weight.zero_()
        for position, token in enumerate(tokens):
            model.transformer.wpe.weight[position, position] = 10.0
            model.transformer.wte.weight[token, position] += 1.0
    return model


def test_an_answer_stops_before_the_end_token(tokenizer):
    model = model_that_says(5, 7, END, 9)
    [answer] = generate_answers(model, tokenizer, [np.array([3])], max_new_tokens=4, batch_tokens=100)
    assert answer == Answer("w5 w7", 3)


def test_an_answer_that_does_not_end_is_cut(tokenizer):
    model = model_that_says(5, 7, 8, 9)
    [answer] = generate_answers(model, tokenizer, [np.array([3])], max_new_tokens=3, batch_tokens=100)
    assert answer == Answer("w5 w7 w8", 3)


def test_a_prompt_near_the_end_of_the_context_gets_what_room_there_is(tokenizer):
    model, prompts = family("gpt2"), random_prompts((64, 62, 61, 4))
    answers = texts(model, tokenizer, prompts, max_new_tokens=5, batch_tokens=10_000)
    expected = [tokenizer.decode(greedy_reference(model, prompt, 5), skip_special_tokens=True) for prompt in prompts]
    assert answers == expected
    assert answers[0] == ""


def test_settings_that_the_model_ships_are_not_used_and_are_put_back(tokenizer):
    model, prompts = family("llama"), random_prompts((3, 5))
    plain = texts(model, tokenizer, prompts, max_new_tokens=8, batch_tokens=100)
    shipped = model.generation_config
    shipped.do_sample, shipped.temperature, shipped.repetition_penalty = True, 5.0, 50.0
    assert texts(model, tokenizer, prompts, max_new_tokens=8, batch_tokens=100) == plain
    assert model.generation_config is shipped


def test_batches_are_bounded_and_every_prompt_is_answered_once(tokenizer):
    model, seen = family("llama"), []
    shapes = []
    hook = model.register_forward_pre_hook(
        lambda _module, _args, kwargs: shapes.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    texts(model, tokenizer, random_prompts(LENGTHS), max_new_tokens=2, batch_tokens=24, on_batch=seen.append)
    hook.remove()
    prefills = [shape for shape in shapes if shape[1] > 1] + [(1, 1)]
    assert sum(seen) == len(LENGTHS)
    assert len(seen) > 1
    assert all(rows * (tokens + 2) <= 24 or rows == 1 for rows, tokens in prefills)


def test_no_prompts_give_no_answers(tokenizer):
    assert texts(family("llama"), tokenizer, [], max_new_tokens=2, batch_tokens=24) == []


@pytest.mark.parametrize(
    ("answer", "expected", "match"),
    [(" 12\n", "12", True), ("12", "12 ", True), ("1 2", "12", False), ("A", "a", False), ("", "12", False)],
)
def test_only_white_space_around_an_answer_is_forgiven(answer, expected, match):
    assert is_exact_match(answer, expected) is match
