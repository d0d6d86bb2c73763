"""Resolves a job into a plan: searches the catalog, reads metadata, and cuts it into blocks."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import pystac
import shapely
from shapely.geometry.base import BaseGeometry

from earthgptx.catalogs.access import Opening
from earthgptx.catalogs.collections import modality_of, profile_of
from earthgptx.catalogs.errors import NoItems
from earthgptx.catalogs.interval import Interval, parse_interval
from earthgptx.catalogs.moments import start_of
from earthgptx.catalogs.profiles import CollectionProfile
from earthgptx.catalogs.search import search
from earthgptx.model.interface.tile import AnalystTraits
from earthgptx.pipeline.analyst import find_analyst
from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.job.spec import JobSpec
from earthgptx.pipeline.job.vectors import PromptFile, read_aoi, read_prompts
from earthgptx.pipeline.planning.blocks import (
    NO_OBJECTS,
    AskedObjects,
    place_objects,
    place_prompts,
)
from earthgptx.pipeline.planning.content import digest, item_key
from earthgptx.pipeline.planning.grids import Known, make_grids
from earthgptx.pipeline.planning.items import UsableItems, usable_items
from earthgptx.pipeline.planning.known import known_grids, with_known
from earthgptx.pipeline.planning.plan import Plan
from earthgptx.pipeline.planning.slices import time_slices
from earthgptx.pipeline.planning.warnings import warnings_of

ALGORITHM = "13"
"""Version of all code that affects a result; a change begins a new series."""


def resolve(
    spec: JobSpec,
    *,
    items: list[pystac.Item] | None = None,
    anew: bool = False,
    asked: AskedObjects = NO_OBJECTS,
    tell: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Resolves a job into a plan.

    Args:
        spec: the job.
        items: Items of a frozen search; None to search the catalog now.
        anew: whether not to go by what the output holds, as a run is to replace it.
        asked: objects that the job's prompts are, if these come from a result. A plan without them
            will do to read imagery.
        tell: takes a sentence about the progress, now and then.

    Raises:
        JobError: the job asks for something impossible.
        CatalogError: the search fails or finds no Items, or a collection's profile is unusable.
    """
    with _collector_paused():
        return _resolved(spec, items, anew, asked, tell)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pauses Python's garbage collector.

    Thousands of Items are no garbage, but it would walk through them again and again: a quarter of
    the time of a plan.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _resolved(
    spec: JobSpec,
    items: list[pystac.Item] | None,
    anew: bool,
    asked: AskedObjects,
    tell: Callable[[str], None],
) -> Plan:
    aoi = read_aoi(spec.source.aoi)
    traits = find_analyst(spec.model).traits()
    _check_halo(spec, traits)
    _check_replies(spec, traits)
    profiles = tuple(profile_of(each, spec.source.profiles) for each in spec.source.collections)
    doubts: list[str] = []
    opening, interval = spec.opening(), parse_interval(spec.source.time)
    file = read_prompts(spec.prompts.origin, aoi) if spec.prompts.is_file else None
    prompt_digest = file.digest if file else asked.series
    series = digest(identity(spec, profiles, traits, prompt_digest, aoi))
    known = Known() if anew else known_grids(spec.output, series)
    emptied: frozenset[str] = frozenset()
    if items is None:
        assets = _read_assets(profiles)
        try:
            items = _search(spec, aoi, opening, interval, assets, doubts.append, tell)
        except NoItems as error:
            if not known.lattices:
                raise
            doubts.append(f"{error}; what the result has of this time stays")
            items = []
        if known.lattices and items:
            items, emptied = with_known(items, spec.output, spec.slices, interval, assets, series)
    read_by = [profile_of(item.collection_id or "", spec.source.profiles) for item in items]
    usable = UsableItems()
    if items:
        usable = usable_items(
            items,
            read_by,
            aoi,
            opening,
            allowed=spec.source.max_failed_items,
            least=0 if known.lattices else 1,
            tell=tell,
        )
    tell(f"planning: grids of {len(usable.items):,} items")
    slices = time_slices(usable.items, spec.slices, spec.compose)
    grids, footprints, lattices = make_grids(
        spec.grid, aoi, usable.natives, usable.footprints, known
    )
    result = Plan(
        spec=spec,
        series=series,
        interval=interval,
        emptied=emptied,
        items=tuple(usable.items),
        item_keys=tuple(map(item_key, usable.items, usable.sources, usable.footprints)),
        sources=tuple(usable.sources),
        opening=opening,
        modality=modality_of(tuple(each.profile for each in usable.sources) or profiles),
        traits=traits,
        slices=slices,
        grids=grids,
        footprints=footprints,
        lattices=lattices,
        prompts={},
        refused_prompts={},
        refused_items=usable.refused,
        warnings=(*doubts, *warnings_of(usable)),
    )
    # A day of a result that grows may show nothing of it.
    if not known.lattices and not any(map(result.shown_in, range(len(slices)))):
        raise JobError(
            "source.aoi meets no pixel of the items' footprints; "
            "widen it, or check that it is in lon/lat"
        )
    if file is not None:
        return _with_file(result, file, first=not known.lattices)
    return _with_objects(result, asked, aoi) if spec.prompts.is_result else result


def _with_file(plan: Plan, file: PromptFile, *, first: bool) -> Plan:
    """Returns a plan with prompts of a vector file.

    Raises:
        JobError: none of them can be asked, in the first run of a series.
    """
    shown = {(key.grid, key.row, key.col) for key in plan.blocks}
    prompts, outside = place_prompts(file.shapes, plan.grids, plan.traits.context_px, shown)
    if not prompts and first:
        reasons = "; ".join(sorted(set(outside.values())))
        raise JobError(f"prompts.from: no prompt can be asked ({reasons}); check the file's CRS")
    return replace(plan, prompts=prompts, refused_prompts=file.refused | outside)


def _with_objects(plan: Plan, asked: AskedObjects, aoi: BaseGeometry) -> Plan:
    """Returns a plan whose prompts are objects of a result, each in the slices of its time."""
    if not plan.slices:
        return plan
    margin = plan.spec.prompts.margin
    windows = {
        piece.name: (
            piece.start - margin,
            max(start_of(plan.items[member]) for member in piece.items) + margin,
        )
        for piece in plan.slices
    }
    starts, ends = zip(*windows.values(), strict=True)
    prompts, refused = place_objects(
        asked.seen(aoi, min(starts), max(ends)),
        windows,
        plan.grids,
        plan.traits.context_px,
        plan.spec.prompts.grow_m,
    )
    return replace(plan, prompts=prompts, refused_prompts=refused)


def identity(
    spec: JobSpec,
    profiles: Sequence[CollectionProfile],
    traits: AnalystTraits,
    prompt_digest: str,
    aoi: BaseGeometry,
) -> dict[str, Any]:
    """Returns what shapes every answer of a series, by part."""
    return {
        "collections": spec.source.collections,
        "profiles": [profile.model_dump(mode="json") for profile in profiles],
        "filter": spec.source.filter,
        "aoi": shapely.to_wkb(shapely.normalize(aoi), hex=True),
        "grid": spec.grid.model_dump(mode="json"),
        "slices": spec.slices,
        "compose": spec.compose,
        "tasks": spec.tasks.model_dump(mode="json"),
        "prompts": [spec.prompts.model_dump(mode="json", exclude={"origin"}), prompt_digest]
        if spec.prompts.is_result
        else prompt_digest or spec.prompts.model_dump(mode="json"),
        "model": asdict(traits),
        "algorithm": ALGORITHM,
    }


def _read_assets(profiles: Sequence[CollectionProfile]) -> set[str]:
    """Returns the keys of all assets that profiles may read."""
    bands = [band for profile in profiles for band in profile.bands]
    keys = {key for band in bands for key in (*band.assets, *band.annotations)}
    return keys | {key for profile in profiles if profile.mask for key in profile.mask.assets}


def _check_replies(spec: JobSpec, traits: AnalystTraits) -> None:
    if spec.tasks.ask and not traits.replies:
        raise JobError(
            f"tasks.ask: model '{traits.name}' replies to no questions; take another one, such as "
            "nano, or leave them out"
        )


def _check_halo(spec: JobSpec, traits: AnalystTraits) -> None:
    if spec.grid.halo_px <= traits.context_px:
        raise JobError(
            f"grid.halo_px {spec.grid.halo_px} does not exceed the {traits.context_px} px of "
            f"context that model '{traits.name}' needs at a tile's border; "
            f"use at least {traits.context_px + 1}"
        )


def _search(
    spec: JobSpec,
    aoi: BaseGeometry,
    opening: Opening,
    interval: Interval,
    assets: set[str],
    warn: Callable[[str], None],
    tell: Callable[[str], None],
) -> list[pystac.Item]:
    return search(
        spec.source.catalog,
        collections=tuple(spec.source.collections),
        aoi=aoi,
        time=interval,
        filter=spec.source.filter,
        opening=opening,
        assets=assets,
        warn=warn,
        tell=tell,
    )
