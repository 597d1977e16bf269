"""How much of an expected answer a written one has, where not every character counts: ROUGE-L and chrF.

Two kept libraries, those that papers compute these scores with: `rouge-score` (Google's port of ROUGE-1.5.5) and
`sacrebleu`. torchmetrics has both, too, but averages chrF over all six orders of n-grams whether or not an answer is
long enough to have them, so that "12" for "12" gets a third of the score.
"""

from collections.abc import Sequence

import numpy as np


def rouge_l(answers: Sequence[str], expected: Sequence[str]) -> np.ndarray:
    """ROUGE-L of each answer, from 0 to 1: F1 of the longest common subsequence of words (Lin, "ROUGE", ACL 2004).

    Words are runs of a-z and 0-9 after lower-casing, as in ROUGE-1.5.5; texts in other scripts have none and get 0.
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    return np.array([scorer.score(e, a)["rougeL"].fmeasure for a, e in zip(answers, expected, strict=True)])


def chrf(answers: Sequence[str], expected: Sequence[str]) -> np.ndarray:
    """chrF of each answer, from 0 to 1: F2 of character n-grams up to 6, white space left out (Popović, W15-3049)."""
    from sacrebleu.metrics.chrf import CHRF

    scorer = CHRF()
    return np.array([scorer.sentence_score(a, [e]).score / 100 for a, e in zip(answers, expected, strict=True)])
