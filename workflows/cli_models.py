"""The commands that make and look at models: annotated chips, training, evaluation, what a model is made of."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from workflows.terminal import AsJson, StepLines, out, print_table, progress_bar

app = typer.Typer()
models = typer.Typer(help="Look at models.", no_args_is_help=True)
app.add_typer(models, name="model")


@app.command(epilog="Example: earthgptx chips town.tif buildings.geojson --word building --out data/town")
def chips(
    raster: Annotated[str, typer.Argument(metavar="RASTER", help="8 bit, georeferenced.")],
    labels: Annotated[str, typer.Argument(metavar="LABELS", help="Polygons: GeoJSON, GeoParquet, ...")],
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the set is written.")],
    word: Annotated[str, typer.Option(help="What the objects are called.")] = "object",
    column: Annotated[str, typer.Option(help="Of the labels, that says what each is called.")] = "",
    px: Annotated[int, typer.Option(min=64, help="Side of a chip.")] = 512,
    split: Annotated[str, typer.Option(help="Name of the list.")] = "train",
) -> None:
    """Cut a georeferenced raster and outlines over it into annotated chips that train and evaluate read."""
    from workflows.chips import cut_chips

    images, objects = cut_chips(raster, labels, folder, word=word, px=px, column=column, split=split)
    out.print(f"{images} chips, {objects} objects: {folder}", soft_wrap=True)


@app.command(epilog="Example: earthgptx train examples/train/nano.yaml --out runs/nano")
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="The training run.")],
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Of the run; a run that was stopped goes on.")],
    processes: Annotated[int, typer.Option(min=1, help="So many together, through Ray; one a GPU.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would need, and train nothing.")] = False,
) -> None:
    """Train a model on one mixture of sources, sensors and tasks; or go on where the folder's checkpoint ends."""
    from model.training.config import read_train_config

    asked = read_train_config(config)
    if dry_run:
        from model.training.needs import needs_of

        print_table(f"{config}", [{"what": name, "value": value} for name, value in needs_of(asked).items()])
        return
    if processes > 1:
        from workflows.together import train_together

        train_together(asked, folder, processes)
    else:
        from model.training.train import train as start

        with progress_bar() as progress:
            task = progress.add_task("reading the sets", total=asked.steps, rate="")
            steps = StepLines(asked.steps, asked.log_every, partial(progress.console.print, soft_wrap=True))

            def update(step: int, losses: dict[str, float]) -> None:
                progress.update(task, completed=step, description=f"loss: {losses['total']:.2f}")
                steps(step, losses)

            start(asked, folder, update)
    out.print(
        f"model:    {folder / 'model'}\nfigures:  {folder / 'metrics.jsonl'}; tensorboard --logdir {folder / 'tensorboard'}\n"
        f"pictures: {folder / 'pictures'}", soft_wrap=True,
    )  # fmt: skip


@app.command(epilog="Example: earthgptx evaluate runs/nano/model data/hit-uav --json hit-uav.json")
def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A scale, a folder of weights, a hub id; or cfar, which only finds.")
    ],
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="'rendered', or a folder of annotated images.")],
    split: Annotated[str, typer.Option(help="A list in the folder.")] = "test",
    iou: Annotated[float, typer.Option(min=0.05, max=0.95, help="From which a found box is a hit.")] = 0.5,
    resolution: Annotated[
        float | None,
        typer.Option(min=0.01, help="Metres of a pixel that the images are brought to; theirs by default."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures here.")] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Keep raw answers, and pictures of the best and the worst."),
    ] = None,
) -> None:
    """Say how well a model does, beside what it would get blind and what the commonest word gets."""
    from workflows.evaluate import evaluate as examine

    with progress_bar() as progress:
        task = progress.add_task("reading", total=None, rate="")
        reports = examine(
            model, dataset, split, iou=iou, resolution=resolution, out=folder,
            on_image=lambda name, done, total: progress.update(task, description=name, completed=done, total=total),
        )  # fmt: skip
    for report in reports:
        columns = {"figure": report.figures, "blind": report.blind, "commonest": report.commonest, **report.sensors}
        rows = [
            {"what": name, **{kind: f"{at[name]:.3f}" if name in at else "" for kind, at in columns.items()}}
            for name in sorted(report.figures)
        ]
        print_table(f"{model} on {report.name}, {report.images} images", rows)
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(report) for report in reports], indent=1) + "\n")
        out.print(f"figures: {json_file}", soft_wrap=True)


@models.command(epilog="Example: earthgptx model describe nano")
def describe(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A scale (tiny, nano, small, base), a folder or a hub id.")
    ],
    as_json: AsJson = False,
) -> None:
    """Print a model's parts, parameters, tokens and memory; its weights are not loaded."""
    from model.config import Budget
    from model.describe import cost_of
    from model.folder import config_of

    config = config_of(name)
    cost = cost_of(config, Budget().caption)
    if as_json:
        print(json.dumps({"name": name, "config": config.model_dump(mode="json"), **asdict(cost)}))  # noqa: T201
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
        f"an image of {config.image_px} px: {cost.image_tokens} tokens; a prompt: {cost.kv_bytes_per_prompt / 1e3:,.0f} kB of "
        f"keys and values (bf16)\nweights: {cost.bytes_fp32 / 1e6:,.0f} MB in fp32, {cost.bytes_bf16 / 1e6:,.0f} MB in bf16", soft_wrap=True
    )  # fmt: skip
