"""What a run tells Prometheus, by Ray's own metrics endpoint.

Ray puts `ray_` before each name and `_total` behind that of a counter.
"""

from __future__ import annotations

from collections import Counter as Counts

from ray.util.metrics import Counter, Gauge

from earthgptx.pipeline.engine.infer import BlockReport
from earthgptx.pipeline.engine.tasks import Done, Effort, Event, Failed, Kind, Lost

JOB = "job_name"
"""Label with the name of the job; Prometheus has `job` for itself."""


class Metrics:
    """The counters of one run."""

    def __init__(self, job: str) -> None:
        """Creates them.

        Args:
            job: name of the job.
        """
        self._tiles = _counter("tiles", "Tiles by what came of them", "outcome", job)
        self._blocks = _counter("blocks", "Tasks of blocks that ended, by kind", "task", job)
        self._failures = _counter("failures", "Failures of tasks and replicas", "kind", job)
        self._seconds = _counter("seconds", "Seconds of replicas by what they did", "stage", job)
        self._bytes = _counter("bytes", "Bytes of pixels read, and of files written", "way", job)
        self._replicas = Gauge("earthgptx_replicas", "Replicas by state", (JOB, "state"))
        self._replicas.set_default_tags({JOB: job})

    def note(self, event: Event, result: object = None, effort: Effort | None = None) -> None:
        """Counts what has happened.

        Args:
            event: the event.
            result: result of its task, if it is the end of one.
            effort: what the task took.
        """
        if isinstance(event, Failed | Lost):
            self._failures.inc(1, {"kind": event.failure.trouble.value})
        if not isinstance(event, Done):
            return
        if event.piece is None:
            self._blocks.inc(1, {"task": event.task.kind.value})
        if isinstance(result, BlockReport) and event.task.kind == Kind.INFER:
            counts = {"done": result.done, "empty": result.empty, "failed": result.failed}
            _add(self._tiles, "outcome", counts)
        if effort is not None:
            _add(self._seconds, "stage", effort.seconds)
            _add(self._bytes, "way", {"read": effort.bytes_read, "written": effort.bytes_written})

    def replicas(self, states: Counts[str]) -> None:
        """Tells how many replicas there are, by state: starting, loading, ready."""
        for state in ("starting", "loading", "ready"):
            self._replicas.set(states[state], {"state": state})


def _counter(name: str, says: str, label: str, job: str) -> Counter:
    made = Counter(f"earthgptx_{name}", says, (JOB, label))
    made.set_default_tags({JOB: job})
    return made


def _add(counter: Counter, label: str, values: dict[str, int] | dict[str, float]) -> None:
    for name, value in values.items():
        if value > 0:  # Ray refuses to add nothing
            counter.inc(value, {label: name})
