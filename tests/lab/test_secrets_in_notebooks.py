"""A live kernel, as a researcher has it: whatever is printed there, no secret and no row appears.

Every object that a user is handed is printed in each way that notebooks know, logged, put into an
error, and shown by IPython's most talkative traceback. Then outputs, the saved notebook, IPython's
history with outputs, and all that the kernel's process printed are searched.
"""

import base64
import secrets
import sqlite3
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest
from jupyter_client import KernelManager
from nbformat.v4 import new_code_cell, new_notebook

from abfed.lab.development import FILE as PERSON
from abfed.lab.intake import found_and_ingest
from abfed.lab.samples.synth import write_brands
from abfed.lab.workspace import Workspace
from abfed.protocol.canonical import parse_canonical
from abfed.site.credentials import FOLDERS
from abfed.site.keys import SiteKeys
from abfed.site.kms import FileKms
from abfed.site.rotation import rotate
from tests.whole.story import CANARIES, CANARY_ID, plant_canary, small_plan

ROOT = Path(__file__).resolve().parents[2]
PASSPHRASE = "canary passphrase 8c1f of aurora"
PASSWORD = "canary password 51d7 of nobody"
OBJECTS = """
workspace, plan, run, run.releases, run.totals, run.ledger, run.effects, run.training, run.timings,
workspace.keys, workspace.audit, workspace.people, workspace.people.person("dev"), enrolled,
session, session.facts, silo, silo.keys, silo.ledger, silo.store, silo.audit, silo.paths, models,
models.standings(), plan.model, list(silo.audit.entries()), list(workspace.audit.entries()), office
"""
OPENING = """
import logging, os, pprint, sys, traceback
from pathlib import Path
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
import abfed
from abfed.lab.models import registry_of
%load_ext abfed
workspace = abfed.Workspace("workspace")
plan = abfed.Plan.load("plan.yaml")
session = workspace.sign_in_development()
run = workspace.run(plan)
enrolled = workspace.people.enrol("olga", Path("password").read_text(), by="dev")
opened = workspace.silo("aurora")
silo = opened.__enter__()
models = registry_of(workspace)
office = workspace.office("aurora")
"""
SHOWING = """
for one in objects:
    print(one); print(repr(one)); print(f"{one}"); print("%s %r" % ((one,) * 2))
    pprint.pprint(one); display(one); logging.debug("seen: %s", one)
    try:
        raise ValueError(one)
    except ValueError:
        logging.exception("with an error"); traceback.print_exc()
"""
TALKATIVE = "%xmode Verbose"
FAILING = (
    'silo.keys.wrap("no bytes", name="x")',
    'silo.keys.unwrap("no bytes", name="x")',
    'silo.keys.sign("report", "no bytes")',
    'workspace.keys.signature("report", None)',
    "abfed.Workspace('nowhere')",
    "workspace.silo('nobody').__enter__()",
    "silo.answer(b'not an envelope' * 3)",
    "workspace.people.enrol('olga', 3, by='dev')",
    "from abfed.site.keys import SiteKeys\nSiteKeys.open(silo.paths.keys, lambda name: 3)",
    "from abfed.protocol.sealing import seal\nseal(silo.keys.derive('x'), 'text', name='n')",
    "import pickle\npickle.dumps(silo.keys)",
    "pickle.dumps(session)",
    "silo.keys + 1",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workspace with a marked row, a site under a passphrase, and what must never be seen."""
    folder = tmp_path_factory.mktemp("live")
    (folder / "credentials").mkdir(mode=0o700)
    for name in ("aurora.passphrase", "aurora.passphrase.new"):
        (folder / "credentials" / name).write_text(PASSPHRASE)
        (folder / "credentials" / name).chmod(0o600)
    (folder / "password").write_text(PASSWORD)
    workspace = Workspace.create(folder / "workspace", development=True)
    workspace.sign_in_development()
    for brand in write_brands(folder / "exports", seed=5, scale=0.03):
        if brand.name == "aurora":
            plant_canary(brand.export)
        found_and_ingest(workspace, brand.name, brand.export, brand.mapping, synthetic=True)
    small_plan(folder / "plan.yaml")
    keys = workspace.silo_folder("aurora") / "keys"
    rotate(keys, to=FileKms(passphrase=True), new_secret=lambda _: PASSPHRASE)
    return folder


def secrets_of(folder):
    """Each secret by what it is, as bytes."""
    found = {}
    workspace = Workspace(folder / "workspace")
    for site in ("coordinator", "aurora"):
        at = workspace.coordinator if site == "coordinator" else workspace.silo_folder(site)
        keys = SiteKeys.open(at / "keys", lambda _: PASSPHRASE)
        found |= {
            f"root of {site}": bytes(keys._root),
            f"signing key of {site}": keys._signing.private_bytes_raw(),
            f"exchange key of {site}": keys.derive("exchange"),
            f"pseudonym key of {site}": keys.derive("pseudonym"),
            f"ledger key of {site}": keys.derive("ledger"),
            f"wrapping key of {site}": keys.derive("wrap"),
        }
        found |= {f"{one.name} of {site}": one.read_bytes() for one in (at / "keys").glob("kek-*")}
    person = parse_canonical((workspace.lab / PERSON).read_bytes(), where="lab")
    found |= {name: person[name].encode() for name in ("password", "otp_secret")}
    found |= {f"recovery code {n}": one.encode() for n, one in enumerate(person["recovery_codes"])}
    found |= {"a typed password": PASSWORD.encode(), "a passphrase": PASSPHRASE.encode()}
    session = workspace.session()
    found["the token"] = session.token.encode()
    return found | {f"row: {one}": one.encode() for one in CANARIES}


def forms(secret):
    """How a secret would look where it is printed."""
    secret = bytes(secret)  # not as it shows itself
    text = {secret, secret.hex().encode(), base64.b64encode(secret).rstrip(b"=")}
    text |= {base64.urlsafe_b64encode(secret).rstrip(b"="), repr(secret)[2:-1].encode()}
    return {one for one in text if len(one) >= 8}


@pytest.fixture(scope="module")
def seen(place):
    """All that is left of the session: by name, as bytes."""
    sources = [
        OPENING,
        f"objects = [{OBJECTS}]",
        SHOWING,
        "workspace",
        "run",
        "silo",
        "session",
        "enrolled",
        TALKATIVE,
        *FAILING,
        "get_ipython().history_manager.writeout_cache()",
        "%whos",
        "%tb",
        "opened.__exit__(None, None, None)",
    ]
    document = new_notebook(cells=[new_code_cell(one) for one in sources])
    document.metadata["kernelspec"] = {"name": "python3", "display_name": "x", "language": "python"}
    ipython = place / "ipython"
    ipython.mkdir()
    history = place / "history.sqlite"
    manager = KernelManager(
        kernel_name="python3", transport="ipc", connection_file=str(place / "kernel.json")
    )
    manager.kernel_spec.argv = [
        sys.executable,
        "-m",
        "ipykernel_launcher",
        "-f",
        "{connection_file}",
        "--debug",
        "--HistoryManager.db_log_output=True",
    ]
    with (place / "kernel.log").open("wb") as log:
        client = nbclient.NotebookClient(
            document, km=manager, timeout=300, allow_errors=True, ipython_hist_file=str(history)
        )
        environment = {
            "PYTHONPATH": str(ROOT),
            FOLDERS[0]: str(place / "credentials"),
            "PATH": "/usr/bin:/bin",
            "HOME": str(place),
            "PYTHONUNBUFFERED": "1",
            "IPYTHONDIR": str(ipython),
        }
        try:
            client.execute(cwd=str(place), env=environment, stdout=log, stderr=log)
        finally:  # nbclient ends only the managers that it made
            if client.kc is not None:
                client.kc.stop_channels()
            manager.shutdown_kernel(now=True)
            manager.cleanup_resources()
    nbformat.write(document, place / "saved.ipynb")
    return document, {
        "the saved notebook": (place / "saved.ipynb").read_bytes(),
        "the history": history.read_bytes() + _dumped(history),
        "the kernel's log": (place / "kernel.log").read_bytes(),
    }


def _dumped(history):
    with sqlite3.connect(history) as database:
        return "\n".join(database.iterdump()).encode()


@pytest.mark.slow
@pytest.mark.privacy
def test_nothing_that_is_printed_in_a_live_kernel_shows_a_secret_or_a_row(place, seen):
    document, files = seen
    cells = document.cells
    text = nbformat.writes(document)
    first = [str(out) for cell in cells[:3] for out in cell.outputs]
    assert [one for one in first if 'role="alert"' in one or "'ename'" in one] == []
    for one in ("SiteKeys(site='aurora'", "Enrolment(name='olga'", "secret bytes>", "Run("):
        assert one in text  # the objects were really printed, and so were variables of frames
    failed = [out.output_type for cell in cells for out in cell.outputs].count("error")
    assert failed >= 5, "the talkative tracebacks were not shown"
    assert all(len(data) > 500 for data in files.values()), {n: len(d) for n, d in files.items()}
    found = [
        f"{what} in {name}"
        for what, secret in secrets_of(place).items()
        for form in forms(secret)
        for name, data in files.items()
        if form in data
    ]
    assert found == []


@pytest.mark.slow
@pytest.mark.privacy
def test_the_search_would_find_them(place):
    """The test can fail: what it looks for is found in each form where it does stand."""
    for secret in (secrets.token_bytes(32), CANARY_ID.encode()):
        shown = (repr(secret), secret.hex(), base64.b64encode(secret).decode())
        assert all(any(one in text.encode() for one in forms(secret)) for text in shown)
