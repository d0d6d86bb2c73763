"""What the steps of a flow need of one another, and the order in which they run. Pure."""

from __future__ import annotations

import graphlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from earthgptx.pipeline.errors import JobError
from earthgptx.workflows.flow.spec import NAME, Step


@dataclass(frozen=True, slots=True)
class Node:
    """A step with its name and what it needs."""

    name: str
    step: Step
    jobs: tuple[str, ...]
    """Names of the jobs whose results it reads."""
    needs: frozenset[str]
    """Names of the steps that have to be done before."""


def ordered(steps: Sequence[Step]) -> list[Node]:
    """Returns the steps of a flow in an order in which each comes after what it needs.

    Raises:
        JobError: two steps have one name, a name is none of a job, or steps need one another.
    """
    names = _names(steps)
    jobs = [name for name, step in zip(names, steps, strict=True) if step.kind == "job"]
    nodes: list[Node] = []
    for at, (name, step) in enumerate(zip(names, steps, strict=True)):
        read = _read_by(name, step, [job for job in names[:at] if job in jobs])
        for each in read:
            if each not in jobs:
                raise JobError(
                    f"step '{name}' needs '{each}', which is no job of this flow; there are "
                    f"{', '.join(jobs) or 'none'}"
                )
        checks = [n.name for n in nodes if n.step.kind == "check" and set(n.jobs) & set(read)]
        needs = {*read, *(checks if step.kind == "publish" else ())}
        nodes.append(Node(name, step, tuple(read), frozenset(needs)))
    try:
        graphlib.TopologicalSorter({node.name: node.needs for node in nodes}).prepare()
    except graphlib.CycleError as error:
        circle = " -> ".join(error.args[1])
        raise JobError(f"the steps need one another in a circle: {circle}") from error
    # As in the file, as far as the needs allow.
    done: list[Node] = []
    while len(done) < len(nodes):
        there = {node.name for node in done}
        done.append(next(n for n in nodes if n.name not in there and n.needs <= there))
    return done


def _names(steps: Sequence[Step]) -> list[str]:
    found: list[str] = []
    for step in steps:
        own = step.name or (Path(step.job).stem if step.job else step.kind)
        if not re.match(NAME, own):
            raise JobError(f"'{own}' is no name of a step; give it another one by name:")
        if own in found and (step.name or step.job):
            raise JobError(f"two steps are called '{own}'; give one of them another name")
        number, name = 1, own
        while name in found:
            number += 1
            name = f"{own}-{number}"
        found.append(name)
    return found


def _read_by(name: str, step: Step, before: Sequence[str]) -> list[str]:
    """Returns the names of the steps whose results a step reads."""
    if step.prompts is not None:
        if step.prompts.origin == name:
            raise JobError(f"step '{name}' takes prompts from itself")
        return [step.prompts.origin]
    if step.select is not None:
        return [step.select.origin]
    if step.kind == "job":
        return []
    read = list(before) if step.of is None else step.of
    if not read:
        raise JobError(f"step '{name}' comes before any job; move it behind one")
    return read
