"""A report's kernel can't open a silo, whatever its notebook tries; and it always ends."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from abfed.lab.reports.engine import execute
from abfed.lab.reports.execution import Limits
from abfed.lab.reports.kernel import READY
from abfed.lab.reports.kernels import Place, Spawned
from abfed.lab.reports.notebooks import read_notebook
from abfed.lab.reports.report import keep, make_report, order
from abfed.lab.reports.subjects import of_run
from abfed.lab.reports.variables import environment
from abfed.lab.reports.warming import CAN_FORK
from abfed.protocol.errors import ReportFailed
from tests.lab.example import make_run, statistics_only

TRIES = """
import ctypes, os, socket, subprocess, sys
said = {}
def attempt(name, act):
    try:
        act()
    except BaseException as error:
        said[name] = type(error).__name__
    else:
        said[name] = 'DONE'
libc = ctypes.CDLL(None, use_errno=True)
def raw(path):
    if libc.open(path.encode(), 0) < 0:
        raise PermissionError
def unix():
    socket.socket(socket.AF_UNIX).connect(SOCKET)
def by_child(path):
    subprocess.run(['cat', path], check=True, capture_output=True)
attempt('key', lambda: open(KEY).read())
attempt('raw key', lambda: raw(KEY))
attempt('key by a child', lambda: by_child(KEY))
own = os.environ['HOME']
attempt('link', lambda: (os.symlink(KEY, own + '/k'), open(own + '/k').read()))
attempt('list', lambda: os.listdir(os.path.dirname(KEY)))
attempt('write a run', lambda: open(RUN + '/x', 'w'))
attempt('internet', lambda: socket.create_connection(('127.0.0.1', 1), 1))
attempt('datagram', lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
attempt('unix socket', unix)
attempt('other process', lambda: open(f'/proc/{os.getppid()}/environ', 'rb').read())
attempt('import', lambda: __import__('abfed.silo.store'))
def child(*start, **how):
    return lambda: subprocess.Popen(['sleep', '600'], **how)
attempt('child', child())
attempt('child in its own session', child(start_new_session=True))
attempt('shell', lambda: os.system('sleep 600 &') and 1 / 0)
CLONE, TGKILL = {'x86_64': (56, 234), 'aarch64': (220, 131)}[os.uname().machine]
def returned(number):
    if number < 0:
        raise PermissionError
    if number == 0:
        os.execv('/usr/bin/sleep', ['sleep', '600'])
attempt('raw fork', lambda: returned(libc.fork()))
attempt('raw clone', lambda: returned(libc.syscall(CLONE, 17, 0, 0, 0, 0)))
attempt('raw clone3', lambda: returned(libc.syscall(435, ctypes.create_string_buffer(88), 88)))
attempt('signal', lambda: os.kill(os.getppid(), 0))
attempt('raw signal to all', lambda: returned(libc.kill(-1, 0)))
parent = os.getppid()
attempt('raw signal to a thread', lambda: returned(libc.syscall(TGKILL, parent, parent, 0)))
import resource
attempt('limits of another', lambda: resource.prlimit(parent, resource.RLIMIT_CPU, (0, 0)))
def widened(call, *given):
    libc.syscall(call, *given)
    if os.stat(KEY).st_mode & 0o77 == 0 == os.stat(RUN + '/plan.json').st_mode & 0o77:
        raise PermissionError
X86 = os.uname().machine == 'x86_64'
FCHMOD = 91 if X86 else 52
attempt('mode', lambda: os.chmod(KEY, 0o666))
opened = os.open(RUN + '/plan.json', os.O_RDONLY)
attempt('mode of the run', lambda: widened(FCHMOD, opened, 0o666))
attempt('raw mode', lambda: widened(268 if X86 else 53, -100, KEY.encode(), 0o666))
attempt('raw mode, new', lambda: widened(452, -100, KEY.encode(), 0o666, 0))
attempt('owner', lambda: os.chown(KEY, os.getuid(), os.getgid()))
attempt('access list', lambda: os.setxattr(KEY, 'user.x', b'1'))
libc.syscall(188 if X86 else 5, KEY.encode(), b'user.x', b'1', 1, 0)
attempt('raw access list', lambda: os.getxattr(KEY, 'user.x'))
def got(number):
    if number < 0:
        raise PermissionError
def dated(act):
    act()
    if os.stat(KEY).st_mtime > 99:
        raise PermissionError
attempt('times', lambda: os.utime(KEY, (9, 9)))
moments = ctypes.create_string_buffer(32)
attempt('raw times', lambda: dated(lambda: libc.utimensat(-100, KEY.encode(), moments, 0)))
attempt('watch', lambda: got(libc.inotify_add_watch(
    libc.inotify_init(), os.path.dirname(KEY).encode(), 4095)))
attempt('memory of all', lambda: got(libc.shmget(0, 4096, 0o1600)))
attempt('semaphore of all', lambda: got(libc.semget(0, 1, 0o1600)))
attempt('queue of all', lambda: got(libc.msgget(0, 0o1600)))
attempt('keyring', lambda: got(libc.syscall(250 if X86 else 219, 0, -3, 0, 0, 0)))
attempt('key in a ring', lambda: got(libc.syscall(
    248 if X86 else 217, b'user', b'a', b'b', 1, -1)))
attempt('root', lambda: got(libc.chroot(own.encode())))
attempt('user', lambda: got(libc.setuid(os.getuid())))
arguments = (ctypes.c_char_p * 2)(b'true', None)
libc.execv(b'/usr/bin/true', arguments)  # it would end here
attempt('gone', lambda: os.remove(RUN + '/plan.json'))
attempt('debugger', lambda: __import__('debugpy'))
attempt('memory', lambda: bytearray(1 << 40))
attempt('run', lambda: open(RUN + '/plan.json').read())
attempt('own', lambda: open(os.environ['HOME'] + '/mine', 'w').write('x'))
for name, what in said.items():
    print(name, '=', what)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("confined") / "workspace", statistics_only())


def asked(run, folder, *cells):
    cell = new_code_cell('run_folder: str = ""', metadata={"tags": ["parameters"]})
    document = new_notebook(cells=[cell, *map(new_code_cell, cells)])
    path = folder / "tries.ipynb"
    nbformat.write(document, path)
    return order(of_run(run), notebook=str(path))


@pytest.mark.slow
@pytest.mark.privacy
@pytest.mark.skipif(sys.platform != "linux", reason="the operating system confines on Linux only")
def test_the_kernel_opens_no_silo(run, tmp_path):
    import socket

    (key,) = (run.folder.parent.parent / "silos" / "aurora" / "keys").glob("kek-*")
    assert key.is_file()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "silo.sock"))
        listening.listen()
        names = (f"KEY = {str(key)!r}\nRUN = {str(run.folder)!r}\n"
                 f"SOCKET = {str(tmp_path / 'silo.sock')!r}\n")  # fmt: skip
        wanted = asked(run, tmp_path, names + TRIES)
        place = Place(cwd=wanted.subject.cwd, read=wanted.subject.read)
        done = execute(read_notebook(wanted.path), {}, place, Spawned())
    assert done.failure is None
    assert done.confinement == "operating-system"
    said = dict(line.split(" = ") for line in done.document.cells[-1].outputs[0].text.splitlines())
    assert said.pop("run") == "DONE"
    assert said.pop("own") == "DONE"
    assert said.pop("import") == "ImportError"
    assert "DONE" not in said.values()
    assert len(said) == 40
    assert key.stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("while True: pass", "took too long"),
        ("import os; os._exit(3)", "the kernel died in cell 3"),
        ("while True: print('x' * 100)", "cell 3 of the notebook showed too much"),
        ("print('x' * 300_000_000)", "cell 3 of the notebook showed too much"),
        ("from IPython.display import HTML\nwhile True: display(HTML(''))", "showed too much"),
        ("import numpy as np\nnp.ones((1 << 20, 1 << 20))", "cell 3 of the notebook failed"),
        ("import os\nwhile True: os.fork()", "cell 3 of the notebook failed"),
        ("input('a password?')", "cell 3 of the notebook failed"),
    ],
)
def test_what_hangs_or_dies_ends_cleanly(run, tmp_path, cell, reason):
    wanted = asked(run, tmp_path, "import os\nprint('is', os.getpid())", cell)
    made = make_report(wanted, Spawned(), limits=Limits(cell=3 if "pass" in cell else 100))
    with pytest.raises(ReportFailed, match=reason):
        keep(made, wanted, tmp_path / "out", None)
    page = next((tmp_path / "out").glob("*.failed.html")).read_text()
    assert len(page) < 100_000
    assert not alive(int(re.search(r"is (\d+)", page)[1]))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_an_interrupt_ends_the_kernel(run, tmp_path, monkeypatch, number):
    """So does a terminal that is closed."""
    wanted = asked(run, tmp_path, "import time; time.sleep(600)")
    seen = []

    def interrupt(done, of):
        if not seen:
            seen.append(done)
            threading.Timer(0.5, os.kill, (os.getpid(), number)).start()

    with tempfile.TemporaryDirectory(prefix="t-") as ours:  # others use the usual place meanwhile
        monkeypatch.setattr(tempfile, "tempdir", ours)
        before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # `nohup` has it ignored
        try:
            with pytest.raises(KeyboardInterrupt):
                make_report(wanted, tell=interrupt)
        finally:
            signal.signal(signal.SIGHUP, before)
        assert list(Path(ours).iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(not CAN_FORK, reason="kernels are spawned on this system")
def test_a_warm_process_whose_maker_was_killed_takes_its_folder_with_it(tmp_path):
    folder = tmp_path / "warm"
    folder.mkdir(mode=0o700)
    command = [sys.executable, "-m", "abfed.lab.reports.nursery", str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": tmp_path}
    with subprocess.Popen(command, env=environment(folder), **pipes) as process:
        assert process.stdout.readline() == READY
        assert folder.is_dir()
        process.stdin.close()  # as when its maker ends, however it ends
        process.wait(60)
    assert not folder.exists()


def alive(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_nobodys_settings_of_matplotlib_reach_a_page(run, tmp_path, monkeypatch):
    from abfed.lab.views.plots import as_svg, plot_effects

    plain = as_svg(plot_effects(run, "clicked"))
    own = tmp_path / "own"
    (own / "stylelib").mkdir(parents=True)
    for place in (own, run.folder.parent):
        (place / "matplotlibrc").write_text("lines.linewidth: 31\nfont.size: 31\n")
    monkeypatch.setenv("MPLCONFIGDIR", str(own))
    shown = "import matplotlib as mpl\nprint(mpl.rcParams['lines.linewidth'], mpl.get_configdir())"
    document = read_notebook(asked(run, tmp_path, shown).path)
    place = Place(cwd=run.folder.parent, read=(run.folder.parent,))
    done = execute(document, {"run_folder": run.name}, place, Spawned())
    (run.folder.parent / "matplotlibrc").unlink()
    assert done.failure is None
    text = done.document.cells[-1].outputs[0].text
    assert text.startswith("1.5 ")
    assert str(own) not in text
    import matplotlib as mpl

    with mpl.rc_context({"lines.linewidth": 31, "font.size": 31, "axes.grid": True}):
        assert as_svg(plot_effects(run, "clicked")) == plain
