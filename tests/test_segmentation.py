"Masks and refusals: no hands, faults in a batch, resume, checkpoints, SAM through its official classes, real films."
import http.server
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from boneage.core import Refusal
from boneage.films.files import read_mask, sha256
from boneage.films.journal import read_journal
from boneage.films.nonhands import NONHANDS, make_nonhand
from boneage.films.phantom import make_phantom
from boneage.films.radiograph import load_radiograph
from boneage.hand.candidates import mask_record
from boneage.hand.checkpoints import SAM_MODELS, SamModel, fetch_checkpoint
from boneage.hand.prompts import hand_prompts
from boneage.hand.shapes import clean_mask, dice, to_frame, work_size
from boneage.segmentation import (
    HAND_RULES, SEGMENTERS, ClassicalSegmenter, SamSegmenter, get_segmenter, pick_hand, segment_df)

CLASSICAL = ClassicalSegmenter()
BENCHMARKS = Path(__file__).resolve().parents[1]/'benchmarks'


@pytest.fixture(scope='module')
def hand():
    return make_phantom(3, 132, 'F', size=256)


def write_film(path, pixels):
    "A film as a file; what OpenCV cannot name, numpy can"
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imencode('.png', pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tofile(path)
    return path


def table(**films):
    return pd.DataFrame(dict(id=list(films), path=[str(p) for p in films.values()]))


def phantoms_of(seeds, **how):
    return [make_phantom(s, **how) for s in seeds]


def overlaps(phantoms):
    "Dice of each phantom's mask by the classical segmenter"
    return [dice(CLASSICAL.segment(p.pixels).mask, p.mask) for p in phantoms]


# ---------------------------------------------------------------- hands are found

@pytest.mark.parametrize('size', [128, 256, 512])
def test_clean_films_are_found(size):
    found = overlaps(phantoms_of(range(300, 304), size=size))
    assert min(found) > .9
    assert np.median(found) > .97


def test_a_cropped_hand_is_found_or_said_to_touch_the_border():
    for p in phantoms_of(range(4), size=192, fault='cropped'):
        o = CLASSICAL.segment(p.pixels)
        if o.ok:
            assert dice(o.mask, p.mask) > .9
        else:
            assert 'share of the border touched' in o.reason
            assert o.code == 'hand.edge_contact'


@pytest.mark.parametrize('fault', ['rotated', 'dark', 'overexposed', 'blurred'])
def test_faulty_films_keep_their_hand(fault):
    assert np.median(overlaps(phantoms_of(range(4), size=192, fault=fault))) > .93


TURNS = {'mirrored': np.fliplr, 'upside down': np.flipud, 'a quarter turn': np.rot90}


@pytest.mark.parametrize('turn', TURNS.values(), ids=TURNS)
def test_the_hand_may_lie_as_it_likes(hand, turn):
    o = CLASSICAL.segment(np.ascontiguousarray(turn(hand.pixels)))
    assert o.ok
    assert dice(o.mask, turn(hand.mask)) > .95


GREYS = {
    'flat': lambda x: x//2 + 60,
    'dark': lambda x: x//4,
    'gamma .6': lambda x: np.uint8(255*(x/255)**.6),
    'gamma 1.6': lambda x: np.uint8(255*(x/255)**1.6)}


@pytest.mark.parametrize('grey', GREYS.values(), ids=GREYS)
def test_the_grey_scale_hardly_matters(hand, grey):
    o = CLASSICAL.segment(grey(hand.pixels))
    assert o.ok
    assert dice(o.mask, hand.mask) > .93


def test_two_hands_give_one_of_them():
    for p in phantoms_of(range(3), size=256, fault='second_hand'):
        o = CLASSICAL.segment(p.pixels)
        assert max(dice(o.mask, p.mask), dice(o.mask, p.objects['second_hand'])) > .9


def test_the_mask_is_in_the_films_frame_and_its_numbers_are_its_own(hand):
    big = cv2.resize(hand.pixels, None, fx=3.1, fy=2.9, interpolation=cv2.INTER_CUBIC)
    o = CLASSICAL.segment(big)
    assert o.ok
    assert o.mask.shape == big.shape
    assert o.mask.dtype == bool
    assert abs(o.mask_area - o.mask.mean()) < .01
    assert 0 < o.mask_weight <= 1
    assert .8 <= o.predicted_iou <= 1
    assert 0 < o.stability_score <= 1
    assert o._repr_png_()[:4] == b'\x89PNG'
    assert o.or_raise() is o


def test_the_same_film_gives_the_same_mask(hand):
    again = ClassicalSegmenter().segment(hand.pixels.copy())
    assert (CLASSICAL.segment(hand.pixels).mask == again.mask).all()


# ---------------------------------------------------------------- what is no hand is refused

@pytest.mark.parametrize('size', [160, 360])
@pytest.mark.parametrize('kind', NONHANDS)
def test_films_without_a_hand_are_refused_with_a_reason(kind, size):
    for seed in (0, 1):
        img = make_nonhand(kind, seed, size=size)
        for px in (img, 255 - img):      # a loader may have turned it
            o = CLASSICAL.segment(px)
            assert not o.ok, f'seed {seed}'
            assert o.reason.startswith('no hand found: ')
            assert o.code.startswith(('hand.', 'film.'))
            assert not o.mask.any()
            assert o.mask.shape == px.shape
            assert o.mask_area == 0


BLANK = {
    '1x1': (np.zeros((1, 1), np.uint8), '1 x 1 px', 'film.small'),
    'a strip': (np.zeros((500, 20), np.uint8), '20 x 500 px', 'film.small'),
    'one grey': (np.full((300, 200), 90, np.uint8), 'the whole film is grey level 90', 'film.blank'),
    'one bright pixel': (np.pad(np.uint8([[255]]), ((150, 149), (100, 99))), 'no hand found', 'hand.none'),
    'stripes': (np.tile(np.uint8([0, 255]), (128, 64)), 'no hand found', 'hand.')}


@pytest.mark.parametrize('img,words,code', BLANK.values(), ids=BLANK)
def test_degenerate_films_are_refused_without_a_warning(img, words, code, recwarn):
    o = CLASSICAL.segment(img)
    assert not o.ok
    assert words in o.reason
    assert o.code.startswith(code)
    assert not recwarn.list
    with pytest.raises(Refusal, match='no hand found') as e:
        o.or_raise()
    assert (e.value.code, e.value.value) == (o.code, o.value)


@pytest.mark.parametrize('name', ['everything', 'background', 'half'])
def test_the_rule_refuses_what_is_only_part_or_too_much(hand, name):
    upper = np.zeros_like(hand.mask)
    upper[:128] = True
    masks = dict(everything=np.ones_like(hand.mask), background=~hand.mask, half=upper)
    with pytest.raises(Refusal, match='a hand has at') as e:
        pick_hand([mask_record(masks[name], .99, .99)], hand.pixels)
    rule = e.value.code.removeprefix('hand.')
    least, most = HAND_RULES[rule]
    assert not least <= e.value.value <= most


OTHER_PIXELS = {'float': lambda x: x/255, 'colour': lambda x: x[..., None], '16 bit': lambda x: x.astype(np.uint16)}


@pytest.mark.parametrize('bad', OTHER_PIXELS.values(), ids=OTHER_PIXELS)
def test_pixels_of_another_kind_are_a_type_error(hand, bad):
    with pytest.raises(TypeError, match='expected uint8'):
        CLASSICAL.segment(bad(hand.pixels))


def test_cleaning_is_idempotent_and_scale_free(hand):
    torn = hand.mask.copy()
    torn[::30] = False
    torn[3:6, 3:6] = True
    once = clean_mask(torn)
    assert (clean_mask(once) == once).all()
    assert dice(once, hand.mask) > .98
    assert cv2.connectedComponents(np.uint8(once), connectivity=4)[0] == 2


# ---------------------------------------------------------------- a batch with every kind of bad file

def no_pixels(path, hand):
    pytest.importorskip('pydicom', reason="pydicom is an extra: pip install 'boneage[dicom]'")
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = '1.2.840.10008.5.1.4.1.1.1.1'
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    ds.Modality = 'DX'
    ds.save_as(path, enforce_file_format=True)


def cut(path, hand):
    write_film(path, hand.pixels)
    path.write_bytes(path.read_bytes()[:3000])


BAD = {
    'zero.png': (lambda p, h: p.write_bytes(b''), 'empty file'),
    'cut.png': (cut, 'cut off'),
    'text.png': (lambda p, h: p.write_text('not a picture'), 'not a picture'),
    'lost.png': (lambda p, h: None, 'no such file'),
    'folder.png': (lambda p, h: p.mkdir(), 'no such file'),
    'dot.png': (lambda p, h: write_film(p, np.zeros((1, 1), np.uint8)), '1 x 1 px'),
    'grey.png': (lambda p, h: write_film(p, np.full((200, 150), 7, np.uint8)), 'every pixel is 7'),
    'nothing.dcm': (no_pixels, 'without pixels'),
    'words.dcm': (lambda p, h: p.write_text('x'*400), 'not readable as DICOM')}


@pytest.mark.parametrize('name', BAD)
def test_a_bad_file_is_an_error_that_names_it_and_the_batch_goes_on(tmp_path, hand, name):
    make, words = BAD[name]
    make(tmp_path/name, hand)
    df = table(bad=tmp_path/name, good=write_film(tmp_path/'good.png', hand.pixels))
    o = segment_df(df, tmp_path/'out').set_index('id')
    assert list(o.seg_status) == ['error', 'ok']
    assert words in o.seg_error['bad']
    assert name in o.seg_error['bad']
    assert o.seg_code['bad'] and pd.isna(o.seg_code['good'])
    assert pd.isna(o.mask_path['bad'])
    assert os.listdir(tmp_path/'out'/'masks') == ['good.png']


def test_every_outcome_in_one_table(tmp_path, hand):
    films = dict(hand=hand.pixels) | {k: make_nonhand(k, 2) for k in ('foot', 'chest', 'text')}
    df = table(**{k: write_film(tmp_path/f'{k}.png', v) for k, v in films.items()}, lost=tmp_path/'lost.png')
    o = segment_df(df.assign(sex='F', extra=range(5)), tmp_path/'out', 'classical').set_index('id')
    assert list(o.seg_status) == ['ok', 'refused', 'refused', 'refused', 'error']
    assert list(o.extra) == list(range(5))
    assert o.mask_path.notna().tolist() == [True] + 4*[False]
    assert o.seg_error.notna().tolist() == [False] + 4*[True]
    assert o.seg_code.notna().tolist() == [False] + 4*[True]
    assert o.seg_code[['foot', 'chest', 'text']].str.startswith('hand.').all()
    scores = {'predicted_iou', 'stability_score', 'mask_area', 'mask_weight'}
    assert set(o.columns) >= {'mask_path', 'segmenter', 'seg_status', 'seg_error', 'seg_code'} | scores
    direct = CLASSICAL.segment(load_radiograph(tmp_path/'hand.png').pixels)
    assert (read_mask(o.mask_path['hand'], hand.mask.shape) == direct.mask).all()


@pytest.mark.parametrize('folder', ['with space', 'Röntgen-Ärzte', '手の写真', "o'brien & co"])
def test_paths_with_spaces_and_accents(tmp_path, hand, folder):
    film = write_film(tmp_path/folder/'film é 1.png', hand.pixels)
    o = segment_df(table(**{'Kind Ä/1 b': film}), tmp_path/folder/'aus gabe', 'classical')
    assert list(o.seg_status) == ['ok']
    assert read_mask(o.mask_path[0]).shape == hand.mask.shape


def test_squashed_films_are_segmented_at_their_true_aspect(tmp_path, hand):
    squashed = cv2.resize(hand.pixels, (200, 200), interpolation=cv2.INTER_AREA)
    h, w = hand.mask.shape
    df = table(a=write_film(tmp_path/'a.png', squashed)).assign(aspect=w/h)
    m = read_mask(segment_df(df, tmp_path/'out', 'classical').mask_path[0])
    assert abs(m.shape[1]/m.shape[0] - w/h) < .01
    assert dice(to_frame(m, (h, w)), hand.mask) > .95


HUGE = '''
import resource, sys
import pandas as pd
from boneage.segmentation import segment_df

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

before = peak()
o = segment_df(pd.DataFrame(dict(id=["huge"], path=[sys.argv[1]])), sys.argv[2])
print(o.seg_status[0], (peak() - before)/1e6)
'''


def test_a_12000_px_film_costs_bounded_memory(tmp_path, hand):
    "The film alone is 110 MB; the mask as much. Measured in a process of its own."
    film = cv2.resize(hand.pixels, (9200, 12000), interpolation=cv2.INTER_LINEAR)
    words = [write_film(tmp_path/'huge.png', film), tmp_path/'out']
    said = subprocess.run([sys.executable, '-c', HUGE, *words], capture_output=True, text=True, check=True).stdout
    status, gigabytes = said.split()
    assert status == 'ok'
    assert float(gigabytes) < 2
    m = read_mask(tmp_path/'out'/'masks'/'huge.png', (12000, 9200))
    small = cv2.resize(np.uint8(m), hand.mask.shape[::-1], interpolation=cv2.INTER_AREA) > 0
    assert dice(small, hand.mask) > .95


def test_an_empty_table_says_so_or_gives_no_rows(tmp_path):
    nothing = pd.DataFrame(dict(id=pd.Series(dtype=str), path=pd.Series(dtype=str)))
    assert len(segment_df(nothing, tmp_path/'out')) == 0


@pytest.mark.parametrize('where', ['a file in the way', 'a folder of the system'])
def test_a_folder_that_cannot_be_written_stops_the_run_with_a_clear_message(tmp_path, hand, where):
    df = table(a=write_film(tmp_path/'a.png', hand.pixels))
    (tmp_path/'occupied').write_text('a file')
    out = tmp_path/'occupied'/'out' if where.startswith('a file') else Path('/proc/boneage')
    with pytest.raises(OSError, match='choose a folder you may write to') as e:
        segment_df(df, out, 'classical')
    assert str(out) in str(e.value)


# ---------------------------------------------------------------- resume

class Counting(ClassicalSegmenter):
    "Counts the films it is given; name and settings are the baseline's"
    def __init__(self):
        super().__init__()
        self.n = 0

    def segment(self, pixels):
        self.n += 1
        return super().segment(pixels)


def count(df, out, **how):
    "The table, and how many films were worked on"
    counting = Counting()
    return segment_df(df, out, counting, **how), counting.n


IN_A_PROCESS = '''
import sys
import pandas as pd
from boneage.segmentation import segment_df
segment_df(pd.read_csv(sys.argv[1]), sys.argv[2], "classical")
'''


def killed_after(n, films, out):
    "What the journal holds after a run that was killed once it held `n` films"
    job = subprocess.Popen([sys.executable, '-c', IN_A_PROCESS, films, out])
    journal = out/'segment.jsonl'
    while len(read_journal(journal)) < n:
        assert job.poll() is None
        time.sleep(.005)
    job.send_signal(signal.SIGKILL)
    job.wait()
    return read_journal(journal)


def written(path):
    return os.stat(path).st_mtime_ns


def test_killed_in_the_middle_nothing_finished_is_done_again(tmp_path, phantoms):
    phantoms[['id', 'path']].to_csv(tmp_path/'films.csv', index=False)
    done = killed_after(3, tmp_path/'films.csv', tmp_path/'out')
    assert 3 <= len(done) < len(phantoms)
    stamps = {i: written(o['row']['mask_path']) for i, o in done.items()}
    o, n = count(phantoms, tmp_path/'out')
    assert n == len(phantoms) - len(done)
    assert (o.seg_status == 'ok').all()
    assert all(written(done[i]['row']['mask_path']) == stamp for i, stamp in stamps.items())
    torn = [p for p in (tmp_path/'out').rglob('*') if '.part' in p.name]
    assert not torn or n   # a torn temporary file may lie there, no torn mask
    whole = segment_df(phantoms, tmp_path/'whole', 'classical')
    assert all(Path(a).read_bytes() == Path(b).read_bytes() for a, b in zip(o.mask_path, whole.mask_path))
    assert o.drop(columns='mask_path').equals(whole.drop(columns='mask_path'))


@pytest.fixture
def three(tmp_path, phantoms):
    df = phantoms[['id', 'path']].iloc[:3].reset_index(drop=True)
    o, n = count(df, tmp_path/'out')
    assert n == 3
    return df, tmp_path/'out', o


HARM = {
    'cut off': lambda p: p.write_bytes(p.read_bytes()[:-20]),
    'empty': lambda p: p.write_bytes(b''),
    'text': lambda p: p.write_text('not a mask'),
    'lost': lambda p: p.unlink()}


@pytest.mark.parametrize('harm', HARM.values(), ids=HARM)
def test_a_damaged_mask_is_made_again(three, harm):
    df, out, o = three
    mask = Path(o.mask_path[1])
    good = mask.read_bytes()
    harm(mask)
    again, n = count(df, out)
    assert n == 1
    assert mask.read_bytes() == good
    assert again.equals(o)


def test_a_second_run_does_nothing_and_redo_does_all(three):
    df, out, o = three
    again, n = count(df, out)
    assert n == 0
    assert again.equals(o)
    assert count(df, out, redo=True)[1] == 3


def test_a_changed_film_or_other_settings_are_done_again(three, tmp_path, hand):
    df, out, _ = three
    df = df.copy()
    df.loc[0, 'path'] = str(write_film(tmp_path/'new.png', hand.pixels))
    assert count(df, out)[1] == 1
    other = Counting()
    other.settings += ', other'
    segment_df(df, out, other)
    assert other.n == 3


def test_a_file_that_failed_is_tried_again_and_a_refusal_is_not(tmp_path, hand):
    df = table(late=tmp_path/'late.png', foot=write_film(tmp_path/'foot.png', make_nonhand('foot', 2)))
    assert list(segment_df(df, tmp_path/'out', 'classical').seg_status) == ['error', 'refused']
    write_film(tmp_path/'late.png', hand.pixels)
    o, n = count(df, tmp_path/'out')
    assert n == 1
    assert list(o.seg_status) == ['ok', 'refused']
    assert pd.isna(o.seg_error[0])


def test_more_films_later_and_a_torn_journal(three, phantoms):
    df, out, _ = three
    journal = out/'segment.jsonl'
    with open(journal, 'ab') as f:
        f.write(b'{"id": "phantom-00')
    more, n = count(phantoms[['id', 'path']].iloc[:5], out)
    assert n == 2
    assert (more.seg_status == 'ok').all()
    whole = [line for line in journal.read_text().splitlines() if line.endswith('}')]
    assert all(json.loads(line) for line in whole)


def test_two_workers_give_the_same_table(three):
    df, out, o = three
    two = segment_df(df, out.with_name('two'), 'classical', n_jobs=2)
    assert two.drop(columns='mask_path').equals(o.drop(columns='mask_path'))


# ---------------------------------------------------------------- names and checkpoints

UNKNOWN = {
    'otsu': (ValueError, 'known are hand_vit_tiny, classical, vit_b, vit_l, vit_h'),
    'my/sam.pth': (FileNotFoundError, 'no such checkpoint'),
    'sam.safetensors': (FileNotFoundError, 'no such checkpoint')}


@pytest.mark.parametrize('name', UNKNOWN)
def test_an_unknown_segmenter(name):
    error, words = UNKNOWN[name]
    with pytest.raises(error, match=words):
        get_segmenter(name)


def untrained(seed):
    from boneage.hand.sam import hand_vit_tiny
    return hand_vit_tiny(128, seed if isinstance(seed, int) else None)


def save(weights, path):
    import torch
    torch.save(weights, path)
    return path


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    "An untrained SAM that is fetched like an official one, with its checkpoint"
    path = save(untrained(0).state_dict(), tmp_path_factory.mktemp('weights')/'tiny.pth')
    url = 'http://127.0.0.1:9/tiny.pth'
    return SamModel('tiny', untrained, 96, 'tiny.pth', url, path.stat().st_size, sha256(path)), path


@pytest.fixture
def known(tiny, monkeypatch):
    monkeypatch.setitem(SAM_MODELS, 'tiny', tiny[0])
    monkeypatch.setitem(SEGMENTERS, 'tiny', partial(SamSegmenter, 'tiny'))
    return tiny


def test_official_checkpoints_are_known_by_name_size_and_hash():
    for m in (SAM_MODELS[n] for n in ('vit_b', 'vit_l', 'vit_h')):
        assert m.url == f'https://dl.fbaipublicfiles.com/segment_anything/{m.file}'
        assert len(m.sha256) == 64
        assert m.size > 3e8
        assert m.name.replace('_', '') in m.file.replace('_', '')
    hashes, widths = {m.sha256 for m in SAM_MODELS.values()}, {m.embed_dim for m in SAM_MODELS.values()}
    assert len(hashes) == len(widths) == len(SAM_MODELS)


def test_a_checkpoint_comes_back_equal(known):
    import torch
    from boneage.hand.sam import load_sam, read_weights, which_sam
    _, path = known
    a, b = untrained(0).state_dict(), load_sam('tiny', path, 'cpu').state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert which_sam(read_weights(path)) == 'tiny'
    assert get_segmenter(str(path), device='cpu').name == 'tiny'


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data)//2] ^= 1
    path.write_bytes(data)


def halve(path):
    path.write_bytes(path.read_bytes()[:path.stat().st_size//2])


INEXACT = {
    'one bit': (flip, 'SHA-256 is .* expected .* altered'),
    'half': (halve, 'bytes, expected .* cut off'),
    'empty': (lambda p: p.write_bytes(b''), '0 bytes, expected'),
    'missing': (lambda p: p.unlink(), 'no such checkpoint')}


@pytest.mark.parametrize('harm,words', INEXACT.values(), ids=INEXACT)
def test_a_checkpoint_under_its_own_name_must_be_exact(known, tmp_path, harm, words):
    p = tmp_path/'tiny.pth'
    p.write_bytes(known[1].read_bytes())
    harm(p)
    with pytest.raises((ValueError, FileNotFoundError), match=words) as e:
        SamSegmenter('tiny', p, device='cpu')
    assert str(p) in str(e.value)
    assert 'download' in str(e.value)


def another_network(path):
    import torch
    save({'conv1.weight': torch.zeros(3)}, path)


def another_sam(path):
    import torch
    save({'image_encoder.pos_embed': torch.zeros(1, 2, 2, 768)}, path)


def a_key_lost(path):
    weights = untrained(0).state_dict()
    weights.pop(list(weights)[-1])
    save(weights, path)


FOREIGN = {
    'pickle': (lambda p: p.write_bytes(pickle.dumps(dict(a=print))), 'not readable as weights'),
    'nonsense': (lambda p: p.write_bytes(b'nonsense'*99), 'not readable as weights'),
    'another network': (another_network, "keys such as \\['conv1.weight'\\]"),
    'another SAM': (another_sam, 'holds the weights of vit_b, but tiny was asked for'),
    'a key lost': (a_key_lost, 'does not fit tiny')}


@pytest.mark.parametrize('make,words', FOREIGN.values(), ids=FOREIGN)
def test_somebody_elses_file_under_another_name(known, tmp_path, make, words):
    p = tmp_path/'mine.pth'
    make(p)
    with pytest.raises(ValueError, match=words) as e:
        SamSegmenter('tiny', p, device='cpu')
    assert str(p) in str(e.value)


def test_unknown_sam_and_unknown_mode(known):
    with pytest.raises(ValueError, match="no SAM is called 'vit_x'; known are hand_vit_tiny, vit_b"):
        SamSegmenter('vit_x')
    with pytest.raises(ValueError, match="expected 'prompt' or 'auto'"):
        SamSegmenter('tiny', known[1], 'everything')


# ---------------------------------------------------------------- downloads, from a server on this machine

class Server(http.server.BaseHTTPRequestHandler):
    "Serves `data` with ranges; `limit` cuts the first answers short; `asked` keeps the Range headers"
    data, limit, asked, status = b'', None, [], 206

    def do_GET(self):
        wanted = self.headers.get('Range')
        type(self).asked.append(wanted)
        ranged = wanted and self.status == 206
        start = int(wanted.split('=')[1].rstrip('-')) if ranged else 0
        if start >= len(self.data):
            self.send_response(416)
            self.end_headers()
            return
        body = self.data[start:]
        self.send_response(206 if ranged else 200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body[:self.limit])

    def log_message(self, *_):
        pass


@pytest.fixture
def no_proxy(monkeypatch):
    for name in ('NO_PROXY', 'no_proxy'):
        monkeypatch.setenv(name, '127.0.0.1')


@pytest.fixture
def server(tiny, no_proxy):
    "A fresh server, and the tiny model with its address"
    handler = type('H', (Server,), dict(data=tiny[1].read_bytes(), asked=[]))
    s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=s.serve_forever, daemon=True).start()
    yield handler, replace(tiny[0], url=f'http://127.0.0.1:{s.server_port}/tiny.pth')
    s.shutdown()
    s.server_close()


def test_a_download_arrives_whole_and_only_once(server, tmp_path):
    h, m = server
    folder = tmp_path/'new folder'
    assert fetch_checkpoint(m, folder).read_bytes() == h.data
    fetch_checkpoint(m, folder)
    assert h.asked == [None]
    assert os.listdir(folder) == ['tiny.pth']


def test_a_half_download_goes_on_where_it_stopped(server, tmp_path):
    h, m = server
    h.limit = len(h.data)//3
    part = tmp_path/'tiny.pth.part'
    with pytest.raises(OSError, match='Run the same command again to go on') as e:
        fetch_checkpoint(m, tmp_path)
    assert m.url in str(e.value)
    assert not (tmp_path/'tiny.pth').exists()
    kept = part.stat().st_size
    assert 0 <= h.limit - kept < 1 << 16   # the last piece may be lost
    h.limit = None
    assert fetch_checkpoint(m, tmp_path).read_bytes() == h.data
    assert h.asked[-1] == f'bytes={kept}-'
    assert os.listdir(tmp_path) == ['tiny.pth']


def test_a_server_that_knows_no_ranges_starts_over(server, tmp_path):
    h, m = server
    h.status = 200
    (tmp_path/'tiny.pth.part').write_bytes(b'rubbish')
    assert fetch_checkpoint(m, tmp_path).read_bytes() == h.data


def test_a_complete_part_is_taken_without_loading_again(server, tmp_path):
    h, m = server
    (tmp_path/'tiny.pth.part').write_bytes(h.data)
    assert fetch_checkpoint(m, tmp_path).read_bytes() == h.data
    assert h.asked == [f'bytes={len(h.data)}-']


def test_what_came_wrong_is_deleted(server, tmp_path):
    h, m = server
    h.data = h.data[:-1] + bytes([h.data[-1] ^ 1])
    with pytest.raises(ValueError, match='SHA-256 .* it was deleted'):
        fetch_checkpoint(m, tmp_path)
    assert os.listdir(tmp_path) == []


def test_no_network_says_where_to_put_the_file(known, no_proxy, tmp_path, monkeypatch):
    monkeypatch.setenv('BONEAGE_WEIGHTS', str(tmp_path/'cache'))
    with pytest.raises(OSError, match='could not be fetched') as e:
        get_segmenter('tiny', device='cpu')
    assert known[0].url in str(e.value)
    assert str(tmp_path/'cache'/'tiny.pth') in str(e.value)


def test_a_cached_checkpoint_is_found(known, tmp_path, monkeypatch):
    monkeypatch.setenv('BONEAGE_WEIGHTS', str(tmp_path))
    (tmp_path/'tiny.pth').write_bytes(known[1].read_bytes())
    assert get_segmenter('tiny', device='cpu').name == 'tiny'


# ---------------------------------------------------------------- SAM through segment-anything

EVERY = dict(pred_iou_thresh=-9., stability_score_thresh=-1., points_per_side=3)
KEYS = {'segmentation', 'area', 'bbox', 'predicted_iou', 'stability_score'}


@pytest.mark.parametrize('mode', ['prompt', 'auto'])
def test_an_untrained_sam_runs_and_refuses(known, hand, mode):
    s = SamSegmenter('tiny', known[1], mode, device='cpu', generator=EVERY)
    img = work_size(hand.pixels, s.side)
    records = s.records(img)
    assert records
    assert all(KEYS <= r.keys() for r in records)
    assert all(r['segmentation'].shape == img.shape for r in records)
    assert all(r['area'] == r['segmentation'].sum() for r in records)
    o = s.segment(hand.pixels)
    assert not o.ok
    assert o.reason.startswith('no hand found')
    assert o.mask.shape == hand.mask.shape


def test_prompts_go_to_sam_in_its_own_frame(hand):
    "Box XYXY and points (x, y): the box holds the hand, the deepest point lies in the palm."
    prompt = hand_prompts(hand.pixels)[1]
    x0, y0, x1, y1 = prompt['box']
    x, y = prompt['point_coords'][0]
    ys, xs = np.nonzero(hand.mask)
    assert x0 <= xs.min()+2 and y0 <= ys.min()+2
    assert x1 >= xs.max()-2 and y1 >= ys.max()-2
    assert hand.mask[int(y), int(x)]
    assert list(prompt['point_labels']) == [1]


class Knows:
    "Stands for a trained SamPredictor: it always answers marker, hand, everything; the marker scores best"
    seen = []

    def __init__(self, sam):
        pass

    def set_image(self, image):
        assert image.dtype == np.uint8
        assert image.shape[2] == 3
        self.shape = image.shape[:2]
        self.seen.append('image')

    def predict(self, multimask_output, return_logits, **prompt):
        self.seen.append(tuple(sorted(prompt)))
        marker = np.zeros(self.shape, bool)
        marker[4:24, 4:24] = True
        masks = marker, to_frame(self.truth, self.shape), np.ones(self.shape, bool)
        return np.stack([np.where(m, 9., -9.) for m in masks]), np.array([.99, .95, .98]), None


def test_a_sam_that_knows_the_hand_is_believed(known, hand, monkeypatch):
    import segment_anything
    knows = type('K', (Knows,), dict(truth=hand.mask, seen=[]))
    monkeypatch.setattr(segment_anything, 'SamPredictor', knows)
    o = SamSegmenter('tiny', known[1], device='cpu').segment(hand.pixels)
    assert o.ok
    assert dice(o.mask, hand.mask) > .97
    assert o.predicted_iou == .95
    assert knows.seen.count('image') == 1    # one embedding, several prompts


def test_automatic_records_are_evaluated_by_the_same_rule(known, hand, monkeypatch):
    import segment_anything

    class Generator:
        def __init__(self, sam, **how):
            assert how == EVERY

        def generate(self, image):
            shape = image.shape[:2]
            return [mask_record(np.ones(shape, bool), 1., 1.), mask_record(to_frame(hand.mask, shape), .9, .9)]

    monkeypatch.setattr(segment_anything, 'SamAutomaticMaskGenerator', Generator)
    o = SamSegmenter('tiny', known[1], 'auto', device='cpu', generator=EVERY).segment(hand.pixels)
    assert o.ok
    assert dice(o.mask, hand.mask) > .97


def test_sam_over_a_folder_and_other_weights_redo_it(known, tmp_path, hand):
    df = table(a=write_film(tmp_path/'a.png', hand.pixels), lost=tmp_path/'lost.png')
    o = segment_df(df, tmp_path/'out', str(known[1]))
    assert list(o.seg_status) == ['refused', 'error']
    assert (o.segmenter.dropna() == 'tiny').all()
    mine = save(untrained(1).state_dict(), tmp_path/'mine.pth')
    a, b = (get_segmenter(str(p), device='cpu').settings for p in (known[1], mine))
    assert a != b
    assert SamSegmenter('tiny', known[1], 'auto', device='cpu').settings != a


# ---------------------------------------------------------------- real films

def _real(root, ids):
    from boneage.films.rsna import rsna_manifest
    m = rsna_manifest(root/'rsna-299').set_index('id')
    return [load_radiograph(m.path[i], m.aspect[i]).pixels for i in ids]


def test_real_films_against_their_outlines(real_data, monkeypatch):
    "Twelve films of the development half of data/hand_masks."
    monkeypatch.syspath_prepend(BENCHMARKS)
    from drawn_masks import hand_mask, load_hand_masks
    df = load_hand_masks()
    df = df[(df.split == 'dev') & (df.source == 'rsna-299') & (df.why == 'stratum')].iloc[:12]
    films = zip(_real(real_data, df.index), df.iterrows())
    found = [dice(CLASSICAL.segment(px).mask, hand_mask(row, px.shape)) for px, (_, row) in films]
    assert np.median(found) > .975
    assert sum(d < .8 for d in found) <= 1


def test_real_films_are_not_refused_and_inverted_ones_are(real_data):
    from boneage.films.rsna import rsna_manifest
    ids = rsna_manifest(real_data/'rsna-299').id.sample(24, random_state=3)
    films = _real(real_data, ids)
    assert sum(not CLASSICAL.segment(px).ok for px in films) <= 1
    assert sum(CLASSICAL.segment(255-px).ok for px in films) <= 2


@pytest.mark.parametrize('i', ['2133', '7185', '7822', '15501'])
def test_another_persons_hand_on_a_real_film_gives_a_mask_or_a_reason(real_data, i):
    o = CLASSICAL.segment(_real(real_data, [i])[0])
    if o.ok:
        assert .03 < o.mask_area < .6
    else:
        assert o.reason.startswith('no hand found')
