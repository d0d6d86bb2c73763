"""Commands that create and inspect models: chips, train, evaluate, model describe."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from earthgptx.workflows.terminal import (
    AsJson,
    StepLines,
    out,
    print_json,
    print_table,
    progress_bar,
)

if TYPE_CHECKING:
    from earthgptx.workflows.evaluate import Report

app = typer.Typer()
models = typer.Typer(help="Look at models.", no_args_is_help=True)
app.add_typer(models, name="model")


@app.command(
    epilog="Example: earthgptx chips town.tif buildings.geojson --word building --out data/town"
)
def chips(
    raster: Annotated[str, typer.Argument(metavar="RASTER", help="8 bit, georeferenced.")],
    labels: Annotated[
        str, typer.Argument(metavar="LABELS", help="Polygons: GeoJSON, GeoParquet, ...")
    ],
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the set is written.")],
    word: Annotated[str, typer.Option(help="What the objects are called.")] = "object",
    column: Annotated[
        str, typer.Option(help="Column of the labels with the name of each object.")
    ] = "",
    px: Annotated[int, typer.Option(min=64, help="Side of a chip.")] = 512,
    split: Annotated[str, typer.Option(help="Name of the list.")] = "train",
) -> None:
    """Cut a georeferenced raster and the polygons over it into annotated chips.

    `train` and `evaluate` read them.
    """
    from earthgptx.workflows.chips import cut_chips

    images, objects = cut_chips(
        raster, labels, folder, word=word, px=px, column=column, split=split
    )
    out.print(f"{images} chips, {objects} objects: {folder}", soft_wrap=True)


@app.command(epilog="Example: earthgptx train examples/train/nano.yaml --out runs/nano")
def train(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG.yaml", help="Config of the training run.")
    ],
    folder: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="Folder of the run."),
    ],
    processes: Annotated[
        int, typer.Option(min=1, help="Processes that train together through Ray, one per GPU.")
    ] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what the run needs, and train nothing.")
    ] = False,
) -> None:
    """Train a model on one mixture of sources, sensors and tasks, or resume a run.

    A run whose folder holds a checkpoint goes on from there.
    """
    from earthgptx.model.training.config import read_train_config

    settings = read_train_config(config)
    if dry_run:
        from earthgptx.model.training.resources import resources_of

        print_table(
            f"{config}",
            [{"what": name, "value": value} for name, value in resources_of(settings).items()],
        )
        return
    if processes > 1:
        from earthgptx.workflows.train_distributed import train_distributed

        train_distributed(settings, folder, processes)
    else:
        from earthgptx.model.training.train import train as start

        with progress_bar() as progress:
            task = progress.add_task("reading the sets", total=settings.steps, rate="")
            steps = StepLines(
                settings.steps, settings.log_every, partial(progress.console.print, soft_wrap=True)
            )

            def update(step: int, losses: dict[str, float]) -> None:
                progress.update(task, completed=step, description=f"loss: {losses['total']:.2f}")
                steps(step, losses)

            start(settings, folder, update)
    out.print(
        f"model:    {folder / 'model'}\n"
        f"figures:  {folder / 'metrics.jsonl'}; tensorboard --logdir {folder / 'tensorboard'}\n"
        f"pictures: {folder / 'pictures'}",
        soft_wrap=True,
    )


@app.command(epilog="Example: earthgptx evaluate runs/nano/model data/hit-uav --json hit-uav.json")
def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A scale, a folder of weights, a hub id; or cfar, which only finds.",
        ),
    ],
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="'rendered', or a folder of annotated images.")
    ],
    split: Annotated[str, typer.Option(help="Name of a list in the folder.")] = "test",
    iou: Annotated[
        float, typer.Option(min=0.05, max=0.95, help="IoU from which a found box is a hit.")
    ] = 0.5,
    resolution: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            help="Pixel size in metres that images are resampled to; their own by default.",
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the figures here.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder for raw answers, and pictures of the best and worst images.",
        ),
    ] = None,
) -> None:
    """Measure a model on annotated images, beside two baselines.

    The baselines are the same model with hidden images, and the most common answer.
    """
    from earthgptx.workflows.evaluate import evaluate as examine

    with progress_bar() as progress:
        task = progress.add_task("reading", total=None, rate="")
        reports = examine(
            model,
            dataset,
            split,
            iou=iou,
            resolution=resolution,
            out=folder,
            on_image=lambda name, done, total: progress.update(
                task, description=name, completed=done, total=total
            ),
        )
    for report in reports:
        print_table(f"{model} on {report.name}, {report.images} images", _figure_rows(report))
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(report) for report in reports], indent=1) + "\n")
        out.print(f"figures: {json_file}", soft_wrap=True)


def _figure_rows(report: Report) -> list[dict[str, str]]:
    """Returns one row per figure.

    Its columns are the model's result, the result on hidden images ("blind"), the result of always
    answering the most common word ("commonest"), and the results per sensor.
    """
    columns = {
        "figure": report.figures,
        "blind": report.blind,
        "commonest": report.commonest,
        **report.sensors,
    }
    return [
        {"what": name}
        | {kind: f"{at[name]:.3f}" if name in at else "" for kind, at in columns.items()}
        for name in sorted(report.figures)
    ]


@models.command(epilog="Example: earthgptx model describe nano")
def describe(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A scale (tiny, nano, small, base), a folder or a hub id."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Print a model's parts, parameters, tokens and memory; its weights are not loaded."""
    from earthgptx.model.interface.config import Budget
    from earthgptx.model.interface.folder import config_of
    from earthgptx.model.network.cost import cost_of

    config = config_of(name)
    cost = cost_of(config, Budget().caption)
    if as_json:
        print_json({"name": name, "config": config.model_dump(mode="json"), **asdict(cost)})
        return
    total = sum(cost.parameters.values())
    print_table(
        f"{name}: {total / 1e6:,.1f} M parameters",
        [
            {"part": part, "parameters": f"{count:,}", "share": f"{100 * count / total:.1f} %"}
            for part, count in cost.parameters.items()
        ],
    )
    out.print(
        f"an image of {config.image_px} px: {cost.image_tokens} tokens; "
        f"a prompt: {cost.kv_bytes_per_prompt / 1e3:,.0f} kB of keys and values (bf16)\n"
        f"weights: {cost.bytes_fp32 / 1e6:,.0f} MB in fp32, "
        f"{cost.bytes_bf16 / 1e6:,.0f} MB in bf16",
        soft_wrap=True,
    )
