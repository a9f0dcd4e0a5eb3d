"Cropping: properties on random masks, faults in a batch, resume, how a crop was made, and real films."
import json
import os
import pickle
import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
import pytest

from boneage.core import FilmError, ManifestError, data_path
from boneage.cropping import (
    CropFrame, CropHow, Turn, crop_df, crop_film, crop_how, hand_box, limit_detail,
    pad_square, paste_crop, remove_background, resize_to, str2box, stretch_contrast, trim_forearm)
from boneage.films.files import read_mask, write_png
from boneage.films.phantom import make_phantom, phantom_df
from boneage.films.radiograph import load_radiograph
from boneage.hand.direction import find_wrist, hand_tilt

SEEDS = range(8)

def blob(seed, shape=(90, 70)):
    "A random film and a random connected-ish mask that doesn't touch the border."
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, np.uint8)
    for _ in range(4):
        c = rng.integers((25, 25), (45, 65)).tolist()
        cv2.ellipse(mask, c, rng.integers(4, 15, 2).tolist(), float(rng.uniform(0, 180)), 0, 360, 1, -1)
    return rng.integers(1, 256, shape).astype(np.uint8), mask.astype(bool)

@pytest.fixture(scope='module')
def hands():
    return [make_phantom(s, size=192, fault='rotated' if s % 2 else None) for s in range(12)]

# ---------------------------------------------------------------- geometry

@pytest.mark.parametrize('seed', SEEDS)
def test_box_is_tight_and_holds_the_mask(seed):
    _, m = blob(seed)
    y0, x0, y1, x1 = hand_box(m)
    assert m[y0:y1, x0:x1].sum() == m.sum()
    assert m[y0].any() and m[y1-1].any() and m[:, x0].any() and m[:, x1-1].any()

def test_margin_stays_on_the_film():
    m = np.zeros((10, 12), bool)
    m[0, 11] = True
    assert hand_box(m, 5.0) == (0, 6, 6, 12)
    with pytest.raises(ValueError, match='margin is -1'):
        hand_box(m, -1)

@pytest.mark.parametrize('seed', SEEDS)
def test_moving_the_hand_moves_the_box_and_not_the_crop(seed):
    img, m = blob(seed)
    a = crop_film(img, m, 64, margin=0, forearm=None)
    b = crop_film(*(np.roll(o, (5, -6), (0, 1)) for o in (img, m)), 64, margin=0, forearm=None)
    assert b.box == tuple(np.add(a.box, (5, -6, 5, -6)))
    np.testing.assert_array_equal(a.pixels, b.pixels)
    np.testing.assert_array_equal(a.mask, b.mask)

@pytest.mark.parametrize('box', [(0, 0, 10, 10), (3, 5, 4, 300), (7, 2, 118, 55), (-4, -9, 20, 3)])
@pytest.mark.parametrize('size', [1, 7, 64, 513])
def test_maps_are_inverse(box, size):
    f = CropFrame(box, size)
    pts = np.random.default_rng(0).uniform(-50, 400, (100, 2))
    np.testing.assert_allclose(f.to_film(f.to_crop(pts)), pts, atol=1e-9)
    np.testing.assert_allclose(f.to_crop(f.to_film(pts)), pts, atol=1e-9)

def test_edges_meet_edges():
    "The outer edge of the square's first pixel is the outer edge of the crop's first pixel, and so at the end."
    f = CropFrame((10, 20, 30, 30), 50)
    np.testing.assert_allclose(f.to_crop((10-.5, 15-.5)), (-.5, -.5))
    np.testing.assert_allclose(f.to_crop((30-.5, 35-.5)), (49.5, 49.5))

@pytest.mark.parametrize('side,size', [(100, 40), (40, 100), (63, 64), (301, 128)])
def test_pictures_follow_the_map(side, size):
    "A soft spot drawn on the film is, after resizing, where `to_crop` says: half a pixel off would fail."
    c = np.array([side*.31, side*.62])
    f = CropFrame((0, 0, side, side), size)
    d2 = ((np.indices((side, side)) - c[:, None, None])**2).sum(0)
    spot = 250*np.exp(-d2/(2*(side/25)**2))
    small = resize_to(spot.astype(np.uint8), size).astype(float)
    small[small < 5] = 0
    got = (np.indices(small.shape)*small).sum((1, 2))/small.sum()
    np.testing.assert_allclose(got, f.to_crop(c), atol=0.08)

@pytest.mark.parametrize('shape', [(5, 2), (2, 5), (4, 4), (1, 8)])
def test_pad_square_agrees_with_the_frame(shape):
    img = np.arange(1, 1+np.prod(shape)).reshape(shape)
    sq = pad_square(img)
    f = CropFrame((0, 0, *shape), max(shape))
    for p in np.ndindex(shape):
        there = np.rint(f.to_crop(p)).astype(int)
        assert sq[tuple(there)] == img[p]
    assert sq.sum() == img.sum()

def test_aspect_is_kept():
    img = np.zeros((200, 100), np.uint8)
    m = img > 0
    m[20:180, 40:60] = True
    y0, x0, y1, x1 = hand_box(crop_film(img, m, 80, margin=0, forearm=None).mask)
    assert (y1-y0, x1-x0) == (80, 10)

@pytest.mark.parametrize('seed', SEEDS)
def test_crop_of_a_crop(seed):
    img, m = blob(seed)
    kw = dict(margin=0, forearm=None, contrast=None)
    side = CropFrame(hand_box(m), 1).side
    one = crop_film(img, m, side, **kw)
    two = crop_film(one.pixels, one.mask, side, **kw)
    np.testing.assert_array_equal(one.pixels, two.pixels)
    big = crop_film(one.pixels, one.mask, 150, **kw)
    p = np.argwhere(m)[::17]
    np.testing.assert_allclose(one.to_film(big.to_film(big.to_crop(one.to_crop(p)))), p, atol=1e-9)
    np.testing.assert_array_equal(big.pixels, crop_film(img, m, 150, **kw).pixels)

@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize('size', [40, 200])
def test_mask_comes_back_to_the_film(seed, size):
    img, m = blob(seed)
    c = crop_film(img, m, size, forearm=None)
    back = paste_crop(c, c.mask, m.shape)
    assert 2*(back & m).sum()/(back.sum() + m.sum()) > (.94 if size == 40 else .985)

# ---------------------------------------------------------------- background and contrast

@pytest.mark.parametrize('fill', [0, 255, 17, 'median'])
@pytest.mark.parametrize('soft', [0, 4])
def test_hand_is_never_changed(fill, soft):
    img, m = blob(1)
    out = remove_background(img, m, fill, soft=soft)
    np.testing.assert_array_equal(out[m], img[m])
    far = cv2.distanceTransform((~m).astype(np.uint8), cv2.DIST_L2, 5) > soft + 1
    assert len(np.unique(out[far])) == 1

def test_median_fill_is_the_grey_beside_the_hand():
    img = np.full((100, 100), 200, np.uint8)
    m = np.zeros((100, 100), bool)
    m[40:60, 40:60] = True
    img[30:70, 30:70] = 90
    assert remove_background(img, m, 'median')[0, 0] == 90
    crop = crop_film(img, m, 40, margin=.2, background='median', contrast=None, forearm=None)
    assert crop.pixels[0, 0] == 90

def test_background_none_keeps_the_film():
    img, m = blob(2)
    c = crop_film(img, m, 60, background=None, contrast=None, forearm=None)
    y0, x0, y1, x1 = c.box
    np.testing.assert_array_equal(c.pixels, resize_to(pad_square(img[y0:y1, x0:x1]), 60))

def test_whole_film_masks_work():
    img = np.random.default_rng(0).integers(0, 256, (40, 30)).astype(np.uint8)
    assert crop_film(img, np.ones((40, 30), bool), 32, background='median').box == (0, 0, 40, 30)

def test_stretch_ignores_gain_and_offset():
    img, m = blob(3)
    img = img//4
    a = stretch_contrast(img, m)
    b = stretch_contrast((3*img + 20).astype(np.uint8), m)
    assert np.abs(a.astype(int) - b).max() <= 1
    greys = stretch_contrast(np.arange(256, dtype=np.uint8)[None])[0].astype(int)
    assert np.all(np.diff(greys) >= 0)

def test_stretch_ignores_what_is_outside():
    img, m = blob(4)
    other = np.where(m, img, 255).astype(np.uint8)
    np.testing.assert_array_equal(stretch_contrast(img, m)[m], stretch_contrast(other, m)[m])

# ---------------------------------------------------------------- forearm

def test_wrist_is_near_the_true_one(hands):
    for h in hands:
        w = find_wrist(h.mask)
        assert w.found, (h, w.reason)
        along = (np.array(h.landmarks['wrist']) - w.centre) @ np.array(w.axis)
        assert abs(w.distance - along) < .2*w.palm_width, h

def test_radius_is_kept_and_trimming_settles(hands):
    for h in hands:
        t = trim_forearm(h.mask)
        assert not (t & ~h.mask).any()
        y, x = np.rint(h.landmarks['radius']).astype(int)
        assert t[y, x], h
        assert (trim_forearm(t) != t).sum() < .01*t.sum(), h

@pytest.mark.parametrize('turns', [1, 2, 3])
def test_trimming_turns_with_the_film(hands, turns):
    for h in hands:
        a = np.rot90(trim_forearm(h.mask), turns)
        b = trim_forearm(np.rot90(h.mask, turns).copy())
        assert 2*(a & b).sum()/(a.sum() + b.sum()) > .98, h

def test_fingers_are_never_cut(hands):
    for h in hands:
        t = trim_forearm(h.mask)
        height, width = h.shape
        for i in range(1, 6):
            y, x = np.rint(h.landmarks[f'DP{i}_base']).astype(int)
            if 0 <= y < height and 0 <= x < width and h.mask[y, x]:
                assert t[y, x], (h, i)

NO_HANDS = dict(
    full=np.ones((50, 50), bool),
    line=np.eye(60, dtype=bool),
    speck=np.pad(np.ones((3, 3), bool), 40),
    bar=np.pad(np.ones((80, 20), bool), 10))

@pytest.mark.parametrize('name', NO_HANDS)
def test_what_is_no_hand_is_left_alone(name):
    mask = NO_HANDS[name]
    w = find_wrist(mask)
    assert not w.found and w.reason
    np.testing.assert_array_equal(trim_forearm(mask), mask)

def test_without_forearm_nothing_is_cut():
    h = make_phantom(2, age_months=120, size=192, nuisance=0)
    m = h.mask & (np.arange(h.shape[0])[:, None] < h.landmarks['capitate'][0])
    np.testing.assert_array_equal(trim_forearm(m), m)

def test_film_size_does_not_matter():
    h = make_phantom(5, age_months=120, size=256)
    big = cv2.resize(h.mask.astype(np.uint8), None, fx=7, fy=7, interpolation=cv2.INTER_NEAREST) > 0
    a = find_wrist(h.mask)
    b = find_wrist(big)
    assert abs(b.distance/7 - a.distance) < .05*a.palm_width

# ---------------------------------------------------------------- a batch

@pytest.fixture
def batch(tmp_path):
    df = phantom_df(6, tmp_path/'films é ü', size=96).rename(columns={'true_mask_path': 'mask_path'})
    return df.assign(seg_status='ok', seg_error=None), tmp_path/'out put'

# fault -> columns of the row that are overwritten, words that its error must hold
ROWS = {
    'refused': (dict(seg_status='refused', seg_error='no hand found'), 'no hand found'),
    'not run': (dict(seg_status=None, mask_path=None), 'nothing'),
    'no path': (dict(mask_path=None), 'no mask_path'),
    'missing film': (dict(path='gone.png'), 'gone.png')}

# fault -> what is written over the mask's file, given the film's shape; words
MASKS = {
    'missing mask': (lambda path, shape: None, 'bad.png'),
    'other shape': (lambda path, shape: write_png(path, np.ones((20, 30), bool)), '(20, 30)'),
    'empty mask': (lambda path, shape: write_png(path, np.zeros(shape, bool)), 'empty'),
    'no picture': (lambda path, shape: path.write_text('no picture'), 'bad.png'),
    'zero bytes': (lambda path, shape: path.touch(), 'bad.png')}

def spoil(df, fault, tmp):
    "Spoil row 2; return words that its error must hold."
    if fault in ROWS:
        cells, words = ROWS[fault]
        for col, value in cells.items():
            df.loc[2, col] = str(tmp/value) if col == 'path' else value
        return words
    write, words = MASKS[fault]
    bad = tmp/'bad.png'
    df.loc[2, 'mask_path'] = str(bad)
    write(bad, load_radiograph(df.path[2]).shape)
    return words

@pytest.mark.parametrize('fault', [*ROWS, *MASKS])
def test_a_bad_row_says_why_and_the_batch_goes_on(batch, tmp_path, fault):
    df, out = batch
    words = spoil(df, fault, tmp_path)
    done = crop_df(df, out, 64)
    assert words in done.crop_error[2]
    assert pd.isna(done.crop_path[2]) and done.crop_error.drop(2).isna().all()
    assert len(list((out/'crops').iterdir())) == 5
    assert len(done) == len(df) and done.id.tolist() == df.id.tolist()

def stamp(df):
    return [os.stat(path).st_mtime_ns for path in df.crop_path]

def test_resume_redo_and_settings(batch):
    df, out = batch
    first = crop_df(df, out, 64)
    one = stamp(first)
    assert stamp(crop_df(df, out, 64)) == one
    os.unlink(first.crop_path[4])
    two = stamp(crop_df(df, out, 64))
    assert [a == b for a, b in zip(one, two)] == [True]*4 + [False, True]
    assert all(a != b for a, b in zip(stamp(crop_df(df, out, 64, redo=True)), two))
    assert load_radiograph(crop_df(df, out, 48).crop_path[0]).shape == (48, 48)

def test_changed_mask_is_cropped_again(batch):
    df, out = batch
    a = crop_df(df, out, 64)
    m = read_mask(df.mask_path[0])
    m[:m.shape[0]//2] = False
    write_png(df.mask_path[0], m)
    b = crop_df(df, out, 64)
    assert a.crop_box[0] != b.crop_box[0] and (a.crop_box[1:] == b.crop_box[1:]).all()

def test_table_rebuilds_the_map_and_masks_are_saved(batch):
    df, out = batch
    done = crop_df(df, out, 64, save_masks=True)
    for r in done.itertuples():
        crop = crop_film(load_radiograph(r.path).pixels, read_mask(r.mask_path), 64)
        assert CropFrame(str2box(r.crop_box), 64).to_film((3, 4)) == pytest.approx(crop.to_film((3, 4)))
        np.testing.assert_array_equal(read_mask(r.crop_mask_path), crop.mask)

def test_two_processes_give_the_same(batch, tmp_path):
    df, out = batch
    a = crop_df(df, out, 64)
    b = crop_df(df, tmp_path/'two', 64, n_jobs=2)
    assert a.crop_box.tolist() == b.crop_box.tolist()
    for p, q in zip(a.crop_path, b.crop_path):
        with open(p, 'rb') as one, open(q, 'rb') as two:
            assert one.read() == two.read()

def test_column_is_asked_for(tmp_path):
    with pytest.raises(ManifestError, match='mask_path'):
        crop_df(pd.DataFrame(dict(id=['a'], path=['a.png'])), tmp_path)

def test_imports_without_torch():
    code = "import sys; sys.modules['torch'] = None; import boneage.cropping; print(sys.modules['torch'])"
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert run.stdout.strip() == 'None'

def test_errors_carry_their_code(batch, tmp_path):
    df, out = batch
    spoil(df, 'other shape', tmp_path)
    df.loc[3, 'mask_path'] = None
    df.loc[4, ['seg_status', 'seg_error', 'seg_code']] = 'refused', 'no hand found', 'hand.none'
    codes = crop_df(df, out, 64).crop_code.fillna('').tolist()
    assert codes == ['', '', 'mask.shape', 'mask.none', 'hand.none', '']

@pytest.mark.parametrize('mask,code', [(np.zeros((40, 30), bool), 'mask.empty'), (np.ones((9, 9), bool), 'mask.shape')])
def test_a_wrong_mask_carries_its_code(mask, code):
    with pytest.raises(FilmError) as e:
        crop_film(np.zeros((40, 30), np.uint8), mask)
    assert e.value.code == code and e.value.hint

# ---------------------------------------------------------------- how a crop was made

HOWS = [
    {},
    dict(margin=.1, background='median', contrast=None),
    dict(forearm=None, soft=.02, contrast=[2, 98], detail=99, upright=True),
    dict(background=None, margin=np.float64(.05), size=np.int64(48))]

@pytest.mark.parametrize('settings', HOWS)
def test_settings_survive_the_table(settings):
    how = CropHow(**settings)
    again = CropHow.from_json(how.to_json())
    assert again == how and hash(again) == hash(how)
    assert set(json.loads(how.to_json())) == set(how.settings())
    assert pickle.loads(pickle.dumps(how)) == how

@pytest.mark.parametrize('settings', HOWS)
def test_crops_of_a_table_can_be_made_again_from_it(batch, settings):
    df, out = batch
    done = crop_df(df, out, **{'size': 64, **settings})
    done.to_csv(out/'cropped.csv', index=False)
    table = pd.read_csv(out/'cropped.csv')
    how = crop_how(table)
    for row in table.itertuples():
        crop = how(load_radiograph(row.path).pixels, read_mask(row.mask_path))
        np.testing.assert_array_equal(crop.pixels, cv2.imread(row.crop_path, cv2.IMREAD_GRAYSCALE))

def test_a_mixture_is_refused_with_its_ways_and_their_counts(batch, tmp_path):
    df, out = batch
    one = crop_df(df[:4], out, 64)
    two = crop_df(df[4:], tmp_path/'two', 64, margin=.1)
    with pytest.raises(ManifestError, match='4 with margin=0.03') as e:
        crop_how(pd.concat([one, two]))
    assert '2 with margin=0.1' in str(e.value) and 'size' not in str(e.value)
    with pytest.raises(ManifestError, match='2 with unknown settings'):
        crop_how(pd.concat([one, two.drop(columns='crop_how')]))

def test_the_same_settings_written_differently_are_one_way(batch, tmp_path):
    df, out = batch
    one = crop_df(df[:3], out, 64, soft=0, contrast=[1, 99.5])
    two = crop_df(df[3:], tmp_path/'two', 64, soft=0.)
    assert crop_how(pd.concat([one, two])) == CropHow(64)

def test_rows_without_a_crop_have_no_way(batch, tmp_path):
    df, out = batch
    spoil(df, 'missing mask', tmp_path)
    done = crop_df(df, out, 64)
    assert done.crop_how.isna().tolist() == done.crop_path.isna().tolist()
    assert crop_how(done) == CropHow(64)
    assert crop_how(done[2:3]) is None

def test_a_table_of_an_older_version_says_nothing(batch):
    df, out = batch
    assert crop_how(crop_df(df, out, 64).drop(columns='crop_how')) is None

def test_a_setting_of_another_version_is_refused():
    with pytest.raises(ValueError, match='sharpen'):
        CropHow.from_json('{"sharpen":3}')
    with pytest.raises(TypeError, match='sharpen'):
        CropHow(sharpen=3)

def test_a_journal_of_an_older_version_is_continued(batch):
    "The key of a finished film is as it was before the settings stood in the table."
    df, out = batch
    first = crop_df(df, out, 64, margin=.1)
    key = json.loads((out/'crops.jsonl').read_text('utf-8').splitlines()[0])['key']
    assert key.startswith("crop 1, size=64, {'margin': 0.1, 'forearm': 0.5, 'background': 0, 'soft': 0.0, "
                          "'contrast': (1, 99.5), 'detail': None, 'upright': False}|")
    assert stamp(crop_df(df, out, 64, margin=.1)) == stamp(first)

# ---------------------------------------------------------------- real films

def test_real_films(tmp_path):
    folder = data_path('rsna-original', 'images')
    if folder is None or not folder.is_dir():
        pytest.skip('set BONEAGE_DATA to the folder that holds rsna-original')
    segmentation = pytest.importorskip('boneage.segmentation')
    films = sorted(folder.glob('*.png'))[:8]
    df = pd.DataFrame(dict(id=[p.stem for p in films], path=list(map(str, films))))
    df = segmentation.segment_df(df, tmp_path, 'classical')
    done = crop_df(df, tmp_path, 256)
    assert (done.crop_error.isna() == (df.seg_status == 'ok')).all()
    assert done.crop_path.notna().sum() >= 5
    for r in done[done.crop_path.notna()].itertuples():
        img = load_radiograph(r.crop_path, invert=False).pixels
        assert img.shape == (256, 256) and img.max() > 200

# ---------------------------------------------------------------- detail

def test_detail_brings_films_of_all_sizes_together():
    "The same hand at 1600 px and as a square copy of 200 px: alike once the detail is."
    big = make_phantom(5, 120, 'F', size=1600)
    copy = cv2.resize(big.pixels, (200, 200), interpolation=cv2.INTER_AREA)
    shape = 400, round(400*big.shape[0]/big.shape[1])
    small = cv2.resize(copy, shape, interpolation=cv2.INTER_LINEAR)
    mask = cv2.resize(big.mask.astype(np.uint8), shape, interpolation=cv2.INTER_NEAREST) > 0
    crop = crop_film(small, mask, 256).pixels
    def far(**kw):
        return np.abs(crop_film(big.pixels, big.mask, 256, **kw).pixels.astype(float) - crop).mean()
    assert far(detail=200) < .6*far()

@pytest.mark.parametrize('shape', [(40, 60), (60, 40), (40, 40)])
def test_detail_leaves_small_films_alone(shape):
    img = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    assert limit_detail(img, 40) is img and limit_detail(img, 30).shape == shape

# ---------------------------------------------------------------- turning

@pytest.mark.parametrize('degrees', [0, 90, 180, -90, 17.3, 133, -45])
@pytest.mark.parametrize('shape', [(30, 50), (41, 40)])
def test_turn_goes_there_and_back(shape, degrees):
    o = Turn(shape, degrees)
    pts = np.random.default_rng(0).uniform(0, 40, (50, 2))
    np.testing.assert_allclose(o.back(o.points(pts)), pts, atol=1e-9)
    corners = o.points([(-.5, -.5), (-.5, shape[1]-.5), (shape[0]-.5, -.5), (shape[0]-.5, shape[1]-.5)])
    assert (corners > -1.1).all() and (corners < np.array(o.size) + .1).all(), 'the canvas holds the film'
    img = np.zeros(shape, np.uint8)
    img[10:20, 12:25] = 200
    assert np.abs(o.undo(o(img)).astype(int) - img).mean() < 6 and o(img).shape == o.size

@pytest.mark.parametrize('degrees,k', [(90, -1), (180, 2), (-90, 1)])
def test_quarter_turns_lose_nothing(degrees, k):
    img = np.random.default_rng(0).integers(0, 256, (33, 20)).astype(np.uint8)
    np.testing.assert_array_equal(Turn(img.shape, degrees)(img), np.rot90(img, k))
    np.testing.assert_array_equal(Turn(img.shape, degrees)(img > 100), np.rot90(img > 100, k))

@pytest.mark.parametrize('degrees', [25, -60, 90, 180, -140])
def test_upright_crops_do_not_depend_on_how_the_film_lies(degrees):
    ph = make_phantom(7, 110, 'M', size=400)
    o = Turn(ph.shape, degrees)
    a = crop_film(ph.pixels, ph.mask, 128, upright=True)
    b = crop_film(o(ph.pixels), o(ph.mask), 128, upright=True)
    assert (a.mask != b.mask).mean() < .03 and np.abs(a.pixels.astype(int) - b.pixels).mean() < 6
    assert abs((hand_tilt(o(ph.mask)) - hand_tilt(ph.mask) - degrees + 180) % 360 - 180) < 2
    tip = ph.landmarks['tip3']
    np.testing.assert_allclose(b.to_film(b.to_crop(o.points(tip))), o.points(tip), atol=1e-6)
    np.testing.assert_allclose(a.to_crop(tip), b.to_crop(o.points(tip)), atol=4)
    assert (paste_crop(b, b.mask, o.size) != trim_forearm(o(ph.mask))).mean() < .02

def test_a_hand_without_direction_stays_as_it_lies():
    disc = np.hypot(*np.indices((64, 64)) - 32) < 20
    c = crop_film(disc.astype(np.uint8)*99, disc, 32, upright=True)
    assert hand_tilt(disc) == 0 and c.turn.degrees == 0

def test_upright_crops_keep_their_turn_in_the_table(tmp_path):
    df = phantom_df(3, tmp_path/'films', size=160, seed=1).rename(columns=dict(true_mask_path='mask_path'))
    df = df.assign(seg_status='ok')
    out = crop_df(df, tmp_path/'out', 64, upright=True)
    assert out.crop_error.isna().all()
    for _, r in out.iterrows():
        mask = read_mask(r.mask_path)
        crop = crop_film(load_radiograph(r.path).pixels, mask, 64, upright=True)
        frame = CropFrame(str2box(r.crop_box), 64, Turn(mask.shape, r.crop_turn))
        assert frame.to_film((3, 4)) == pytest.approx(crop.to_film((3, 4)))
    assert 'crop_turn' not in crop_df(df, tmp_path/'plain', 64)
