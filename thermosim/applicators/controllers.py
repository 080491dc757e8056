"""What each mode of the generator wants: a voltage, a power or a current, before any limit.

A controller looks at one *place* at a time: whose turn it is, a terminal or a pair of terminals. Each
place has its own memory, because needles that take turns each have their own history.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from thermosim.config import GeneratorConfig, SegmentConfig
from thermosim.units import MINUTE

TIME_TOLERANCE = 1e-9
"""Two moments closer than this [s] are the same moment."""

RESPONSE_TIME = 5.0
"""Time constant of the closed temperature loop [s]; the project's choice, several control intervals."""

FIRST_SHARE = 0.1
"""Share of the power with which the tissue's answer is found out first; the project's choice."""

REACHED_BAND = 1.0
"""The hold begins so close below the target [K]; the project's choice, the accuracy of thermocouples."""


class Wanted(NamedTuple):
    """What a mode asks for: `quantity` is ``voltage`` [V], ``power`` [W] or ``current`` [A]."""

    quantity: str
    value: float


class Output(NamedTuple):
    """What the generator last put out: power [W], None before the first, and whether a limit held it."""

    power: float | None
    limited: bool


class Controller:
    """A mode that always wants the same: constant voltage, power or current.

    Parameters
    ----------
    wanted : what it asks for. n_places : how many take turns.
    """

    reacts = False
    """Whether it needs readings every `control_interval`."""

    allowed_rise = math.inf
    """Rise of the impedance over the baseline that ends a turn [Ω]."""

    baseline_time = math.inf
    """The baseline is the lowest impedance of a turn's first so many seconds."""

    def __init__(self, wanted: Wanted, n_places: int) -> None:
        self._wanted, self.n_places = wanted, n_places

    def begin(self, place: int, time: float) -> float:
        """A turn begins at `time` [s in the segment]; returns the value it begins with."""
        return self.wanted(place, 0.0).value

    def wanted(self, place: int, elapsed: float) -> Wanted:
        """What it asks for, `elapsed` seconds after the turn's start."""
        return self._wanted

    def read(self, place: int, time: float, temperature: float, before: Output) -> list[tuple[str, float]]:
        """Take in a reading of the sensors [°C]; `before` acted until now. Returns events to note."""
        return []

    def leave(self, place: int, elapsed: float, before: Output) -> None:
        """The turn ends because its time is over."""

    def rose(self, place: int, elapsed: float, before: Output) -> None:
        """The turn ends because the impedance rose."""

    def collapses(self, place: int, elapsed: float, delivered: float, limit: str | None) -> bool:
        """Whether what a limit left of the wanted power ends the turn."""
        return False

    def is_done(self, place: int) -> bool:
        """Whether this place needs no more power in this segment."""
        return False

    def next_moment(self, place: int, time: float) -> float:
        """When the controller changes its mind by itself [s in the segment]."""
        return math.inf

    def state(self) -> dict[str, list[Any]]:
        """One list per quantity, one entry per place, for JSON."""
        return {}

    def restore(self, state: Mapping[str, list[Any]]) -> None:
        """Go on from `state`; KeyError or ValueError when it is another controller's."""
        if set(state) != set(self.state()):
            raise ValueError(f"{', '.join(state) or 'nothing'} for {', '.join(self.state()) or 'nothing'}")
        for name, values in self.state().items():
            if len(state[name]) != self.n_places:
                raise ValueError(f"{len(state[name])} values of {name} for {self.n_places} places")
            setattr(self, f"_{name}", [type(own)(v) for own, v in zip(values, state[name], strict=True)])


class Pulses(Controller):
    """Impedance-controlled pulsing.

    A pulse starts at a power that grows by `power_ramp` per minute. When the impedance exceeds the
    baseline (the lowest of the pulse's first `baseline_time`) by `impedance_rise`, output pauses and
    the next pulse starts at `power_reduction` times the power last delivered, never below
    `minimum_power`; with `short_pulse` only a pulse shorter than that is followed by a weaker one.

    Pulsing after a rise of the impedance: Goldberg et al. 1999, J Vasc Interv Radiol 10:907; as a
    computed protocol of a 17G cooled electrode with pauses of 15 s: Trujillo et al. 2016, Int J
    Hyperthermia 32:931, doi:10.1080/02656736.2016.1190868. The baseline's definition is the project's choice.
    """

    reacts = True

    def __init__(self, config: GeneratorConfig, power: float, n_places: int) -> None:
        super().__init__(Wanted("power", power), n_places)
        self.config = config
        self.allowed_rise, self.baseline_time = config.impedance_rise, config.baseline_time
        self._power = [float(power)] * n_places

    def wanted(self, place: int, elapsed: float) -> Wanted:
        return Wanted("power", self._power[place] + self.config.power_ramp * elapsed / MINUTE)

    def leave(self, place: int, elapsed: float, before: Output) -> None:
        """Remember what the ramp reached, or what a limit left of it."""
        wanted = self.wanted(place, elapsed).value
        limited = before.limited and before.power is not None
        self._power[place] = min(wanted, before.power or 0.0) if limited else wanted

    def rose(self, place: int, elapsed: float, before: Output) -> None:
        self.leave(place, elapsed, before)
        if self.config.short_pulse is None or elapsed < self.config.short_pulse - TIME_TOLERANCE:
            reduced = self._power[place] * self.config.power_reduction
            self._power[place] = max(reduced, self.config.minimum_power)

    def state(self) -> dict[str, list[Any]]:
        return {"power": list(self._power)}


class RollOff(Controller):
    """A ramp of power to roll-off, for umbrella devices.

    The first phase starts at a power that grows by `power_ramp` per minute up to the generator's
    limit. It ends at roll-off: the impedance exceeds the lowest one of the phase by `impedance_rise`,
    or the limits of voltage and current leave less than `power_drop` of the wanted power (of the
    generator's limit, where the ramp is beyond it). After a pause the next phase runs at a constant
    `power_reduction` times the highest power delivered so
    far. The last of `phases` roll-offs ends the place's turn for good.

    Devices of this kind are driven so (the RF 3000 of the comparison PMC4463338); the numbers that say
    what counts as roll-off are the project's choice.
    """

    reacts = True

    def __init__(self, config: GeneratorConfig, power: float, n_places: int) -> None:
        super().__init__(Wanted("power", power), n_places)
        self.config = config
        self.allowed_rise = config.impedance_rise
        self._power = [float(power)] * n_places
        self._highest = [0.0] * n_places
        self._rolled = [0] * n_places

    def wanted(self, place: int, elapsed: float) -> Wanted:
        ramp = self.config.power_ramp if self._rolled[place] == 0 else 0.0
        return Wanted("power", self._power[place] + ramp * elapsed / MINUTE)

    def read(self, place: int, time: float, temperature: float, before: Output) -> list[tuple[str, float]]:
        self._highest[place] = max(self._highest[place], before.power or 0.0)
        return []

    def rose(self, place: int, elapsed: float, before: Output) -> None:
        self._highest[place] = max(self._highest[place], before.power or 0.0)
        self._rolled[place] += 1
        reached = self._highest[place] or self._power[place]
        self._power[place] = max(self.config.power_reduction * reached, self.config.minimum_power)

    def collapses(self, place: int, elapsed: float, delivered: float, limit: str | None) -> bool:
        held = limit in ("maximum_voltage", "maximum_current")
        possible = min(self.wanted(place, elapsed).value, self.config.maximum_power)
        return held and delivered < self.config.power_drop * possible

    def is_done(self, place: int) -> bool:
        return self._rolled[place] >= self.config.phases

    def state(self) -> dict[str, list[Any]]:
        return {"power": list(self._power), "highest": list(self._highest), "rolled": list(self._rolled)}


class TemperatureControl(Controller):
    """As much power as brings the sensors to the target without passing it, and keeps them there.

    A discrete PI controller in velocity form whose proportional part acts on the measurement alone, so
    that nothing kicks and the limits cannot wind it up. Every `control_interval` Δt

        P ← P + (−(T − T_before) + (T_target − T) Δt / τ_I) / (a τ_c),   0 ≤ P ≤ power,

    for tissue that answers as dT/dt = a P: a [K/(s W)] is the steepest answer seen so far, first to
    `FIRST_SHARE` of `power`, which is doubled at each reading while tissue below the target does not
    warm up (it was hot at the segment's start); τ_c = `RESPONSE_TIME`, and τ_I = 4 τ_c, with which
    that process is critically
    damped: s² + s/τ_c + 1/(τ_c τ_I) has a double root (the rule of Skogestad 2003, J Process Control
    13:291, doi:10.1016/S0959-1524(02)00062-8). The answer of tissue to heat flattens with time
    (conduction, perfusion, boiling), so the loop is slower than that, not faster. Above the target
    τ_I = τ_c, the project's choice: tissue that has boiled dry there heats up with little power.

    `hold_time` counts from the first reading less than `REACHED_BAND` below the target.
    """

    reacts = True

    def __init__(
        self, config: GeneratorConfig, power: float, target: float, hold: float | None, n_places: int
    ) -> None:
        super().__init__(Wanted("power", power), n_places)
        self.config, self.target = config, target
        self.hold = math.inf if hold is None else hold
        self._most = float(power)
        self._power = [FIRST_SHARE * float(power)] * n_places
        self._gain = [0.0] * n_places
        self._moment = [-math.inf] * n_places  # of the last reading that counted
        self._temperature = [0.0] * n_places
        self._reached = [math.inf] * n_places
        self._done = [False] * n_places

    def begin(self, place: int, time: float) -> float:
        self._moment[place] = -math.inf
        return self._power[place]

    def wanted(self, place: int, elapsed: float) -> Wanted:
        return Wanted("power", self._power[place])

    def read(self, place: int, time: float, temperature: float, before: Output) -> list[tuple[str, float]]:
        events = []
        if temperature >= self.target - REACHED_BAND and math.isinf(self._reached[place]):
            self._reached[place] = time
            events.append(("target_reached", temperature))
        if time >= self._reached[place] + self.hold - TIME_TOLERANCE and not self._done[place]:
            self._done[place] = True
            events.append(("hold_end", temperature))
        since = time - self._moment[place]
        if since < self.config.control_interval - TIME_TOLERANCE:
            return events
        if math.isfinite(since):
            self._correct(place, temperature, since, before)
        self._moment[place], self._temperature[place] = time, temperature
        return events

    def _correct(self, place: int, temperature: float, since: float, before: Output) -> None:
        rise = temperature - self._temperature[place]
        acted = before.power or 0.0
        if acted > 0.0:
            self._gain[place] = max(self._gain[place], rise / (since * acted))
        if before.limited:
            self._power[place] = min(self._power[place], acted)
        if self._gain[place] > 0.0:
            above = temperature > self.target
            pull = (self.target - temperature) * since / (RESPONSE_TIME if above else 4.0 * RESPONSE_TIME)
            change = (pull - rise) / (self._gain[place] * RESPONSE_TIME)
            self._power[place] = min(max(self._power[place] + change, 0.0), self._most)
        elif temperature < self.target and not before.limited:
            self._power[place] = min(2.0 * self._power[place], self._most)

    def is_done(self, place: int) -> bool:
        return self._done[place]

    def next_moment(self, place: int, time: float) -> float:
        sample = self._moment[place] + self.config.control_interval
        return min(sample if sample > time + TIME_TOLERANCE else math.inf, self._reached[place] + self.hold)

    def state(self) -> dict[str, list[Any]]:
        return {
            "power": list(self._power),
            "gain": list(self._gain),
            "moment": list(self._moment),
            "temperature": list(self._temperature),
            "reached": list(self._reached),
            "done": list(self._done),
        }


def controller_for(config: GeneratorConfig, segment: SegmentConfig, n_places: int) -> Controller:
    """The controller of `config.mode`, with the segment's own values where it has any."""

    def value(name: str) -> Any:
        own = getattr(segment, name)
        return getattr(config, name) if own is None else own

    if config.mode == "impedance_controlled":
        return Pulses(config, value("power"), n_places)
    if config.mode == "ramp_to_roll_off":
        return RollOff(config, value("power"), n_places)
    if config.mode == "temperature_controlled":
        target, hold = value("target_temperature"), value("hold_time")
        return TemperatureControl(config, value("power"), target, hold, n_places)
    quantity = config.mode.removeprefix("constant_")
    return Controller(Wanted(quantity, value(quantity)), n_places)
