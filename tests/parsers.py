"""Each parser that reads bytes of others, and bytes that it takes: for Hypothesis and for atheris.

`tests/protocol/test_parsers.py` gives each a fixed number of changed and made-up inputs;
`tests/fuzz.py` lets coverage guide them.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import jwt
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from jwt.utils import base64url_encode

from abfed.coordinator.node import read_invitation
from abfed.lab.reports.manifest import manifest_of
from abfed.lab.reports.notebooks import declared_parameters, find_notebook, parse_notebook
from abfed.protocol import tensors
from abfed.protocol.boxes import box_request, unbox_reply, unbox_request
from abfed.protocol.canonical import canonical_bytes, parse_canonical
from abfed.protocol.envelope import enclose, key_id, open_envelope
from abfed.protocol.errors import AbfedError, InputError
from abfed.protocol.identity import Token, as_text, read_statement
from abfed.protocol.messages import decode
from abfed.protocol.plan import Plan
from abfed.protocol.relayed import unpack_lists
from abfed.protocol.sealing import seal, unseal
from abfed.protocol.yamltext import parse_yaml
from abfed.silo.policy import Policy
from abfed.site.certificates import read_site_request
from abfed.site.hardware import Touch, check_touch, parse_signed
from abfed.site.idtoken import verified
from tests.lab.example import statistics_only

_SIGNER = Ed25519PrivateKey.from_private_bytes(b"\1" * 32)
_PUBLIC = _SIGNER.public_key().public_bytes_raw()
_TRUSTED = {key_id(_PUBLIC): _PUBLIC}
_JWK = {"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": base64url_encode(_PUBLIC).decode()}
_BOX = X25519PrivateKey.from_private_bytes(b"\2" * 32)
_SHAPES = {"totals": tensors.Shape("int64", (2, 2))}
_PLAN = Plan.from_values(statistics_only(), where="example").canonical_bytes()
_STEPS = ("keys", "masked")


def _yaml(data: bytes) -> None:
    Plan.from_values(parse_yaml(data, where="x", error=InputError), where="x")


def _notebook(data: bytes) -> None:
    declared_parameters(parse_notebook(data, where="x"), where="x")


def _statement(data: bytes) -> None:
    read_statement(Token, "token", data.decode("latin-1"), _TRUSTED, where="x")


def _id_token(data: bytes) -> None:
    verified(data.decode("latin-1"), [_JWK])


def _message(kind: str) -> Callable[[bytes], object]:
    return lambda data: decode(kind, data, where="x")


PARSERS: dict[str, Callable[[bytes], object]] = {
    "canonical": lambda data: parse_canonical(data, where="x"),
    "envelope": lambda data: open_envelope(data, _TRUSTED, where="x"),
    "request": _message("request"),
    "release": _message("release"),
    "refusal": _message("refusal"),
    "tensors": lambda data: tensors.unpack(data, _SHAPES, where="x"),
    "lists": lambda data: unpack_lists(data, _STEPS, where="x"),
    "boxed-request": lambda data: unbox_request(_BOX, data, silo="aurora"),
    "boxed-reply": lambda data: unbox_reply(b"\3" * 32, data, silo="aurora"),
    "sealed": lambda data: unseal(b"\4" * 32, data, name="x"),
    "token": _statement,
    "plan": lambda data: Plan.from_canonical(data, where="x"),
    "plan-yaml": _yaml,
    "policy-yaml": lambda data: Policy.parse(data, where="x"),
    "notebook": _notebook,
    "report-manifest": lambda data: manifest_of(data, _PUBLIC, where="x", stranger=""),
    "site-request": read_site_request,
    "id-token": _id_token,
    "hardware-key": lambda data: check_touch(
        Touch(b"\5" * 32, "http://localhost:1", parse_signed(parse_canonical(data, where="x"))), []
    ),
    "invitation": read_invitation,
}

SEEDS: tuple[bytes, ...] = (
    _PLAN,
    json.dumps(statistics_only()).encode(),
    enclose(_SIGNER, "report", canonical_bytes({"format": 1})),
    as_text(enclose(_SIGNER, "token", canonical_bytes({"site": "aurora"}))).encode(),
    tensors.pack({"totals": np.zeros((2, 2), dtype=np.int64)}),
    box_request(_BOX.public_key().public_bytes_raw(), b"a request", silo="aurora").box,
    seal(b"\3" * 32, b"a reply", name="x"),
    find_notebook("ab_readout").read_bytes(),
    len(_PLAN).to_bytes(4, "big") + _PLAN,
    b"-----BEGIN CERTIFICATE REQUEST-----\nMIH=\n-----END CERTIFICATE REQUEST-----\n",
    jwt.encode({"iss": "x", "amr": ["mfa"]}, _SIGNER, "EdDSA", {"kid": "k"}).encode(),
    canonical_bytes(dict.fromkeys(("id", "client_data", "key_data", "signature"), "AAAA")),
    b"silo: aurora\nbudget: {epsilon: 1.0, delta: 1.0e-06}\nper_plan: {epsilon: 1.0, delta: 1e-6}",
)


def tried(parser: str, data: bytes) -> None:
    """Give a parser some bytes; anything but our own error is a defect, and is raised."""
    try:
        PARSERS[parser](data)
    except AbfedError as error:
        str(error)  # it can be shown as well
