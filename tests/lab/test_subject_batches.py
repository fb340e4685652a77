"""Many people at once, killed acts, two who act at once, and lists: nobody is forgotten (S1b)."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pandas as pd
import pytest
import yaml

from abfed.cli.main import main
from abfed.lab.workspace import Workspace
from abfed.protocol.errors import InputError, IntegrityError
from abfed.silo.lists import COLUMNS, Lists
from abfed.silo.pseudonyms import SEPARATOR, Normalise, Pseudonyms
from abfed.silo.subjects import Subjects
from abfed.site.files import make_private_folder, write_private
from abfed.site.keys import SiteKeys
from tests.killing import killed_at
from tests.lab.test_subject_commands import person_of
from tests.signing import sign_in
from tests.whole.story import small_plan


@pytest.fixture(scope="module")
def brands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("brands") / "ws"
    assert main(["init", "-w", str(folder)]) == 0
    assert main(["data", "synth", "--ingest", "--scale", "0.02", "-w", str(folder)]) == 0
    path = folder / "silos" / "aurora" / "policy.yaml"
    values = yaml.safe_load(path.read_text()) | {"retrain_after_erasure": True}
    write_private(path, yaml.safe_dump(values).encode())
    workspace = Workspace(folder)
    sign_in(workspace)
    workspace.run(small_plan(tmp_path_factory.mktemp("plan") / "plan.yaml"))
    return folder


@pytest.fixture
def copied(brands: Path, tmp_path: Path) -> Workspace:
    return copy_of(brands, tmp_path / "ws")


def copy_of(brands: Path, folder: Path) -> Workspace:
    shutil.copytree(brands, folder, symlinks=True)
    return Workspace(folder)


def events(workspace: Workspace, event: str) -> list[str]:
    entries = workspace.office("aurora").audit.entries()
    return [one["body"]["facts"]["receipt"] for one in entries if one["body"]["event"] == event]


def erase(workspace: Workspace, *who: str) -> list[dict[str, object]]:
    with workspace.silo("aurora") as service:
        return [one.as_dict() for one in Subjects(service).carry_out("erase", who, by="pat@aurora")]


def put_list(workspace: Workspace, *people: tuple[str, ...], name: str = "spring.csv") -> Path:
    folder = workspace.silo_folder("aurora") / "lists"
    make_private_folder(folder)
    columns = [f"id{place}" for place in range(len(people[0]))]
    lines = [[*columns, *COLUMNS], *([*one, "warm", "warm", "0.1", "0.0", "0.1"] for one in people)]
    write_private(folder / name, "".join(",".join(line) + "\n" for line in lines).encode())
    return folder / name


@pytest.mark.privacy
def test_an_erasure_that_was_killed_says_all_that_it_would_have_said(
    brands: Path, tmp_path: Path
) -> None:
    who = person_of(brands, 5)
    whole = erase(copy_of(brands, tmp_path / "whole"), who)[0]
    assert whole["held"]
    assert whole["affected"]
    assert whole["retraining"]
    killed, gone = 0, []
    for number in range(1, 100):
        workspace = copy_of(brands, tmp_path / str(number))
        path = put_list(workspace, (who,), (person_of(brands, 6),))
        if not killed_at(number, lambda w=workspace: erase(w, who)):
            break
        killed += 1
        with workspace.silo("aurora") as service:
            subjects = Subjects(service)
            told = [one.as_dict() for one in subjects.receipts([who])]
            if not told:  # it was interrupted: asked again
                gone.append(len(subjects.export(who, by="pat@aurora")[1]["sends"]) == 0)
                told = [one.as_dict() for one in subjects.carry_out("erase", [who], by="p@aurora")]
            (one,) = told
            assert subjects.retraining()
        same = ("act", "held", "affected", "retraining", "why_they_stand")
        assert {name: one[name] for name in same} == {name: whole[name] for name in same}, number
        assert str(one["receipt"]) in events(workspace, "subject.erased")
        assert who not in path.read_text()
        shutil.rmtree(workspace.path)
    assert killed > 20, "it was not killed often enough"
    assert True in gone
    assert False in gone


@pytest.mark.parametrize("act", ["opt-out", "restrict"])
def test_barring_that_was_killed_is_whole_when_asked_again(
    act: str, brands: Path, tmp_path: Path
) -> None:
    who = person_of(brands, 5)
    for number in range(1, 100, 3):
        workspace = copy_of(brands, tmp_path / str(number))

        def bar(workspace: Workspace = workspace) -> None:
            with workspace.silo("aurora") as service:
                Subjects(service).carry_out(act, [who], by="pat@aurora")  # type: ignore[arg-type]

        killed = killed_at(number, bar)
        with workspace.silo("aurora") as service:
            service.store.verify()
        bar()
        with workspace.silo("aurora") as service:
            states = Subjects(service).export(who, by="pat@aurora")[1]["states"]
        assert states == [{"opt-out": "opted-out", "restrict": "restricted"}[act]]
        shutil.rmtree(workspace.path)
        if not killed:
            return
    pytest.fail("it never ended")


def test_two_who_erase_one_person_at_once_give_one_receipt_and_log_once(
    copied: Workspace, brands: Path
) -> None:
    who = person_of(brands, 8)
    made: list[dict[str, object]] = []
    barrier = threading.Barrier(4)

    def act() -> None:
        workspace = Workspace(copied.path)
        barrier.wait()
        made.extend(erase(workspace, who))

    threads = [threading.Thread(target=act) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    by_receipt = {str(one["receipt"]): one for one in made}
    logged = events(copied, "subject.erased")
    assert sorted(logged) == sorted(by_receipt)
    assert [one["held"] for one in by_receipt.values()].count(True) == 1
    for one in made:  # whoever shares a request says the same of it
        assert one == by_receipt[str(one["receipt"])]


def test_one_person_has_one_receipt_which_says_on_which_lines_they_stand(
    copied: Workspace, brands: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = person_of(brands, 9), person_of(brands, 10)
    full_width = first.replace("@", "\uff20")
    file, into = tmp_path / "people.txt", tmp_path / "receipts.jsonl"
    lines = ["\ufeff" + first, "", second, f"  {first.upper()} \r", f"{full_width}\u200b", first]
    file.write_bytes("\n".join(lines).encode())
    where = ["-w", str(copied.path)]
    erasing = ["silo", "subject", "erase", "aurora", "--file", str(file)]
    assert main([*erasing, "--receipts", str(into), *where]) == 0
    told = [json.loads(line) for line in into.read_text().splitlines()]
    assert [one["lines"] for one in told] == [[1, 4, 5, 6], [3]]
    assert all(one["held"] for one in told)
    capsys.readouterr()
    into.unlink()  # and had again
    assert (
        main(["silo", "subject", "receipts", "aurora", "--file", str(file), "--json", *where]) == 0
    )
    again = json.loads(capsys.readouterr().out)
    assert {one["receipt"] for one in again} == {one["receipt"] for one in told}
    assert all(one["held"] for one in again)
    export = brands / "data" / "aurora"
    rows = pd.read_csv(export / "export.csv", dtype=str)
    column = yaml.safe_load((export / "mapping.yaml").read_text())["recipient"]["columns"][0]
    rows = rows[rows[column].isin([first, second])]
    spelt = [rows.assign(**{column: rows[column].map(change)}) for change in (
        str.upper, lambda one: f" {one} ", lambda one: one.replace("@", "\uff20"),
        lambda one: one.replace("e", "\uff45"), lambda one: f"\u200b{one}\ufeff",
    )]  # fmt: skip
    for number, changed in enumerate(spelt):
        path = tmp_path / f"{number}.csv"
        changed.to_csv(path, index=False)
        main(["silo", "ingest", "aurora", str(path), "-m", str(export / "mapping.yaml"), *where])
    with copied.silo("aurora") as service:
        for one in (first, second):
            assert Subjects(service).export(one, by="pat@aurora")[1]["sends"] == []


def test_a_tombstone_outlives_the_rotation_of_the_key(copied: Workspace, brands: Path) -> None:
    who = person_of(brands, 11)
    erase(copied, who)
    assert main(["keys", "rotate", "--site", "aurora", "-w", str(copied.path)]) == 0
    export = brands / "data" / "aurora"
    arguments = ["silo", "ingest", "aurora", str(export / "export.csv")]
    assert main([*arguments, "-m", str(export / "mapping.yaml"), "-w", str(copied.path)]) == 0
    with copied.silo("aurora") as service:
        subjects = Subjects(service)
        assert subjects.export(who, by="pat@aurora")[1]["sends"] == []
        assert subjects.export(who, by="pat@aurora")[1]["states"] == ["erased"]


def test_people_of_several_columns_can_be_erased(copied: Workspace, tmp_path: Path) -> None:
    """Parts stand apart by a tab in the file; what separates them inside is a control character."""
    file = tmp_path / "people.txt"
    file.write_text("12\tann@example.com\n")
    words = ["silo", "subject", "erase", "aurora", "--file", str(file), "-w", str(copied.path)]
    assert main(words) == 0
    with copied.silo("aurora") as service:
        store = Subjects(service)
        who = f"12{SEPARATOR}ann@example.com"
        assert store.receipts([who])[0].request.act == "erase"
        with pytest.raises(InputError, match="control characters"):
            store.receive("erase", ["12\x1eann@example.com"])


def test_whose_case_counts_is_not_missed_and_nobody_else_is_erased(
    copied: Workspace, tmp_path: Path
) -> None:
    brand = copied.data / "aurora"
    mapping = (brand / "mapping.yaml").read_text()
    trimmed = mapping.replace("{columns: [email]}", "{columns: [email], normalise: trim}")
    (tmp_path / "trim.yaml").write_text(trimmed)
    header, first, *_ = (brand / "export.csv").read_text().splitlines()
    rest = first.partition(",")[2]
    lines = [header, *(f"{one},{rest}" for one in ("AbC@x.org", "abc@x.org", "DeF@x.org"))]
    (tmp_path / "more.csv").write_text("\n".join(lines) + "\n")
    files = [str(tmp_path / "more.csv"), "-m", str(tmp_path / "trim.yaml")]
    assert main(["silo", "ingest", "aurora", *files, "-w", str(copied.path)]) == 0
    with copied.silo("aurora") as service:
        subjects = Subjects(service)
        before = subjects.requests()
        known = person_of(copied.path, 11)
        forms: dict[str, Normalise] = {
            "AbC@x.org": "casefold",
            "DeF@x.org": "casefold",
            known.upper(): "trim",
        }
        for who, form in forms.items():
            with pytest.raises(InputError, match="holds 1 of these people in another form"):
                subjects.carry_out("erase", [who, "x@y.org"], by="pat@aurora", normalise=form)
        assert subjects.requests() == before
        (done,) = subjects.carry_out("erase", ["AbC@x.org"], by="pat@aurora", normalise="trim")
        assert done.request.held
        assert subjects.export("abc@x.org", by="pat@aurora")[1]["sends"], "somebody else was erased"


def test_hostile_files_of_people_are_read_as_people_or_not_at_all(
    copied: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "people.txt"
    words = ["silo", "subject", "erase", "aurora", "--file", str(file), "-w", str(copied.path)]
    before = copied.office("aurora").audit.head
    for data in (b"a@x.org\x00\n", b"a@x.org\n\xff\xfeb\x00", "a@x.org".encode("utf-16"),
                 b"a\x0bb@x.org", b"a\x1cb@x.org", b"a@x.org\rb@x.org", b"\x85".join([b"a", b"b"]),
                 "a\x85b@x.org".encode(), b"\x1b[2J@x.org"):  # fmt: skip
        file.write_bytes(data)
        assert main(words) == 2, data
        assert "Traceback" not in capsys.readouterr().err
    file.write_bytes(b"a@x.org\n\n\xe2\x80\x8b\n")
    assert main(words) == 2
    assert f"{file}, line 3: an identifier holds nothing" in capsys.readouterr().err
    assert copied.office("aurora").audit.head == before
    file.write_bytes(b"=cmd|' /C calc'!A0\n" + b"x" * 10_000_000 + b"@x.org\n" + "é@x.org".encode())
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["lines"] for one in told] == [[1], [2], [3]]
    assert "calc" not in json.dumps(told)


def test_whoever_is_erased_or_barred_goes_from_lists_and_is_shown_them(
    copied: Workspace, tmp_path: Path
) -> None:
    path = put_list(copied, ("Ann@Example.com",), ("'=bob@example.com",), ("carl@example.com",))
    both = put_list(copied, ("12", "ann@example.com"), name="two.csv")
    with copied.silo("aurora") as service:
        subjects = Subjects(service)
        data = subjects.export("ann@example.com", by="pat@aurora")[1]
        assert [one["id0"] for one in data["lists"]] == ["Ann@Example.com"]
        subjects.carry_out("erase", ["ann@example.com"], by="pat@aurora")
        subjects.carry_out("opt-out", ["=bob@example.com"], by="pat@aurora")
        assert [line.split(",")[0] for line in path.read_text().splitlines()[1:]] == [
            "carl@example.com"
        ]
        assert both.exists()
        subjects.carry_out("restrict", [f"12{SEPARATOR}ann@example.com"], by="pat@aurora")
        assert not both.exists()
        write_private(both, b"not,a,list\n")
        with pytest.raises(IntegrityError, match="not a list"):
            subjects.carry_out("erase", ["dora@example.com"], by="pat@aurora")
        assert len([one for one in subjects.requests() if not one.done_at]) == 1
        both.unlink()
        (made,) = subjects.carry_out("erase", ["dora@example.com"], by="pat@aurora")
        assert made.request.done_at


def test_a_list_that_is_made_while_people_are_erased_does_not_stay(copied: Workspace) -> None:
    folder = copied.silo_folder("aurora")
    make_private_folder(folder / "lists")
    lists = Lists(folder, Pseudonyms(SiteKeys.open(folder / "keys")))
    text = ",".join(["id", *COLUMNS]) + "\n"
    with copied.silo("aurora") as service:
        assert lists.keep("one.csv", text, unless=service.changed_meanwhile) is not None
        erase(copied, "nobody@example.com")
        assert lists.keep("two.csv", text, unless=service.changed_meanwhile) is None
    assert [one.name for one in (folder / "lists").iterdir()] == ["one.csv"]
