"""Observed orders: second in space for heat and potential, second in time for the heat step and death."""

from __future__ import annotations

import pytest
from verification.linear_orders import (
    death_errors,
    heat_error,
    heat_error_in_time,
    orders,
    potential_error,
)

from thermosim.backends import select

BACKEND = select("cpu", 1)


def test_heat_is_of_second_order_in_space() -> None:
    observed = orders([heat_error(BACKEND, n) for n in (8, 16, 32)])
    # the next term of the error is (n π h/L)²/30 of the first: 0.02 in the order between 8 and 16
    assert observed == pytest.approx([2.0, 2.0], abs=0.1)


def test_the_potential_is_of_second_order_in_space() -> None:
    observed = orders([potential_error(BACKEND, n) for n in (8, 16, 32, 64)])
    # half-cell links at the faces and harmonic means of σ: both of second order
    assert observed == pytest.approx([2.0] * 3, abs=0.15)


@pytest.mark.parametrize("cells", [7, 10])
def test_heat_is_of_second_order_in_time(cells: int) -> None:
    errors = [heat_error_in_time(BACKEND, cells, n) for n in (4, 8, 16)]
    # λ Δt = 1/2 at first: the next power of it shows in the order
    assert orders(errors) == pytest.approx([2.0, 2.0], abs=0.25)


def test_death_is_of_second_order_in_time() -> None:
    found = [death_errors(BACKEND, n) for n in (15, 30, 60)]
    for name in found[0]:
        assert orders([errors[name] for errors in found]) == pytest.approx([2.0, 2.0], abs=0.25), name
