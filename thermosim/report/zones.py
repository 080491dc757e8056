"""The ablation zone as a mask of cells, by the same level sets that the outcome is measured on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermosim.config import DamageConfig
from thermosim.outcome.criteria import zone_level_set
from thermosim.outcome.level_set import region_in
from thermosim.simulation import SimulationResult


def setting(config: Mapping[str, Any], key: str, default: Any = None) -> Any:
    """Value of a dotted key in the resolved configuration, or `default` where it is missing."""
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return default
        value = value[part]
    return value


def damage_of(config: Mapping[str, Any]) -> DamageConfig:
    """The `damage` group of the resolved configuration."""
    given = setting(config, "damage", {})
    known = {f.name for f in fields(DamageConfig)}
    return DamageConfig(**{key: value for key, value in given.items() if key in known})


def zone_mask(result: SimulationResult, criterion: str, config: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Cells whose centre lies in the zone of `criterion`, bool (nx, ny, nz).

    Metal within the zone counts as inside, blood in open vessels as outside, as in the volumes of
    the outcome. Thresholds come from the `damage` group of the resolved configuration.

    Raises
    ------
    InputError : unknown criterion.
    """
    damage = damage_of(config)
    mask = np.zeros(result.solid_mask.shape, dtype=bool)
    level = zone_level_set(result, criterion, damage)
    if level is not None:
        mask[region_in(level.grid, result.anatomy.grid)] = level.values > 0
    return mask
