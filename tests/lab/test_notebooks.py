"""What a notebook may be given: its own parameters, of their types, and never a secret."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_notebook

from abfed.lab.disclosure.shapes import found_in, secret_name, secret_shape
from abfed.lab.reports.notebooks import (
    Parameter,
    checked_parameters,
    declared_parameters,
    parse_notebook,
    read_texts,
)
from abfed.protocol.errors import InputError

DECLARED = {
    "run_folder": Parameter("str", ""),
    "alpha": Parameter("float", 0.05),
    "rounds": Parameter("int", 3),
    "short": Parameter("bool", False),
    "brand": Parameter("str", ""),
}
SECRETS = [
    "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhIn0.c2ln",
    "ghp_0123456789abcdefghijABCDEFGHIJ012345",
    "AKIAIOSFODNN7EXAMPLE",
    "-----BEGIN PRIVATE KEY-----",
    "$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA",
    "otpauth://totp/abfed?issuer=abfed",
    "Bearer abcdefghijklmnop1234",
    "https://me:hunter2@example.org",
    "0123456789abcdef0123456789abcdef",
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "jane.doe@example.org",
    "jane.doe\uff20example.org",
    "\uff47\uff48\uff50_" + "a1B2" * 9,
    "/home/jane/rows",
]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha", "0.05"), ("alpha", float("nan")), ("alpha", True), ("rounds", 1.0),
        ("rounds", False), ("short", 1), ("run_folder", "x"), ("brand", 3), ("brand", "x" * 300),
        ("brand", "a\x00b"), ("alpha", 10**400), ("rounds", 10**400), ("alpha", [0.1]),
    ],
)  # fmt: skip
def test_values_of_another_type_are_refused(name, value):
    with pytest.raises(InputError, match=name):
        checked_parameters(DECLARED, {name: value}, where="test")


def test_a_refusal_of_a_type_says_it_in_words():
    for name, value, what, why in [
        ("alpha", float("nan"), "a number", "it is too large, infinite, or no number at all"),
        ("alpha", "0.05", "a number", "a text was given"),
        ("rounds", 1.5, "a whole number", "a number was given"),
        ("short", None, "true or false", "something else was given"),
    ]:
        with pytest.raises(InputError) as caught:
            checked_parameters(DECLARED, {name: value}, where="test")
        assert (caught.value.what, caught.value.why) == (f"parameter {name!r} must be {what}", why)
    with pytest.raises(InputError) as caught:
        read_texts([("rounds", "7.5")], DECLARED, where="test")
    assert caught.value.do == "give a whole number"


def test_values_of_the_type_pass():
    values = {"alpha": 1, "rounds": 5, "short": True, "brand": "aurora-spring-0a1b2c3d4e"}
    checked = checked_parameters(DECLARED, values, where="test")
    assert checked == values
    assert type(checked["alpha"]) is float


@pytest.mark.parametrize("value", SECRETS)
def test_a_value_that_looks_like_a_secret_is_refused_and_not_repeated(value):
    with pytest.raises(InputError) as caught:
        checked_parameters(DECLARED, {"brand": value}, where="test")
    assert value not in str(caught.value)
    assert "looks like" in caught.value.why


@pytest.mark.parametrize(
    "name",
    ["password", "db_password", "api_key", "apikey", "token", "client_secret", "totp", "pin",
     "signing_key", "credentials", "Passphrase", "access_token_2", "accessToken", "userPassword"],
)  # fmt: skip
def test_a_name_that_secrets_have_is_refused(name):
    with pytest.raises(InputError, match="what secrets are called") as caught:
        checked_parameters(DECLARED | {name: Parameter("str", "")}, {name: "x"}, where="test")
    assert "'x'" not in str(caught.value)
    cell = new_code_cell(
        f'run_folder: str = ""\n{name}: str = ""', metadata={"tags": ["parameters"]}
    )
    with pytest.raises(InputError, match="what secrets are called"):
        declared_parameters(new_notebook(cells=[cell]), where="test")


@pytest.mark.parametrize("name", ["keyword", "monkey", "tokens_per_mail", "spinner", "alpha"])
def test_words_that_only_sound_like_secrets_pass(name):
    assert not secret_name(name)


@settings(max_examples=25)
@given(st.from_regex(r"[a-z]{2,9}(-[a-z]{2,9}){0,4}(-[0-9a-f]{10})?", fullmatch=True))
def test_names_of_runs_and_brands_are_no_secrets(value):
    assert secret_shape(value) == ""


@pytest.mark.parametrize(
    "line",
    ['x: int = "a"', "x: float = True", "x: str = {[]: 1}", f"x: str = {SECRETS[0]!r}",
     "x: int = " + "-" * 5000 + "1", 'x: int = "2026"  # a period', "x: bool = 0"],
)  # fmt: skip
def test_a_default_is_of_its_type_and_no_secret_either(line):
    source = f'run_folder: str = ""\n{line}'
    cell = new_code_cell(source, metadata={"tags": ["parameters"]})
    with pytest.raises(InputError):
        declared_parameters(new_notebook(cells=[cell]), where="test")


@pytest.mark.parametrize(("kind", "comment"), [("int", "a period"), ("float", "one of brands")])
def test_a_rule_for_texts_behind_a_number_is_a_refusal_not_a_defect(kind, comment):
    declared = DECLARED | {"odd": Parameter(kind, 0, comment)}
    with pytest.raises(InputError, match="odd"):
        checked_parameters(declared, {"odd": 7}, where="test")


def test_texts_are_read_as_the_declared_types():
    pairs = [("alpha", "0.1"), ("rounds", "7"), ("short", "true"), ("brand", "7")]
    assert read_texts(pairs, DECLARED, where="test") == {
        "alpha": 0.1, "rounds": 7, "short": True, "brand": "7",
    }  # fmt: skip


@pytest.mark.parametrize(
    "pairs",
    [[("rounds", "7.5")], [("alpha", "x")], [("short", "perhaps")], [("rounds", "1")] * 2],
)
def test_texts_of_another_type_are_refused(pairs):
    with pytest.raises(InputError, match=pairs[0][0]):
        read_texts(pairs, DECLARED, where="test")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("write to jane@example.org", "an e-mail address"),
        ("b'\\x00\\x9f\\x12abcdefgh\\x01\\x02\\x03'", "a pseudonym"),
        ("AAECAwQFBgcICQoLDA0ODw==", "a pseudonym"),
        ("call +49 170 1234567", "a telephone number"),
        ("from 192.168.0.7", "an internet address"),
        ("in /home/jane/data", "an absolute path"),
        (r"in C:\Users\jane", "an absolute path"),
        ("ABFEDSEAL1", "sealed bytes"),
        ("canary-0001", "a canary"),
    ],
)
def test_shapes_are_found(text, kind):
    assert kind in set(found_in(text))


@pytest.mark.parametrize(
    "text",
    ["1,234 ± 56", "clicked/opened per send", "</td></tr>", "3.11.2", "2026-11-25T08:00:00Z",
     "0a1b2c3d4e5f6a7b", "0" * 64, "image/svg+xml", "a difference of +1.23 (0.10 to 2.40)"],
)  # fmt: skip
def test_what_pages_hold_is_none_of_them(text):
    assert list(found_in(text)) == []


def written(*sources, ids=(), minor=5):
    """A notebook's bytes; its cells have these ids, or none."""
    cells = [{"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": [],
              "source": source} for source in sources]  # fmt: skip
    for cell, one in zip(cells, ids, strict=False):
        cell["id"] = one
    return json.dumps(
        {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": minor}
    ).encode()


@pytest.mark.parametrize(
    ("ids", "got"),
    [
        (("a", "b", "c"), ["a", "b", "c"]),
        (("a", "a", "a"), ["a", "cell-2", "cell-3"]),
        ((), ["cell-1", "cell-2", "cell-3"]),
        (("cell-2", "cell-2", "b"), ["cell-2", "cell-2-0", "b"]),
    ],
)
def test_a_cell_without_an_id_of_its_own_gets_the_same_one_each_time(ids, got):
    """nbformat draws one by lot, and no report of the notebook would be made again."""
    document = parse_notebook(written("1", "2", "3", ids=ids), where="a.ipynb")
    assert [one.id for one in document.cells] == got


def test_so_does_one_from_before_ids():
    document = parse_notebook(written("1", minor=2), where="a.ipynb")
    assert document.cells[0].id == "cell-1"
    assert document.nbformat_minor == 5


def test_half_a_character_and_python_that_none_can_parse_are_refused():
    with pytest.raises(InputError, match="it isn't a notebook"):
        parse_notebook(written("'\ud800'", ids="a"), where="a.ipynb")
    tagged = {"tags": ["parameters"]}
    source = f"x: int = {'-' * 20_000}1"
    with pytest.raises(InputError, match="isn't Python"):
        declared_parameters(new_notebook(cells=[new_code_cell(source, metadata=tagged)]), where="a")
