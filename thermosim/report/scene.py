"""scene.png: a still picture of the treatment, drawn off-screen in a process of its own.

Drawing needs OpenGL, and a broken OpenGL can kill its process; a finished simulation must not die
with it. Meshes travel to the child as a plain npz file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermosim.report.atomic import replacing
from thermosim.report.meshes import SceneMesh
from thermosim.report.verdict import MARGIN_CLASSES, direction_in_words, margin_color

SCENE_SIZE, TUMOR_SIZE = (1150, 900), (650, 900)
EYE = np.array([-0.4, -1.0, 0.35])
"""Seen from the front, a little from the patient's right and from above (LPS: y to the back)."""

TIME_LIMIT = 180.0
"""The child is given so many seconds."""


def draw_scene(
    path: Path,
    meshes: Sequence[SceneMesh],
    command: Sequence[str] | None = None,
    time_limit: float = TIME_LIMIT,
) -> str | None:
    """Draw the meshes into a PNG; return None, or one line that says why there is no picture.

    `command` replaces the drawing program (it is called with the names of the input and the output
    file). `time_limit` [s] after which the child is stopped.
    """
    with drawing(path, meshes, command, time_limit) as finish:
        return finish()


@contextmanager
def drawing(
    path: Path,
    meshes: Sequence[SceneMesh],
    command: Sequence[str] | None = None,
    time_limit: float = TIME_LIMIT,
) -> Iterator[Callable[[], str | None]]:
    """Draw beside other work: as `draw_scene`, whose result the function that this yields waits for.

    A child that is still at work when the block ends, say for an error, is stopped.
    """
    if not meshes:
        yield lambda: "there is no scene.png: nothing to draw"
        return
    with tempfile.TemporaryDirectory(prefix="thermosim-scene-") as folder:
        source, picture = Path(folder) / "meshes.npz", Path(folder) / "scene.png"
        _save(source, meshes)
        program = list(command) if command else [sys.executable, "-m", "thermosim.report.scene"]
        environment = dict(os.environ)
        package_root = str(Path(__file__).resolve().parents[2])
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, (package_root, environment.get("PYTHONPATH")))
        )
        try:
            child = subprocess.Popen(
                [*program, str(source), str(picture)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            reason = f"there is no scene.png: the drawing program did not start ({error.strerror})"
            yield lambda: reason
            return
        try:
            yield lambda: _collect(child, picture, path, time_limit)
        finally:
            if child.poll() is None:
                child.kill()
            child.wait()


def _collect(child: subprocess.Popen[bytes], picture: Path, path: Path, time_limit: float) -> str | None:
    """Wait for the child and put its picture in place; one line if there is none."""
    try:
        code = child.wait(time_limit)
    except subprocess.TimeoutExpired:
        return f"there is no scene.png: drawing took longer than {time_limit:g} s"
    if code != 0 or not picture.is_file() or picture.stat().st_size == 0:
        return f"there is no scene.png: off-screen OpenGL does not work here (exit code {code})"
    with replacing(path) as temporary:
        temporary.write_bytes(picture.read_bytes())
    return None


def _save(path: Path, meshes: Sequence[SceneMesh]) -> None:
    arrays: dict[str, Any] = {}
    table = []
    for index, mesh in enumerate(meshes):
        arrays[f"points_{index}"] = mesh.points
        arrays[f"triangles_{index}"] = mesh.triangles
        if mesh.values is not None:
            arrays[f"values_{index}"] = mesh.values
        table.append({"layer": mesh.layer, "kind": mesh.kind, "color": mesh.color, "opacity": mesh.opacity})
    arrays["table"] = np.array(json.dumps(table))
    np.savez(path, **arrays)


def _load(path: Path) -> list[dict[str, Any]]:
    with np.load(path, allow_pickle=False) as arrays:
        table: list[dict[str, Any]] = json.loads(str(arrays["table"]))
        for index, row in enumerate(table):
            row["points"] = arrays[f"points_{index}"]
            row["triangles"] = arrays[f"triangles_{index}"]
            key = f"values_{index}"
            row["values"] = arrays[key] if key in arrays.files else None
    return table


def _margin_colors(values: Any) -> Any:
    colors = np.zeros((len(values), 3), np.uint8)
    for index, margin in enumerate(values):
        text = margin_color(1e3 * float(margin))
        colors[index] = [int(text[i : i + 2], 16) for i in (1, 3, 5)]
    return colors


def _view(
    rows: Sequence[dict[str, Any]],
    focus: Sequence[dict[str, Any]],
    size: tuple[int, int],
    zoom: float,
    eye: NDArray[np.float64],
) -> Any:
    """A plotter that looks at the points of `focus` from the direction `eye`."""
    import pyvista as pv

    plotter = pv.Plotter(off_screen=True, window_size=list(size))
    plotter.set_background("white")
    for row in rows:
        mesh = pv.PolyData.from_regular_faces(1e3 * row["points"], row["triangles"])
        look: dict[str, Any] = {
            "smooth_shading": True,
            "split_sharp_edges": row["kind"] == "needle",
            "ambient": 0.25,
            "specular": 0.1,
        }
        if row["values"] is not None:
            mesh.point_data["margin"] = _margin_colors(row["values"])
            plotter.add_mesh(mesh, scalars="margin", rgb=True, **look)
        else:
            plotter.add_mesh(mesh, color=row["color"], opacity=row["opacity"], **look)
    points = 1e3 * np.vstack([row["points"] for row in focus])
    lower, upper = points.min(axis=0), points.max(axis=0)
    plotter.camera_position = [
        tuple(0.5 * (lower + upper) + 600 * eye),
        tuple(0.5 * (lower + upper)),
        (0, 0, 1),
    ]
    plotter.reset_camera(bounds=np.column_stack([lower, upper]).ravel())
    plotter.camera.zoom(zoom)
    return plotter


def _seen(plotter: Any) -> NDArray[np.uint8]:
    """The picture of a plotter, which is closed: two open ones would hold their buffers at once."""
    image = np.array(plotter.screenshot(return_img=True), dtype=np.uint8)[..., :3]
    plotter.close()
    return image


def _thinnest_side(tumors: Sequence[dict[str, Any]]) -> NDArray[np.float64]:
    """Unit vector from the centre of the worst tumour to its thinnest place, a little tilted.

    Looking straight down or up would leave the picture without an upright.
    """
    lowest = min(tumors, key=lambda row: float(np.nanmin(row["values"])))
    arm = lowest["points"][np.nanargmin(lowest["values"])] - lowest["points"].mean(axis=0)
    arm = arm / max(float(np.linalg.norm(arm)), 1e-9)
    if abs(arm[2]) > 0.95:
        arm = arm + np.array([0.0, -0.35, 0.0])
    return np.asarray(arm / np.linalg.norm(arm))


def _paint(source: Path, picture: Path) -> None:
    """Runs in the child: the whole scene on the left, the tumours by margin on the right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    table = _load(source)
    # Glass is blended in this order: the zone, then the liver around it.
    table.sort(key=lambda row: (row["opacity"] < 1, row["kind"] == "liver"))
    body = [row for row in table if row["kind"] != "needle"] or table
    panels = [("", _seen(_view(table, body, SCENE_SIZE, 1.3, EYE)))]
    tumors = [row for row in table if row["kind"] == "tumor" and row["values"] is not None]
    tumors = [row for row in tumors if np.isfinite(row["values"]).any()]
    if tumors:
        close = [*tumors, *(row for row in table if row["kind"] in ("needle", "mark"))]
        side = _thinnest_side(tumors)
        title = f"Margin on the tumour,\nseen from its thinnest side ({direction_in_words(side)})"
        panels.append((title, _seen(_view(close, tumors, TUMOR_SIZE, 0.9, side))))
    width, height = sum(image.shape[1] for _, image in panels), panels[0][1].shape[0]
    figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    start = 0
    for title, image in panels:
        left, span = start / width, image.shape[1] / width
        axes = figure.add_axes((left, 0, span, 1), frameon=False, xticks=[], yticks=[])
        axes.imshow(image, aspect="auto", interpolation="nearest")  # pixel by pixel
        plate = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none"}  # needles may pass behind
        figure.text(left + span / 2, 0.92, title, ha="center", fontsize=15, color="#20242a", bbox=plate)
        start += image.shape[1]
    scene = SCENE_SIZE[0] / width
    figure.text(0.02, 0.5, "patient's\nright", fontsize=12, color="#646c77", ha="left", va="center")
    figure.text(scene - 0.02, 0.5, "left", fontsize=12, color="#646c77", ha="right", va="center")
    layers = {row["layer"]: row for row in table if row["values"] is None and row["kind"] != "needle"}
    patches = [
        Patch(color=row["color"], alpha=max(row["opacity"], 0.4), label=n) for n, row in layers.items()
    ]
    style: dict[str, Any] = {"frameon": False, "fontsize": 12, "labelcolor": "#20242a"}
    figure.legend(handles=patches, loc="lower center", bbox_to_anchor=(scene / 2, 0.0), ncols=5, **style)
    if tumors:
        patches = [Patch(color=color, label=name) for _, _, color, name in MARGIN_CLASSES]
        place = (scene + (1 - scene) / 2, 0.0)
        figure.legend(handles=patches, loc="lower center", bbox_to_anchor=place, ncols=2, **style)
    canvas.print_png(str(picture))


if __name__ == "__main__":
    _paint(Path(sys.argv[1]), Path(sys.argv[2]))
