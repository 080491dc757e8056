"""DICOM series and structure sets for tests, made by pydicom from a file that it ships."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

STUDY = "1.2.826.0.1.3680043.8.498.1"
FRAME = "1.2.826.0.1.3680043.8.498.2"
SERIES = "1.2.826.0.1.3680043.8.498.3"


def write_series(
    folder: Path,
    values: NDArray[np.int16],
    *,
    spacing: tuple[float, float, float] = (0.7, 0.8, 2.5),
    origin: tuple[float, float, float] = (-20.0, -150.0, 400.0),
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    patient: str = "Doe^Jane",
) -> list[Any]:
    """CT slices of `values` (nx, ny, nz) in HU; spacing along x, y and from slice to slice [mm]."""
    folder.mkdir(parents=True, exist_ok=True)
    template = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    normal = np.cross(orientation[:3], orientation[3:])
    slices = []
    for k in range(values.shape[2]):
        one = deepcopy(template)
        one.PatientName, one.PatientID, one.PatientBirthDate = patient, "id-4711", "19520229"
        one.AccessionNumber, one.ReferringPhysicianName, one.StudyID = "acc-99", "House^G", "st-1"
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = STUDY, SERIES, FRAME
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"{SERIES}.{k + 1}"
        one.InstanceNumber, one.SliceThickness = k + 1, spacing[2]
        one.ImageOrientationPatient, one.PixelSpacing = list(orientation), [spacing[1], spacing[0]]
        one.ImagePositionPatient = [round(float(x), 6) for x in origin + k * spacing[2] * normal]
        one.RescaleSlope, one.RescaleIntercept = 1, -1024
        one.Columns, one.Rows = values.shape[:2]
        one.PixelRepresentation = 0
        one.PixelData = (values[:, :, k].T.astype(np.int32) + 1024).astype("<u2").tobytes()
        for group in (0x0009, 0x0019, 0x0021, 0x0023, 0x0025, 0x0027, 0x0029, 0x0043, 0x0045):
            for element in list(one.group_dataset(group)):
                del one[element.tag]
        one.save_as(folder / f"slice_{(7 * k) % values.shape[2]:03d}_{k}.dcm")  # names out of order
        slices.append(one)
    return slices


def write_rtstruct(path: Path, structures: dict[str, list[NDArray[np.float64]]], frame: str = FRAME) -> None:
    """A structure set with closed contours (n, 3) LPS [mm] by name."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    meta.MediaStorageSOPInstanceUID = f"{STUDY}.9"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    whole = Dataset()
    whole.file_meta = meta
    whole.SOPClassUID, whole.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    whole.Modality = "RTSTRUCT"
    whole.StructureSetROISequence, whole.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(structures.items(), start=1):
        roi, outline = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, frame
        outline.ReferencedROINumber, outline.ContourSequence = number, []
        for points in contours:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
            contour.ContourData = [f"{x:.6g}" for x in points.ravel()]
            outline.ContourSequence.append(contour)
        whole.StructureSetROISequence.append(roi)
        whole.ROIContourSequence.append(outline)
    whole.save_as(path, enforce_file_format=True)
