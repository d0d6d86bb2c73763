"""Copies of real objects: whole, apart from others, on ground like their own."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from earthgptx.model.datasets.record import Record, Region
from earthgptx.model.interface.region import Mask
from earthgptx.model.samples.copied import MOST, may_copy, with_copies
from earthgptx.model.samples.mixture import Mixture, ReadConfig
from tests.model.records import a_record, ship

HARBOUR = a_record(ship(10, 10), ship(60, 30, 14))
DONOR = a_record(ship(20, 20), ship(50, 50, 6), ship(80, 80, 12))
PRESENT = len(HARBOUR.regions)


def pixels_of(region: Region) -> np.ndarray:
    return region.mask.window(0, 0, 100, 100)


@given(seed=st.integers(0, 10**6))
def test_copies_are_whole_and_touch_nothing(seed: int) -> None:
    found = with_copies(HARBOUR, DONOR, np.random.default_rng(seed))
    assert found.regions[:PRESENT] == HARBOUR.regions
    copies = found.regions[PRESENT:]
    assert len(copies) <= MOST
    covered = np.zeros((100, 100), int)
    for region in found.regions:
        covered += pixels_of(region)
        assert found.pixels[:, pixels_of(region)].min() > 150  # a hull has 200, its ground 0
    assert covered.max() == 1
    assert {region.mask.area for region in copies} <= {36, 100, 144}
    untouched = found.pixels[0] < 50
    assert (untouched | (covered > 0) | _around(covered)).all()


def _around(covered: np.ndarray) -> np.ndarray:
    """Pixels within three of a covered one, where a copy's rim fades out."""
    padded = np.pad(covered > 0, 3)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (7, 7))
    return np.asarray(windows.any(axis=(2, 3)))


def test_most_images_get_copies() -> None:
    counts = [
        len(with_copies(HARBOUR, DONOR, np.random.default_rng(seed)).regions) for seed in range(50)
    ]
    assert sum(count > PRESENT for count in counts) > 45


def test_no_copy_lies_on_other_ground_or_where_nothing_is_known() -> None:
    town = replace(a_record(), pixels=np.full((3, 100, 100), 90, np.uint8))
    unknown = np.ones((100, 100), bool)
    unknown[:, :40] = False
    hidden = replace(a_record(), ignored=unknown)
    copies = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        assert not with_copies(town, DONOR, rng).regions
        for region in with_copies(hidden, DONOR, rng).regions:
            assert not (pixels_of(region) & unknown).any()
            copies += 1
    assert copies


def test_no_ship_is_copied_that_may_be_cut_or_has_another_beside_it() -> None:
    """Ships on ground that is so bright that all of them would find a place."""
    unknown = np.zeros((100, 100), bool)
    unknown[:, 52:] = True
    beside = a_record(ship(20, 20), ship(20, 32))
    hidden = replace(a_record(ship(40, 40)), ignored=unknown)
    for donor in (a_record(ship(0, 40)), a_record(ship(40, 90)), beside, hidden):
        pixels = np.where(donor.pixels > 0, 140, 130).astype(np.uint8)
        donor = replace(donor, pixels=pixels)
        sea = replace(a_record(), pixels=np.full((3, 100, 100), 130, np.uint8))
        for seed in range(10):
            assert not with_copies(sea, donor, np.random.default_rng(seed)).regions


def test_texts_of_an_image_stay_true() -> None:
    told = replace(DONOR, questions=(("how many ships are there?", "three"),))
    named = a_record(replace(ship(10, 10), phrase="the only ship"))
    assert not may_copy(told)
    assert not may_copy(named)


def test_ground_loses_what_a_copy_covers() -> None:
    water = Region(labels=("water",), mask=Mask.from_array(np.ones((100, 100), bool)), stuff=True)
    record = replace(a_record(), regions=(water,))
    found = with_copies(record, DONOR, np.random.default_rng(0))
    assert len(found.regions) > 1
    assert sum(region.mask.area for region in found.regions) == 100 * 100


def test_only_outlined_ships_are_copied() -> None:
    boxed = replace(ship(5, 5), outlined=False)
    tank = replace(ship(5, 5), labels=("storage tank",))
    assert may_copy(DONOR)
    assert not may_copy(a_record(boxed, tank))
    found = with_copies(HARBOUR, a_record(boxed, tank), np.random.default_rng(0))
    assert found.regions == HARBOUR.regions


def test_samples_of_a_set_show_more_ships_than_its_images() -> None:
    source = ReadConfig(known="sen2ships", weight=1, crop=(99, 100))
    mixture = Mixture(((source, (HARBOUR, DONOR)),), seed=1)

    def ships(record: Record) -> int:
        return sum(region.label == "ship" for region in record.regions)

    most = max(ships(HARBOUR), ships(DONOR))
    assert max(ships(mixture.record(number, 256)) for number in range(30)) > most
