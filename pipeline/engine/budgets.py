"""How often the scheduler tries what failed, and when it gives up."""

from __future__ import annotations

from earthgptx.pipeline.engine.tasks import Trouble

BUDGET = {
    Trouble.SOURCE: 6,
    Trouble.STORAGE: 5,
    Trouble.INPUT: 6,
    Trouble.DIED: 12,
    Trouble.MEMORY: 6,
    Trouble.NODE: 20,
    Trouble.SICK: 20,
    Trouble.BUG: 2,
}
"""Failures of one task that are followed by another try, by kind."""
PAUSE_S = {Trouble.SOURCE: 30.0, Trouble.STORAGE: 16.0}
"""Longest pause before the next try; pauses start at 1 s and double. Other kinds have none."""
WAITED = 3
"""Failures as which one counts that was tried for minutes."""
DEATHS = 3
"""Deaths of replicas that had a block, after which its tiles are tried one by one."""
TRIALS = 4
"""Times that a block's tiles are tried one by one before the run ends."""
SICK = 6
"""Replicas in a row on which the model fails on everything, after which the run ends."""
LETHAL = 20
"""Deaths of replicas before the first answered tile of a run, after which it ends; two for each
replica of a large pool."""
CANARIES = 5
"""Tiles that are known to be well and are tried again after each death on a suspected one."""
STRIKES = 2
"""Tiles on which a replica fails and another does not, after which it is replaced."""
