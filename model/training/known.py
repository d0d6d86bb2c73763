"""Sets that are known by name: their form, their words, and what they may be used for. Torch-free."""

from __future__ import annotations

from model.training.datasets import SetConfig

NO_PORT = ("ship", "aircraft", "storage tank", "runway")
"""Words of which a street, a field or a roof from the air has none."""


def _known(name: str, **told: object) -> SetConfig:
    return SetConfig.model_validate({"name": name, "folder": ".", **told})


KNOWN: dict[str, tuple[SetConfig, ...]] = {
    "hit-uav": (
        _known(
            "hit-uav", format="coco", modality="infrared", licence="CC BY 4.0", absent=(*NO_PORT, "harbour"),
            names={"Person": "person", "Car": "car", "Bicycle": "bicycle", "OtherVehicle": "vehicle", "DontCare": None},
            parents={"car": "vehicle"},
        ),
    ),
    "aerial-cars": (
        _known(
            "aerial-cars", format="yolo", modality="optical", licence="CC BY-SA", absent=(*NO_PORT, "harbour"),
            names={"0": "car", "1": "vehicle", "2": "vehicle", "3": "vehicle"}, parents={"car": "vehicle"},
        ),
    ),
    "banepa-buildings": (
        _known(
            "banepa-buildings", format="coco", images="tiles", modality="optical", metres_per_pixel=0.13,
            licence="CC BY 4.0, outlines ODbL 1.0", names={"building": "building"}, absent=(*NO_PORT, "harbour"),
        ),
    ),
    "gsi-roads": (
        _known(
            "gsi-roads", format="masks", labels="masks", modality="optical", licence="Public Data License 1.0", names={"road": "road"},
            whole=True, absent=NO_PORT,
        ),
    ),
    "gsi-solar": (
        _known(
            "gsi-solar", format="masks", labels="masks", modality="optical", licence="Public Data License 1.0",
            names={"solar panel": "solar panel"}, absent=NO_PORT,
        ),
    ),
    "ombria": tuple(
        _known(
            f"ombria-{folder.lower()}", format="masks", images=f"{folder}/after", labels=f"{folder}/mask", modality=modality,
            metres_per_pixel=10, licence="none given; Copernicus data", names={"flood water": "flood water"}, whole=True,
            absent=NO_PORT,
        )
        for folder, modality in (("S1", "sar"), ("S2", "optical"))
    ),
    "s1-flood-chips": (
        _known(
            "s1-flood-chips", format="sen1floods11", images="S1", labels="Labels", modality="sar", metres_per_pixel=10,
            licence="Copernicus data, labels CC BY 4.0 by second hand", names={"1": "water"}, whole=True, absent=NO_PORT,
        ),
    ),
    "hrsid-mini": (
        _known(
            "hrsid-mini", format="masks", labels="masks", modality="sar", licence="GPL-3.0 as named by HRSID", names={"ship": "ship"},
            evaluation_only=True,
        ),
    ),
    "airbus-aircraft": (
        _known(
            "airbus-aircraft", format="coco", modality="optical", metres_per_pixel=0.5, licence="CC BY-NC-SA 4.0",
            names={"Airplane": "aircraft", "Truncated_airplane": "aircraft"}, evaluation_only=True,
        ),
    ),
    "sirst": (
        _known(
            "sirst", format="coco", modality="infrared", licence="none given", names={"target": "hot target"},
            evaluation_only=True,
        ),
    ),
    "rsscn7": (
        _known(
            "rsscn7", format="scenes", images=".", modality="optical", licence="none given", evaluation_only=True,
            names={
                "aGrass": "grass", "bField": "field", "cIndustry": "industry", "dRiverLake": "river or lake",
                "eForest": "forest", "fResident": "houses", "gParking": "parking lot",
            },
        ),
    ),
}  # fmt: skip
"""By the name of the folder that they lie in; one set a sensor."""
