"""A silo whose keys lie with a vendor answers while that vendor is approved, and not else (S16)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from abfed.protocol.errors import Refused
from abfed.protocol.plan import Plan
from abfed.silo.permit import Permit
from abfed.site.kms import Pkcs11Kms
from abfed.site.vendors import Vendors
from tests.examples import plan_values
from tests.silo.asking import HOLDINGS
from tests.silo.house import House
from tests.site.test_vendors import vendor

TOKEN = Pkcs11Kms(module="/nowhere/module.so", token="brand")


@pytest.mark.privacy
def test_a_silo_whose_keys_lie_with_a_vendor_answers_while_it_is_approved(house: House) -> None:
    house.keys.kms = TOKEN
    plan = Plan.from_values(plan_values())
    with pytest.raises(Refused, match="no vendor of this site has this keys service") as caught:
        house.gate().admit(house.asker.request(plan), HOLDINGS)
    assert caught.value.code == "frozen", "what goes over the wall says no more than that"
    assert house.ledger.entries == 0
    ends = (house.asker.clock() + timedelta(days=10)).date().isoformat()
    entry = vendor(
        services=[{"kind": "keys", "address": "/nowhere/module.so#brand"}], review_by=ends
    )
    register = Vendors(house.folder, house.keys, house.audit, house.asker.clock)
    register.put(entry, by="ada@aurora")
    register.approve("postbox", by="sam@aurora")
    assert isinstance(house.gate().admit(house.asker.request(plan), HOLDINGS), Permit)
    house.asker.clock.forward(days=11)
    with pytest.raises(Refused, match="review overdue"):
        house.gate().admit(house.asker.request(plan), HOLDINGS)
