"""Small counts in words: what is said around a number decides, whatever the number looks like."""

import re

import pytest

from abfed.lab.disclosure.counted import Counted
from abfed.lab.disclosure.hidden_text import hidden_in_text
from abfed.lab.disclosure.phrases import in_usual_digits
from abfed.protocol.plan import Plan
from tests.lab.example import example_values

COUNTED = Counted.of([Plan.from_values(example_values())])

ALONE = [
    "3 overall", "this leaves 3",
    "only 3", "just 3", "about 3", "3 more", "3 remaining", "fell to 3", "3 (15 %)", "3, 15 %",
    "3 – 15 %", "3±1", "◦ 3", "✅ 3", "🛒 3", "× 3", "3 4", "12 - 9 = 3", "3 ...", "5 (3)",
]  # fmt: skip
PARTS = [
    "3÷20",
    "3\u204420",
    "³\u2044₂₀",
    "3 in every 20",
    "3 from 20",
    "3 vs. 12",
    "12 vs 3",
    "3 of 20",
    "3 / 20",
    "3/20",
    "3 out of 20",
    "3 of the 20",
    "2/3 opened",
    "2 of 3",
]
WORDS = [
    "3 opted out", "3 in both silos opened", "3 sold",
    "3 very happy, loyal buyers", "3 new/returning buyers", "In plain, 3",
    "3 new buyers", "3 happy repeat buyers", "there were only 3 who bought", "only 3 opened it",
    "3x opened", "3 × opened", "3 (three) buyers", "3 (2.5 %) buyers", "(3) buyers", "3buyers",
    "buyers3", "3 of them", "3 or 4 buyers", "3-5 buyers", "3–5 buyers", "between 3 and 5 buyers",
    "3 to 5 buyers", "3 or fewer buyers", "3 women", "3 readers", "3 who stayed", "3 that opened",
    "3 have opened", "only 3 did buy", "3 took it", "opened 3 times", "per week 3 new buyers",
    "top 3 new buyers", "3 people's mails", "3 e-mails", "3 opt-outs", "In total 3 bought",
    "fewer than 3 opened", "#3 buyers", "3 in plain", "R(opened=3, name='x')",
    "ValueError: only 3 buyers", "INFO:root:3 buyers", "0   x       3 non-null    int64",
]  # fmt: skip
BEFORE = [
    "buyers were 3",
    "buyers amounted to 3",
    "number of buyers is now 3",
    "opened by 3",
    "buyer count of 3",
    "plain got 3",
    "plain 3, personal 16",
    "plain 3 personal 4",
    "buyers (3)",
]
NAMED = [
    "opened: 3*", "opened: 3 (of 20)", "opened: 3 times", "opened: 3 out of 20", "opened: 3!",
    "opened = 3 of 20", "opened: 3 – 15 %", "warm: 3 in total", "buyers: 3 new", "buyers=3,",
    "warm=3 cold=4", "n≈3", "n ~ 3", "n ≤ 3", "count -> 3", "buyers ⇒ 3", "warm – 3", "warm — 3",
    "warm - 3", "plain ... 3", "warm (3)", "N = 3 per arm", "n = 3 in plain", "n=3 (plain)",
    "opened: 3e0", "opened......3", "opened `3`", "opened @ 3", "opened/3",
    "3 = opened", "3 -> opened", "3 – buyers", "3-buyers", "gold 3, silver 4", "gold 3 silver 4",
    "<Buyers 3>", "<td>3</td>", "buyers × 3",
    "buyers went from 12 to 3", "buyers no more than 3", "|B|=3", r"$N = \{3\}$", "$n&=3$",
 "warm → 3", "warm · 3",
]  # fmt: skip
SET = [
    "**3** buyers", "`3` buyers", "*3* buyers", "“3” buyers", "$n=3$ buyers", "$3$ buyers",
    r"$\mathbf{3}$ buyers", r"\textbf{3} buyers", "\uff13 buyers", "³ buyers", "③ buyers",
    "٣ buyers",
    "❸ buyers", "3\ufe0f\u20e3 buyers", "3\u0332 buyers", "3\u00a0buyers", "3\u200b buyers",
    "- 3", "* 3", "# 3", "> 3", "• 3", "≈ 3", "~3", "→ 3", "= 3", "3.", "-3", "3.0 buyers",
    "3,0 buyers", "03 buyers", "三 buyers", "3\x00 buyers", "3e0 buyers", "3.000000e+00 buyers",
]  # fmt: skip
SPELLED = [
    "three buyers",
    "three new buyers",
    "only three of them bought",
    "three of 20",
    "only one buyer",
    "Zero people opened",
    "opened: three",
    "buyers are three",
    "warm = three",
    "three",
]
NUMBER = re.compile(r"[345](?!0\b)|three|zero|one", re.IGNORECASE)


@pytest.mark.privacy
@pytest.mark.parametrize("text", [*ALONE, *PARTS, *WORDS, *BEFORE, *NAMED, *SET, *SPELLED])
def test_a_small_count_is_hidden_whatever_is_said_around_it(text):
    shown = hidden_in_text(text, COUNTED)
    assert "< 10" in shown
    aside = re.sub(r"int64|2\.5 %|15 %|\(three\)|stay(ed)?", "", shown)
    assert not NUMBER.search(in_usual_digits(aside))


PARAMETERS = [
    "random_state=3", "max_iter=5", "cv=5", "momentum: 0", "axis=1", "price: 5",
    "batch size: 8", "batch_size=8", "k = 5", "k=5", "K = 5", "folds: 5", "seed: 3", "version: 2",
    "learning_rate=3", "n_estimators: 5", "depth = 3", "epochs: 5, batch size: 8", "ε = 2", "2 sd",
    "Python 3", "version 2", "pandas 2", "figure 2", "Figure 3: opens by arm", "see figure 3",
    "section 4", "part 3", "chapter 3", "line 3", "level 2", "run 2", "fold 2: auc 0.7",
    "step 3 of 9", "step 3/9", "epoch 2/5", "epoch 3, loss 0.25", "epoch 3: loss 2.5",
    "round 3/5", "page 1 of 4", "day 3 of 7", "(step 3)", "done 3 of 9 steps", "Q3", "v3",
    "week 3: 40 opened", "Day 3 saw 40 opens",
]  # fmt: skip
THINGS = [
    "+2.2  (−5.0 to +9.5)", "+2.0  (−13.8 to +17.8)", "+25  (−3 to +52)", "2 × 500",
    "top 5 columns", "3 silos", "2 brands", "4 arms", "3 of 4 silos", "2 out of 3 brands",
    "the 3 largest segments", "sent in 3 waves", "3 hidden layers", "3 lines", "2 models",
    "2 tables and 3 figures", "two brands", "one of two arms", "each recipient", "one week",
    "ran 3 times", "a difference of 2 to 4 points", "95 % interval 2 to 4", "±2 points",
    "3 × faster", "5-fold", "3rd", "1. first", "2) second", "12 buyers", "1,003 buyers",
    "30 of 200", "Alternative two", "two kinds of models", "at least one buyer", "3 of 5 rounds",
    "step three of nine", "epoch 3 vs 4", "table 2, figure 3", "Nov 3, Dec 4", "2 × 2 design",
    "see point 3", "the 2 remaining questions", "0.25 0.5 1.0", "100 of 2,000 opened",
]  # fmt: skip
UNITS = [
    "5 %", "€ 3", "3 €", "$3", "price: € 3", "3.2 s", "took 5 s", "took: 3 s", "elapsed 3 ms",
    "3 GB", "in 3 days", "users waited 3 days", "took 5 s in 3 rounds", "2026-11-03", "3 Nov",
    "3 Nov 2026", "Nov 3", "on 3 November", "3.11.2026", "3/11/2026", "5/5/2026", "03:05",
    "at 03:05:09", "24/7",
]  # fmt: skip


@pytest.mark.parametrize("text", [*PARAMETERS, *THINGS, *UNITS])
def test_words_of_what_is_no_people_stay(text):
    assert hidden_in_text(text, COUNTED) == text


@pytest.mark.privacy
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("buyers: 3 in 2 silos", "buyers: < 10 in 2 silos"),
        ("opened: 3, rounds: 5", "opened: < 10, rounds: 5"),
        ("3 silos, 4 buyers", "3 silos, < 10 buyers"),
        ("step 3: 4 buyers", "step 3: < 10 buyers"),
        ("in 3 days 4 of 20 bought", "in 3 days < 10 of 20 bought"),
        ("Python 3, 5 new buyers", "Python 3, < 10 new buyers"),
        ("batch size: 8, buyers were 4", "batch size: 8, buyers were < 10"),
    ],
)
def test_each_number_is_judged_by_its_own_words(text, shown):
    assert hidden_in_text(text, COUNTED) == shown
