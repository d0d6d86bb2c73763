"""PipelineError
├── JobError          the job file or a command asks for something that cannot be (exit code 2)
├── SourceError       imagery that cannot be read as its collection says; its tiles are quarantined
├── AnalystError      an Analyst raised, answered in a wrong shape, or killed its process
├── OutputError       the result's place cannot be written or is not what it should be (exit code 2)
│   └── OutputBusy    another run is writing there
├── RunFailed         the job stopped; finished blocks are kept (exit code 1)
└── RunLost           another run took over this output while this one was thought dead
"""

from __future__ import annotations


class PipelineError(Exception):
    """What the pipeline refuses or cannot go on with; the message says what, where and what to do."""


class JobError(PipelineError, ValueError):
    """The user's mistake in a job file, an AOI or a prompt file."""


class SourceError(PipelineError):
    """Imagery that is missing, damaged, or other than its collection says."""


class AnalystError(PipelineError):
    """A model that failed on a tile."""


class OutputError(PipelineError):
    """The place of the result cannot be used."""


class OutputBusy(OutputError):
    """Another run is writing to the output."""


class RunFailed(PipelineError):
    """The job stopped before its end; what was finished is kept."""


class RunLost(PipelineError):
    """Another run holds the output now; nothing more may be committed."""
