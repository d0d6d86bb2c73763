"""The map draws in the colours of pictures and exported files."""

import json
import re

from earthgptx.pipeline.results.colours import LABELS, STATUSES
from tests import REPO

SOURCE = (REPO / "web/src/colours.js").read_text()


def test_labels_and_statuses_have_one_colour_everywhere() -> None:
    [labels] = re.findall(r"LABELS = (\[.*\]);", SOURCE)
    assert tuple(json.loads(labels)) == LABELS
    [statuses] = re.findall(r"STATUSES = \{(.*)\};", SOURCE)
    found = dict(re.findall(r'(\d+): "(#\w+)"', statuses))
    assert found == {str(int(status)): colour for status, colour in STATUSES.items() if colour}
