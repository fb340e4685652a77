"""Provisioning that is killed and asked again: all is there, and nothing half written is left.

Each command is killed by SIGKILL before some of its acts on the disk (`tests.killing`), spread over
all of them, in a copy of both sides.
"""

import os
import shutil
import time
from pathlib import Path

import pytest

from abfed.coordinator.house import House
from abfed.coordinator.node import Node
from abfed.lab.provisioning import (
    fingerprint_of,
    found_federation,
    join,
    provisioner,
    renew,
)
from abfed.lab.workspace import Workspace
from abfed.site.certificates import read_site_request
from abfed.site.files import ASIDE, AT_REST
from tests.killing import acts_of, killed_at

KILLS = 10  # of each command, or all where it has fewer acts
NODE_FILES = {
    "node.json", "node.key", "ca.crt", "exec.secret", "bundle.sha256", "start-node", "start-silo",
    "compose.yaml", "aurora.request.pem", "abfed-silo-aurora.service", "abfed-node-aurora.service",
}  # fmt: skip


class Sides:
    """A coordinator and a brand, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def coordinator(self) -> Workspace:
        return Workspace(self.folder / "c")

    @property
    def places(self):
        return House(self.folder / "c" / "federation").places

    @property
    def request(self) -> bytes:
        return (self.folder / "b" / "nodes" / "aurora" / "aurora.request.pem").read_bytes()

    def found(self) -> None:
        found_federation(self.coordinator, self.folder / "federation.yaml")

    def join(self) -> None:
        invitation = self.places.invitation.read_bytes()
        brand = Workspace(self.folder / "b")
        join(brand, "aurora", invitation, fingerprint=fingerprint_of(invitation))

    def admit(self) -> None:
        said = fingerprint_of(self.request)
        provisioner(self.coordinator).admit(self.request, fingerprint=said)

    def renew(self) -> None:
        renew(Workspace(self.folder / "b"), "aurora", new_node_key=True)

    def revoke(self) -> None:
        provisioner(self.coordinator).revoke("aurora")

    def check(self, command: str) -> None:
        """What a command promises holds."""
        node = self.folder / "b" / "nodes" / "aurora"
        if command in ("join", "renew"):
            assert {one.name for one in node.iterdir()} >= NODE_FILES
            assert read_site_request(self.request).node == Node(node).point
        if command in ("admit", "revoke"):
            holds, _ = House(self.places.folder).pinned()
            assert ("aurora" in holds) == (command == "admit")
        self.coordinator.audit.verify()


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Both sides before each command, by its name."""
    sides = Sides(tmp_path_factory.mktemp("sides") / "now")
    Workspace.create(sides.folder / "c")
    Workspace.create(sides.folder / "b").create_silo("aurora", synthetic=True)
    (sides.folder / "federation.yaml").write_text("name: spring\nport: 19443\nlink_port: 19444\n")
    before = {}
    for command in ("found", "join", "admit", "renew", "revoke"):
        if command == "revoke":  # with the key that was made last
            sides.admit()
        before[command] = sides.folder.with_name(command)
        shutil.copytree(sides.folder, before[command])
        getattr(sides, command)()
    return before


@pytest.mark.parametrize("command", ["found", "join", "admit", "renew", "revoke"])
def test_killed_and_asked_again_all_is_there_and_nothing_is_half_written(begun, tmp_path, command):
    sides = Sides(tmp_path / "now")

    def again():
        shutil.rmtree(sides.folder, ignore_errors=True)
        shutil.copytree(begun[command], sides.folder)

    again()
    acts = acts_of(getattr(sides, command))
    left = 0
    for number in sorted({1 + acts * kill // KILLS for kill in range(KILLS)}):
        again()
        assert killed_at(number, getattr(sides, command))
        half = [*sides.folder.rglob(f"{ASIDE}*")]
        left += len(half)
        long_ago = time.time() - 2 * AT_REST
        for one in half:
            os.utime(one, (long_ago, long_ago))
        getattr(sides, command)()
        sides.check(command)
        parts = [sides.folder / "c" / "federation", sides.folder / "b" / "nodes"]
        assert not [one for part in parts for one in part.rglob(f"{ASIDE}*")], number
    assert left, "no kill met a file that was half written"
