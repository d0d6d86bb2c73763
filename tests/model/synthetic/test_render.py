import numpy as np
import pytest

from earthgptx.model.synthetic.render import Camera, Sensor, render
from earthgptx.model.synthetic.world import things

NORTH_UP = (3.0, 0.0, 0.0, 0.0, -3.0, 600.0)


def look(sensor: Sensor, **changes: object) -> np.ndarray:
    camera = {"affine": NORTH_UP, "height": 200, "width": 300, "seed": 4, "date": 0, **changes}
    return render(Camera(**camera), sensor).bands  # type: ignore[arg-type]


@pytest.mark.parametrize("sensor", ["optical", "sar", "infrared"])
def test_the_same_view_gives_the_same_bytes_and_another_seed_others(sensor: Sensor) -> None:
    assert np.array_equal(look(sensor), look(sensor))
    assert not np.array_equal(look(sensor), look(sensor, seed=5))


def test_a_world_does_not_depend_on_the_part_that_is_asked_for() -> None:
    whole = [thing.caption for thing in things(-6000, 9000, seed=1, date=0)]
    part = [thing.caption for thing in things(100, 200, seed=1, date=0)]
    at = next(start for start in range(len(whole)) if whole[start : start + len(part)] == part)
    assert at > 0


def test_a_ship_is_brighter_than_the_sea_in_sar_and_warmer_in_infrared() -> None:
    camera = Camera(
        affine=(3.0, 0.0, 0.0, 0.0, -3.0, -600.0), height=400, width=900, seed=4, date=0
    )
    x, y = camera.coordinates()
    low, high = np.array([x.min(), y.min()]) + 250, np.array([x.max(), y.max()]) - 250
    ships = [thing for thing in camera.things() if thing.kind == "ship"]
    ship = next(s for s in ships if ((s.rings[0] > low) & (s.rings[0] < high)).all())
    middle = ship.rings[0].mean(axis=0)
    there = np.hypot(x - middle[0], y - middle[1]) < ship.width_m / 3
    around = np.abs(np.hypot(x - middle[0], y - middle[1]) - 1.2 * ship.length_m) < 6
    for sensor in ("sar", "infrared"):
        band = render(camera, sensor).bands[0].astype(float)
        assert band[there].mean() > 1.02 * np.median(band[around]), sensor


def test_moving_things_move_between_dates_and_lasting_ones_stay() -> None:
    def of(kind: str, date: int) -> list[str]:
        return [thing.caption for thing in things(0, 3000, seed=2, date=date) if thing.kind == kind]

    assert of("building", 0) == of("building", 1)
    assert of("ship", 0) != of("ship", 1)
