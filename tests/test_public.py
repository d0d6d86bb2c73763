"""The public face of each floor is the list that it writes down."""

from types import ModuleType

import catalogs
import pipeline


def test_public_names_are_the_list() -> None:
    for floor in (catalogs, pipeline):
        names = {name for name in (*vars(floor), *getattr(floor, "_LATER", ())) if not name.startswith("_")}
        ours = {name for name in names if not isinstance(getattr(floor, name), ModuleType)}
        assert ours - {"annotations", "import_module", "TYPE_CHECKING"} == set(floor.__all__), floor.__name__
