"""Closed surfaces from files: read, mended, laid on a grid; lumens against exact cylinders."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import pyvista as pv
from omegaconf import OmegaConf
from scipy import ndimage
from vtkmodules.vtkIOXML import vtkXMLPolyDataWriter

from thermosim.anatomy.grid import Grid
from thermosim.anatomy.lumens import vessel_distance
from thermosim.anatomy.mesh import clean, from_polydata, triangle_areas, volume
from thermosim.anatomy.rasterize import inside
from thermosim.anatomy.surface_files import check_frame, read_surface, stated_frame
from thermosim.anatomy.surfaces import SurfacesSource
from thermosim.config import SurfaceConfig, SurfacesAnatomyConfig
from thermosim.errors import InputError

_spec = importlib.util.spec_from_file_location("anatomy_files", Path(__file__).with_name("anatomy_files.py"))
assert _spec is not None
assert _spec.loader is not None
files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(files)

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "anatomy"


def config(folder, ending="vtk", **changes):
    surfaces = {
        "liver": SurfaceConfig(file=f"liver.{ending}", tissue="liver", role="organ"),
        "vein": SurfaceConfig(
            file=f"vessel.{ending}", tissue="blood", role="vessel", vessel_group="hepatic_vein"
        ),
        "tumor": SurfaceConfig(file=f"tumor.{ending}", tissue="tumor", role="tumor"),
    }
    surfaces.update(changes)
    return SurfacesAnatomyConfig(directory=str(folder), surfaces={k: v for k, v in surfaces.items() if v})


def cylinder(radius, direction, resolution=40, length=0.2):
    mesh = pv.Cylinder(
        center=(0.0013, 0.0007, -0.0004),
        direction=direction,
        radius=radius,
        height=length,
        resolution=resolution,
    ).triangulate()
    return clean(from_polydata(mesh), "cylinder")[0]


@pytest.mark.parametrize(
    ("ending", "binary"),
    [
        ("vtk", True),
        ("vtk", False),
        ("vtp", True),
        ("vtp", False),
        ("stl", True),
        ("stl", False),
        ("ply", True),
        ("ply", False),
        ("obj", True),
    ],
)
def test_every_format_gives_the_same_patient(tmp_path: Path, ending: str, binary: bool) -> None:
    folder = files.write_surfaces(tmp_path / "s", ending, binary)
    patient = SurfacesSource(config(folder, ending))
    assert patient.notes == ()
    assert 1e3 * patient.tumor_centers()["tumor"] == pytest.approx(files.TUMOR_CENTER_MM, abs=1e-3)
    lower, upper = patient.extent()
    assert 1e3 * upper == pytest.approx(np.array([60, 50, 45]), abs=0.2)
    assert (lower < 0).all()


def test_legacy_vtk_of_older_versions_and_strips(tmp_path: Path) -> None:
    text = (
        "# vtk DataFile Version 3.0\nt\nASCII\nDATASET POLYDATA\nPOINTS 4 float\n0 0 0 1 0 0 0 1 0 0 0 1\n"
        "TRIANGLE_STRIPS 1 7\n6 0 1 2 3 0 1\n"
    )
    (tmp_path / "s.vtk").write_text(text)
    surface, notes = clean(read_surface(tmp_path / "s.vtk"), "s")
    assert volume(surface) == pytest.approx(1 / 6)  # a unit corner tetrahedron
    assert notes == []
    (tmp_path / "p.vtk").write_text(
        text.split("TRIANGLE_STRIPS")[0] + "POLYGONS 4 16\n3 0 1 2\n3 0 3 1\n3 1 3 2\n3 0 2 3\n"
    )
    assert abs(volume(clean(read_surface(tmp_path / "p.vtk"), "p")[0])) == pytest.approx(1 / 6)


def test_labels_by_role_and_by_priority(tmp_path: Path) -> None:
    folder = files.write_surfaces(tmp_path)
    pv.Icosphere(radius=6, center=(-20, 0, 0), nsub=3).save(folder / "ball.vtk")
    ball = SurfaceConfig(file="ball.vtk", tissue="gallbladder", role="risk")
    grid = Grid.box((0, 0, 0), (64, 56, 44), 2e-3)
    patient = SurfacesSource(config(folder, ball=ball))
    anatomy = patient.rasterize(grid, 0.003)
    place = tuple(np.rint(grid.indices(np.array([-0.020, 0, 0]))).astype(int))
    assert anatomy.labels[place] == anatomy.structure("vein").label
    ball.priority = 1
    anatomy = SurfacesSource(config(folder, ball=ball)).rasterize(grid, 0.003)
    assert anatomy.labels[place] == anatomy.structure("ball").label
    assert anatomy.liver_mask[place]
    tumor = anatomy.labels == anatomy.structure("tumor").label
    exact = 4 / 3 * np.pi * 9**3
    assert tumor.sum() * 8 == pytest.approx(exact, rel=0.05)  # 380 cells of 2 mm: counting noise
    assert anatomy.liver_mask[tumor].all()


def test_tumour_surface_has_even_outward_triangles(tmp_path: Path) -> None:
    folder = files.write_surfaces(tmp_path)
    patient = SurfacesSource(config(folder))
    surface = patient.rasterize(Grid.box((0.031, -0.022, 0.013), (30,) * 3, 1e-3), 0.003).tumor_surfaces[
        "tumor"
    ]
    # Icosphere nsub=4 against the exact sphere: 0.3 % less volume.
    assert volume(surface) * 1e9 == pytest.approx(4 / 3 * np.pi * 9**3, rel=0.01)
    edge = 1e3 * np.sqrt(4 / np.sqrt(3) * triangle_areas(surface))
    assert 0.6 < np.median(edge) < 1.6
    normals = np.cross(
        *(surface.points[surface.triangles[:, k]] - surface.points[surface.triangles[:, 0]] for k in (1, 2))
    )
    outward = surface.points[surface.triangles].mean(axis=1) - files.TUMOR_CENTER_MM * 1e-3
    assert ((normals * outward).sum(axis=1) > 0).all()


def test_inside_agrees_with_the_exact_ball_at_cell_centres() -> None:
    ball = from_polydata(pv.Icosphere(radius=0.0101, center=(0.001, 0.0, 0.002), nsub=5))
    grid = Grid.box((0, 0, 0), (30, 31, 32), 1e-3)
    distance = np.linalg.norm(grid.points(np.argwhere(np.ones(grid.shape))) - [0.001, 0, 0.002], axis=1)
    mask = inside(ball, grid).ravel()
    # The icosphere lies within 5 µm of the sphere; cells nearer to it than that may fall either side.
    sure = np.abs(distance - 0.0101) > 1e-5
    assert (mask == (distance < 0.0101))[sure].all()


@pytest.mark.parametrize("direction", [(0, 0, 1), (1, 1, 0), (1, 0.3, 0.2), (0.4, -0.7, 0.6)])
@pytest.mark.parametrize("spacing", [1e-3, 2e-3])
def test_lumen_of_a_cylinder_at_any_angle(direction, spacing: float) -> None:
    grid = Grid.box((0, 0, 0), (30, 30, 30), spacing)
    found = vessel_distance(cylinder(0.003, direction), grid, 0.003)
    assert found is not None
    distance, radius, added = found
    axis = np.array(direction) / np.linalg.norm(direction)
    points = grid.points(np.argwhere(np.ones(grid.shape))) - [0.0013, 0.0007, -0.0004]
    exact = np.linalg.norm(points - np.outer(points @ axis, axis), axis=1) - 0.003
    near = np.abs(exact) < 3 * spacing
    # Wanted: 0.15 cell; a polygon of 40 sides itself lies 0.01 mm inside the circle.
    assert np.abs(distance.ravel() - exact)[near].max() < 0.05 * spacing
    assert radius.ravel()[near] == pytest.approx(0.003, rel=0.03)  # wanted: 10 %
    assert distance.dtype == radius.dtype == np.float32
    assert added == 0


@pytest.mark.parametrize("direction", [(0, 0, 1), (1, 1, 0), (1, 0.3, 0.2)])
def test_vessel_thinner_than_a_cell_stays_connected(direction) -> None:
    grid = Grid.box((0, 0, 0), (30, 30, 30), 3e-3)
    found = vessel_distance(cylinder(0.001, direction, 12), grid, 0.0015)
    assert found is not None
    blood = found[0] < 0
    assert ndimage.label(blood, np.ones((3, 3, 3)))[1] == 1
    ends = np.argwhere(blood)
    assert (np.ptp(ends, axis=0) >= 28 * np.abs(direction) / np.abs(direction).max() - 1).all()
    assert vessel_distance(cylinder(0.001, direction, 12), grid, 0.003) is None


def test_thin_branch_of_a_thick_vessel_is_left_out_locally() -> None:
    cone = pv.Cone(center=(0, 0, 0), direction=(0, 0, 1), height=0.06, radius=0.004, resolution=60)
    cone = cone.triangulate().subdivide(3)
    surface, _ = clean(from_polydata(cone), "cone")
    grid = Grid.box((0, 0, 0), (12, 12, 64), 1e-3)
    found = vessel_distance(surface, grid, 0.003)
    assert found is not None
    cells = grid.points(np.argwhere(found[0] < 0))
    # The cone is 4 mm wide in radius at z = −30 and nothing at +30: 1.5 mm at z = +7.5. Local
    # thickness reaches 1.2 radii beyond its ball, and hysteresis lets 10 % thinner parts stay.
    assert 0.006 < cells[:, 2].max() < 0.0135
    at = np.abs(cells[:, 2] + 0.010) < 1e-3
    measured = found[1][tuple(np.rint(grid.indices(cells[at])).astype(int).T)]
    assert measured == pytest.approx(0.004 * 40 / 60, rel=0.12)  # largest ball within reach is wider


def test_specks_holes_and_open_surfaces(tmp_path: Path) -> None:
    folder = files.write_surfaces(tmp_path)
    speck = pv.Icosphere(radius=0.3, center=(0, 0, 60), nsub=1)
    (pv.read(folder / "liver.vtk") + speck).extract_surface(algorithm="dataset_surface").save(
        folder / "speck.vtk"
    )
    holed = pv.read(folder / "liver.vtk")
    holed.extract_cells(np.arange(40, holed.n_cells)).extract_surface(algorithm="dataset_surface").save(
        folder / "holed.vtk"
    )
    holed.clip("x").extract_surface(algorithm="dataset_surface").triangulate().save(folder / "open.vtk")

    def with_liver(file):
        return SurfacesSource(config(folder, liver=SurfaceConfig(file=file, tissue="liver", role="organ")))

    assert with_liver("speck.vtk").notes == ("liver: 1 tiny disconnected part(s) were left out",)
    mended = with_liver("holed.vtk")
    assert "closed" in mended.notes[0]
    with pytest.raises(InputError, match="is open"):
        with_liver("open.vtk")


def test_near_mm_keeps_one_part(tmp_path: Path) -> None:
    folder = files.write_surfaces(tmp_path)
    two = pv.Icosphere(radius=5, center=(10, 0, 0), nsub=3) + pv.Icosphere(
        radius=6, center=(-15, 0, 0), nsub=3
    )
    two.extract_surface(algorithm="dataset_surface").save(folder / "two.vtk")
    chosen = SurfaceConfig(file="two.vtk", tissue="tumor", role="tumor", near_mm=[-14, 1, 0])
    center = SurfacesSource(config(folder, tumor=chosen)).tumor_centers()["tumor"]
    assert 1e3 * center == pytest.approx([-15, 0, 0], abs=1e-3)
    chosen.near_mm = [200, 0, 0]
    with pytest.raises(InputError, match="correct near_mm"):
        SurfacesSource(config(folder, tumor=chosen))


def test_wrong_configs_are_refused(tmp_path: Path) -> None:
    folder = files.write_surfaces(tmp_path)
    with pytest.raises(InputError, match="no structure has the role tumor"):
        SurfacesSource(config(folder, tumor=None))
    missing = SurfaceConfig(file="none.vtk", tissue="tumor", role="tumor")
    with pytest.raises(InputError, match=r"none\.vtk.* was not found"):
        SurfacesSource(config(folder, tumor=missing))
    for change, message in (({"unit": "m"}, "is unit=m right"), ({"frame": "XYZ"}, "LPS or RAS")):
        wrong = config(folder)
        for key, value in change.items():
            setattr(wrong, key, value)
        with pytest.raises(InputError, match=message):
            SurfacesSource(wrong)
    with pytest.raises(InputError, match="directory"):
        SurfacesSource(config(tmp_path / "nowhere"))


@pytest.mark.parametrize("ending", ["vtk", "vtp", "stl", "ply", "obj"])
def test_mutated_surfaces_never_crash(tmp_path: Path, ending: str) -> None:
    """Truncations and flipped bits give a closed surface or one InputError, nothing else."""
    path = tmp_path / f"good.{ending}"
    pv.Icosphere(radius=9, nsub=2).save(path)
    good = path.read_bytes()
    random = np.random.default_rng(11)
    bad, refused = tmp_path / f"bad.{ending}", 0
    for k in range(45):
        data = bytearray(good)
        if k % 3 == 0:
            data = data[: int(random.integers(0, len(data) * 9 // 10))]
        else:
            span = min(len(data), 300) if k % 3 == 1 else len(data)
            for _ in range(3):
                data[int(random.integers(0, span))] ^= 1 << int(random.integers(0, 8))
        bad.write_bytes(bytes(data))
        try:
            clean(read_surface(bad), "bad")
        except InputError:
            refused += 1
    assert refused >= 12  # nearly every truncation


def shipped(name):
    loaded = OmegaConf.load(CONFIGS / f"{name}.yaml")
    assert loaded.pop("defaults") == ["base_surfaces", "_self_"]
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(SurfacesAnatomyConfig), loaded))


def test_real_liver_has_its_known_volumes(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THERMOSIM_DATA", str(data_dir))
    patient = SurfacesSource(shipped("scikit_liver"))
    surfaces = patient.display_surfaces()
    # Reference volumes at 1 mm [ml]; the meshes themselves may differ by the voxels' 1 %.
    for name, reference in {
        "liver": 2316.1,
        "tumor": 96.6,
        "cysts": 10.7,
        "portal_vein": 27.3,
        "hepatic_veins": 51.2,
        "arteries": 55.6,
    }.items():
        assert volume(surfaces[name]) * 1e6 == pytest.approx(reference, rel=0.01)
    grid = Grid.box(tuple(patient.tumor_centers()["tumor"]), (40, 40, 40), 2e-3)
    anatomy = patient.rasterize(grid, 0.004)
    tumor = anatomy.labels == anatomy.structure("tumor").label
    # 12 000 cells of 2 mm.
    assert tumor.sum() * 8e-3 == pytest.approx(96.6, rel=0.01)
    assert {"portal_vein", "hepatic_vein"} <= {lumen.group for lumen in anatomy.lumens}
    blood = np.isin(anatomy.labels, [s.label for s in anatomy.with_role("vessel")])
    union = np.min([x.signed_distance for x in anatomy.lumens], axis=0) < 0
    assert (blood == union).all()


def test_real_cyst_is_chosen_as_tumour(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THERMOSIM_DATA", str(data_dir / "geometry"))
    patient = SurfacesSource(shipped("scikit_liver_cyst"))
    # The data's description gives the middle of its box; the centre of volume differs by under 1 mm.
    assert 1e3 * patient.tumor_centers()["tumor"] == pytest.approx([-70.6, -193.5, -239.5], abs=1.0)
    assert volume(patient.display_surfaces()["tumor"]) * 1e6 == pytest.approx(4.17, rel=0.01)
    assert [s.name for s in patient.structures if s.role == "tumor"] == ["tumor"]


def test_other_formats_of_real_livers(data_dir: Path) -> None:
    for file, reference in (("liver.ply", 1711.6), ("liver_downsample.stl", 1581.3)):
        surface, notes = clean(read_surface(data_dir / "geometry" / "scikit_other" / file), "liver")
        assert volume(surface) * 1e-3 == pytest.approx(reference, rel=1e-3)  # as VTK's own reader says
        assert notes == []


@pytest.mark.parametrize("kind", ["stl", "vtk", "vtp", "ply"])
def test_a_surface_that_says_its_frame_is_not_read_in_the_other(tmp_path, kind):
    """Headers as 3D Slicer writes them."""
    ball = pv.Sphere(radius=10.0)
    path = tmp_path / f"ball.{kind}"
    if kind == "vtp":
        ball.field_data["SPACE"] = ["RAS"]
        writer = vtkXMLPolyDataWriter()
        writer.SetDataModeToAscii()
        writer.SetInputData(ball)
        writer.SetFileName(str(path))
        writer.Write()
    else:
        ball.save(path, binary=True)
        content = path.read_bytes()
        if kind == "stl":
            content = b"3D Slicer output. SPACE=RAS".ljust(80) + content[80:]
        elif kind == "vtk":
            title = content.split(b"\n")[1]
            content = content.replace(title, b"3D Slicer output. SPACE=RAS", 1)
        else:
            content = content.replace(b"element vertex", b"comment SPACE=RAS\nelement vertex", 1)
        path.write_bytes(content)
    assert stated_frame(path) == "RAS"
    check_frame(path, "RAS", "anatomy.frame")
    with pytest.raises(InputError, match=rf"ball.{kind} says that its points are RAS.*set anatomy.frame=RAS"):
        check_frame(path, "LPS", "anatomy.frame")
    assert len(read_surface(path).triangles) == ball.n_cells
