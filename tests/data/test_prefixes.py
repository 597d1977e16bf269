import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.data.examples import TokenizedExample
from rankwise.data.prefixes import MIN_PREFIX_TOKENS, MIN_SHARED_FRAC, shared_prefix_tokens


def example(ids, num_prompt: int) -> TokenizedExample:
    return TokenizedExample(np.array(ids, dtype=np.int64), num_prompt, 0)


def brute_force(examples: list[TokenizedExample]) -> list[int]:
    """For each example the longest prefix that enough prompts hold before their last token, straight from the rule."""
    enough = max(2, MIN_SHARED_FRAC * len(examples))
    prompts = [tuple(e.input_ids[: e.num_prompt_tokens - 1].tolist()) for e in examples]
    found = []
    for prompt in prompts:
        lengths = [
            n
            for n in range(len(prompt) + 1)
            if sum(other[:n] == prompt[:n] and len(other) >= n for other in prompts) >= enough
        ]
        longest = max(lengths, default=0)
        found.append(longest if longest >= MIN_PREFIX_TOKENS else 0)
    return found


# Few tokens and long prompts, so that prefixes of all lengths around the limit are shared by some and not by others.
tokens = st.integers(0, 1)
prompt_ids = st.tuples(
    st.sampled_from([(), (1,) * 7, (1,) * 8, (1,) * 9, (0,) * 12]), st.lists(tokens, max_size=8)
).map(lambda parts: [*parts[0], *parts[1], 3])


@settings(deadline=None)
@given(st.lists(st.tuples(prompt_ids, st.lists(tokens, min_size=1, max_size=3)), max_size=14))
def test_lengths_are_those_of_a_brute_force(drawn):
    examples = [example([*prompt, *answer], len(prompt)) for prompt, answer in drawn]
    assert shared_prefix_tokens(examples) == brute_force(examples)


def test_two_templates_are_found_each_in_its_own_length():
    first, second = list(range(10, 20)), list(range(30, 42))
    examples = [
        example([*(first if i % 2 else second), 50 + i, 90], len(first if i % 2 else second) + 1) for i in range(6)
    ]
    assert shared_prefix_tokens(examples) == [12, 10] * 3


def test_the_last_prompt_token_is_never_shared():
    """It predicts the first answer token, so it belongs to the row."""
    prompt = list(range(12))
    assert shared_prefix_tokens([example([*prompt, answer], 12) for answer in (50, 51, 52)]) == [11, 11, 11]


def test_a_short_or_rare_prefix_is_not_shared():
    short = [example([*range(MIN_PREFIX_TOKENS - 1), 20 + i, 50], MIN_PREFIX_TOKENS) for i in range(4)]
    assert shared_prefix_tokens(short) == [0, 0, 0, 0]
    template = list(range(10))
    rare = [example([*template, 50, 51], 11)] * 2 + [example([60 + i] * 12, 11) for i in range(20)]
    assert shared_prefix_tokens(rare) == [0] * 22


def test_one_example_or_none_shares_nothing():
    assert shared_prefix_tokens([]) == []
    assert shared_prefix_tokens([example(range(20), 15)]) == [0]
