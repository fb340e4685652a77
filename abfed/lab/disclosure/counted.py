"""Which names say that a figure counts people or what they did, and which say that it doesn't.

What nobody knows counts: a name has to be a known parameter, or to speak of a share or an estimate,
for its whole numbers to be none of people. What a plan calls an arm, a brand or a segment is never
taken for a parameter, and its outcomes count whatever they are called.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from abfed.protocol.schema import BINARY_OUTCOMES

if TYPE_CHECKING:
    from abfed.protocol.plan import Plan


def listed(words: str) -> frozenset[str]:
    """Words in a line."""
    return frozenset(words.split())


_WORD = re.compile(r"[^\W_]+|[%ε]")
_COUNTING = listed(
    "recipient recipients people person persons customer customers user users subscriber "
    "subscribers buyer buyers opener openers clicker clickers visitor visitors member members "
    "household households individual individuals client clients account accounts address "
    "addresses count counts n size sizes total totals freq frequency number num nobs cell cells "
    "expected found observed send sends sent mail mails email emails message messages "
    "delivered deliveries open opens "
    "opened click clicks clicked visit visits visited buy buys bought purchase purchases "
    "purchased orders convert converts converted conversion conversions unsubscribe "
    "unsubscribes unsubscribed optout optouts bounce bounces bounced complaint complaints "
    "complained complain reply replies replied response responses responded event events "
    "reader readers shopper shoppers guest guests patient patients women men children adult "
    "adults leads prospect prospects donor donors contacts employee employees student students "
    "participant participants respondent respondents follower followers resident residents "
    "citizen citizens human humans signup signups registration registrations subscribed "
    "subscriptions cancelled canceled churned returned reordered booked forwarded "
    "opt-out opt-outs optouts sign-up sign-ups qty quantity cnt nunique"
) | {*BINARY_OUTCOMES}
"""Words for people, for what they do, and for counting."""
_SHARES = listed(
    "rate rates share shares ratio percent percentage pct % proportion probability chance p "
    "p_value pvalue lift uplift relative effect estimate difference se sd std stderr error "
    "interval ci sigma variance noise epsilon ε delta alpha power auc auuc qini loss slope score "
    "scores"
)
"""Words for what is no count, whatever it is of: `opened_rate`."""
_SINGULAR = listed(
    "row round step epoch iteration silo brand site arm metric feature segment day weekday hour "
    "week month quarter year date wave look seed layer level rank place position decile model "
    "df q tau budget version repetition release charge alarm run plan experiment report page "
    "second minute millisecond part i_squared chi_squared local_steps training_rounds "
    "minimum_silos sends_per_recipient sends_per_person k fold batch batch_size degree depth width "
    "height dimension column line figure table chapter section page decimal digit precision bin "
    "component worker thread core process job retry attempt chunk lag tree estimator learner "
    "random_state max_iter cv axis momentum weight_decay speedup speed_up price rating star "
    "budget_left patience"
)
"""Names of parameters, as they stand alone."""
_PLURAL = frozenset(f"{one}s" for one in _SINGULAR) | {"series", "branches"}
_HOW_MANY = frozenset({"n", "number", "num", "no", "count", "of", "the"})
"""Words beside a parameter's plural that change nothing: `n_silos`, `number of rounds`."""
_OURS = listed(
    "estimate ci_low ci_high rel_low rel_high p_adjusted privacy_share n_effective mean_arm "
    "mean_control se_sampling se_privacy shrunk var_control control parts over"
)
"""Columns of a run's own frames that count nobody."""
_JOINING = frozenset({"to", "per", "of", "and", "the", "a", "in", "by"})
"""Words in an outcome's name that name no outcome."""


def _words(name: str) -> list[str]:
    return _WORD.findall(name.casefold())


@dataclass(frozen=True, slots=True)
class Counted:
    """What a name in a report says of its figures.

    Attributes:
        outcomes: what the plans call their outcomes, and the words of that.
        names: what the plans call their arms, brands and segments.
    """

    outcomes: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()

    @classmethod
    def of(cls, plans: Iterable[Plan]) -> Counted:
        """The words of plans."""
        outcomes: set[str] = set()
        names: set[str] = set()
        for plan in plans:
            for metric in plan.metrics:
                if metric.kind in {"proportion", "count"}:
                    words = set(_words(metric.name)) - _JOINING - _SHARES
                    outcomes |= {metric.name.casefold(), *words}
            names |= {arm.name.casefold() for arm in plan.arms}
            names |= {segment.name.casefold() for segment in plan.analysis.segments}
            names |= {silo.casefold() for silo in plan.silos}
        return cls(frozenset(outcomes), frozenset(names))

    def counts(self, name: str) -> bool:
        """Whether a name speaks of people or of what they do, and of no share of them.

        >>> [Counted().counts(one) for one in ("opened", "buyers", "open rate", "gold")]
        [True, True, False, False]
        """
        said = {name.strip().casefold(), *_words(name)}
        return bool(said & (_COUNTING | self.outcomes)) and not self.spares(name)

    def numbers(self, word: str) -> bool:
        """Whether a word numbers what stands behind it: `step 3`.

        >>> [Counted().numbers(one) for one in ("step", "steps", "k", "opened")]
        [True, False, False, False]
        """
        return len(word) > 1 and word in _SINGULAR and word not in self.names | self.outcomes

    def spares(self, name: str) -> bool:
        """Whether a name says that its figures count nobody: a parameter, a share, an estimate.

        >>> [Counted().spares(one) for one in ("round", "n_silos", "ε left", "n", "silo: 3")]
        [True, True, True, False, False]
        """
        stated = name.strip().casefold()
        if stated in self.names | self.outcomes:
            return False
        words = _words(stated)
        if stated != "%" and not any(word.isalpha() for word in words):
            return False  # `25%` is the name of a quantile, and a quantile of counts is one
        joined, singular = "_".join(words), {word.removesuffix("s") for word in words}
        if joined in _SINGULAR | _PLURAL | _OURS or _SHARES & {*words, *singular, joined}:
            return True
        rest = [word for word in words if word not in _HOW_MANY]
        return len(rest) == 1 and rest[0] in _PLURAL
