"""Errors of the pipeline package, and the exit code of a command that ends with each.

PipelineError           2
├── JobError            2  the job file or a command asks for something impossible
├── SourceError         2  imagery cannot be read as its collection says; its tiles are quarantined
├── AnalystError        2  an Analyst raised, or returned an invalid output
├── OutputError         2  the output cannot be written, or is not what it should be
│   └── OutputBusy      3  another run is writing to the output
├── Outage              3  storage, imagery or Ray do not answer: try again
│   ├── WaitedFor       3  an object store did not answer for minutes
│   └── DiskFull        3  a disk has no room: make room and try again
├── RunFailed           1  the job stopped; finished blocks are kept
│   ├── Interrupted     1  by Ctrl-C or SIGTERM
│   └── CostReached     1  it may cost no more
└── RunLost             1  another run took over the output because this run appeared dead
"""

from __future__ import annotations

from typing import ClassVar

from earthgptx.catalogs.redaction import redact


class PipelineError(Exception):
    """Base of the pipeline's errors; the message says what failed, where, and what to do."""

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str = "") -> None:
        """Sets the message; addresses in it are redacted."""
        super().__init__(redact(message))


class JobError(PipelineError, ValueError):
    """A mistake of the user in a job file, an AOI or a prompt file."""


class SourceError(PipelineError):
    """Imagery is missing, damaged, or differs from what its collection says."""

    def __init__(self, message: str, *, unreachable: bool = False, passing: bool = False) -> None:
        """Sets the message and what may become of the failure.

        Args:
            message: what failed, where, and what to do.
            unreachable: whether the server refused or did not answer, so that a later run may
                succeed; False if the imagery itself is wrong.
            passing: whether the failure may pass within minutes.
        """
        super().__init__(message)
        self.unreachable, self.passing = unreachable, passing

    def __reduce__(self) -> tuple[object, ...]:
        return _source_error, (str(self), self.unreachable, self.passing)


def _source_error(message: str, unreachable: bool, passing: bool) -> SourceError:
    return SourceError(message, unreachable=unreachable, passing=passing)


class AnalystError(PipelineError):
    """A model failed on a tile."""


class OutputError(PipelineError):
    """The output cannot be used."""


class OutputBusy(OutputError):
    """Another run is writing to the output."""

    exit_code = 3


class Outage(PipelineError):
    """Something that the run needs does not answer or is full; the same command goes on later."""

    exit_code = 3
    waited = False
    """Whether it has been tried for minutes already."""


class WaitedFor(Outage):
    """An object store did not answer for as long as a request is repeated: minutes."""

    waited = True


class DiskFull(Outage):
    """A disk has no room."""


class RunFailed(PipelineError):
    """The job stopped before its end; finished blocks are kept."""

    exit_code = 1


class Interrupted(RunFailed):
    """The run was interrupted; finished blocks are kept."""


class CostReached(RunFailed):
    """The run may cost no more; finished blocks are kept."""


class RunLost(PipelineError):
    """Another run now holds the output; this run must not write anything more."""

    exit_code = 1
