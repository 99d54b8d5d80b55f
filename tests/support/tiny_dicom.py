"""DICOM files of a few pixels, made with pydicom."""

import io

import numpy as np

STORED = np.array([[0, 100], [200, 1000]], dtype=np.uint16)


def dicom(stored=STORED, frames=None, kind="MONOCHROME2", **entries):
    """The bytes of a minimal uncompressed file; ``entries`` by keyword, None leaves one out."""
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    header = Dataset()
    header.file_meta = meta
    header.SOPClassUID, header.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    header.PatientID = "Q-773-19"
    header.Rows, header.Columns = stored.shape[:2]
    header.SamplesPerPixel, header.PhotometricInterpretation = (1 if stored.ndim == 2 else 3), kind
    header.BitsAllocated = header.BitsStored = stored.dtype.itemsize * 8
    header.HighBit, header.PixelRepresentation = header.BitsStored - 1, 0
    if stored.ndim == 3:
        header.PlanarConfiguration = 0
    if frames:
        header.NumberOfFrames = frames
    header.PixelData = stored.tobytes() * (frames or 1)
    for name, value in entries.items():
        if value is None:
            delattr(header, name)
        elif isinstance(value, pydicom.DataElement):  # of a VR of the test's choice
            header[value.tag] = value
        else:
            setattr(header, name, value)
    out = io.BytesIO()
    pydicom.dcmwrite(out, header, enforce_file_format=True)
    return out.getvalue()
