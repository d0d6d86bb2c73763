"""Ask questions of whole satellite archives.

One job over a region gives every object, outlined and described, as Zarr.

    import earthgptx

    job = earthgptx.JobSpec.from_yaml("job.yaml")
    report = earthgptx.run(earthgptx.plan(job))
    result = earthgptx.open_result(report.output)

Names are imported on first use: `import earthgptx` alone starts neither Ray nor torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from earthgptx.pipeline.analyst import open_model
    from earthgptx.pipeline.engine.plan import plan
    from earthgptx.pipeline.engine.run import run
    from earthgptx.pipeline.job.spec import JobSpec
    from earthgptx.pipeline.planning.scenes import open_scene
    from earthgptx.pipeline.results.result import open_result

    __version__: str

__all__ = ["JobSpec", "__version__", "open_model", "open_result", "open_scene", "plan", "run"]

_HOMES = {
    "JobSpec": "pipeline.job.spec",
    "plan": "pipeline.engine.plan",
    "run": "pipeline.engine.run",
    "open_result": "pipeline.results.result",
    "open_scene": "pipeline.planning.scenes",
    "open_model": "pipeline.analyst",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("earthgptx")
    if name not in _HOMES:
        raise AttributeError(f"module 'earthgptx' has no attribute '{name}'")
    return getattr(import_module(f"earthgptx.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
