"""How many leading tokens each example shares with many others: the template, found rather than declared."""

from collections import defaultdict
from collections.abc import Sequence

from rankwise.data.examples import TokenizedExample

MIN_PREFIX_TOKENS = 8
"""A shorter prefix saves less than a second pass over the model costs."""
MIN_SHARED_FRAC = 0.2
"""A prefix counts as shared when at least this share of all examples has it."""


def shared_prefix_tokens(examples: Sequence[TokenizedExample]) -> list[int]:
    """Length of each example's shared prefix; 0 where it has none.

    The longest prefix that at least a fifth of the examples (and two) begin with, and that ends before the last
    prompt token, since that token predicts the first one of the answer. A pure function of the examples.
    """
    enough = max(2, MIN_SHARED_FRAC * len(examples))
    lengths = [0] * len(examples)
    groups = [list(range(len(examples)))]
    depth = 0
    while groups:
        deeper: list[list[int]] = []
        for group in groups:
            by_token: dict[int, list[int]] = defaultdict(list)
            for index in group:
                if depth < examples[index].num_prompt_tokens - 1:
                    by_token[int(examples[index].input_ids[depth])].append(index)
            deeper += [members for members in by_token.values() if len(members) >= enough]
        depth += 1
        for index in (index for group in deeper for index in group):
            lengths[index] = depth
        groups = deeper
    return [length if length >= MIN_PREFIX_TOKENS else 0 for length in lengths]
