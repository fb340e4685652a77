"""Sites of different versions: they work together or say clearly why not."""

import pytest
from flwr.common.constant import ErrorCode

from abfed.coordinator.app import carry_out
from abfed.coordinator.exchange import LeftOut, describe
from abfed.protocol.errors import Refused
from abfed.protocol.messages import PROTOCOL_VERSION, Refusal, encode
from tests.coordinator.doubles import Federation, statistics_plan

SILOS = ("aurora", "borealis")


def older(silo):
    """A silo that speaks an older version: it can't read the request, and says what it speaks."""

    def answer(envelope):
        values = {"silo": silo.keys.site, "plan_digest": "", "step": "", "code": "version"}
        header = Refusal.model_validate(
            values | {"version": PROTOCOL_VERSION - 1, "head": "0" * 64}
        )
        return silo.keys.sign("refusal", encode(header))

    return answer


def test_a_site_of_another_version_is_left_out_and_the_rest_goes_on(tmp_path):
    federation = Federation(tmp_path, SILOS)
    grid = federation.grid(borealis=older(federation.silos["borealis"]))
    plan = statistics_plan(silos=list(SILOS), minimum_silos=1)
    outcome = carry_out(plan, grid, federation.coordinator)
    assert outcome.missing_now["borealis"] == LeftOut("refused", f"version:{PROTOCOL_VERSION - 1}")


def test_the_message_names_both_versions(tmp_path):
    federation = Federation(tmp_path, SILOS)
    grid = federation.grid(borealis=older(federation.silos["borealis"]))
    plan = statistics_plan(silos=list(SILOS), minimum_silos=2)
    with pytest.raises(Exception, match="1 of at least 2") as failed:
        carry_out(plan, grid, federation.coordinator)
    assert f"version {PROTOCOL_VERSION - 1}, and we speak {PROTOCOL_VERSION}" in failed.value.why
    assert isinstance(failed.value, Refused)
    assert failed.value.code == "version"


def test_other_refusals_say_what_they_said():
    assert describe(LeftOut("refused", "budget")).startswith("refused (budget): the budget")


def test_an_executor_that_takes_another_bundle_is_told_in_words():
    said = describe(LeftOut("failed", "UnpinnedBundle"))
    assert "abfed federation bundle" in said
    assert describe(LeftOut("failed", "MemoryError")) == "failed: MemoryError"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (ErrorCode.MESSAGE_UNAVAILABLE, "question was lost"),
        (ErrorCode.REPLY_MESSAGE_UNAVAILABLE, "answer was lost"),
        (ErrorCode.NODE_UNAVAILABLE, "its node went, or hangs"),
        (ErrorCode.CLIENT_APP_CRASHED, "courier was ended"),
    ],
)
def test_what_flower_says_by_a_number_is_told_in_words(code, said):
    assert said in describe(LeftOut("failed", f"error {code}"))
