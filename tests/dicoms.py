"A small DICOM file, as a vendor would write it."
import numpy as np
import pytest

DX_IMAGE = '1.2.840.10008.5.1.4.1.1.1.1' # SOP class: digital X-ray image, for presentation

def _file_meta():
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DX_IMAGE
    meta.MediaStorageSOPInstanceUID = generate_uid()
    return meta

def _put_pixels(ds, img, photometric, bits, rgb):
    ds.Rows, ds.Columns = img.shape[:2]
    ds.SamplesPerPixel = 3 if rgb else 1
    ds.PixelRepresentation = 0
    ds.PhotometricInterpretation = 'RGB' if rgb else photometric
    if rgb:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = 8 if rgb else 16
    ds.BitsStored = 8 if rgb else bits
    ds.HighBit = ds.BitsStored - 1
    ds.PixelData = img.astype(np.uint8 if rgb else np.uint16).tobytes()

def dicom(path, img, photometric='MONOCHROME2', bits=12, window=None, slope=None, rgb=False, **tags):
    "Write a DICOM file; `img` None leaves the pixels out, `tags` are set as they come"
    pytest.importorskip('pydicom', reason="pydicom is an extra: pip install -e '.[dicom]'")
    from pydicom.dataset import Dataset
    ds = Dataset()
    ds.file_meta = _file_meta()
    ds.Modality = 'DX'
    ds.SOPClassUID = DX_IMAGE
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID
    if img is not None:
        _put_pixels(ds, img, photometric, bits, rgb)
    if window:
        ds.WindowCenter, ds.WindowWidth = window
    if slope:
        ds.RescaleSlope, ds.RescaleIntercept = slope
    for tag, value in tags.items():
        setattr(ds, tag, value)
    ds.save_as(path, enforce_file_format=True)
    return path

def encoded(path, values, *, bits=16, stored=None, signed=False, photometric='MONOCHROME2', drop=(), **tags):
    "Write stored values as they are, with any header around them; `drop` names elements to leave out"
    pytest.importorskip('pydicom', reason="pydicom is an extra: pip install -e '.[dicom]'")
    from pydicom.dataset import Dataset
    kind = np.dtype(f'{"i" if signed else "u"}{bits//8}')
    ds = Dataset()
    ds.file_meta = _file_meta()
    ds.Modality = 'DX'
    ds.SOPClassUID = DX_IMAGE
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID
    ds.Rows, ds.Columns = values.shape[:2]
    ds.SamplesPerPixel = 1 if values.ndim == 2 else 3
    if values.ndim == 3:
        ds.PlanarConfiguration = 0
    ds.PixelRepresentation = int(signed)
    ds.PhotometricInterpretation = photometric
    ds.BitsAllocated = bits
    ds.BitsStored = stored or bits
    ds.HighBit = ds.BitsStored - 1
    ds.add_new('PixelData', 'OB' if bits == 8 else 'OW', values.astype(kind).tobytes())
    for tag, value in tags.items():
        setattr(ds, tag, value)
    for tag in drop:
        delattr(ds, tag)
    ds.save_as(path, enforce_file_format=True)
    return path

def table(entries, *, first=0, bits=16, packed=False, kind=None):
    "A lookup table's sequence; `kind` makes it a modality table"
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence
    item = Dataset()
    item.add_new('LUTDescriptor', 'US', [len(entries) % 65536, first, bits])
    item.add_new('LUTData', 'OW', np.asarray(entries, np.uint8 if packed else np.uint16).tobytes())
    if kind:
        item.ModalityLUTType = kind
    return Sequence([item])
