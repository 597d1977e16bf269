import numpy as np
import pytest

from rankwise.evaluation.overlap import chrf, rouge_l

ANSWERS = ["the cat sat on the mat", "12", "", "A completely other thing.", "Paris, France", "12 apples"]
EXPECTED = ["the cat is on the mat", "12", "12", "the cat", "paris france", "12"]


def test_rouge_l_is_f1_of_the_longest_common_subsequence():
    assert rouge_l(["a x b y c"], ["a b c d"])[0] == pytest.approx(2 * (3 / 5) * (3 / 4) / (3 / 5 + 3 / 4))
    np.testing.assert_allclose(rouge_l(["same words"], ["Same, words!"]), [1.0])
    assert rouge_l([""], ["a"])[0] == 0


def test_rouge_l_is_that_of_torchmetrics():
    text = pytest.importorskip("torchmetrics.functional.text")
    found = rouge_l(ANSWERS, EXPECTED)
    for score, answer, expected in zip(found, ANSWERS, EXPECTED, strict=True):
        theirs = text.rouge_score(answer, expected, rouge_keys="rougeL")["rougeL_fmeasure"]
        assert score == pytest.approx(float(theirs), abs=1e-6)


def test_chrf_is_f2_of_character_n_grams():
    # One character of three is wrong: unigrams 2/3, bigrams 1/2, trigrams 0; precision and recall are equal.
    assert chrf(["abd"], ["abc"])[0] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    np.testing.assert_allclose(chrf(["12", "x y"], ["12", "xy"]), [1.0, 1.0])
    assert chrf([""], ["a"])[0] == 0


def test_chrf_of_long_answers_is_that_of_torchmetrics():
    text = pytest.importorskip("torchmetrics.functional.text")
    answers = ["the cat sat on the mat today", "a completely other thing"]
    expected = ["the cat is on the mat today", "a completely different thing"]
    for score, answer, wanted in zip(chrf(answers, expected), answers, expected, strict=True):
        assert score == pytest.approx(float(text.chrf_score([answer], [[wanted]], n_word_order=0)), abs=0.005)
