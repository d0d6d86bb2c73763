"""Errors of the pipeline package.

PipelineError
├── JobError          the job file or a command asks for something impossible (exit code 2)
├── SourceError       imagery cannot be read as its collection says; its tiles are quarantined
├── AnalystError      an Analyst raised, returned an invalid output, or killed its process
├── OutputError       the output cannot be written, or is not what it should be (exit code 2)
│   └── OutputBusy    another run is writing to the output
├── RunFailed         the job stopped; finished blocks are kept (exit code 1)
└── RunLost           another run took over the output because this run appeared dead
"""

from __future__ import annotations


class PipelineError(Exception):
    """Base of the pipeline's errors; the message says what failed, where, and what to do."""


class JobError(PipelineError, ValueError):
    """A mistake of the user in a job file, an AOI or a prompt file."""


class SourceError(PipelineError):
    """Imagery is missing, damaged, or differs from what its collection says."""


class AnalystError(PipelineError):
    """A model failed on a tile."""


class OutputError(PipelineError):
    """The output cannot be used."""


class OutputBusy(OutputError):
    """Another run is writing to the output."""


class RunFailed(PipelineError):
    """The job stopped before its end; finished blocks are kept."""


class RunLost(PipelineError):
    """Another run now holds the output; this run must not commit anything more."""
