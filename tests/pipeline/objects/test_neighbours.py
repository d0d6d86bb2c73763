from random import Random

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from earthgptx.pipeline.objects.landmarks import NEAR_M, Landmarks, Placed
from earthgptx.pipeline.objects.neighbours import Neighbours, neighbours

DEGREE_M = 111_194.9
"""Metres of a degree of latitude on the sphere."""
NO_LANDMARKS = Landmarks(np.empty(0, np.int64), np.empty(0, object))


def by_middles(
    labels: NDArray[np.int64], lon: NDArray[np.float64], lat: NDArray[np.float64]
) -> Neighbours:
    return neighbours(Placed(labels, lon, lat, *[np.zeros(len(labels))] * 2), NO_LANDMARKS)


def test_a_landmark_is_as_near_as_its_outline() -> None:
    # A runway of 2 km along the equator, an aircraft on it, one beside it, a car by that one.
    labels = np.array([0, 1, 1, 2])
    lon, lat = (
        np.array([1000.0, 1900, 100, 100]) / DEGREE_M,
        np.array([0.0, 5, 60, 95]) / DEGREE_M,
    )
    runway = shapely.box(0, -30 / DEGREE_M, 2000 / DEGREE_M, 30 / DEGREE_M)
    landmarks = Landmarks(np.array([0]), np.array([runway], object))
    sizes = np.array([2000.0, 40, 40, 5]), np.array([60.0, 40, 40, 2])
    found = neighbours(Placed(labels, lon, lat, *sizes), landmarks)
    assert found.other.tolist() == [-1, 0, 0, 2]
    assert found.landmark.tolist() == [False, True, True, False]
    assert found.other_m[1:] == pytest.approx([0, 30, 35], abs=0.01)
    assert np.cos(np.deg2rad(found.other_deg[1:])) == pytest.approx(1)


def test_a_second_answer_for_a_thing_is_no_neighbour() -> None:
    # A ship that was also found as a boat, 185 m from a quay whose middle is nearer.
    labels, lon = np.array([0, 1, 2]), np.array([0.0, 2, 0]) / DEGREE_M
    lat = np.array([0.0, 0, 20]) / DEGREE_M
    ring = (
        shapely.Point(0, 0)
        .buffer(200 / DEGREE_M)
        .difference(shapely.Point(0, 0).buffer(185 / DEGREE_M))
    )
    sizes = np.array([60.0, 58, 400]), np.array([12.0, 12, 400])
    landmarks = Landmarks(np.array([2]), np.array([ring], object))
    found = neighbours(Placed(labels, lon, lat, *sizes), landmarks)
    assert found.other[:2].tolist() == [2, 2]
    assert found.other_m[:2] == pytest.approx([185, 183], abs=0.5)
    alone = neighbours(Placed(labels, lon, lat, *sizes), NO_LANDMARKS)
    assert alone.other[:2].tolist() == [-1, -1]


def test_the_nearest_of_the_label_and_of_another_one() -> None:
    labels = np.array([7, 7, 8, 9])
    lat = 40 + np.array([0.0, 1000, 100, 5000]) / DEGREE_M
    found = by_middles(labels, np.full(4, 3.0), lat)
    assert found.same_m[:2] == pytest.approx(1000, rel=1e-4)
    assert found.same_deg[:2].tolist() == [180, 0], "the first lies south of the second"
    assert np.isnan(found.same_m[2:]).all()
    assert found.other.tolist() == [2, -1, 0, -1]
    assert found.other_m[[0, 2]] == pytest.approx(100, rel=1e-4)
    assert found.other_deg[[0, 2]].tolist() == [180, 0]


def test_directions_hold_across_the_antimeridian_and_in_the_north() -> None:
    lon, lat = np.array([179.9999, -179.9999]), np.array([70.0, 70.0])
    found = by_middles(np.array([1, 1]), lon, lat)
    assert found.same_deg == pytest.approx([270, 90])
    assert found.same_m == pytest.approx(0.0002 * DEGREE_M * np.cos(np.deg2rad(70)), rel=1e-3)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40), st.integers(0, 40)), max_size=12))
def test_they_are_those_that_a_search_of_all_finds(objects: list[tuple[int, int, int]]) -> None:
    labels = np.array([label for label, *_ in objects], np.int64)
    x, y = (np.array([each[axis] for each in objects], float) * 20 for axis in (1, 2))
    found = by_middles(labels, x / DEGREE_M, y / DEGREE_M)
    apart = np.hypot(x[:, None] - x, y[:, None] - y)
    np.fill_diagonal(apart, np.inf)
    same = labels[:, None] == labels
    for at in range(len(objects)):
        nearest = np.where(same[at], apart[at], np.inf).min()
        if np.isfinite(nearest):
            assert found.same_m[at] == pytest.approx(nearest, abs=0.01)
        else:
            assert np.isnan(found.same_m[at])
        other = np.where(same[at], np.inf, apart[at]).min()
        if other == 0:
            assert found.other[at] == -1, "one thing, found for two phrases"
        elif other < NEAR_M - 0.01:
            assert labels[found.other[at]] != labels[at]
            assert found.other_m[at] == pytest.approx(other, abs=0.01)
        elif other > NEAR_M + 0.01:
            assert found.other[at] == -1


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 4)), max_size=12),
    st.randoms(use_true_random=False),
)
def test_they_do_not_depend_on_the_order_of_the_objects(
    objects: list[tuple[int, int, int]], random: Random
) -> None:
    def near(given: list[tuple[int, int, int]]) -> list[tuple[object, ...]]:
        labels = np.array([label for label, *_ in given], np.int64)
        x, y = (np.array([each[axis] for each in given], float) / 5000 for axis in (1, 2))
        found = by_middles(labels, x, y)
        other = [labels[at] if at >= 0 else -1 for at in found.other]
        columns = (found.same_m, found.same_deg, other, found.other_m, found.other_deg)
        return sorted(zip(map(repr, given), *(map(repr, each) for each in columns), strict=True))

    shuffled = objects.copy()
    random.shuffle(shuffled)
    assert near(objects) == near(shuffled)
