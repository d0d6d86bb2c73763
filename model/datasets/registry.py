"""Known datasets by name: format, words, licence, and whether training is allowed. Torch-free."""

from __future__ import annotations

from earthgptx.model.datasets.formats import SetConfig

NO_PORT = ("ship", "aircraft", "storage tank", "runway")
"""Words that have no object in aerial images of streets, fields or roofs."""


def _known(name: str, **told: object) -> SetConfig:
    return SetConfig.model_validate({"name": name, "folder": ".", **told})


REGISTRY: dict[str, tuple[SetConfig, ...]] = {
    "hit-uav": (
        _known(
            "hit-uav",
            format="coco",
            modality="infrared",
            licence="CC BY 4.0",
            absent=(*NO_PORT, "harbour"),
            names={
                "Person": "person",
                "Car": "car",
                "Bicycle": "bicycle",
                "OtherVehicle": "vehicle",
                "DontCare": None,
            },
            parents={"car": "vehicle"},
        ),
    ),
    "aerial-cars": (
        _known(
            "aerial-cars",
            format="yolo",
            modality="optical",
            licence="CC BY-SA",
            absent=(*NO_PORT, "harbour"),
            names={"0": "car", "1": "vehicle", "2": "vehicle", "3": "vehicle"},
            parents={"car": "vehicle"},
        ),
    ),
    "banepa-buildings": (
        _known(
            "banepa-buildings",
            format="coco",
            images="tiles",
            modality="optical",
            metres_per_pixel=0.13,
            licence="CC BY 4.0, outlines ODbL 1.0",
            names={"building": "building"},
            absent=(*NO_PORT, "harbour"),
        ),
    ),
    "gsi-roads": (
        _known(
            "gsi-roads",
            format="masks",
            labels="masks",
            modality="optical",
            licence="Public Data License 1.0",
            names={"road": "road"},
            stuff=True,
            absent=NO_PORT,
        ),
    ),
    "gsi-solar": (
        _known(
            "gsi-solar",
            format="masks",
            labels="masks",
            modality="optical",
            licence="Public Data License 1.0",
            names={"solar panel": "solar panel"},
            absent=NO_PORT,
        ),
    ),
    "ombria": tuple(
        _known(
            f"ombria-{folder.lower()}",
            format="masks",
            images=f"{folder}/after",
            labels=f"{folder}/mask",
            modality=modality,
            metres_per_pixel=10,
            licence="none given; Copernicus data",
            names={"flood water": "flood water"},
            stuff=True,
            absent=NO_PORT,
        )
        for folder, modality in (("S1", "sar"), ("S2", "optical"))
    ),
    "s1-flood-chips": (
        _known(
            "s1-flood-chips",
            format="sen1floods11",
            images="S1",
            labels="Labels",
            modality="sar",
            metres_per_pixel=10,
            licence="Copernicus data, labels CC BY 4.0 by second hand",
            names={"1": "water"},
            stuff=True,
            absent=NO_PORT,
        ),
    ),
    "gdit-aircraft": (
        _known(
            "gdit-aircraft",
            format="dota",
            modality="optical",
            licence="public domain by the set's own word",
            names={"aircraft": "aircraft"},
            absent=("ship", "harbour"),
        ),
    ),
    "sen2ships": (
        _known(
            "sen2ships",
            format="coco",
            modality="optical",
            metres_per_pixel=10,
            licence="MIT; contains modified Copernicus Sentinel data",
            names={"ship": "ship"},
        ),
    ),
    "eurosat": (
        _known(
            "eurosat",
            format="scenes",
            images=".",
            modality="optical",
            metres_per_pixel=10,
            licence="MIT; contains modified Copernicus Sentinel data",
            names={
                "AnnualCrop": "field",
                "Forest": "forest",
                "HerbaceousVegetation": "shrubs",
                "Highway": "highway",
                "Industrial": "industry",
                "Pasture": "pasture",
                "PermanentCrop": "orchard",
                "Residential": "houses",
                "River": "river",
                "SeaLake": "sea or lake",
            },
        ),
    ),
    "shanghai-roads": (
        _known(
            "shanghai-roads",
            format="masks",
            labels="masks",
            modality="optical",
            licence="CC BY-SA 4.0",
            names={"road": "road"},
            stuff=True,
            margin_px=8,
            absent=("aircraft", "runway"),
        ),
    ),
    "hrsid-mini": (
        _known(
            "hrsid-mini",
            format="masks",
            labels="masks",
            modality="sar",
            licence="GPL-3.0 as named by HRSID",
            names={"ship": "ship"},
            evaluation_only=True,
        ),
    ),
    "airbus-aircraft": (
        _known(
            "airbus-aircraft",
            format="coco",
            modality="optical",
            metres_per_pixel=0.5,
            licence="CC BY-NC-SA 4.0",
            names={"Airplane": "aircraft", "Truncated_airplane": "aircraft"},
            evaluation_only=True,
        ),
    ),
    "sirst": (
        _known(
            "sirst",
            format="coco",
            modality="infrared",
            licence="none given",
            names={"target": "hot target"},
            evaluation_only=True,
        ),
    ),
    "rsscn7": (
        _known(
            "rsscn7",
            format="scenes",
            images=".",
            modality="optical",
            licence="none given",
            evaluation_only=True,
            names={
                "aGrass": "grass",
                "bField": "field",
                "cIndustry": "industry",
                "dRiverLake": "river or lake",
                "eForest": "forest",
                "fResident": "houses",
                "gParking": "parking lot",
            },
        ),
    ),
}
"""Known datasets by the name of their folder; one configuration per sensor."""
