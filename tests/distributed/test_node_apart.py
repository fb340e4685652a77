"""A node in a folder of its own, which another user has: sent code may run as that user."""

import os
import shutil
import stat

import pytest

from abfed.lab.provisioning import join, renew
from abfed.protocol.errors import IntegrityError
from tests.distributed.test_provisioning import sides

__all__ = ["sides"]  # a fixture

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="gives folders to another user")


@pytest.fixture
def apart(sides, tmp_path):
    """Joined again with a node in a folder of its own, which another user then has."""
    _, house, fingerprint, brand = sides
    node, user = tmp_path / "node", 61_900
    for part in (tmp_path, *tmp_path.parents):
        if part.stat().st_uid == os.getuid() and part.parent != part:
            part.chmod(part.stat().st_mode | 0o011)  # that user has a way to it
    invitation = house.places.invitation.read_bytes()

    def again():
        return join(brand, "aurora", invitation, fingerprint=fingerprint, node=node, socket="/s")

    joined = again()
    for one in (node, *node.rglob("*")):
        os.chown(one, user, user)
    return again, joined, user


def test_what_the_silos_user_starts_is_not_the_nodes(apart):
    _, joined, user = apart
    assert (joined.starts / "start-silo").exists()
    assert joined.starts.stat().st_uid != user
    below = {one.name for one in joined.node.rglob("*")}
    assert "start-node" in below
    assert not [one for one in below if "silo" in one or one.endswith((".service", "compose.yaml"))]


def test_joining_and_renewing_as_root_leave_the_node_what_it_reads(apart, sides):
    again, joined, user = apart
    again()
    renew(sides[3], "aurora", joined.node, new_node_key=True)
    assert {one.stat().st_uid for one in joined.node.rglob("*")} == {user}


def test_root_follows_no_link_that_sent_code_laid_in_the_nodes_folder(apart, tmp_path):
    again, joined, _ = apart
    theirs = tmp_path / "root's"
    theirs.mkdir(mode=0o755)
    shutil.rmtree(joined.node / "bin")
    (joined.node / "bin").symlink_to(theirs)
    with pytest.raises(IntegrityError, match="its mode is 0755"):  # of the folder that it names
        again()
    assert os.geteuid() == 0
    assert not list(theirs.iterdir())
    assert stat.S_IMODE(theirs.stat().st_mode) == 0o755
