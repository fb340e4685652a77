"""Passwords: how they are hashed, which are refused, and how a person changes theirs (S11)."""

from __future__ import annotations

from pathlib import Path

import pytest
from argon2 import extract_parameters

from abfed.lab.session import sign_in
from abfed.protocol.errors import InputError, Refused
from abfed.site.factors import RFC_9106, hash_password
from abfed.site.people import People
from abfed.site.selfservice import change_password
from abfed.site.signin import SignIn
from tests.signing import PASSWORD
from tests.site.test_signin import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_hashes_use_rfc_9106_and_old_ones_are_renewed(desk: Desk) -> None:
    assert (RFC_9106.time_cost, RFC_9106.memory_cost, RFC_9106.parallelism) == (3, 65_536, 4)
    real = extract_parameters(hash_password(PASSWORD))
    assert (real.type.name, real.memory_cost, real.time_cost) == ("ID", 65_536, 3)
    assert "$argon2id$v=19$m=65536,t=3,p=4$" in hash_password(PASSWORD)
    people = People(desk.people._file.path.parent.parent, desk.keys, desk.people.audit, desk.clock)
    sign_in(people, "ada", PASSWORD, desk.code(), audience=("hub",))
    assert extract_parameters(people.person("ada").password) == real


@pytest.mark.parametrize("password", ["short", "aaaaaaaaaaaaaaaa", "ada-ada-ada-12345", "x" * 300])
def test_easy_passwords_are_refused_and_not_repeated(desk: Desk, password: str) -> None:
    with pytest.raises(InputError) as caught:
        desk.people.enrol("ada", password, by="test")
    assert password not in str(caught.value)


def test_a_password_is_changed_by_both_factors_and_ends_the_sessions(desk: Desk) -> None:
    signin, new = SignIn(desk.people), "another long passphrase 8"
    session = desk.try_it()
    for old, code, wanted in (
        (PASSWORD, desk.code(), "not signed in"),  # the code was used to sign in
        ("wrong password 1", desk.code(1), "not signed in"),
    ):
        with pytest.raises(Refused, match=wanted):
            change_password(desk.people, "ada", old, code, new)
    for easy in (PASSWORD, "ada-ada-ada-12345"):
        with pytest.raises(InputError):
            change_password(desk.people, "ada", PASSWORD, desk.code(1), easy)
    change_password(desk.people, "ada", PASSWORD, desk.code(1), new)
    assert desk.events()[-1] == "people.password-changed"
    desk.clock.forward(seconds=90)
    with pytest.raises(Refused, match="ended"):
        signin.renew(session.token)
    with pytest.raises(Refused):
        desk.try_it()
    desk.clock.forward(seconds=30)
    assert desk.try_it(password=new).who == "ada@hub"
