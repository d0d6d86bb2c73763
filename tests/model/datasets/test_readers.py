"""Every form that users have is read, from small files made in that form; real sets where they are
at hand.
"""

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
import yaml
from PIL import Image
from pycocotools.mask import encode

from earthgptx.model.datasets.formats import SetConfig
from earthgptx.model.datasets.readers import read_set
from earthgptx.model.datasets.record import Record
from earthgptx.model.datasets.registry import REGISTRY
from earthgptx.model.interface.errors import ConfigError, DataError
from earthgptx.model.interface.region import Box
from earthgptx.model.training.config import read_train_config
from tests import REPO

SIDE = 100


def picture(folder: Path, name: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((SIDE, SIDE, 3), 90, np.uint8)).save(path)


def voc(description: str = "") -> str:
    said = f"<description>{description}</description>" if description else ""
    return (
        "<annotation><object><name>ship</name>"
        "<bndbox><xmin>11</xmin><ymin>21</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>"
        f"{said}</object></annotation>"
    )


def coco(folder: Path) -> None:
    (folder / "val.json").write_text(
        json.dumps(
            {
                "images": [{"id": 7, "file_name": "a.png", "width": SIDE, "height": SIDE}],
                "categories": [{"id": 3, "name": "ship"}],
                "annotations": [
                    {"image_id": 7, "category_id": 3, "bbox": [10, 20, 20, 20]},
                    {
                        "image_id": 7,
                        "category_id": 3,
                        "bbox": [50, 50, 20, 20],
                        "segmentation": [[50, 50, 70, 50, 50, 70]],
                    },
                    {
                        "image_id": 7,
                        "category_id": 3,
                        "bbox": [0, 0, 2, 3],
                        "segmentation": {
                            "size": [SIDE, SIDE],
                            "counts": [0, 3, 97, 1, SIDE * SIDE - 101],
                        },
                    },
                ],
            }
        )
    )


def rrsis(folder: Path) -> None:
    inside = np.zeros((SIDE, SIDE), np.uint8, order="F")
    inside[20:40, 10:30] = np.tri(20)
    runs = encode(inside)
    runs["counts"] = runs["counts"].decode()
    document = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 2, "name": "ship"}],
        "annotations": [{"id": 5, "image_id": 1, "category_id": 2, "segmentation": [runs]}],
    }
    (folder / "instances.json").write_text(json.dumps(document))
    sentences = [{"sent": "the ship on the left"}]
    references = [
        {"image_id": 1, "ann_id": 5, "split": split, "sentences": sentences}
        for split in ("val", "train")
    ]
    (folder / "refs(unc).p").write_bytes(pickle.dumps(references))


def written(name: str, text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return write


GEOCHAT = json.dumps(
    [
        {
            "image": "a.png",
            "conversations": [
                {"from": "human", "value": "<image>\n[refer] the grey ship"},
                {"from": "gpt", "value": "{<10><20><30><40>|<0>}"},
                {"from": "human", "value": "[identify] What is this? {<50><50><70><70>|<45>}"},
                {"from": "gpt", "value": "a storage tank"},
                {"from": "human", "value": "How many ships are there?"},
                {"from": "gpt", "value": "one"},
            ],
        }
    ]
)
VRSBENCH = json.dumps(
    {
        "image": "a.png",
        "caption": "A harbour with a ship.",
        "objects": [
            {
                "obj_cls": "ship",
                "obj_coord": [0.1, 0.2, 0.3, 0.4],
                "referring_sentence": "The ship by the quay",
            },
            {"obj_cls": "crane", "obj_coord": [0.5, 0.5, 0.6, 0.6], "referring_sentence": None},
        ],
        "qa_pairs": [
            {
                "ques_id": 0,
                "question": "How many ships are visible?",
                "type": "object quantity",
                "answer": "1",
            }
        ],
    }
)
RSICD = json.dumps(
    {
        "images": [
            {
                "filename": "a.png",
                "split": "val",
                "sentences": [{"raw": "Many ships are in a port ."}],
            },
            {"filename": "a.png", "split": "train", "sentences": [{"raw": "Nothing ."}]},
        ]
    }
)


@pytest.mark.parametrize(
    ("form", "more", "write", "boxes", "outlined"),
    [
        (
            "coco",
            {"split": "val"},
            coco,
            [(10, 20, 30, 40), (50, 50, 70, 70), (0, 0, 2, 3)],
            [False, True, True],
        ),
        (
            "yolo",
            {"names": {"0": "ship", "1": "ship"}},
            written("labels/a.txt", "0 0.2 0.3 0.2 0.2\n1 0.5 0.5 0.7 0.5 0.5 0.7\n"),
            [(10, 20, 30, 40), (50, 50, 70, 70)],
            [False, True],
        ),
        ("voc", {}, written("labels/a.xml", voc()), [(10, 20, 30, 40)], [False]),
        (
            "dota",
            {},
            written("labels/a.txt", "imagesource:x\ngsd:0.5\n20 20 30 30 20 40 10 30 ship 0\n"),
            [(10, 20, 30, 40)],
            [True],
        ),
        (
            "dior-rsvg",
            {},
            written("labels/a.xml", voc("the ship in the west")),
            [(10, 20, 30, 40)],
            [False],
        ),
        ("rrsis-d", {"split": "val"}, rrsis, [(10, 20, 30, 40)], [True]),
        (
            "vrsbench",
            {},
            written("labels/a.json", VRSBENCH),
            [(10, 20, 30, 40), (50, 50, 60, 60)],
            [False, False],
        ),
        ("captions", {"split": "val"}, written("dataset.json", RSICD), [], []),
        (
            "instructions",
            {},
            written("instructions.json", GEOCHAT),
            [(10, 20, 30, 40), (46, 46, 74, 74)],
            [True, True],
        ),
    ],
)
def test_a_form_is_read(
    tmp_path: Path,
    form: str,
    more: dict[str, Any],
    write: Callable[[Path], None],
    boxes: list[tuple[int, int, int, int]],
    outlined: list[bool],
) -> None:
    picture(tmp_path / "images", "a.png")
    write(tmp_path)
    [record] = read_set(
        SetConfig(
            name="mine", format=form, folder=tmp_path, modality="optical", licence="CC0", **more
        )  # type: ignore[arg-type]
    )
    assert record.pixels.shape == (3, SIDE, SIDE)
    assert (record.source, record.image, record.licence) == ("mine", "images/a.png", "CC0")
    assert [region.outlined for region in record.regions] == outlined
    for region, box in zip(record.regions, boxes, strict=True):
        mask = region.mask
        found = (mask.x0, mask.y0, mask.x0 + mask.width, mask.y0 + mask.height)
        assert found == pytest.approx(box, abs=1)
    _words(form, record)


def _words(form: str, record: Record) -> None:
    """What a form says beside its boxes."""
    if form in ("dior-rsvg", "rrsis-d", "vrsbench"):
        said = {
            "dior-rsvg": "the ship in the west",
            "rrsis-d": "the ship on the left",
            "vrsbench": "The ship by the quay",
        }
        assert [region.phrase for region in record.regions if region.phrase] == [said[form]]
        assert record.north_up
    if form == "vrsbench":
        assert record.scene == "A harbour with a ship."
        assert record.questions == (("How many ships are visible?", "1"),)
    if form == "captions":
        assert record.scene == "Many ships are in a port"
    if form == "instructions":
        assert [region.phrase for region in record.regions] == ["the grey ship", "a storage tank"]
        assert record.questions == (("How many ships are there?", "one"),)


def test_masks_and_scenes_are_read(tmp_path: Path) -> None:
    picture(tmp_path / "images", "a.png")
    inside = np.zeros((SIDE, SIDE), np.uint8)
    inside[10:20, 10:20] = inside[50:60, 50:60] = 255
    (tmp_path / "labels").mkdir()
    Image.fromarray(inside).save(tmp_path / "labels" / "a.png")
    (tmp_path / "test.txt").write_text("a\n")
    plain = {
        "name": "mine",
        "format": "masks",
        "folder": tmp_path,
        "modality": "sar",
        "split": "test",
        "names": {"x": "ship"},
    }
    [record] = read_set(SetConfig.model_validate(plain))
    assert [region.mask.area for region in record.regions] == [100, 100]
    [record] = read_set(SetConfig.model_validate(plain | {"stuff": True}))
    assert [(region.mask.area, region.stuff) for region in record.regions] == [(200, True)]
    picture(tmp_path / "scenes", "forest/b.png")
    [record] = read_set(
        SetConfig.model_validate(
            plain | {"format": "scenes", "images": "scenes", "split": "", "names": {}}
        )
    )
    assert [region.label for region in record.regions] == ["forest"]


def test_decibels_and_hand_drawn_water_are_read(tmp_path: Path) -> None:
    bands = np.full((2, SIDE, SIDE), np.nan, np.float32)
    bands[:, :50] = np.array([-10.0, -17.0])[:, None, None]  # the middle of what is shown of each
    bands[:, 50:60] = 60
    drawn = np.zeros((SIDE, SIDE), np.int16)
    drawn[10:20, 10:30], drawn[60:] = 1, -1
    for folder, name, values in (("S1", "S1Hand", bands), ("Labels", "LabelHand", drawn)):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / f"Ghana_1_{name}.tif", values)
    (tmp_path / "test.txt").write_text("Ghana_1\n")
    config = REGISTRY["s1-flood-chips"][0].model_copy(update={"folder": tmp_path})
    for split in ("", "test"):
        [record] = read_set(config.model_copy(update={"split": split}))
        assert [(r.label, r.stuff, r.mask.box) for r in record.regions] == [
            ("water", True, Box(10, 10, 30, 20))
        ]
        assert set(np.unique(record.pixels[:, :50])) == {127}
        assert (record.pixels[:, 50:60].min(), record.pixels[:, 60:].max()) == (255, 0)
        assert record.ignored is not None
        assert (record.ignored == (drawn < 0)).all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"split": "none"}, r"mine: .*none.json is missing; check its folder and its split"),
        (
            {"names": {"car": "car"}},
            "mine: class 'ship' is not among names; say what it is called, or null",
        ),
        ({"format": "vrsbench", "labels": "."}, "mine: .* is not in the form 'vrsbench'"),
    ],
)
def test_what_cannot_be_read_is_named(
    tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    picture(tmp_path / "images", "a.png")
    coco(tmp_path)
    plain = {
        "name": "mine",
        "format": "coco",
        "folder": tmp_path,
        "modality": "optical",
        "split": "val",
    }
    with pytest.raises(DataError, match=sentence):
        read_set(SetConfig.model_validate(plain | change))


class _Run:
    """What a pickle may do: call anything."""

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, ("print('run')",)


def test_a_pickle_that_would_run_something_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "images", "a.png")
    rrsis(tmp_path)
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps([_Run()]))
    with pytest.raises(DataError, match="a pickle that would load builtins.eval is not read"):
        read_set(SetConfig(name="mine", format="rrsis-d", folder=tmp_path, modality="optical"))
    assert not capsys.readouterr().out


def test_a_class_that_is_not_taught_hides_its_ground(tmp_path: Path) -> None:
    picture(tmp_path / "images", "a.png")
    coco(tmp_path)
    [record] = read_set(
        SetConfig(
            name="mine",
            format="coco",
            folder=tmp_path,
            modality="optical",
            split="val",
            names={"ship": None},
        )
    )
    assert not record.regions
    assert record.ignored is not None
    assert record.ignored[25, 15]


def test_what_is_for_evaluation_only_is_never_learned_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.yaml"
    source = {"known": "hrsid-mini", "folder": "x", "weight": 1, "crop": [100, 200]}
    path.write_text(
        yaml.safe_dump(
            {"model": "tiny", "steps": 1, "sizes": [{"px": 128, "batch": 1}], "sources": [source]}
        )
    )
    with pytest.raises(ConfigError, match="hrsid-mini is for evaluation only"):
        read_train_config(path)
    path.write_text(path.read_text().replace("hrsid-mini", "mine"))
    with pytest.raises(ConfigError, match="no set 'mine' is known"):
        read_train_config(path)
    monkeypatch.setenv("EARTHGPTX_DATA", str(tmp_path))
    for example in (REPO / "examples" / "train").glob("*.yaml"):
        for learned in read_train_config(example).sources:
            for each in getattr(learned, "sets", ()):
                assert not each.evaluation_only
                assert each.listed == "train"


@pytest.mark.parametrize("name", REGISTRY)
def test_a_real_set_is_read_and_used_as_its_source_allows(name: str, data: Path) -> None:
    for config in REGISTRY[name]:
        text = (data / name / "SOURCE.md").read_text().lower()
        assert config.evaluation_only == ("use: evaluation only" in text)
        records = read_set(config.model_copy(update={"folder": data / name, "split": "test"}))
        assert records
        assert sum(len(record.regions) for record in records) >= len(records) / 2
        assert {region.label for record in records for region in record.regions} <= set(
            config.words
        )


def test_refsegrs_is_read(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    inside = np.zeros((SIDE, SIDE), np.uint8)
    inside[10:20, 30:60] = 1
    tifffile.imwrite(tmp_path / "images/7.tif", np.full((SIDE, SIDE, 3), 90, np.uint8))
    tifffile.imwrite(tmp_path / "masks/7.tif", inside)
    tifffile.imwrite(tmp_path / "images/8.tif", np.full((SIDE, SIDE, 3), 90, np.uint8))
    tifffile.imwrite(tmp_path / "masks/8.tif", np.zeros_like(inside))
    lines = "7 road along the buildings\n8 vehicle in the parking area\n\n"
    (tmp_path / "output_phrase_val.txt").write_text(lines)
    told = {"name": "r", "format": "refsegrs", "folder": tmp_path, "modality": "optical"}
    road, nothing = read_set(SetConfig.model_validate({**told, "split": "val"}))
    [region] = road.regions
    assert region.phrase == "road along the buildings"
    assert region.mask.area == 300
    assert road.north_up
    assert nothing.regions == ()
    with pytest.raises(DataError, match=r"output_phrase_test\.txt is missing"):
        read_set(SetConfig.model_validate({**told, "split": "test"}))


def geobench(folder: Path, letter: str = "B.") -> SetConfig:
    """Two questions in the form of GEOBench-VLM."""
    file = io.BytesIO()
    Image.fromarray(np.full((SIDE, SIDE, 3), 90, np.uint8)).save(file, "PNG")
    rows = [
        {
            "image": {"bytes": file.getvalue(), "path": "a.png"},
            "prompts": ["What is shown?", "Name the scene."],
            "options_list": ["forest", "port", "desert"],
            "ground_truth_option": given,
            "ground_truth": "port",
            "task": "Scene Classification",
        }
        for given in ("B", letter)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "Single.parquet")
    told = {"name": "g", "format": "geobench-vlm", "folder": folder, "split": "Single"}
    return SetConfig.model_validate({**told, "modality": "optical"})


def test_geobench_vlm_is_read(tmp_path: Path) -> None:
    first, second = read_set(geobench(tmp_path))
    assert first.choices == second.choices
    [choice] = first.choices
    assert choice.wordings == ("What is shown?", "Name the scene.")
    assert (choice.right, choice.task) == ("port", "Scene Classification")
    assert second.image == "Single.parquet#1"
    with pytest.raises(DataError, match="row 1 has no option 'E'"):
        read_set(geobench(tmp_path, "E"))


@pytest.mark.parametrize("rotated", [False, True])
def test_a_dota_set_of_upright_boxes_has_no_outlines(tmp_path: Path, rotated: bool) -> None:
    picture(tmp_path / "images", "a.png")
    (tmp_path / "labels").mkdir()
    lines = ["10 20 30 20 30 40 10 40 ship 0"]
    lines += ["20 50 30 60 20 70 10 60 ship 0"] if rotated else []
    (tmp_path / "labels/a.txt").write_text("\n".join(lines))
    told = {"name": "d", "format": "dota", "folder": tmp_path, "modality": "optical"}
    [record] = read_set(SetConfig.model_validate(told))
    assert [region.outlined for region in record.regions] == [rotated] * len(lines)


def test_nothing_is_known_in_the_margin_of_a_line(tmp_path: Path) -> None:
    picture(tmp_path / "images", "a.png")
    inside = np.zeros((SIDE, SIDE), np.uint8)
    inside[40:44] = 255
    (tmp_path / "labels").mkdir()
    Image.fromarray(inside).save(tmp_path / "labels" / "a.png")
    told = {"name": "m", "format": "masks", "folder": tmp_path, "modality": "optical"}
    told |= {"names": {"x": "road"}, "stuff": True, "margin_px": 8}
    [record] = read_set(SetConfig.model_validate(told))
    assert record.ignored is not None
    assert np.flatnonzero(record.ignored[:, 50]).tolist() == [*range(32, 40), *range(44, 52)]


def test_the_parts_of_a_list_are_all_of_it(tmp_path: Path) -> None:
    names = [f"{at:02}" for at in range(20)]
    for name in names:
        picture(tmp_path / "images" / "field", f"{name}.png")
    (tmp_path / "train.txt").write_text("\n".join(f"field/{name}" for name in names))
    told = {"name": "s", "format": "scenes", "folder": tmp_path, "modality": "optical"}

    def images(split: str) -> list[str]:
        read = read_set(SetConfig.model_validate({**told, "split": split}))
        return [Path(record.image).stem for record in read]

    assert images("train:dev") == ["07", "15"]
    assert sorted([*images("train:dev"), *images("train:rest")]) == images("train") == names
    with pytest.raises(DataError, match="split 'train:test' is no list, and no part of one"):
        images("train:test")
