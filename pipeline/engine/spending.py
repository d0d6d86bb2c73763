"""What runs cost: the time of their replicas by its price, held against what they may cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

from earthgptx.pipeline.errors import CostReached, JobError
from earthgptx.pipeline.job.sections import Engine

HOUR_S = 3600.0


@dataclass(slots=True)
class Spending:
    """What several runs cost together."""

    most: float | None = None
    """What they may cost; None for any."""
    spent: float = 0.0
    reached: bool = False
    """Whether a run has ended because it, or all together, may cost no more."""

    def __post_init__(self) -> None:
        """Refuses what is no amount."""
        if self.most is not None and not 0 <= self.most < math.inf:
            raise JobError(f"--max-cost {self.most:g} is no amount; give 0 or more")

    def limit_s(self, engine: Engine) -> float | None:
        """Returns the time in s that the replicas of the next run may take together; None for any.

        Raises:
            JobError: there is a limit, and the job does not say what a replica costs.
        """
        price = engine.price_per_replica_hour
        if self.most is not None and price is None:
            raise JobError(
                "--max-cost needs to know what a replica costs: set engine.price_per_replica_hour "
                "in the job file"
            )
        limits = [] if engine.max_cost is None else [engine.max_cost]
        if self.most is not None:
            limits.append(self.most - self.spent)
        if not limits or not price:
            return None
        return max(min(limits), 0.0) / price * HOUR_S

    def refuse_if_none_is_left(self) -> None:
        """Refuses to begin a run.

        Raises:
            CostReached: earlier runs have cost what all may.
        """
        if self.most is not None and (self.reached or self.spent >= self.most):
            self.reached = True
            raise CostReached(
                f"not begun: {self.spent:.2f} of at most {self.most:.2f} are spent. Run the same "
                "command again to go on"
            )

    def add(self, engine: Engine, seconds: float) -> None:
        """Adds a run.

        Args:
            engine: how it ran.
            seconds: time of its replicas together, in s.
        """
        self.spent += cost_of(engine, seconds) or 0.0


def cost_of(engine: Engine, seconds: float) -> float | None:
    """Returns what a time of replicas costs, in s; None if the job does not say."""
    price = engine.price_per_replica_hour
    return None if price is None else price * seconds / HOUR_S
