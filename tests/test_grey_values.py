"One film through every encoding: the grey values come back, or the file is named."
import io
import struct
import zlib
import cv2
import numpy as np
import pytest
from PIL import Image
from boneage.core import FilmError
from boneage.films.grey import grey_levels
from boneage.films.phantom import make_phantom
from boneage.films.radiograph import load_film, load_radiograph
from dicoms import encoded, table

pydicom = pytest.importorskip('pydicom', reason="pydicom is an extra: pip install -e '.[dicom]'")

@pytest.fixture(scope='module')
def film():
    pixels = make_phantom(seed=3, age_months=48, sex='F', size=512).pixels[:, :-1]
    assert pixels.shape[1] % 2 == 0
    return cv2.GaussianBlur(pixels, (0, 0), 1)

@pytest.fixture(scope='module')
def twelve(film): # the film in 12 bits, with values between the multiples of 16
    grain = np.random.default_rng(0).integers(0, 16, film.shape)
    return film.astype(np.int64)*16 + grain

def likeness(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]

def assert_same(read, film):
    assert read.pixels.dtype == np.uint8
    assert read.shape == film.shape
    assert likeness(read.pixels, film) > .99
    assert grey_levels(read.pixels) > 128

STORED = { # bits allocated, bits stored, signed, stored values of a 12-bit film
    '8': (8, 8, False, lambda x: x//16),
    '8 signed': (8, 8, True, lambda x: x//16 - 128),
    '10': (16, 10, False, lambda x: x//4),
    '12': (16, 12, False, lambda x: x),
    '12 signed': (16, 12, True, lambda x: x - 2048),
    '14': (16, 14, False, lambda x: x*4),
    '16': (16, 16, False, lambda x: x*16),
    '16 signed': (16, 16, True, lambda x: x*16 - 32768),
    '12 in 16': (16, 16, False, lambda x: x),
    '32': (32, 32, False, lambda x: x*1_000_000),
    '32 signed': (32, 32, True, lambda x: x - 2_000_000_000),
    '24 in 32': (32, 24, False, lambda x: x*4096),
}
RESCALES = {
    'none': {},
    'ordinary': dict(RescaleSlope=1, RescaleIntercept=-1024),
    'steep': dict(RescaleSlope=10, RescaleIntercept=3),
    'fraction': dict(RescaleSlope='0.0001', RescaleIntercept='0.5'),
    'zero': dict(RescaleSlope=0, RescaleIntercept=0),
    'no intercept': dict(RescaleSlope=2),
    'no slope': dict(RescaleIntercept=100),
    'empty': dict(RescaleSlope='', RescaleIntercept=''),
}

@pytest.mark.parametrize('photometric', ['MONOCHROME1', 'MONOCHROME2'])
@pytest.mark.parametrize('rescale', RESCALES)
@pytest.mark.parametrize('bits', STORED)
def test_stored_values(tmp_path, film, twelve, bits, rescale, photometric):
    allocated, stored, signed, encode = STORED[bits]
    turned = 4095 - twelve if photometric == 'MONOCHROME1' else twelve
    how = dict(bits=allocated, stored=stored, signed=signed, photometric=photometric)
    read = load_radiograph(encoded(tmp_path/'film', encode(turned), **how, **RESCALES[rescale]))
    assert_same(read, film)
    assert read.inverted == (photometric == 'MONOCHROME1')

NEGATIVE = {
    'slope -1': dict(RescaleSlope=-1, RescaleIntercept=4095),
    'slope -10': dict(RescaleSlope=-10, RescaleIntercept=3000),
    'slope -1 alone': dict(RescaleSlope=-1),
}

@pytest.mark.parametrize('window', [False, True])
@pytest.mark.parametrize('name', NEGATIVE)
def test_negative_slope(tmp_path, film, twelve, name, window):
    tags = dict(NEGATIVE[name])
    slope = tags['RescaleSlope']
    ends = sorted(o*slope + tags.get('RescaleIntercept', 0) for o in (0, 4095))
    if window:
        tags |= dict(WindowCenter=sum(ends)/2, WindowWidth=ends[1] - ends[0])
    assert_same(load_radiograph(encoded(tmp_path/'film', 4095 - twelve, stored=12, **tags)), film)

FULL = dict(WindowCenter=2048, WindowWidth=4096)
VOI = {
    'absent': {},
    'empty': dict(WindowCenter='', WindowWidth=''),
    'half empty': dict(WindowCenter=2048, WindowWidth=''),
    'linear': FULL,
    'linear, empty function': FULL | dict(VOILUTFunction=''),
    'exact': FULL | dict(VOILUTFunction='LINEAR_EXACT'),
    'unknown function': FULL | dict(VOILUTFunction='LOG'),
    'several': dict(WindowCenter=[2048, 40], WindowWidth=[4096, 400]),
    'table of 16 bits': dict(VOILUTSequence=table(np.arange(4096)*16)),
    'table of 12 bits': dict(VOILUTSequence=table(np.arange(4096), bits=12)),
    'table of 8 bits': dict(VOILUTSequence=table(np.arange(4096)//16, bits=8)),
    'table of 8 bits, packed': dict(VOILUTSequence=table(np.arange(4096)//16, bits=8, packed=True)),
    'table that begins late': dict(VOILUTSequence=table(np.arange(4000)*16, first=96)),
    'table before window': dict(VOILUTSequence=table(np.arange(4096))) | dict(WindowCenter=1, WindowWidth=1),
}
USELESS = {
    'black': (30000, 400), 'white': (-3000, 400), 'of 8 bits': (128, 256), 'of a CT': (40, 400), '1/1': (1, 1),
    'of 16 bits': (32768, 65536), 'first of two': ([8, 2048], [16, 4096]), 'width 0': (2048, 0),
    'width below 0': (2048, -4096), 'not a number': (2048, 'NaN'),
}

@pytest.mark.parametrize('voi', VOI)
@pytest.mark.parametrize('stored', [12, 14, 16])
def test_windows_and_tables(tmp_path, film, twelve, voi, stored):
    read = load_radiograph(encoded(tmp_path/'film', twelve, stored=stored, **VOI[voi]))
    assert likeness(read.pixels, film) > .99
    assert grey_levels(read.pixels) > 200

@pytest.mark.parametrize('voi', USELESS)
def test_a_useless_window_is_noted_and_not_used(tmp_path, film, twelve, voi):
    centre, width = USELESS[voi]
    read = load_radiograph(encoded(tmp_path/'film', twelve, stored=12, WindowCenter=centre, WindowWidth=width))
    assert_same(read, film)
    assert read.notes

@pytest.mark.parametrize('centre, width', [(2048, 4096), (2400, 2600), (1800, 2000), (2200, 1800)])
def test_an_ordinary_window_is_used(tmp_path, twelve, centre, width):
    f = encoded(tmp_path/'film', twelve, stored=12, WindowCenter=centre, WindowWidth=width)
    exact = ((twelve - (centre - .5))/(width - 1) + .5)*255
    assert np.abs(load_radiograph(f).pixels - np.clip(exact, 0, 255)).max() <= .51

def test_a_sigmoid_is_that_of_the_standard(tmp_path, twelve):
    f = encoded(tmp_path/'film', twelve, stored=12, VOILUTFunction='SIGMOID', **FULL)
    exact = 255/(1 + np.exp(-4*(twelve - 2048)/4096))
    assert np.abs(load_radiograph(f).pixels - exact).max() <= .51

def test_levels_lost_to_a_wide_window_come_back(tmp_path, film, twelve):
    assert_same(load_radiograph(encoded(tmp_path/'film', twelve//4, stored=12, **FULL)), film)

@pytest.mark.parametrize('bits, entries', [(16, np.arange(4096)*16), (12, np.arange(4096)), (10, np.arange(4096)//4)])
@pytest.mark.parametrize('window', [False, True])
def test_modality_table(tmp_path, film, twelve, bits, entries, window):
    top = int(entries.max()) + 1
    tags = dict(WindowCenter=top//2, WindowWidth=top) if window else {}
    tags['ModalityLUTSequence'] = table(entries, bits=bits, kind='US')
    assert_same(load_radiograph(encoded(tmp_path/'film', twelve, stored=12, **tags)), film)

def test_modality_table_of_signed_values(tmp_path, film, twelve):
    lut = table(np.arange(4096), first=65536 - 2048, kind='US')
    f = encoded(tmp_path/'film', twelve - 2048, stored=12, signed=True, ModalityLUTSequence=lut)
    assert_same(load_radiograph(f), film)

COLOURS = {'8': (8, 8, 16, 1), '16': (16, 16, 1, 16), '12 in 16': (16, 12, 1, 1)}

@pytest.mark.parametrize('kind', COLOURS)
def test_colour(tmp_path, film, twelve, kind):
    bits, stored, divide, times = COLOURS[kind]
    values = np.repeat((twelve//divide*times)[..., None], 3, 2)
    f = encoded(tmp_path/'film', values, bits=bits, stored=stored, photometric='RGB')
    assert_same(load_radiograph(f), film)

@pytest.mark.parametrize('bits, step', [(16, 257), (8, 1)])
def test_palette(tmp_path, film, bits, step):
    tags = {}
    for colour in ('Red', 'Green', 'Blue'):
        tags[f'{colour}PaletteColorLookupTableDescriptor'] = [256, 0, bits]
        entries = np.arange(256)[::-1]*step
        tags[f'{colour}PaletteColorLookupTableData'] = entries.astype(f'u{bits//8}').tobytes()
    f = encoded(tmp_path/'film', 255 - film, bits=8, photometric='PALETTE COLOR', **tags)
    assert_same(load_radiograph(f), film)

@pytest.mark.parametrize('value, signed', [(-2000, True), (63536, True), (65535, False), (0, False)])
@pytest.mark.parametrize('photometric', ['MONOCHROME1', 'MONOCHROME2'])
def test_padding(tmp_path, film, twelve, value, signed, photometric):
    inside = (4095 - twelve if photometric == 'MONOCHROME1' else twelve) + 100
    stands_for = value - 65536 if signed and value > 32767 else value
    framed = np.pad(inside, 40, constant_values=stands_for)
    f = encoded(tmp_path/'film', framed, signed=signed, photometric=photometric)
    ds = pydicom.dcmread(f)
    ds.add_new('PixelPaddingValue', 'SS' if signed and value < 0 else 'US', value)
    ds.save_as(f)
    read = load_radiograph(f)
    assert likeness(read.pixels[40:-40, 40:-40], film) > .99
    assert read.pixels[:35].max() == 0

POLARITY = { # photometric, shape, bone dark in the file, turned
    'as it says': ('MONOCHROME2', None, False, False),
    'dark, and says so': ('MONOCHROME1', None, True, True),
    'inverse in both': ('MONOCHROME1', 'INVERSE', True, True),
    'identity': ('MONOCHROME2', 'IDENTITY', False, False),
    'inverse in one, dark': ('MONOCHROME2', 'INVERSE', True, True),
    'inverse in one, bright': ('MONOCHROME2', 'INVERSE', False, False),
    'not said, dark': (None, None, True, True),
    'not said, bright': (None, None, False, False),
}

@pytest.mark.parametrize('kind', POLARITY)
def test_polarity(tmp_path, film, twelve, kind):
    photometric, shape, dark, turned = POLARITY[kind]
    tags = dict(PresentationLUTShape=shape) if shape else {}
    tags |= {} if photometric else dict(drop=['PhotometricInterpretation'])
    f = encoded(tmp_path/'film', 4095 - twelve if dark else twelve, photometric=photometric or '', **tags)
    read = load_radiograph(f)
    assert_same(read, film)
    assert read.inverted == turned

@pytest.mark.parametrize('photometric, way_out', [('MONOCHROME2', '--invert'), ('MONOCHROME1', '--no-invert')])
def test_a_header_that_lies_keeps_its_say_and_is_noted(tmp_path, film, twelve, photometric, way_out):
    stored = twelve if photometric == 'MONOCHROME1' else 4095 - twelve
    f = encoded(tmp_path/'film', stored, stored=12, photometric=photometric)
    read = load_radiograph(f)
    assert likeness(read.pixels, 255 - film) > .99
    assert 'bone looks dark although the header says' in read.notes[0]
    assert way_out in read.notes[0]
    right = load_film(dict(path=f, invert=photometric == 'MONOCHROME2'))
    assert_same(right, film)
    assert right.notes == ()

@pytest.mark.parametrize('value, turned', [(True, True), ('True', True), ('1', True), (False, False), ('no', False),
                                           (np.nan, False), ('', False), (None, False)])
def test_a_row_turns_its_film(tmp_path, film, value, turned):
    Image.fromarray(film).save(tmp_path/'film.png')
    read = load_film(dict(path=tmp_path/'film.png', invert=value))
    assert np.array_equal(read.pixels, 255 - film if turned else film)

SHAPES = {
    'PixelSpacing': dict(PixelSpacing=[.2, .1]), 'ImagerPixelSpacing': dict(ImagerPixelSpacing=[.2, .1]),
    'NominalScannedPixelSpacing': dict(NominalScannedPixelSpacing=[.2, .1]),
    'PixelAspectRatio': dict(PixelAspectRatio=['2', '1']),
    'one useless': dict(PixelSpacing=[.1], ImagerPixelSpacing=[.2, .1]),
}

@pytest.mark.parametrize('kind', SHAPES)
@pytest.mark.parametrize('other_side', [False, True])
def test_pixels_that_are_not_square(tmp_path, film, twelve, kind, other_side):
    half = twelve[:, ::2] if other_side else twelve[::2]
    tags = {k: v[::-1] if other_side else v for k, v in SHAPES[kind].items()}
    read = load_radiograph(encoded(tmp_path/'film', np.ascontiguousarray(half), stored=12, **tags))
    assert_same(read, film)
    assert read.spacing in (None, (.1, .1))

def test_a_film_of_few_greys_or_burnt_bones_says_so(tmp_path, film):
    Image.fromarray(film//16*16).save(tmp_path/'coarse.png')
    Image.fromarray(np.minimum(film.astype(int)*3, 255).astype(np.uint8)).save(tmp_path/'burnt.png')
    Image.fromarray(film).save(tmp_path/'film.png')
    assert 'grey levels' in load_radiograph(tmp_path/'coarse.png').notes[0]
    assert 'plain white' in load_radiograph(tmp_path/'burnt.png').notes[0]
    assert load_radiograph(tmp_path/'film.png').notes == ()

def _wide(path, values, channels):
    layers = [values.astype(np.uint16)]*min(channels, 3) + [np.full(values.shape, 65535, np.uint16)]*(channels == 4)
    cv2.imwrite(str(path), layers[0] if channels == 1 else np.stack(layers, -1))

@pytest.mark.parametrize('ending', ['png', 'tif', 'PNG', 'TIFF'])
@pytest.mark.parametrize('channels', [1, 3, 4])
@pytest.mark.parametrize('times', [1, 16])
def test_pictures_of_sixteen_bits(tmp_path, film, twelve, ending, channels, times):
    _wide(tmp_path/f'film.{ending}', twelve*times, channels)
    read = load_radiograph(tmp_path/f'film.{ending}')
    assert_same(read, film)
    assert read.bits == 16

@pytest.mark.parametrize('kind', [np.uint32, np.int32, np.float32])
def test_tiffs_of_32_bits(tmp_path, film, twelve, kind):
    values = (twelve*(1_000_000 if kind is np.uint32 else 3)).astype(kind)
    cv2.imwrite(str(tmp_path/'film.tif'), values) if kind is not np.uint32 else _tiff32(tmp_path/'film.tif', values)
    assert_same(load_radiograph(tmp_path/'film.tif'), film)

def _tiff32(path, values): # the smallest TIFF of 32 bits without sign
    height, width = values.shape
    tags = [(256, 3, width), (257, 3, height), (258, 3, 32), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1),
            (278, 4, height), (279, 4, values.nbytes), (339, 3, 1)]
    directory = b''.join(struct.pack('<HHII', tag, kind, 1, value) for tag, kind, value in tags)
    head = struct.pack('<2sHI', b'II', 42, 8 + values.nbytes)
    path.write_bytes(head + values.astype('<u4').tobytes() + struct.pack('<H', len(tags)) + directory + b'\0'*4)

FORMATS = {
    'film.webp': dict(lossless=True), 'film.jp2': {}, 'film.gif': {}, 'film.bmp': {}, 'FILM.JPG': dict(quality=95),
}

@pytest.mark.parametrize('name', FORMATS)
@pytest.mark.parametrize('ending', [True, False])
def test_other_formats_with_and_without_ending(tmp_path, film, name, ending):
    buffer = io.BytesIO()
    kind = {'JPG': 'JPEG', 'jp2': 'JPEG2000'}.get(name[5:], name[5:])
    Image.fromarray(film).save(buffer, kind, **FORMATS[name])
    f = tmp_path/(name if ending else name[:4])
    f.write_bytes(buffer.getvalue())
    assert_same(load_radiograph(f), film)

def test_a_phone_s_second_picture_is_left_aside(tmp_path, film):
    im = Image.fromarray(film).convert('RGB')
    im.save(tmp_path/'IMG.jpg', format='MPO', save_all=True, append_images=[im.resize((160, 200))])
    assert_same(load_radiograph(tmp_path/'IMG.jpg'), film)

def _directory(values, start, following, reduced): # the tags of one page whose values begin at byte `start`
    height, width = values.shape
    tags = [(254, 4, int(reduced)), (256, 3, width), (257, 3, height), (258, 3, 8), (259, 3, 1), (262, 3, 1),
            (273, 4, start), (277, 3, 1), (278, 4, height), (279, 4, values.nbytes)]
    entries = b''.join(struct.pack('<HHII', tag, kind, 1, value) for tag, kind, value in tags)
    return struct.pack('<H', len(tags)) + entries + struct.pack('<I', following)

def _two_pages(path, pages, reduced):
    first, second = pages
    size = len(_directory(first, 0, 0, False))
    directories = 8 + first.nbytes + second.nbytes
    out = struct.pack('<2sHI', b'II', 42, directories) + first.tobytes() + second.tobytes()
    out += _directory(first, 8, directories + size, reduced[0])
    out += _directory(second, 8 + first.nbytes, 0, reduced[1])
    path.write_bytes(out)

@pytest.mark.parametrize('reduced', [(False, True), (True, False), (False, False), (True, True)])
def test_a_thumbnail_in_a_tiff_is_left_aside(tmp_path, film, reduced):
    small = cv2.resize(film, (80, 100))
    _two_pages(tmp_path/'scan.tif', [small if o else film for o in reduced], reduced)
    if sum(reduced) == 1:
        return assert_same(load_radiograph(tmp_path/'scan.tif'), film)
    with pytest.raises(FilmError, match='pages in one file'):
        load_radiograph(tmp_path/'scan.tif')

def _bare(f, implicit=True, meta=False):
    ds = pydicom.dcmread(f)
    buffer = io.BytesIO()
    if meta:
        ds.file_meta.pop('TransferSyntaxUID')
    else:
        ds = pydicom.Dataset(ds)
    pydicom.dcmwrite(buffer, ds, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
    f.write_bytes(buffer.getvalue())
    return f

@pytest.mark.parametrize('name', ['film.dcm', 'FILM'])
@pytest.mark.parametrize('implicit', [True, False])
@pytest.mark.parametrize('meta', [True, False])
def test_dicom_without_its_beginning(tmp_path, film, twelve, name, implicit, meta):
    f = _bare(encoded(tmp_path/name, twelve, stored=12), implicit, meta)
    assert_same(load_radiograph(f), film)

def test_a_picture_named_dcm_is_a_picture(tmp_path, film):
    Image.fromarray(film).save(tmp_path/'film.dcm', 'PNG')
    assert_same(load_radiograph(tmp_path/'film.dcm'), film)

SYNTAXES = ['1.2.840.10008.1.2.5', '1.2.840.10008.1.2.1.99', '1.2.840.10008.1.2.4.90']

@pytest.mark.parametrize('syntax', SYNTAXES)
def test_compressed(tmp_path, film, twelve, syntax):
    f = _compressed(encoded(tmp_path/'film', twelve, stored=12), syntax)
    assert_same(load_radiograph(f), film)

def _compressed(f, syntax):
    ds = pydicom.dcmread(f)
    if syntax.endswith('.99'):
        ds.file_meta.TransferSyntaxUID = syntax
    else:
        ds.compress(syntax, encoding_plugin='pylibjpeg' if '.4.' in syntax else '')
    ds.save_as(f)
    return f

@pytest.mark.parametrize('syntax', [None, *SYNTAXES])
@pytest.mark.parametrize('share', [.3, .66, .95])
def test_a_cut_off_dicom_is_called_so(tmp_path, twelve, syntax, share):
    f = encoded(tmp_path/'film.dcm', twelve, stored=12)
    if syntax:
        _compressed(f, syntax)
    data = f.read_bytes()
    f.write_bytes(data[:int(len(data)*share)])
    with pytest.raises(FilmError, match='film.dcm') as e:
        load_radiograph(f)
    assert e.value.code == 'film.damaged'
    assert 'without pixels' not in str(e.value)
    assert 'pip install' not in str(e.value)

@pytest.mark.parametrize('cut', [False, True])
def test_a_jpeg_in_a_dicom(tmp_path, film, cut):
    from pydicom.encaps import encapsulate
    buffer = io.BytesIO()
    Image.fromarray(film).save(buffer, 'JPEG', quality=95)
    data = buffer.getvalue()
    f = encoded(tmp_path/'film.dcm', film, bits=8)
    ds = pydicom.dcmread(f)
    ds.PixelData = encapsulate([data[:len(data)//2] + data[-2:] if cut else data])
    ds['PixelData'].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = '1.2.840.10008.1.2.4.50'
    ds.save_as(f)
    if not cut:
        return assert_same(load_radiograph(f), film)
    with pytest.raises(FilmError, match='damaged or cut off'):
        load_radiograph(f)

def test_a_deflated_bomb_is_stopped_before_its_pixels(tmp_path, twelve):
    f = _compressed(encoded(tmp_path/'film.dcm', twelve, stored=12), SYNTAXES[1])
    data = f.read_bytes()
    start = 144 + int.from_bytes(data[140:144], 'little')
    inflated = zlib.decompress(data[start:], -15)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    start_of_bomb = deflate.compress(inflated)
    zeros = b''.join(deflate.compress(bytes(1_000_000)) for _ in range(300))
    f.write_bytes(data[:start] + start_of_bomb + zeros + deflate.flush())
    with pytest.raises(FilmError) as e:
        load_radiograph(f)
    assert e.value.code == 'film.large'

@pytest.mark.parametrize('rows, columns', [(65535, 65535), (14000, 100), (100, 14000)])
def test_too_large_is_known_from_the_header(tmp_path, twelve, rows, columns):
    f = encoded(tmp_path/'film.dcm', twelve, stored=12, Rows=rows, Columns=columns)
    with pytest.raises(FilmError, match='at most 13,000 px') as e:
        load_radiograph(f)
    assert e.value.code == 'film.large'

def test_too_large_a_picture(tmp_path):
    Image.new('L', (14_000, 40)).save(tmp_path/'strip.png')
    with pytest.raises(FilmError, match='at most 13,000 px'):
        load_radiograph(tmp_path/'strip.png')

def test_postscript_reaches_no_interpreter(tmp_path):
    (tmp_path/'film.png').write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n')
    with pytest.raises(FilmError, match='not a picture'):
        load_radiograph(tmp_path/'film.png')

def _elements(data): # explicit little endian bytes -> tag, bytes of each element
    at = 0
    while at < len(data):
        group, number, vr = struct.unpack_from('<HH2s', data, at)
        long = vr in (b'OB', b'OW', b'UN', b'SQ')
        size = struct.unpack_from('<I', data, at + 8)[0] if long else struct.unpack_from('<H', data, at + 6)[0]
        end = at + (12 if long else 8) + size
        yield (group, number), data[at:end]
        at = end

def _header(f, name, vr, raw): # put raw bytes into an element of a finished file
    tag = pydicom.tag.Tag(name)
    data = f.read_bytes()
    start = 144 + int.from_bytes(data[140:144], 'little')
    elements = dict(_elements(data[start:]))
    head = struct.pack('<HH2sH', tag.group, tag.element, vr, len(raw))
    elements[tag.group, tag.element] = head + raw
    f.write_bytes(data[:start] + b''.join(elements[o] for o in sorted(elements)))

WRONG = { # element: bytes of the wrong kind
    'WindowCenter': (b'DS', b'middle'), 'WindowWidth': (b'DS', b'NaN '), 'RescaleSlope': (b'DS', b'steep '),
    'RescaleIntercept': (b'DS', b'1,5 '), 'PixelSpacing': (b'DS', b'.1\\wide'), 'PixelAspectRatio': (b'IS', b'2:1 '),
    'NumberOfFrames': (b'IS', b'1A'), 'VOILUTFunction': (b'CS', b'LOG '),
    'Rows': (b'US', b'\1'), 'Columns': (b'US', b''),
    'BitsStored': (b'US', b'\0\0'), 'BitsAllocated': (b'US', b'\x11\0'), 'SamplesPerPixel': (b'US', b'\7\0'),
    'PixelRepresentation': (b'US', b'\5\0'), 'PhotometricInterpretation': (b'CS', b'MAUVE '),
    'PixelPaddingValue': (b'US', b'\1'), 'PatientAge': (b'AS', b'old '), 'PatientBirthDate': (b'DA', b'spring'),
    'VOILUTSequence': (b'DS', b'none'), 'ModalityLUTSequence': (b'LO', b'none'),
    'PresentationLUTShape': (b'CS', b'ROUND '),
}

@pytest.mark.parametrize('name', WRONG)
def test_a_header_value_of_the_wrong_kind_is_a_film_or_a_film_error(tmp_path, film, twelve, name):
    f = encoded(tmp_path/'film.dcm', twelve, stored=12, WindowCenter=2048, WindowWidth=4096)
    _header(f, name, *WRONG[name])
    try:
        read = load_radiograph(f)
    except FilmError as e:
        assert 'film.dcm' in str(e)
        assert e.code
    else:
        assert_same(read, film)

NEEDED = ['Rows', 'Columns', 'BitsAllocated']
FALLS_BACK = ['BitsStored', 'HighBit', 'SamplesPerPixel', 'PixelRepresentation', 'PhotometricInterpretation']

@pytest.mark.parametrize('name', NEEDED + FALLS_BACK)
def test_a_missing_element(tmp_path, film, twelve, name):
    f = encoded(tmp_path/'film.dcm', twelve, stored=12, drop=[name])
    if name in FALLS_BACK:
        return assert_same(load_radiograph(f), film)
    with pytest.raises(FilmError, match=f'film.dcm: .*{name}'):
        load_radiograph(f)

@pytest.mark.parametrize('broken', ['half', 'no end', 'a gap'])
def test_a_jpeg_its_decoder_complains_of_is_damaged(tmp_path, film, broken):
    buffer = io.BytesIO()
    Image.fromarray(film).save(buffer, 'JPEG', quality=90)
    data = buffer.getvalue()
    middle = len(data)//2
    ends = {'half': data[-2:], 'no end': b'', 'a gap': data[middle + 900:]}
    (tmp_path/'film.jpg').write_bytes(data[:middle] + ends[broken])
    with pytest.raises(FilmError, match='film.jpg: damaged or cut off'):
        load_radiograph(tmp_path/'film.jpg')

def test_the_install_hint_is_that_of_a_clone(tmp_path, twelve, monkeypatch):
    f = encoded(tmp_path/'film', twelve, stored=12)
    monkeypatch.setitem(__import__('sys').modules, 'pydicom', None)
    with pytest.raises(ImportError, match=r"pip install -e '\.\[dicom\]'"):
        load_radiograph(f)

def test_more_bits_than_the_header_admits(tmp_path, film, twelve):
    read = load_radiograph(encoded(tmp_path/'film', twelve*4, stored=12))
    assert_same(read, film)
    assert 'BitsStored is 12' in read.notes[0]
