"""Whether two files lie in one frame: overlap, frames of reference, and mix-ups of left and right."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.grid import LPS_TO_RAS, Grid
from thermosim.errors import InputError

LEAST_SHARE = 0.5
"""A structure of which less lies on its image does not belong to it."""


def turned_round(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points as they are if LPS was taken for RAS or the other way: x and y change sign."""
    return np.asarray(points @ LPS_TO_RAS)


def box_of(labels: NDArray[np.generic]) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """First and last index of what is not background, None if nothing is."""
    ranges = []
    for axis in range(3):
        used = np.flatnonzero(labels.any(axis=tuple(a for a in range(3) if a != axis)))
        if not used.size:
            return None
        ranges.append((used[0], used[-1]))
    return np.array([a for a, _ in ranges]), np.array([b for _, b in ranges])


def lattice(grid: Grid, labels: NDArray[np.generic], n: int = 7) -> NDArray[np.float64]:
    """n³ points [m, LPS] spread over the box of what is not background, shape (n³, 3)."""
    box = box_of(labels)
    if box is None:
        return np.empty((0, 3))
    steps = [np.linspace(low - 0.5, high + 0.5, 2 * n + 1)[1::2] for low, high in zip(*box, strict=True)]
    return grid.points(np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3))


def check_same_frame(name: str, frame: str | None, other_name: str, other_frame: str | None) -> None:
    """Refuse two files that say themselves that they lie in different frames of reference.

    Raises
    ------
    InputError : both have a UID, and they differ.
    """
    if frame and other_frame and frame != other_frame:
        raise InputError(
            f"{name} and {other_name} have different frames of reference; they do not lie over each other "
            "unless they are registered first"
        )


def check_overlap(
    name: str, grid: Grid, labels: NDArray[np.generic], image_name: str, image_grid: Grid
) -> None:
    """Refuse a structure that does not lie on the image it is said to belong to.

    Parameters
    ----------
    name, grid, labels : the structure, its grid and its voxels (0: background).
    image_name, image_grid : the image and its grid.

    Raises
    ------
    InputError : less than half of the structure's box lies on the image; says whether a swap of LPS
        and RAS would mend that.
    """
    points = lattice(grid, labels)
    if not len(points):
        raise InputError(f"{name} is empty: all its voxels are background")
    share = float(image_grid.contains(points).mean())
    if share >= LEAST_SHARE:
        return
    turned = float(image_grid.contains(turned_round(points)).mean())
    hint = (
        "read with left and right, front and back exchanged it would: one of them was saved in RAS and read "
        "as LPS, or the other way round"
        if turned >= LEAST_SHARE and turned > share
        else "they are of different patients or frames, or must be registered first"
    )
    center = ", ".join(f"{1e3 * x:.0f}" for x in points.mean(axis=0))
    middle = ", ".join(f"{1e3 * x:.0f}" for x in image_grid.points(0.5 * (np.array(image_grid.shape) - 1)))
    raise InputError(
        f"{name} does not lie on {image_name}: only {100 * share:.0f} % does (its centre ({center}) mm, "
        f"the image's ({middle}) mm, LPS); {hint}"
    )
