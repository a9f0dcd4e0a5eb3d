"Flags under bad conditions: planted faults, spoiled films, wrong outlines, crops of something else, damaged files."
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from reviewing import film, put_film, twenty_films

from boneage.cropping import crop_df
from boneage.films.files import write_png
from boneage.films.nonhands import make_nonhand
from boneage.films.phantom import make_phantom
from boneage.hand.shapes import morph, palm
from boneage.review.flags import qc_flags
from boneage.review.measures import crop_match
from boneage.review.twins import TWIN_BITS, dhash, nearest_hash

@pytest.fixture(scope='module')
def films(tmp_path_factory):
    return twenty_films(tmp_path_factory.mktemp('films'))

# ---- planted faults

@pytest.mark.parametrize('fault,word,least', [
    ('inverted', 'turned: check polarity', 3),
    ('rotated', 'rotated', 3),
    ('dark', 'too dark', 3),
    ('blurred', 'blurred', 2),
    ('second_hand', 'second hand or object', 3),
    ('marker_on_hand', 'marker or metal on the hand', 3),
    ('cropped', 'cut off at the edge', 3),
    ('overexposed', 'over-exposed', 3)])
def test_planted_fault_gets_its_word(tmp_path, fault, word, least):
    df = qc_flags(pd.DataFrame([film(tmp_path, f'{fault}-{i}', fault, 50+i) for i in range(4)]))
    hits = [word in words.split(';') for words in df.qc_flags]
    assert sum(hits) >= least, df.qc_flags.tolist()

def test_faulty_films_come_first_and_clean_ones_are_left_alone(films):
    df = qc_flags(films)
    assert df.qc_rank.tolist() == list(range(1, 21))
    assert df.qc_score.is_monotonic_decreasing
    assert (df.fault.iloc[:8] != '').sum() >= 7
    assert (df.qc_flags[df.fault == ''] == '').sum() >= 10

def test_flags_resume_without_reading_films_again(films, tmp_path):
    journal = tmp_path/'qc.jsonl'
    first = qc_flags(films, tmp_path)
    size = journal.stat().st_size
    assert qc_flags(films, tmp_path).equals(first)
    assert journal.stat().st_size == size

# ---- files that are no films, films that are no hands

def test_a_bad_film_is_flagged_and_the_batch_goes_on(films, tmp_path):
    bad = films.head(6).copy()
    gone, text, cut, small = (tmp_path/f'{o}.png' for o in ('gone', 'text', 'cut', 'small'))
    text.write_text('no picture')
    cut.write_bytes(Path(bad.path[2]).read_bytes()[:300])
    write_png(small, np.zeros((9, 9), bool))
    bad.loc[0, 'path'] = str(gone)
    bad.loc[1, 'path'] = str(text)
    bad.loc[2, 'path'] = str(cut)
    bad.loc[3, 'mask_path'] = str(small)
    bad.loc[4, ['mask_path', 'seg_status', 'seg_error']] = ['', 'refused', 'no hand found: nothing bright']
    df = qc_flags(bad).set_index('id')
    assert all('unreadable' in df.qc_flags[f'f{i}'] for i in range(4)), df.qc_flags
    assert 'gone.png' in df.qc_error['f0']
    assert df.qc_flags['f4'].startswith('no hand found')
    assert df.qc_flags['f5'] == ''
    assert df.qc_rank['f5'] == 6

@pytest.mark.parametrize('kind', ['noise', 'text', 'foot', 'chest'])
def test_films_without_a_hand_are_measured_without_a_mask(tmp_path, kind):
    path = tmp_path/'a.png'
    write_png(path, make_nonhand(kind, size=128))
    row = dict(id=1, path=str(path), mask_path=np.nan, seg_status='refused')
    assert 'no hand found' in qc_flags(pd.DataFrame([row])).qc_flags.iloc[0]

def odd_mask(kind):
    m = np.zeros((160, 120), bool)
    if kind == 'full':
        m[:] = True
    elif kind == 'one pixel':
        m[80, 60] = True
    elif kind == 'line':
        m[:, 60:62] = True
    return m

@pytest.mark.parametrize('kind', ['empty', 'full', 'one pixel', 'line'])
def test_odd_masks_never_stop_a_batch(tmp_path, kind):
    ramp = np.add.outer(np.arange(160), np.zeros(120)).astype(np.uint8)
    df = qc_flags(pd.DataFrame([put_film(tmp_path, 'x', ramp, odd_mask(kind))]))
    assert not df.qc_error.iloc[0]
    assert df.qc_flags.iloc[0] != ''

# ---- films spoiled by plain transforms

def drawn(o):
    h, w = o.shape
    return cv2.rectangle(o.copy(), (w//3, h//3), (w//2, h//2), 255, -1)

def noise(o):
    return np.random.default_rng(0).normal(o, 60).clip(0, 255).astype(np.uint8)

SPOILS = dict(
    drawn=drawn,
    noise=noise,
    blocks=lambda o: np.kron(o[::10, ::10], np.ones((10, 10), np.uint8)),
    grey=lambda o: np.uint8(o//20+100),
    veil=lambda o: np.uint8(190+o//5),
    saturated=lambda o: np.uint8(np.clip(3.*o+60, 0, 255)),
    blur=lambda o: cv2.GaussianBlur(o, (0, 0), 5),
    side=lambda o: np.rot90(o),
    mirror=lambda o: o[:, ::-1])
MOVES = ('side', 'mirror') # the outline goes with the film

@pytest.mark.parametrize('name', SPOILS)
def test_films_spoiled_by_plain_transforms_are_flagged(tmp_path, name):
    spoil = SPOILS[name]
    rows = []
    for i in range(3):
        ph = make_phantom(70+i, 100+30*i, 'FM'[i % 2], size=300)
        pixels = spoil(ph.pixels)
        mask = spoil(ph.mask) if name in MOVES else ph.mask
        h, w = np.minimum(pixels.shape, mask.shape) # blocks cut a film to a multiple of ten
        rows.append(put_film(tmp_path, i, pixels[:h, :w], mask[:h, :w]))
    assert (qc_flags(pd.DataFrame(rows)).qc_flags != '').all()

# ---- wrong outlines

def with_hole(m):
    (y, x), r = palm(m)
    hole = cv2.circle(np.zeros(m.shape, np.uint8), (x, y), int(r/2), 1, -1)
    return m & ~hole.astype(bool)

def without_fingers(m):
    (y, _), r = palm(m)
    return m & (np.arange(len(m))[:, None] > y-r)

def two_parts(m):
    h, w = m.shape
    return m | np.pad(np.ones((30, 30), bool), ((0, h-30), (0, w-30)))

OUTLINES = dict(
    half=lambda m: m & (np.arange(m.shape[1]) < m.shape[1]//2),
    hole=with_hole,
    box=lambda m: np.pad(np.ones((len(m)-40, m.shape[1]-40), bool), 20),
    all=lambda m: m | True,
    shifted=lambda m: np.roll(m, 40, 1),
    fat=lambda m: morph(m, cv2.MORPH_DILATE, 12),
    thin=lambda m: morph(m, cv2.MORPH_ERODE, 7),
    no_fingers=without_fingers,
    two=two_parts,
    upside=lambda m: m[::-1],
    none=lambda m: m & False)

@pytest.mark.parametrize('name', OUTLINES)
def test_wrong_outlines_are_flagged(tmp_path, name):
    rows = []
    for i in range(3):
        ph = make_phantom(80+i, 100+30*i, 'FM'[i % 2], size=300)
        rows.append(put_film(tmp_path, i, ph.pixels, OUTLINES[name](ph.mask)))
    assert (qc_flags(pd.DataFrame(rows)).qc_flags != '').all()

# ---- crops and copies

def wrong_crop(how, crop, other):
    if how == 'other':
        return other
    if how == 'black':
        return crop*0
    return np.where(np.arange(128) < 64, crop, 0).astype(np.uint8)

@pytest.mark.parametrize('how', ['other', 'black', 'part', 'gone', 'damaged'])
def test_a_crop_of_something_else_is_flagged(tmp_path, how):
    df = pd.DataFrame([film(tmp_path, f'f{i}', None, 90+i) for i in range(2)])
    df = crop_df(df, tmp_path, 128)
    assert (qc_flags(df).qc_flags == '').all()
    a, b = map(Path, df.crop_path)
    if how == 'gone':
        a.unlink()
    elif how == 'damaged':
        a.write_bytes(a.read_bytes()[:100])
    else:
        write_png(a, wrong_crop(how, cv2.imread(str(a), 0), cv2.imread(str(b), 0)))
    flags = qc_flags(df).set_index('id').qc_flags
    assert 'crop does not match' in flags['f0']
    assert not flags['f1']

def test_a_crop_that_was_turned_still_matches_its_film(tmp_path):
    ph = make_phantom(4, 120, 'F', size=300)
    pixels, mask = np.rot90(ph.pixels).copy(), np.rot90(ph.mask).copy()
    df = pd.DataFrame([put_film(tmp_path, '1', pixels, mask) | dict(seg_status='ok')])
    row = crop_df(df, tmp_path, 128, upright=True).iloc[0]
    assert abs(row.crop_turn) > 60
    assert crop_match(row, pixels, mask) > .95
    assert crop_match(row.drop('crop_turn'), pixels, mask) < .9

def test_duplicates_are_found_through_exposure_and_rescaling():
    a, b = (make_phantom(seed, size=256).pixels for seed in (1, 2))
    copy = np.clip(a[::2, ::2]*.8, 0, 255).astype(np.uint8)
    dist, who = nearest_hash([dhash(a), dhash(b), '', dhash(copy)])
    assert who[0] == 3
    assert who[3] == 0
    assert dist[0] <= TWIN_BITS < dist[1]
    assert dist[2] == 999
