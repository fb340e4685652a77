"""Rotation: one secret is wrapped anew, nothing else; killed anywhere, the site still opens."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from abfed.protocol.canonical import canonical_bytes
from abfed.protocol.errors import IntegrityError, WorkspaceError
from abfed.site.audit import AuditLog
from abfed.site.files import write_private
from abfed.site.keys import SiteKeys
from abfed.site.kms import FileKms, Pkcs11Kms
from abfed.site.ring import Old, hold_to, read_ring, write_ring
from abfed.site.rotation import destroy_due, rotate

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def keys(folder: Path) -> SiteKeys:
    return SiteKeys.create(folder, site="aurora")


def _later(**how: float) -> Callable[[], datetime]:
    return lambda: NOW + timedelta(**how)


def _far() -> datetime:
    return NOW + timedelta(days=40_000)


def _keks(folder: Path) -> set[str]:
    return {path.name.removeprefix("kek-") for path in folder.glob("kek-*")}


def _destroy(folder: Path, clock: Callable[[], datetime]) -> tuple[str, ...]:
    marker = SiteKeys.open(folder).ring_marker
    return destroy_due(folder, marker, lambda event, **facts: None, clock)


def test_only_the_ring_and_the_key_change(keys: SiteKeys, folder: Path) -> None:
    wrapped, signing = keys.wrap(b"k", name="x"), (folder / "signing.sealed").read_bytes()
    (before,) = _keks(folder)
    ring = rotate(folder, clock=_later())
    again = SiteKeys.open(folder)
    assert again.unwrap(wrapped, name="x") == b"k"
    assert (again.key_id, again.derive("p")) == (keys.key_id, keys.derive("p"))
    assert (folder / "signing.sealed").read_bytes() == signing
    assert ring.current.kek != before
    assert _keks(folder) == {before, ring.current.kek}


def test_a_silo_keeps_its_rows_byte_for_byte(tmp_path: Path) -> None:
    from abfed.silo.service import SiloService

    policy = "silo: aurora\nbudget: {epsilon: 1.0, delta: 1.0e-06}\n"
    policy += "per_plan: {epsilon: 1.0, delta: 1.0e-06}\n"
    SiloService.create(tmp_path / "silo", policy, site="aurora").close()

    def rows() -> dict[str, tuple[bytes, int]]:
        kept = [path for part in ("store", "releases") for path in (tmp_path / "silo").glob(part)]
        found = [path for one in kept for path in one.rglob("*") if path.is_file()]
        return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}

    before = rows()
    assert before
    rotate(tmp_path / "silo" / "keys")
    assert rows() == before
    SiloService(tmp_path / "silo").close()


def test_the_old_key_goes_on_its_day_and_a_backup_with_it(keys: SiteKeys, folder: Path) -> None:
    backup = (folder / "site.json").read_bytes()
    (old,) = _keks(folder)
    ring = rotate(folder, kept=timedelta(days=7), clock=_later())
    assert _destroy(folder, _later(days=6.9)) == ()
    assert old in _keks(folder)
    log = AuditLog(folder.parent / "audit.jsonl", keys, _later(days=7))
    assert destroy_due(folder, keys.ring_marker, log.append, _later(days=7)) == (old,)
    assert [entry["body"]["facts"] for entry in log.entries()] == [{"kek": old}]
    assert _keks(folder) == {ring.current.kek}
    assert read_ring(folder).old == ()
    SiteKeys.open(folder)
    (folder / "site.json").write_bytes(backup)
    with pytest.raises(Exception, match="missing"):
        SiteKeys.open(folder)


def test_an_old_key_that_cant_be_reached_is_tried_again_tomorrow(
    keys: SiteKeys, folder: Path
) -> None:
    rotate(folder, kept=timedelta(), clock=_later())
    ring = read_ring(folder)
    away = Pkcs11Kms(module="/nowhere/module.so", token="t")
    held = ring.old[0].held.model_copy(update={"kms": away})
    old = (Old(held=held, destroy_on=ring.old[0].destroy_on),)
    write_ring(folder, ring.model_copy(update={"old": old}), keys.ring_marker)
    told: list[str] = []

    def note(event: str, **_: str) -> None:
        told.append(event)

    assert destroy_due(folder, keys.ring_marker, note, _later()) == ()
    assert told[-1] == "keys.not-destroyed"
    assert destroy_due(folder, keys.ring_marker, note, _later(hours=23)) == ()
    assert len(told) == told.index("keys.not-destroyed") + 1
    assert read_ring(folder).old[0].held == held


def test_a_key_service_that_cant_be_reached_stops_no_later_rotation(
    keys: SiteKeys, folder: Path
) -> None:
    """Neither one that was named wrongly, nor one that a killed rotation had begun with."""
    away = Pkcs11Kms(module="/nowhere/module.so", token="t")
    before = read_ring(folder)
    with pytest.raises(WorkspaceError):
        rotate(folder, to=away, secret=lambda _: "1234", clock=_later())
    assert read_ring(folder) == before, "nothing was begun"
    begun = before.current.model_copy(update={"kms": away, "kek": "ab" * 8})
    write_ring(folder, before.model_copy(update={"begun": begun}), keys.ring_marker)
    ring = rotate(folder, secret=lambda _: "1234", clock=_later())
    assert ring.begun is None
    assert [one.held.kek for one in ring.old] == ["ab" * 8, before.current.kek]
    told: list[str] = []
    destroy_due(folder, keys.ring_marker, lambda event, **_: told.append(event), _later())
    assert told[-1] == "keys.not-destroyed"  # and is tried again, as every old key is


def test_a_passphrase_comes_from_a_private_folder(
    keys: SiteKeys, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from abfed.site.files import write_private
    from abfed.site.rotation import renewed

    with pytest.raises(WorkspaceError, match="passphrase or PIN"):
        rotate(folder, to=FileKms(passphrase=True))
    assert SiteKeys.open(folder).derive("x") == keys.derive("x")
    secrets = tmp_path / "secrets"
    secrets.mkdir(mode=0o700)
    monkeypatch.setenv("ABFED_CREDENTIALS", str(secrets))
    write_private(secrets / "aurora.passphrase", b"first words\n")
    ring = rotate(folder, to=FileKms(passphrase=True), new_secret=renewed)
    assert SiteKeys.open(folder).derive("x") == keys.derive("x")
    assert b"first words" not in (folder / f"kek-{ring.current.kek}").read_bytes()
    write_private(secrets / "aurora.passphrase.new", b"second words\n")
    rotate(folder, new_secret=renewed)
    (secrets / "aurora.passphrase.new").rename(secrets / "aurora.passphrase")
    assert SiteKeys.open(folder).derive("x") == keys.derive("x")
    (secrets / "aurora.passphrase").chmod(0o644)
    with pytest.raises(Exception, match="mode"):
        SiteKeys.open(folder)


WRITES = ((os, "open"), (os, "fsync"), (Path, "replace"), (Path, "unlink"), (Path, "open"))


@contextmanager
def _dies_at(number: int, *, after: bool) -> Iterator[None]:
    """In a child: SIGKILL before, or right after, the act on the disk of this number."""
    count = 0

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            now = count
            if now == number and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            made = real(*args, **named)
            if now == number and after:
                os.kill(os.getpid(), signal.SIGKILL)
            return made

        return wrapped

    for owner, name in WRITES:
        setattr(owner, name, dying(getattr(owner, name)))
    yield


def _killed_at(number: int, act: Callable[[], object], *, after: bool) -> bool:
    """Do something in a child that is killed at an act of its; False where it got to its end."""
    child = os.fork()
    if child == 0:
        with _dies_at(number, after=after):
            act()
            os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_write_the_site_opens_and_no_key_is_left(
    keys: SiteKeys, folder: Path, after: bool
) -> None:
    """Each kill is followed by the next rotation, which takes away what the killed one left."""
    number, wrapped = 1, keys.wrap(b"k", name="x")
    while _killed_at(number, lambda: rotate(folder, clock=_later()), after=after):
        again = SiteKeys.open(folder)
        assert again.unwrap(wrapped, name="x") == b"k"
        assert again.key_id == keys.key_id
        number += 1
    assert number > 15
    ring = rotate(folder, kept=timedelta(), clock=_later())
    assert _keks(folder) == {ring.current.kek, *(one.held.kek for one in ring.old)}
    _destroy(folder, _later(days=99))
    assert _keks(folder) == {ring.current.kek}
    SiteKeys.open(folder)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("next_act", ["rotate", "open"])
def test_what_a_kill_leaves_aside_is_overwritten_and_gone(
    keys: SiteKeys, folder: Path, after: bool, next_act: str
) -> None:
    """It may be a key, whole and in the clear. Another name of the file shows what became of it."""
    number, seen, whole, told = 1, 0, 0, []
    while _killed_at(number, lambda: rotate(folder, clock=_later()), after=after):
        number += 1
        left = sorted(folder.glob(".aside-*"))
        if not left:
            continue
        (path,) = left
        content, kept = path.read_bytes(), folder.parent / f"kept-{number}"
        kept.hardlink_to(path)
        if next_act == "rotate":
            rotate(folder, clock=_later())
        else:
            marker = SiteKeys.open(folder).ring_marker
            destroy_due(folder, marker, lambda event, **facts: told.append(event), _later())
        assert not list(folder.glob(".aside-*"))
        assert kept.read_bytes() != content or not content
        seen, whole = seen + 1, whole + (len(content) == 32)
    assert seen > 5
    assert whole >= 1, "none of them was a key, so that this shows nothing"
    assert not told or set(told) == {"keys.aside-destroyed"}
    SiteKeys.open(folder)


@pytest.mark.parametrize("after", [False, True])
def test_killed_amid_destroying_it_is_destroyed_the_next_time(
    keys: SiteKeys, folder: Path, after: bool
) -> None:
    number, done = 1, False
    while not done:
        ring = rotate(folder, kept=timedelta(), clock=_later())
        done = not _killed_at(number, lambda: _destroy(folder, _later(days=1)), after=after)
        SiteKeys.open(folder)
        _destroy(folder, _later(days=1))
        assert _keks(folder) == {ring.current.kek}
        number += 1
    assert number > 6


@pytest.mark.parametrize("when", ["2026-03-01T12:00:01.000000Z", "2099-01-01T00:00:00.000000Z"])
def test_a_date_that_somebody_edited_is_found_before_a_key_is_destroyed(
    keys: SiteKeys, folder: Path, when: str
) -> None:
    """Sooner, and a backup opens no more; later, and one that was stolen opens for ever."""
    ring = rotate(folder, kept=timedelta(days=30), clock=_later())
    path = folder / "site.json"
    whole = path.read_bytes()
    day = ring.old[0].destroy_on.encode()
    assert day in whole
    path.write_bytes(whole.replace(day, when.encode()))
    before = _keks(folder)
    for act in (
        lambda: SiteKeys.open(folder),
        lambda: rotate(folder, clock=_later()),
        lambda: destroy_due(folder, keys.ring_marker, lambda event, **facts: None, _far),
    ):
        with pytest.raises(IntegrityError, match="the key ring was changed"):
            act()
    assert _keks(folder) == before
    path.write_bytes(whole)
    SiteKeys.open(folder)


def test_every_field_of_the_ring_is_under_its_mark(keys: SiteKeys, folder: Path) -> None:
    ring = rotate(folder, kept=timedelta(days=30), clock=_later())
    marker = keys.ring_marker
    other = ring.current.model_copy(update={"kek": "0" * 16})
    root = ring.root[:-1] + ("1" if ring.root[-1] == "0" else "0")
    changes = (
        {"site": "borealis"}, {"current": other}, {"root": root}, {"old": ()},
        {"begun": other}, {"mark": ""}, {"mark": "0" * 64},
    )  # fmt: skip
    for change in changes:
        with pytest.raises(IntegrityError, match="was changed"):
            hold_to(ring.model_copy(update=change), marker, folder)
    assert hold_to(ring, marker, folder) == ring


def test_a_ring_of_an_earlier_abfed_is_told_from_one_whose_mark_was_blanked(
    keys: SiteKeys, folder: Path
) -> None:
    path = folder / "site.json"
    values = json.loads(path.read_bytes())
    for mark, told in ((None, "has no mark"), ("", "was changed")):
        without = {name: value for name, value in values.items() if name != "mark"}
        write_private(path, canonical_bytes(without | ({} if mark is None else {"mark": mark})))
        for act in (lambda: SiteKeys.open(folder), lambda: rotate(folder, clock=_later())):
            with pytest.raises(IntegrityError, match=told):
                act()


def test_a_ring_that_was_changed_never_costs_the_key_in_use(keys: SiteKeys, folder: Path) -> None:
    ring = rotate(folder, kept=timedelta(), clock=_later())
    own = Old(held=ring.current, destroy_on=ring.old[0].destroy_on)
    write_ring(folder, ring.model_copy(update={"old": (own,)}), keys.ring_marker)
    assert _destroy(folder, _later(days=1)) == ()
    assert SiteKeys.open(folder).key_id == keys.key_id
