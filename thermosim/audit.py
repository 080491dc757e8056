"""The energy audit: every joule of electricity is found again."""

from __future__ import annotations

from dataclasses import dataclass, field

from thermosim.physics.bioheat import Reading
from thermosim.simulation_result import EnergyAudit


@dataclass
class Ledger:
    """Energies [J] summed over the run.

    Heat through walls comes from the time stepping itself, which alone knows how it fell within a
    step; perfusion and the box's faces, which change slowly, by the trapezoidal rule over each step.
    """

    electrical: float = 0.0
    metabolic: float = 0.0
    blood_heating: float = 0.0  # Joule heat inside open vessels
    perfusion: float = 0.0
    faces: float = 0.0
    walls: dict[str, float] = field(default_factory=dict)
    displaced: float = 0.0  # heat of cells that metal entered or left (pull-back)

    def add_step(
        self,
        step: float,
        power: float,
        metabolic_power: float,
        power_in_blood: float,
        before: Reading,
        after: Reading,
        walls: dict[str, float],
    ) -> None:
        """Book one time step of `step` seconds."""
        half = 0.5 * step
        self.electrical += step * power
        self.metabolic += step * metabolic_power
        self.blood_heating += step * power_in_blood
        self.perfusion += half * (before.perfusion + after.perfusion_ended)
        self.faces += half * (before.faces + after.faces_ended)
        for name, heat in walls.items():
            self.walls[name] = self.walls.get(name, 0.0) + heat

    def close(self, stored: float) -> EnergyAudit:
        """Compare what went in with what is found."""
        needles = self.walls.get("needles", 0.0)
        vessels = sum(heat for name, heat in self.walls.items() if name.startswith("vessel:"))
        faces = self.faces + self.walls.get("exterior", 0.0)
        perfusion = self.perfusion + self.walls.get("rim", 0.0)
        found = stored - self.displaced + perfusion + vessels + self.blood_heating + needles + faces
        given = self.electrical + self.metabolic
        scale = max(abs(given), abs(stored), 1e-9)
        return EnergyAudit(
            electrical=self.electrical,
            stored=stored - self.displaced,
            perfusion=perfusion,
            vessels=vessels + self.blood_heating,
            cooled_needles=needles,
            faces=faces,
            metabolic=self.metabolic,
            relative_error=abs(given - found) / scale,
            displaced=self.displaced,
        )
