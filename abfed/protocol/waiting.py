"""How a run waits for its silos: declarations only.

It is not part of the question: a plan that waits longer asks the same, finds the same run and
costs nothing again.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from abfed.protocol.schema import Frozen

Seconds = Annotated[float, Field(ge=1, le=604_800, allow_inf_nan=False)]


class Waiting(Frozen):
    """Timeouts, retries, quorum and stragglers of a distributed run.

    Attributes:
        step_seconds: how long silos have for one step, retries included.
        retries: how often a silo that failed is asked again. Asking again is free: the same request
            gets the same release. One that isn't connected is looked for as often, and until it is
            away for `silent_seconds`.
        retry_seconds: pause before the first retry; doubled each time up to a minute, and of random
            length between half and one and a half of it.
        silent_seconds: a silo of which nothing was heard for so long is asked again; whichever
            question it answers first counts. What carries a question may be killed without a word.
        quorum: share of the silos asked that is enough to close a step; 1 waits for all of them.
            The plan's `minimum_silos` holds all the same.
        straggler_seconds: how long the rest still have once the quorum has answered.
        silo_share: share of the run's silos that is asked in a round of training, drawn anew for
            each from public bytes. It saves traffic and time, not privacy: a silo's charge covers
            all rounds.
    """

    step_seconds: Seconds = 3600.0
    retries: Annotated[int, Field(ge=0, le=1000)] = 12
    retry_seconds: Seconds = 5.0
    silent_seconds: Seconds = 180.0
    quorum: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    straggler_seconds: Annotated[float, Field(ge=0, le=604_800, allow_inf_nan=False)] = 60.0
    silo_share: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
