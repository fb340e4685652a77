"""The federation's authority: what it signs holds for a while, for these keys, until revoked."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from abfed.protocol.errors import IntegrityError
from abfed.site.certificates import (
    expiry,
    issue_site_certificate,
    make_authority,
    make_server_certificate,
    make_site_request,
    node_point,
    read_site_certificate,
    read_site_request,
    revocation_list,
)
from abfed.site.keys import SiteKeys

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NODE = node_point(ec.generate_private_key(ec.SECP384R1()).public_key())


@pytest.fixture(scope="module")
def authority():
    return make_authority("spring", NOW, 365)


@pytest.fixture
def keys(tmp_path):
    return SiteKeys.create(tmp_path / "keys", site="aurora")


@pytest.fixture
def certificate(authority, keys):
    return issue_site_certificate(authority, make_site_request(keys, NODE), NOW, 30)


def test_a_certificate_pins_the_three_keys_of_a_site(authority, keys, certificate):
    pinned = read_site_certificate(certificate, authority.certificate, NOW)
    assert pinned == ("aurora", keys.public_key, keys.exchange_key, NODE)
    assert read_site_request(make_site_request(keys, NODE)) == pinned


def test_both_sides_read_out_the_same_fingerprint_and_each_key_is_in_it(keys, tmp_path):
    first = read_site_request(make_site_request(keys, NODE))
    assert first.fingerprint == read_site_request(make_site_request(keys, NODE)).fingerprint
    other_node = node_point(ec.generate_private_key(ec.SECP384R1()).public_key())
    changed = [
        first._replace(node=other_node),
        first._replace(exchange=bytes(32)),
        first._replace(signing=bytes(32)),
        first._replace(site="borealis"),
    ]
    assert len({one.fingerprint for one in (first, *changed)}) == 5


@pytest.mark.parametrize("days", [-1, 31])
def test_out_of_its_time_it_does_not_hold(authority, certificate, days):
    with pytest.raises(IntegrityError, match="not valid now"):
        read_site_certificate(certificate, authority.certificate, NOW + timedelta(days=days))


def test_another_authority_is_not_believed(certificate):
    other = make_authority("spring", NOW, 365)
    with pytest.raises(IntegrityError, match="not a certificate of this federation"):
        read_site_certificate(certificate, other.certificate, NOW)


def test_revoked_it_does_not_hold_and_the_list_can_not_be_made_up(authority, keys, certificate):
    listed = revocation_list(authority, [certificate], NOW, 30)
    with pytest.raises(IntegrityError, match="revoked"):
        read_site_certificate(certificate, authority.certificate, NOW, listed)
    again = issue_site_certificate(authority, make_site_request(keys, NODE), NOW, 30)
    assert read_site_certificate(again, authority.certificate, NOW, listed).site == "aurora"
    made_up = revocation_list(make_authority("spring", NOW, 365), [], NOW, 30)
    with pytest.raises(IntegrityError, match="list was changed"):
        read_site_certificate(certificate, authority.certificate, NOW, made_up)


def test_a_changed_request_is_not_signed(authority, keys):
    request = make_site_request(keys, NODE)
    lines = request.splitlines()
    lines[2] = lines[2][:-4] + (b"AAAA" if lines[2][-4:] != b"AAAA" else b"BBBB")
    with pytest.raises(IntegrityError):
        issue_site_certificate(authority, b"\n".join(lines), NOW, 30)
    with pytest.raises(IntegrityError, match="not a certificate request"):
        read_site_request(b"hello")


def test_a_server_certificate_ends_when_it_should(authority):
    _, certificate = make_server_certificate(authority, ["localhost", "10.0.0.1"], NOW, 30)
    assert expiry(certificate) == NOW + timedelta(days=30)
