import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from earthgptx.pipeline.job.lonlat import cut
from earthgptx.pipeline.objects.landmarks import NEAR_M, Beside, Landmarks, Placed, beside

DEGREE_M = 111_194.9
"""Metres of a degree of latitude on the sphere."""


def seen(
    outlines: list[shapely.Geometry],
    lon: list[float],
    lat: list[float],
    *,
    length_m: float = 10.0,
    width_m: float = 10.0,
    sizes: tuple[float, ...] = (),
) -> Beside:
    """Landmarks with the labels 0, 1, ..., and objects of another label at the given places."""
    count = len(outlines)
    middles = [outline.centroid for outline in outlines]
    objects = Placed(
        np.array([*range(count), *[count] * len(lon)]),
        np.array([*(middle.x for middle in middles), *lon]),
        np.array([*(middle.y for middle in middles), *lat]),
        np.array([*(sizes or (1000.0,) * count), *[length_m] * len(lon)]),
        np.array([*[100.0] * count, *[width_m] * len(lon)]),
    )
    return beside(objects, Landmarks(np.arange(count), np.array(outlines, object)))


def square(lon: float, lat: float, side_m: float) -> shapely.Geometry:
    high = side_m / 2 / DEGREE_M
    wide = high / np.cos(np.deg2rad(lat))
    return shapely.box(lon - wide, lat - high, lon + wide, lat + high)


@given(
    st.floats(-75, 75),
    st.floats(-180, 180),
    st.floats(0, 2 * np.pi),
    st.floats(0, 400),
)
def test_the_distance_is_that_from_the_edge_of_a_disc(
    lat: float, lon: float, angle: float, beyond: float
) -> None:
    radius = 500.0
    turns = np.linspace(0, 2 * np.pi, 721)
    scale = np.cos(np.deg2rad(lat))

    def place(metres: float, at: NDArray[np.float64]) -> NDArray[np.float64]:
        east, north = np.sin(at) * metres, np.cos(at) * metres
        return np.column_stack([lon + east / DEGREE_M / scale, lat + north / DEGREE_M])

    disc = cut(shapely.Polygon(place(radius, turns)))
    x, y = place(radius + beyond, np.array([angle]))[0]
    found = seen([disc], [float((x + 180) % 360 - 180)], [float(y)])
    if beyond < NEAR_M - 1:
        assert found.landmark[1] == 0
        assert found.metres[1] == pytest.approx(beyond, abs=0.5)
        if beyond > 10:
            off = (found.degrees[1] - np.rad2deg(angle) + 180) % 360 - 180
            assert abs(off) < 1.0
    elif beyond > NEAR_M + 1:
        assert found.landmark[1] == -1
        assert np.isnan(found.metres[1])


def test_an_object_in_two_landmarks_lies_in_the_shorter_one() -> None:
    large, small = square(3, 40, 4000), square(3, 40, 400)
    for outlines, sizes in (((large, small), (4000.0, 400.0)), ((small, large), (400.0, 4000.0))):
        found = seen(list(outlines), [3.0], [40.0], sizes=sizes)
        assert found.landmark[2] == outlines.index(small)
        assert found.metres[2] == 0


def test_a_landmark_of_the_same_size_in_the_same_place_is_the_object_itself() -> None:
    outline = square(3, 40, 1000)
    assert seen([outline], [3.0], [40.0], length_m=600).landmark[1] == -1
    assert seen([outline], [3.0], [40.0], length_m=500).landmark[1] == 0
    beyond = 40 + 600 / DEGREE_M
    assert seen([outline], [3.0], [beyond], length_m=600).metres[1] == pytest.approx(100, abs=0.1)


def test_a_bent_thing_found_twice_is_not_beside_itself() -> None:
    bay = square(3, 40, 300).difference(shapely.box(2.9995, 39.9995, 3.01, 40.0005))
    twin = bay.buffer(1e-5)
    found = seen([bay, twin], [], [], sizes=(300.0, 302.0))
    assert not bay.contains(bay.envelope.centroid)
    assert found.landmark.tolist() == [-1, -1]


def test_an_outline_without_area_is_no_landmark() -> None:
    line = shapely.LineString([(3, 40), (3.001, 40)])
    assert seen([line], [3.0005], [40.0]).landmark[1] == -1


def test_a_landmark_of_the_same_label_is_none() -> None:
    places, sizes = np.array([3.0, 3.0]), np.array([1000.0, 9])
    objects = Placed(np.array([5, 5]), places, places, sizes, sizes)
    landmarks = Landmarks(np.array([0]), np.array([square(3, 3, 1000)], object))
    assert (beside(objects, landmarks).landmark == -1).all()


def test_without_landmarks_there_is_nothing_to_lie_beside() -> None:
    assert seen([], [3.0], [40.0]).landmark.tolist() == [-1]
    assert len(seen([], [], []).landmark) == 0


@pytest.mark.parametrize(("side_m", "width_m", "metres"), [(20, 14, 0), (80, 60, 0), (80, 20, 40)])
def test_a_hole_of_the_objects_size_is_what_it_hides(
    side_m: float, width_m: float, metres: float
) -> None:
    outline = square(3, 40, 1000).difference(square(3, 40, side_m))
    found = seen([outline], [3.0], [40.0], width_m=width_m)
    assert found.metres[1] == pytest.approx(metres, abs=0.1)


def test_all_parts_of_a_landmark_count() -> None:
    quays = shapely.MultiPolygon([square(3, 40, 100), square(3.01, 40, 100)])
    assert seen([quays], [3.0, 3.01], [40.0, 40.0]).metres[1:].tolist() == [0, 0]


def test_a_landmark_cut_at_the_antimeridian_is_one() -> None:
    outline = square(180, 60, 2000).difference(square(180, 60, 400))
    whole = cut(outline)
    assert whole.bounds[0] == -180
    assert whole.bounds[2] == 180
    step = 800 / DEGREE_M / np.cos(np.deg2rad(60))
    found = seen([whole], [180 - step, step - 180, 180.0], [60.0] * 3)
    assert found.metres[1:] == pytest.approx([0, 0, 200], abs=0.5)


@given(st.permutations(range(8)))
@settings(max_examples=20)
def test_they_do_not_depend_on_the_order_of_the_objects(order: list[int]) -> None:
    # Three quays of one size, two of them in one place, and five ships between them.
    lon, lat = np.array([3.0, 3.003, 3.003, *[3.0015] * 5]), np.array([40.0] * 8)
    lat[3:] += np.arange(5) / 5000
    outlines = np.array([square(x, 40, 120) for x in lon[:3]], object)
    labels, size = np.array([0, 1, 2, 3, 3, 3, 3, 3]), np.array([120.0] * 3 + [20.0] * 5)

    def named(moved: NDArray[np.int64]) -> list[int]:
        objects = Placed(labels[moved], lon[moved], lat[moved], size[moved], size[moved])
        quays = np.flatnonzero(moved < 3)
        found = beside(objects, Landmarks(quays, outlines[moved[quays]])).landmark
        return np.where(found < 0, -1, moved[found])[np.argsort(moved)].tolist()

    assert named(np.array(order)) == named(np.arange(8))
