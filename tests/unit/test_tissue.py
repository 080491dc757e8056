"""The laws of tissue, the table by label, and the shipped tissues."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from thermosim.anatomy.anatomy import Structure
from thermosim.config import TissueConfig, TissueProperties
from thermosim.errors import InputError
from thermosim.tissue import laws
from thermosim.tissue.properties import PLAUSIBLE, TissueTable

SHIPPED = sorted((Path(__file__).resolve().parents[2] / "configs" / "tissue").glob("*.yaml"))
NEEDED = {"background", "liver", "tumor", "blood", "gallbladder", "bile", "fat", "muscle", "bone", "lung"}
NEEDED |= {"bowel", "cyst", "stomach"}


def shipped(path: Path) -> TissueConfig:
    merged = OmegaConf.merge(OmegaConf.structured(TissueConfig), OmegaConf.load(path))
    config = OmegaConf.to_object(merged)
    assert isinstance(config, TissueConfig)
    return config


def table(config: TissueConfig, *tissues: str) -> TissueTable:
    structures = [Structure(label, name, name, "background") for label, name in enumerate(tissues)]
    return TissueTable.build(config, structures)


LIVER = TissueProperties(
    1079.0, 3540.0, 0.52, 0.0012, 0.2, 0.015, perfusion_rate=0.0064, water_fraction=0.71, source="test"
)


def one_tissue(**changes: object) -> TissueConfig:
    return TissueConfig(state="test", tissues={"liver": replace(LIVER, **changes)})  # type: ignore[arg-type]


# ---------------------------------------------------------------------------- table


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_tissues_are_complete_and_sourced(path: Path) -> None:
    config = shipped(path)
    assert config.state == path.stem
    assert set(config.tissues) >= NEEDED
    assert all(one.source for one in config.tissues.values())
    built = table(config, *config.tissues)
    # 2.26 MJ/kg of 0.71 to 0.76 kg water per kg at 1079 kg/m³: 1.73 to 1.85 GJ/m³, and 1.7 is published
    liver = built.latent_heat[list(config.tissues).index("liver")]
    assert 1.6e9 < liver < 1.8e9


def test_excised_tissue_has_no_blood_flow_and_living_liver_lies_in_the_published_range() -> None:
    by_name = {path.stem: shipped(path) for path in SHIPPED}
    excised = by_name["ex_vivo_bovine"]
    assert all(one.perfusion_rate == one.metabolic_heat == 0.0 for one in excised.tissues.values())
    assert 20.0 <= excised.initial_temperature <= 25.0
    for name in ("in_vivo_human", "in_vivo_porcine"):
        assert 0.0064 <= by_name[name].tissues["liver"].perfusion_rate <= 0.0177


def test_table_by_label_leaves_gaps_at_zero() -> None:
    config = one_tissue()
    built = TissueTable.build(
        config, [Structure(2, "left", "liver", "organ"), Structure(0, "x", "liver", "risk")]
    )
    assert built.names == ("liver", "", "liver")
    assert built.density.tolist() == [1079.0, 0.0, 1079.0]
    assert built.heat_capacity[2] == 1079.0 * 3540.0
    assert built.perfusion_conductance[0] == pytest.approx(0.0064 * 1050.0 * 3617.0)
    assert built.latent_temperature[1] == 0.0
    # 1.73 GJ/m³ over 3.82 MJ/(m³ K): boiling dry costs as much as 453 K of warming
    assert built.latent_temperature[0] == pytest.approx(2.26e6 * 0.71 / 3540.0)


@pytest.mark.parametrize("key", [key for key in PLAUSIBLE if key != "water_fraction"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 1e9])
def test_implausible_properties_are_refused_by_name(key: str, value: float) -> None:
    with pytest.raises(InputError, match=f"tissue 'liver': {key}"):
        table(one_tissue(**{key: value}), "liver")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("density", 1.079),
        ("specific_heat_capacity", 3.54),
        ("perfusion_rate", 860.0),
        ("water_fraction", 71.0),
    ],
)
def test_the_usual_unit_traps_are_caught(key: str, value: float) -> None:
    with pytest.raises(InputError, match="must be"):
        table(one_tissue(**{key: value}), "liver")


def test_missing_tissues_and_bad_shared_values_are_refused() -> None:
    with pytest.raises(InputError, match="'spleen', which tissue=test"):
        table(one_tissue(), "spleen")
    with pytest.raises(InputError, match="conductivity_law='table'"):
        table(replace(one_tissue(), conductivity_law="table"), "liver")
    with pytest.raises(InputError, match="vaporization_width=0"):
        table(replace(one_tissue(), vaporization_width=0.0), "liver")


# ---------------------------------------------------------------------------- laws


@pytest.mark.parametrize("law", ["linear", "exponential", "constant"])
def test_conductivity_collapses_once_and_smoothly(law: str) -> None:
    T = np.linspace(20.0, 140.0, 2401)
    ratio = laws.electrical_conductivity_ratio(T, 0.015, law, 100.0, 5.0, 0.01)
    assert laws.electrical_conductivity_ratio(37.0, 0.015, law, 100.0, 5.0, 0.01) == 1.0
    rising, falling = ratio[T <= 100.0], ratio[T >= 100.0]
    assert np.all(np.diff(rising) >= 0.0)
    assert np.all(np.diff(falling) <= 0.0)
    # continuous: over 0.05 K ln σ falls by at most ln(100)/5 K · 0.05 K = 0.046
    assert np.abs(np.diff(np.log(ratio))).max() < 0.047
    assert ratio[-1] == pytest.approx(0.01 * rising[-1], rel=1e-12)  # round-off
    assert ratio.min() > 0.0


def test_linear_conductivity_never_vanishes_in_the_cold() -> None:
    assert laws.electrical_conductivity_ratio(-40.0, 0.02, "linear", 100.0, 5.0, 0.01) == 0.05


@given(
    st.floats(-20.0, 2000.0),
    st.floats(90.0, 110.0),
    st.floats(0.1, 10.0),
    st.one_of(st.just(0.0), st.floats(1.0, 700.0)),
)
def test_enthalpy_and_temperature_are_inverse(T: float, boiling: float, width: float, latent: float) -> None:
    u = laws.enthalpy_from_temperature(T, boiling, width, latent)
    # the slope of u(T) is at most 7001, so round-off of u at about 1e3 comes back below 1e-9 K
    assert laws.temperature_from_enthalpy(u, boiling, width, latent) == pytest.approx(T, abs=1e-9)


def test_latent_heat_is_all_released_over_the_width() -> None:
    u = laws.enthalpy_from_temperature(np.array([99.0, 99.5, 100.0, 110.0]), 99.0, 1.0, 450.0)
    assert u.tolist() == [99.0, 324.5, 550.0, 560.0]


def test_arrhenius_rate_of_liver() -> None:
    # published for these constants (liver, A = 7.39e39 1/s, E_a = 2.577e5 J/mol): Ω = 1 after about a
    # minute at 50 °C; computed by hand from ln A − E_a/(R T) = 91.7985 − 95.9129
    rate = laws.arrhenius_rate(50.0, 7.39e39, 2.577e5)
    assert np.log(rate) == pytest.approx(91.8008 - 2.577e5 / (8.314462618 * 323.15), abs=1e-3)
    assert 30.0 < 1.0 / rate < 120.0


def test_dose_rate_halves_and_quarters() -> None:
    assert laws.thermal_dose_rate([41.0, 42.0, 43.0, 44.0, 46.0]).tolist() == [0.0625, 0.25, 1.0, 2.0, 8.0]


def test_dose_of_dry_tissue_stays_a_number() -> None:
    hours = 60.0 * np.float32(laws.thermal_dose_rate(300.0)) * 4.0
    assert np.isfinite(hours)
    assert laws.thermal_dose_rate(300.0) == laws.thermal_dose_rate(130.0)


def test_three_states_conserve_cells_and_only_kill() -> None:
    alive, dead = np.meshgrid(np.linspace(0.0, 1.0, 11), np.linspace(0.0, 1.0, 11), indexing="ij")
    possible = alive + dead <= 1.0
    d_alive, d_dead = laws.three_state_rates(70.0, alive, dead, 3.33e-3, 40.5, 7.77e-3)
    # V = 1 − A − D may be −1e-16 where it should be 0; k_f is at most 0.02 1/s
    assert np.all(d_dead[possible] >= -1e-17)
    # at D = 0, A = 0.99: by hand k_f = 3.33e-3 e^(70/40.5) 0.01
    forward = 3.33e-3 * math.exp(70.0 / 40.5) * 0.01
    by_hand = (-forward * 0.99 + 7.77e-3 * 0.01, forward * 0.01)
    assert laws.three_state_rates(70.0, 0.99, 0.0, 3.33e-3, 40.5, 7.77e-3) == pytest.approx(
        by_hand, rel=1e-12
    )
    assert d_alive[10, 0] == 0.0  # A = 1: nothing vulnerable, nothing happens


def test_perfusion_dies_with_tissue() -> None:
    assert laws.perfusion_factor("arrhenius", [0.0, 1.0]) == pytest.approx([1.0, math.exp(-1.0)])
    assert laws.perfusion_factor("viability", [0.79, 0.8]).tolist() == [1.0, 0.0]
    assert laws.perfusion_factor("none", [0.0, 9.0]).tolist() == [1.0, 1.0]
    with pytest.raises(InputError, match="perfusion_shutdown='never'"):
        laws.perfusion_factor("never", 0.0)
    with pytest.raises(InputError, match="conductivity_law='cubic'"):
        laws.electrical_conductivity_ratio(50.0, 0.01, "cubic", 100.0, 5.0, 0.01)
