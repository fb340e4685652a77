"""Shapes are looked for in a fast way: it is compared with the plain way of saying the same."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abfed.lab.disclosure.loading import reaches_out
from abfed.lab.disclosure.shapes import found_in

PLAIN = {
    "an e-mail address": r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}"
    r"(?:\.[\w-]{1,63}){0,8}\.[^\W\d_]{2,}",
    "a pseudonym": r"(?<![0-9A-Za-z])(?:[0-9a-f]{32}|[0-9A-F]{32})(?![0-9A-Za-z])"
    r"|(?<![\w+/])[\w+/-]{22}==(?![\w=])|\bb'(?=[^'\\]{0,40}\\x)(?:[^'\\]|\\.){12,200}'",
    "a UUID": r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b",
    "a telephone number": r"(?<![\w+.])(?:\+|00(?!(?<=-00)\d{8}(?!\w)|(?=\d*[a-f])"
    r"(?:[0-9a-f]{8}|[0-9a-f]{10}|[0-9a-f]{14}|[0-9a-f]{62})(?!\w)))[1-9]\d{0,2}[ /-]?"
    r"(?:\(\d{1,4}\)(?:[ /-]?\d){5,12}|(?:[ /-]?\d){7,12})(?![\d.])"
    r"|(?<![\w.,:+#-])0[1-9]\d{1,3}(?:[ /-]\d{3,8}){1,3}(?![\w.,])"
    r"|(?<![\w.,-])(?:\d{3}-|\(\d{3}\) ?)\d{3}-\d{4}(?![\w.,-])",
    "a customer’s number": r"\b(?i:cust(?:omer)?|user)"
    r"(?:[ _-]?(?i:id|no)\b[\"']?[-_:=#.\s]{1,4}[\"']?|[_-]|\s?#)\d{4,}(?!\d*[.,]\d)"
    r"|(?<![A-Za-z0-9.,#+])00(?:\d{4,7}|\d{9,11})(?![\w.,])",
    "an internet address": r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.])",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a signed token": r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*",
    "an access key": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bgh[pousr]_[A-Za-z0-9]{30,}"
    r"|\bxox[abprs]-[\w-]{10,}|\bsk-[\w-]{20,}|\bglpat-[\w-]{20,}",
    "a second factor": r"\botpauth://",
    "a bearer token": r"(?i)\bbearer\s+[\w.~+/-]{16,}",
    "an address with a password": r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"'<>]{1,99}"
    r":[^\s/@\"'<>]{1,99}@",
    "a canary": r"(?i)\bcanary[-_:][\w-]{4,}",
    "an absolute path": r"(?<![\w/.<)\]}-])/(?:[\w.@+-]+/)+[\w.@+-]*|\bfile://"
    r"|(?<![\w~])~/[\w.]|(?<!\w)[A-Za-z]:\\+[\w.]",
}
AROUND = st.sampled_from(["", " ", "x", "/", "+", ".", "-", "=", "<", "0", "'", "~", "é", "\n"])
LOADS = (
    r"<\s*(script|link|iframe|object|embed|base|form|meta|foreignObject|audio|video)\b"
    r"|\bon\w+\s*=\s*[\"']|javascript:|@import|\bsrcset\s*=|(?:src|poster|data)\s*=\s*[\"']?\s*"
    r"(?:https?:)?//|href\s*=\s*[\"']?\s*(?!#|data:|[\"'])[^>\s]*\.(?:js|css)\b|url\(\s*[\"']?(?!#)"
)


@pytest.mark.parametrize("kind", PLAIN)
@settings(max_examples=40)
@given(data=st.data())
def test_each_shape_is_found_where_the_plain_pattern_finds_it_and_only_there(kind, data):
    held = data.draw(st.from_regex(PLAIN[kind]) | st.from_regex(PLAIN[kind], fullmatch=True))
    text = data.draw(AROUND) + held + data.draw(AROUND)
    for one in (text, text[1:], text[:-1], text.swapcase()):
        for name, pattern in PLAIN.items():
            assert (name in set(found_in(one))) == bool(re.search(pattern, one)), name


@given(markup=st.from_regex(re.compile(LOADS, re.IGNORECASE)), around=AROUND)
def test_whatever_loads_or_runs_is_seen_in_letters_of_any_case(markup, around):
    for whole in (around + markup, markup.swapcase(), markup[1:], markup[:-1]):
        if re.search(LOADS, whole, re.IGNORECASE):
            assert reaches_out(whole)


@pytest.mark.parametrize(
    "markup",
    ['<img src="data:image/png;base64,AA==">', '<a href="#x">on the page</a>', "url(#clip)",
     "<p>a script, a form, an object</p>", "<g>", "only = 3"],
)  # fmt: skip
def test_what_loads_nothing_is_let_through(markup):
    assert not reaches_out(markup)


@pytest.mark.parametrize(
    "said",
    ["spring-0012549088", "<code>spring-0097079180</code>", "Run spring-0048894935, of 2026-03-01.",
     f"plan 00933606{'8518e'.ljust(56, 'd')}", "<td>0096272089f92f94</td>", "digest 0055029741b3.",
     "0015551234fa"],
)  # fmt: skip
def test_the_name_of_a_run_and_a_digest_are_nobodys_telephone_number(said):
    assert list(found_in(said)) == []


@pytest.mark.parametrize(
    "said",
    ["0049 170 1234567", "call 0012549088", "tel-00491701234567", "00491701234567abc",
     "-0049 1701 2345", "00491701234567ext"],
)  # fmt: skip
def test_a_telephone_number_that_looks_like_one_is_found(said):
    assert list(found_in(said)) == ["a telephone number"]
