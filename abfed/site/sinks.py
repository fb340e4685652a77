"""Where alarms go: a file, a webhook, a mail server (S14).

A webhook and a mail server belong to vendors (S16): they are used only while the vendor that has
this exact address is approved. What runs on this machine, by a loopback address, belongs to none.
Connections to others are encrypted or not made. A secret is read from a private file when it is
used, and is in no log or error.

Whoever takes alarms may be slow, broken or hostile: what it answers is a delivery or a failure, by
a time that it can't put off by answering a byte now and then, and never an end of the watch.
"""

from __future__ import annotations

import hashlib
import hmac
import http
import http.client
import json
import os
import smtplib
import ssl
from collections.abc import Sequence
from contextlib import closing, suppress
from email.message import EmailMessage
from pathlib import Path
from typing import Annotated, Literal, Protocol
from urllib.parse import urlsplit

from pydantic import Field

from abfed.protocol.errors import IntegrityError, RunFailed, WorkspaceError
from abfed.protocol.printable import counted, printable
from abfed.protocol.schema import Frozen
from abfed.site.alarms import Alarm
from abfed.site.calling import host_of, http_to, path_of, spoken_to
from abfed.site.files import FILE_MODE, read_private
from abfed.site.vendors import Vendors, on_this_machine

SECONDS = 10.0
"""For each answer of a server; and for all that it says together, three times as long."""
SIGNATURE = "X-Abfed-Signature"
_READY = 220  # RFC 5321, 4.2.3: what a mail server greets with
LOGS = (".jsonl", ".log")


class LogSink(Frozen):
    """A file of JSON lines, private."""

    kind: Literal["log"]
    path: Annotated[str, Field(min_length=1)]


class WebhookSink(Frozen):
    """An address that takes alarms by POST, as JSON.

    Attributes:
        url: https, or http to this machine.
        secret_file: signs each body by HMAC-SHA256 in the header `X-Abfed-Signature`.
    """

    kind: Literal["webhook"]
    url: Annotated[str, Field(pattern=r"^https?://[^\s]{1,300}$")]
    secret_file: str = ""


class MailSink(Frozen):
    """A mail server and whom it tells.

    Attributes:
        host, port: of the server; STARTTLS, unless it is on this machine.
        sender, to: addresses.
        user, password_file: where it wants a login.
    """

    kind: Literal["mail"]
    host: Annotated[str, Field(min_length=1, max_length=253)]
    port: Annotated[int, Field(ge=1, le=65535)] = 587
    sender: Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")]
    to: Annotated[tuple[str, ...], Field(min_length=1)]
    user: str = ""
    password_file: str = ""


Sink = Annotated[LogSink | WebhookSink | MailSink, Field(discriminator="kind")]


class Sends(Protocol):
    """Takes alarms somewhere."""

    def __call__(self, alarms: Sequence[Alarm]) -> None:
        """Deliver, or raise one of our errors."""
        ...


def deliver(sink: Sink, alarms: Sequence[Alarm], vendors: Vendors, folder: Path) -> None:
    """Take alarms to a sink.

    Args:
        sink: where to.
        alarms: what; nothing happens where there are none.
        vendors: the site's register.
        folder: what relative paths of the sink are relative to.

    Raises:
        Refused: the sink's vendor is not approved.
        RunFailed: it did not take them; they are to be brought again.
    """
    if not alarms:
        return
    if isinstance(sink, LogSink):
        _append(_place_of(sink, folder), alarms)
    elif isinstance(sink, WebhookSink):
        _post(sink, alarms, vendors, folder)
    else:
        _mail(sink, alarms, vendors, folder)


def _place_of(sink: LogSink, folder: Path) -> Path:
    """Where alarms are appended: never to a file of a site, a run or the workspace's own.

    Raises:
        WorkspaceError: it is one of these.
    """
    path = (folder / sink.path).resolve()
    inside = path.is_relative_to(folder.resolve())
    if (inside and path.parent != folder.resolve()) or path.suffix not in LOGS:
        raise WorkspaceError(
            "alarms don't go into this file",
            where=sink.path,
            why="a site's own files, appended to, would be damaged",
            do=f"name a file in the workspace itself, or outside, that ends in {' or '.join(LOGS)}",
        )
    return path


def _append(path: Path, alarms: Sequence[Alarm]) -> None:
    lines = b"".join(_line(one) for one in alarms)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        with os.fdopen(os.open(path, flags, FILE_MODE), "ab") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
    except OSError as cause:
        raise RunFailed(
            f"the file did not take the alarms ({cause.strerror})", where=str(path)
        ) from cause


def _post(sink: WebhookSink, alarms: Sequence[Alarm], vendors: Vendors, folder: Path) -> None:
    parts = urlsplit(sink.url)
    if not on_this_machine(parts.hostname or ""):
        if parts.scheme != "https":
            raise WorkspaceError("a webhook on another machine takes https", where=sink.url)
        vendors.require("webhook", sink.url)
    body = b"[" + b",".join(_line(one).rstrip() for one in alarms) + b"]"
    headers = {"Content-Type": "application/json"}
    if sink.secret_file:
        secret = read_private(folder / sink.secret_file)
        headers[SIGNATURE] = hmac.new(secret, body, hashlib.sha256).hexdigest()
    try:
        with http_to(parts, each=SECONDS, in_all=3 * SECONDS) as connection:
            connection.request("POST", path_of(parts), body, headers)
            status = connection.getresponse().status  # a redirection is followed nowhere
    except (OSError, http.client.HTTPException, ValueError) as cause:
        raise RunFailed("the webhook did not take the alarms", where=host_of(parts)) from cause
    if not http.HTTPStatus.OK <= status < http.HTTPStatus.MULTIPLE_CHOICES:
        raise RunFailed(
            "the webhook did not take the alarms", where=host_of(parts), why=f"it answered {status}"
        )


def _mail(sink: MailSink, alarms: Sequence[Alarm], vendors: Vendors, folder: Path) -> None:
    here = on_this_machine(sink.host)
    if not here:
        vendors.require("mail", f"{sink.host}:{sink.port}")
    worst = max(alarms, key=lambda one: ("low", "medium", "high", "critical").index(one.severity))
    message = EmailMessage()
    message["Subject"] = f"abfed: {counted(len(alarms), 'alarm')}, {worst.severity}: {worst.rule}"
    message["From"], message["To"] = sink.sender, ", ".join(sink.to)
    message.set_content("\n".join(described(one) for one in alarms) + "\n")
    try:
        with (
            spoken_to(sink.host, sink.port, each=SECONDS, in_all=3 * SECONDS) as opened,
            closing(smtplib.SMTP(timeout=SECONDS)) as server,
        ):
            server.sock = opened
            code, said = server.getreply()
            if code != _READY:
                raise smtplib.SMTPConnectError(code, said)
            if not here:
                # whose certificate it must be: told nowhere else where the connection is given
                server._host = sink.host  # type: ignore[attr-defined]  # noqa: SLF001
                server.starttls(context=ssl.create_default_context())
            if sink.user:
                password = read_private(folder / sink.password_file).decode().strip()
                server.login(sink.user, password)
            server.send_message(message)
            with suppress(smtplib.SMTPException):  # it has the message already
                server.quit()
    except (OSError, smtplib.SMTPException, ValueError) as cause:
        raise RunFailed("the mail server did not take the alarms", where=sink.host) from cause
    except IntegrityError as cause:
        raise RunFailed("the mail server's password can't be read", where=sink.host) from cause


def described(alarm: Alarm) -> str:
    """An alarm in a line, whatever is in the names that it tells of."""
    about = f" {alarm.subject}" if alarm.subject else ""
    text = f"{alarm.at[:19]}Z {alarm.severity} {alarm.rule} at {alarm.site}{about}: {alarm.what}"
    return printable(f"{text}. First: {alarm.do}" if alarm.do else text)


def _line(alarm: Alarm) -> bytes:
    values = alarm.model_dump(mode="json")
    return json.dumps(values, separators=(",", ":")).encode() + b"\n"  # ASCII: steers no terminal
