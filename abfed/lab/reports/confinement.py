"""Confinement: what a report's kernel can't do, whatever its notebook says.

Before its first cell a kernel gives up, for good and for all it starts:

1. files: it reads Python, this package, fonts, the system's libraries and the folders it was given;
   it writes its own private folder. A silo's keys, store and ledger are none of these. It changes
   no file's mode, owner, access list or times, so that none is opened to others either.
2. connections: it can't connect to anything, on the network or on this machine, so neither to a
   silo's service.
3. processes: it starts none and becomes no other program or user, so that nothing outlives the
   report, and nothing multiplies. It looks into no other process, sends none a signal and changes
   no other's limits. It watches no file, and has no part in what all processes of a user share:
   keyrings, memory, semaphores, queues of messages.
4. memory: more than its share is an error in its cell, not an end of the machine's other work.
5. this package’s silo side can’t be imported.

On Linux the operating system enforces 1 (Landlock; that modes stay by seccomp), 2 and 3 (seccomp).
Elsewhere, and on a kernel that lacks them, Python's audit hook alone stands in their place: it
stops whoever doesn't set out to break it. `confine` says which of the two it was, and the report's
manifest does. Limits of resources (4) are POSIX's.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import sys
import sysconfig
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ENFORCED, WATCHED = "operating-system", "interpreter"
SYSTEM = (
    "/usr", "/lib", "/lib64", "/bin", "/sys/devices/system", "/sys/fs/cgroup",
    "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/filesystems",
    "/proc/sys/kernel",
    "/etc/fonts", "/etc/ld.so.cache", "/etc/localtime", "/etc/timezone", "/etc/passwd",
    "/etc/group", "/etc/nsswitch.conf", "/etc/mime.types", "/etc/os-release",
    "/dev/null", "/dev/zero", "/dev/urandom", "/dev/random",
)  # fmt: skip
SAVE_ELSEWHERE = (
    "a report’s kernel writes to its own folder only: a figure that is shown (plt.show()) is on "
    "the page without being saved; keep a file in io.BytesIO() or below tempfile.gettempdir()"
)
REASONS = (
    "a report’s kernel reads runs and its own folder only",
    SAVE_ELSEWHERE,
    "a report’s kernel changes files in its own folder only",
    "a report’s kernel can’t connect to anything",
    "a report’s kernel starts no process and signals none",
    "a report’s kernel can’t open a silo",
)
"""What it says when it refuses: to read, to write, to change, to connect, to start, to import."""
FORBIDDEN_IMPORTS = ("abfed.silo",)
REACHING = frozenset({
    "socket.connect", "socket.getaddrinfo", "socket.gethostbyaddr", "socket.gethostbyname",
    "socket.getnameinfo",
})  # fmt: skip
"""What Python calls it when it reaches for another process or machine."""
PROCESSES = frozenset({
    "os.exec", "os.fork", "os.forkpty", "os.kill", "os.killpg", "os.posix_spawn", "os.spawn",
    "os.system", "pty.spawn", "subprocess.Popen",
})  # fmt: skip
"""What Python calls it (its table of audit events) when it starts or signals a process."""
CHANGES = {
    "os.chmod": 1, "os.chown": 1, "os.link": 2, "os.remove": 1, "os.removexattr": 1,
    "os.rename": 2, "os.rmdir": 1, "os.setxattr": 1, "os.truncate": 1, "os.utime": 1,
}  # fmt: skip
"""What it calls it when a file is changed without being opened, and how many paths come first."""

_READ, _WRITE_FILE, _READ_DIR = 1 << 2, 1 << 1, 1 << 3  # linux/landlock.h
_EXECUTE = 1 << 0
_ALL_OF_FIRST = (1 << 13) - 1  # all accesses to files of ABI 1
_REFER, _TRUNCATE = 1 << 13, 1 << 14  # ABI 2, ABI 3
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2  # prctl
_ERRNO_EACCES, _ALLOW, _KILL = 0x0005000D, 0x7FFF0000, 0x80000000  # linux/seccomp.h
_ERRNO_ENOSYS, _NOTHING_DONE = 0x00050026, 0x00050000
_MACHINES = {
    # audit architecture, then: socket, clone, tgkill, prlimit64, then those that are refused:
    # connect, ptrace, process_vm_readv, process_vm_writev, kill, tkill, rt_sigqueueinfo,
    # rt_tgsigqueueinfo, and where there are such: fork, vfork
    "x86_64": (0xC000003E, 41, 56, 234, 302, 42, 101, 310, 311, 62, 200, 129, 297, 57, 58),
    "aarch64": (0xC00000B7, 198, 220, 131, 261, 203, 117, 270, 271, 129, 130, 138, 240),
}
_CLOSED = {
    # What Landlock leaves open, and stays when the kernel ends or shows what others do. In this
    # order: execve, execveat, chroot; shmget, semget, msgget, mq_open; add_key, request_key,
    # keyctl; inotify_add_watch, fanotify_init, perf_event_open, bpf, userfaultfd, kcmp; setuid,
    # setgid, setreuid, setregid, setgroups, setresuid, setresgid, setfsuid, setfsgid.
    "x86_64": (59, 322, 161, 29, 64, 68, 240, 248, 249, 250, 254, 300, 298, 321, 323, 312, 105, 106,
               113, 114, 116, 117, 119, 122, 123),
    "aarch64": (221, 281, 51, 194, 190, 186, 180, 217, 218, 219, 27, 262, 241, 280, 282, 272, 146,
                144, 145, 143, 159, 147, 149, 151, 152),
}  # fmt: skip
_NUMBERS_FOR_ALL = (424, 425, 438)  # pidfd_send_signal, io_uring_setup, pidfd_getfd
_KEPT = {
    # fchmod, fchmodat, fchown, fchownat, setxattr, lsetxattr, fsetxattr, removexattr, lremovexattr,
    # fremovexattr, utimensat, and where there are such: chmod, chown, lchown, utime, utimes,
    # futimesat. Landlock leaves modes, owners, attributes and times to whoever owns the file.
    "x86_64": (91, 268, 93, 260, 188, 189, 190, 197, 198, 199, 280, 90, 92, 94, 132, 235, 261),
    "aarch64": (52, 53, 55, 54, 5, 6, 7, 14, 15, 16, 88),
}
_KEPT_FOR_ALL = (452, 463, 466)  # fchmodat2, setxattrat, removexattrat
_CLONE3 = 435
_CLONE_THREAD = 0x00010000  # linux/sched.h: a thread of this process, not another one
_AF_UNIX, _SOCK_DGRAM = 1, 2
_SHARE = 4  # a kernel may have a quarter of the memory
LEAST_MEMORY = 4 << 30  # bytes, whatever the machine has: torch alone maps one
LARGEST_FILE = 1 << 30  # bytes of one file in its private folder


def confine(own: Path, read: Iterable[Path]) -> str:
    """Give up what a report doesn't need. Call it once, before any thread is started.

    Args:
        own: the private folder, which may be written.
        read: folders that may be read besides Python, this package and the system's libraries.

    Returns:
        `operating-system` or `interpreter`: who enforces it.
    """
    readable = [*_python(), *map(Path, SYSTEM), *read]
    _bound()
    enforced = sys.platform == "linux" and _landlock(readable, own) and _seccomp()
    sys.addaudithook(_watcher([*readable, own], own))
    return ENFORCED if enforced else WATCHED


def _bound() -> None:
    """Its share of memory, and of the disk by file; no image of it is left where it dies."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, LARGEST_FILE)]
    limits += [(resource.RLIMIT_DATA, max(memory // _SHARE, LEAST_MEMORY))]
    for what, most in limits:
        _, hard = resource.getrlimit(what)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (least, least))


def _python() -> list[Path]:
    """Folders of this Python, of what is installed, and of this package alone."""
    paths = {sys.prefix, sys.base_prefix, *sysconfig.get_paths().values()}
    paths |= {one for one in sys.path if one.endswith(("site-packages", "dist-packages"))}
    return [*map(Path, sorted(paths)), Path(__file__).parents[2]]


def holding(places: Iterable[Path], read: Iterable[Path] = ()) -> list[Path]:
    """Which of some places a confined kernel could read, because Python itself lies around them."""
    allowed = [one.resolve() for one in (*_python(), *map(Path, SYSTEM), *read)]
    return [
        place for place in places if any(place.resolve().is_relative_to(one) for one in allowed)
    ]


def _landlock(readable: Iterable[Path], own: Path) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(1))
    if version < 1:
        return False
    handled = _ALL_OF_FIRST
    handled |= (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    attributes = ctypes.create_string_buffer(struct.pack("=Q", handled), 8)
    ruleset = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(8), ctypes.c_uint(0))
    if ruleset < 0:
        return False
    try:
        for path in readable:
            write = _WRITE_FILE if str(path).startswith("/dev/") else 0
            _allow(libc, ruleset, path, _EXECUTE | _READ | _READ_DIR | write)
        _allow(libc, ruleset, own, handled)
        if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            return False
        return bool(libc.syscall(_RESTRICT_SELF, ruleset, ctypes.c_uint(0)) == 0)
    finally:
        os.close(ruleset)


def _allow(libc: Any, ruleset: int, path: Path, access: int) -> None:
    """A rule for a path and all below it; what isn't there needs none."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not path.is_dir():
            access &= _EXECUTE | _READ | _WRITE_FILE | _TRUNCATE
        rule = ctypes.create_string_buffer(struct.pack("=Qi", access, descriptor), 12)
        libc.syscall(_ADD_RULE, ruleset, ctypes.c_int(1), rule, ctypes.c_uint(0))
    finally:
        os.close(descriptor)


def _seccomp() -> bool:
    """Refuse connections, other processes, and sockets but local streams; keep modes and times.

    A jump counts the steps to leave out where it holds, and where it doesn't.
    """
    if platform.machine() not in _MACHINES:
        return False
    architecture, socket, clone, tgkill, prlimit, *others = _MACHINES[platform.machine()]
    load, equal, at_least, some, mask = 0x20, 0x15, 0x35, 0x45, 0x54  # linux/bpf_common.h
    refuse, allow = (0x06, 0, 0, _ERRNO_EACCES), (0x06, 0, 0, _ALLOW)
    keep = (0x06, 0, 0, _NOTHING_DONE)  # heard as done: whoever copies a file sets its mode, too
    number, first, second = (load, 0, 0, 0), (load, 0, 0, 16), (load, 0, 0, 24)
    program: list[tuple[int, int, int, int]] = [
        (load, 0, 0, 4), (equal, 1, 0, architecture), (0x06, 0, 0, _KILL),
        number, (at_least, 0, 1, 0x40000000), refuse,
    ]  # fmt: skip
    for one in (*others, *_CLOSED[platform.machine()], *_NUMBERS_FOR_ALL):
        program += [(equal, 0, 1, one), refuse]
    for one in (*_KEPT[platform.machine()], *_KEPT_FOR_ALL):
        program += [(equal, 0, 1, one), keep]
    program += [
        # Its arguments lie where no filter sees them; who hears that it isn't there takes `clone`.
        (equal, 0, 1, _CLONE3), (0x06, 0, 0, _ERRNO_ENOSYS),
        (equal, 0, 3, clone), first, (some, 1, 0, _CLONE_THREAD), refuse, number,
        (equal, 0, 3, tgkill), first, (equal, 1, 0, os.getpid()), refuse, number,
        (equal, 0, 4, prlimit), first, (equal, 2, 0, 0), (equal, 1, 0, os.getpid()), refuse, number,
        (equal, 1, 0, socket), allow,  # anything but a new socket
        first, (equal, 1, 0, _AF_UNIX), refuse,
        second, (mask, 0, 0, 0xF), (equal, 0, 1, _SOCK_DGRAM), refuse,
        allow,
    ]  # fmt: skip
    code = b"".join(struct.pack("=HBBI", *one) for one in program)
    buffer = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    filled = Program(len(program), ctypes.cast(buffer, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(filled), 0, 0) == 0)


def _paths(
    arguments: tuple[Any, ...], many: int, fsdecode: Callable[[Any], str] = os.fsdecode
) -> list[str]:
    """The paths among an event's first arguments.

    One that is told by a number, or below a folder that is, is left to the system.
    """
    paths = [fsdecode(one) for one in arguments[:many] if not isinstance(one, int)]
    below = any(isinstance(one, int) and one >= 0 for one in arguments[-many:])
    return [one for one in paths if one.startswith("/") or not below]


def _is_foreign_socket(
    _made: Any, family: int, kind: int, *_: Any, datagram: int = _SOCK_DGRAM, local: int = _AF_UNIX
) -> bool:
    """Whether a new socket is any but a local stream; of one that was there both are -1."""
    return family not in {local, -1} or (kind & 0xF) == datagram


def _watcher(readable: Iterable[Path], own: Path) -> Any:
    """A hook that refuses the same in Python itself, and says why.

    It can't be taken away again. It keeps what it needs in itself, not in names of modules.
    """
    roots = tuple({str(one) for path in readable for one in (path, path.resolve())})
    under = tuple(f"{root}/" for root in roots)
    mine = f"{own}/"
    real, fsdecode = os.path.realpath, os.fsdecode
    silo, starting, changing = FORBIDDEN_IMPORTS, PROCESSES, CHANGES
    reads, writes_here, changes, connects, starts, opens = REASONS
    reaching, is_foreign_socket = REACHING, _is_foreign_socket
    paths_of = _paths

    def is_foreign(path: str) -> bool:
        return not real(path).startswith(mine)

    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, int) or path is None:
                return
            full = real(fsdecode(path))
            writes = bool(flags and flags & writing) and not full.startswith("/dev/")
            if full.startswith(mine) or (not writes and (full in roots or full.startswith(under))):
                return
            raise PermissionError(writes_here if writes else reads)
        if event in changing and any(map(is_foreign, paths_of(arguments, changing[event]))):
            raise PermissionError(changes)
        if event in reaching or (event == "socket.__new__" and is_foreign_socket(*arguments)):
            raise PermissionError(connects)
        if event in starting:
            raise PermissionError(starts)
        if event == "import" and arguments[0].startswith(silo):
            raise ImportError(opens)

    return watch
