"Synthetic hands: calendar against atlases, truth against pixels, faults, films without a hand, a folder that resumes."
import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from boneage.films.bones import CARPALS, make_view
from boneage.films.files import read_mask
from boneage.films.grey import looks_inverted
from boneage.films.growth import OSSIFICATION, growth, stage
from boneage.films.hand_geometry import draw_bones, hand_geometry
from boneage.films.nonhands import NONHANDS, make_nonhand
from boneage.films.phantom import FAULTS, make_phantom, phantom_df

O = OSSIFICATION
FINGERS = [f'{bone}{k}' for k in (2, 3, 4, 5) for bone in ('MC', 'PP', 'MP', 'DP')]
TUBULAR = ['MC1', 'PP1', 'DP1', *FINGERS]
SEXES = 'F', 'M'


def same(a, b):
    "Two phantoms are equal to the last pixel and landmark."
    facts = [(p.pixels.shape, p.landmarks, p.objects.keys(), p.age_months, p.sex) for p in (a, b)]
    if facts[0] != facts[1]:
        return False
    maps = [(p.pixels, p.mask, *p.objects.values()) for p in (a, b)]
    return all((x == y).all() for x, y in zip(*maps))


def never_falls(values):
    return (np.diff([float(v) for v in values]) >= 0).all()


# ---------------------------------------------------------------- the calendar

# Ages in years, girls then boys, written down apart from the module:
# Gilsanz and Ratib 2005, Greulich and Pyle 1959, in round figures
APPEAR = dict(
    capitate=((0, .5), (0, .5)),
    hamate=((0, .6), (0, .6)),
    radius=((.7, 1.2), (.9, 1.5)),
    triquetrum=((1.5, 3), (2, 3.5)),
    lunate=((2.5, 4), (3, 5)),
    trapezium=((3.5, 5), (4.5, 6.5)),
    trapezoid=((3.5, 5), (4.5, 6.5)),
    scaphoid=((3.5, 5.5), (4.5, 6.5)),
    ulna=((5, 6.5), (6, 7.5)),
    pisiform=((8, 10), (10, 12)),
    sesamoid=((10, 12), (12, 13.5)))
FUSED = dict(
    DP=((12.5, 14.5), (14.5, 16.5)),
    PP=((13.5, 15.5), (15.5, 17.5)),
    MP=((13.5, 15.5), (15.5, 17.5)),
    MC=((13.5, 15.5), (15.5, 17.5)),
    ulna=((16, 18), (17, 19)),
    radius=((16, 18), (17, 19)))
FIRST = dict(F=(10, 24), M=(13, 36)) # months in which epiphyses of tubular bones and radius appear


@pytest.mark.parametrize('centre', APPEAR)
@pytest.mark.parametrize('sex', SEXES)
def test_centres_appear_when_the_atlases_say(centre, sex):
    lo, hi = APPEAR[centre][sex == 'M']
    assert lo <= O.loc[centre, f'appear_{sex}']/12 <= hi


@pytest.mark.parametrize('bone', [*TUBULAR, 'radius', 'ulna'])
@pytest.mark.parametrize('sex', SEXES)
def test_tubular_bones_get_an_epiphysis_and_fuse_when_the_atlases_say(bone, sex):
    centre = O.loc[bone]
    assert centre.kind == 'epiphysis'
    if bone != 'ulna':
        lo, hi = FIRST[sex]
        assert lo <= centre[f'appear_{sex}'] <= hi
    lo, hi = FUSED[bone if bone in FUSED else bone[:2]][sex == 'M']
    assert lo <= centre[f'fuse_end_{sex}']/12 <= hi
    assert centre[f'fuse_start_{sex}'] < centre[f'fuse_end_{sex}']


def test_there_are_nineteen_tubular_bones_and_eight_carpals():
    assert len(TUBULAR) == 19
    assert set(O.query("kind == 'epiphysis'").index) == {*TUBULAR, 'radius', 'ulna'}
    assert set(O.query("kind == 'carpal'").index) == set(CARPALS)
    assert len(CARPALS) == 8


@pytest.mark.parametrize('sex', SEXES)
def test_order_of_appearance_and_of_fusion(sex):
    appears = O[f'appear_{sex}']
    thumb_side = appears[['trapezium', 'trapezoid', 'scaphoid']]
    assert appears['capitate'] <= appears['hamate'] < appears['radius'] < appears['triquetrum'] < appears['lunate']
    assert appears['lunate'] < thumb_side.min()
    assert thumb_side.max() < appears['ulna'] < appears['pisiform'] < appears['sesamoid']
    fuses = O[f'fuse_end_{sex}'].astype(float)
    distal = [b for b in TUBULAR if b.startswith('DP')]
    rest = [b for b in TUBULAR if not b.startswith('DP')]
    assert fuses[distal].max() < fuses[rest].min()
    assert fuses[rest].max() < fuses['ulna'] < fuses['radius'] == fuses.max()


def test_girls_are_ahead_months_in_infancy_and_about_two_years_at_puberty():
    def lead(centre, event):
        return float(O.loc[centre, f'{event}_M'] - O.loc[centre, f'{event}_F'])
    assert all(lead(centre, 'appear') > 0 for centre in O.index)
    assert 3 <= lead('PP3', 'appear') <= 9
    assert 18 <= lead('PP3', 'fuse_end') <= 30


@pytest.mark.parametrize('sex', SEXES)
@pytest.mark.parametrize('centre', O.index)
def test_no_centre_ever_goes_back(centre, sex):
    stages = [stage(centre, age, sex) for age in np.arange(0, 241, 3)]
    for fact in ('present', 'size', 'fused'):
        assert never_falls(o[fact] for o in stages), fact
    first, last = stages[0], stages[-1]
    if O.kind[centre] == 'epiphysis':
        assert last['fused'] == 1
        assert not first['present']
        assert max(o['width'] for o in stages) > 1
    else:
        assert last['size'] == 1
        assert last['fused'] == 0


# ---------------------------------------------------------------- what is drawn

SHAPE = 230, 180 # px, of a hand drawn so that it fills the map at every age


def textbook(age, sex):
    "Hand and view of a hand without individual differences."
    hand = hand_geometry(age, sex, variation=0)
    return hand, make_view(1.02/hand.scale, wrist=(86, 190))


@pytest.mark.parametrize('sex', SEXES)
@pytest.mark.parametrize('age', [0, 9, 30, 90, 150, 190, 228])
def test_every_bone_is_drawn_at_every_age(age, sex):
    hand, _ = textbook(age, sex)
    names = {t.name for t in hand.tubes}
    stages = {c: stage(c, age, sex) for c in O.index}
    there = {c for c in O.index if stages[c]['present']}
    open_ = {c for c in there if O.kind[c] == 'epiphysis' and stages[c]['fused'] < 1}
    assert {*TUBULAR, 'radius', 'ulna'} <= names
    assert {n for n in names if n.endswith('_epiphysis')} == {f'{c}_epiphysis' for c in open_}
    assert {b.name for b in hand.round_bones} == {c for c in there if O.kind[c] != 'epiphysis'}


def wrist_area(hand, view):
    "Where the carpals are, uint8."
    on = np.zeros(SHAPE, np.uint8)
    for o in hand.round_bones:
        if o.name != 'sesamoid':
            cv2.fillPoly(on, [np.int32(np.rint(view(o.centre+o.contour)))], 1)
    return on


@pytest.mark.parametrize('sex', SEXES)
def test_carpals_fill_the_wrist_with_age(sex):
    "The bone between metacarpals and forearm grows from nothing at birth: the sign that is read in infants."
    area = []
    for age in (0, 12, 36, 60, 96, 150):
        hand, view = textbook(age, sex)
        on = wrist_area(hand, view)
        inner = cv2.erode(on, np.ones((3, 3))) > 0
        if inner.any():
            bone = draw_bones(SHAPE, hand, view)
            assert (bone[inner] > .5).mean() > .95   # corners of concave bones are cut
        assert bool(hand.round_bones) == bool(on.any())
        area.append(on.sum())
    assert area[0] == 0
    assert (np.diff(area) > 0).all()
    assert area[-1] > 1000


def thinnest(bone, age, sex):
    "The thinnest place of one bone near its growing end, mm, and the thickest of all."
    hand = hand_geometry(age, sex, variation=0)
    hand.tubes = [t for t in hand.tubes if t.name.split('_')[0] == bone]
    hand.round_bones = []
    view = make_view(6/hand.scale, wrist=(500, 1250))
    drawn = draw_bones((1300, 1000), hand, view)
    ends = ('head', 'base') if bone.startswith('MC') else ('base', 'head')
    p, q = (hand.landmarks[f'{bone}_{end}'] for end in ends)
    past_cartilage = 3*hand.scale/np.linalg.norm(q-p)
    line = [view(p + u*(q-p)) for u in np.linspace(past_cartilage, .4, 200)]
    depths = [cv2.getRectSubPix(drawn, (1, 1), tuple(map(float, o)))[0, 0] for o in line]
    return min(depths), drawn.max()


@pytest.mark.parametrize('sex,open_at,closed_at', [('F', 120, 200), ('M', 140, 220)])
@pytest.mark.parametrize('bone', ['PP3', 'MP2', 'DP4', 'MC3', 'PP5'])
def test_the_growth_plate_is_a_gap_until_it_fuses(sex, open_at, closed_at, bone):
    "Along the bone's axis the thinnest place near its growing end is nearly empty in childhood and filled when grown."
    young, young_max = thinnest(bone, open_at, sex)
    grown, grown_max = thinnest(bone, closed_at, sex)
    assert young < .15*young_max
    assert grown > .15*grown_max
    assert young < .5*grown


@pytest.mark.parametrize('sex', SEXES)
def test_bones_never_shrink_and_boys_end_longer(sex):
    length = [growth(age, sex) for age in range(0, 241)]
    assert never_falls(length)
    assert length[0] < .3
    assert growth(228, 'M') > growth(228, 'F')
    assert growth(144, 'F') > growth(144, 'M')


def contrast_of_bone(age, seed):
    p = make_phantom(seed, age, 'F', size=160, nuisance=0)
    inside = cv2.erode(np.uint8(p.mask & ~p.objects['forearm']), np.ones((5, 5))) > 0
    greys = p.pixels.astype(float)[inside]
    return np.std(greys)/np.mean(greys)


def test_age_can_be_read_from_the_drawn_film():
    "Film by film, the share of bone in the hand differs with age in the median of several individuals."
    medians = [np.median([contrast_of_bone(age, seed) for seed in range(4)]) for age in (9, 60, 190)]
    assert len(set(np.round(medians, 3))) == 3
    young = make_phantom(1, 9, 'F', nuisance=0)
    grown = make_phantom(1, 200, 'F', nuisance=0)
    assert young.spacing < .75*grown.spacing     # both fill the film, so the small hand has the finer pixel


# ---------------------------------------------------------------- seeds, sizes, sexes

ASKED = [
    {}, dict(size=96), dict(fault='second_hand'), dict(fault='bright_plate'), dict(nuisance=0),
    dict(side='R', sex='F', age_months=60)]


@pytest.mark.parametrize('kw', ASKED)
def test_a_seed_is_a_film(kw):
    kw = dict(size=128) | kw
    a, b = make_phantom(7, **kw), make_phantom(8, **kw)
    assert same(a, make_phantom(7, **kw))
    assert a.pixels.shape != b.pixels.shape or (a.pixels != b.pixels).any()


def two_films():
    "A hash of one hand and one foot."
    hand = make_phantom(11, size=128).pixels
    foot = make_nonhand('foot', 3, size=96)
    return hashlib.sha256(hand.tobytes()+foot.tobytes()).hexdigest()


def test_a_seed_is_a_film_in_another_process():
    code = 'from test_phantom import two_films\nprint(two_films())'
    here = Path(__file__).parent
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=here)
    assert run.stdout.strip() == two_films()


def test_the_global_random_state_is_neither_used_nor_touched():
    np.random.seed(1)
    a = make_phantom(3, size=64)
    left = np.random.random()
    np.random.seed(1)
    assert np.random.random() == left
    np.random.seed(2)
    assert same(a, make_phantom(3, size=64))


@pytest.mark.parametrize('sex', SEXES)
def test_sex_and_age_are_what_was_asked_for(sex):
    p = make_phantom(2, 100.5, sex, size=64)
    assert (p.age_months, p.sex) == (100.5, sex)


def test_unasked_ages_and_sexes_spread():
    drawn = [make_phantom(s, size=48) for s in range(40)]
    ages = [p.age_months for p in drawn]
    assert 12 <= sum(p.sex == 'F' for p in drawn) <= 28
    assert min(ages) < 50
    assert max(ages) > 180


@pytest.mark.parametrize('size', [32, 64, 192, 600])
def test_sizes(size):
    p = make_phantom(4, size=size)
    assert max(p.pixels.shape) == size
    assert p.pixels.dtype == np.uint8
    for o in (p.mask, *p.objects.values()):
        assert (o.dtype, o.shape) == (bool, p.pixels.shape)


@pytest.mark.parametrize('aspect', [.5, 1., 1.6])
def test_aspect(aspect):
    height, width = make_phantom(4, size=200, aspect=aspect).pixels.shape
    assert max(height, width) == 200
    assert abs(width/height - aspect) < .02


WRONG = [
    (dict(fault='upside_down'), 'use None or one of inverted'),
    (dict(sex='unknown'), "use 'F' or 'M'"),
    (dict(age_months=-1), 'use 0 to 240'),
    (dict(age_months=400), 'use 0 to 240'),
    (dict(side='both'), "use 'L' or 'R'")]


@pytest.mark.parametrize('kw,words', WRONG)
def test_what_cannot_be_drawn_says_what_can(kw, words):
    with pytest.raises(ValueError, match=words):
        make_phantom(0, **kw)


# ---------------------------------------------------------------- truth

ONE = np.ones((3, 3))


def grown_by(mask, px):
    return cv2.dilate(np.uint8(mask), ONE, iterations=px) > 0


def shrunk_by(mask, px):
    return cv2.erode(np.uint8(mask), ONE, iterations=px) > 0


@pytest.mark.parametrize('seed,age', [(0, 8), (1, 40), (2, 110), (3, 220)])
def test_mask_and_pixels_agree_to_a_pixel(seed, age):
    p = make_phantom(seed, age, 'M', nuisance=0, size=320)
    lit = p.pixels > p.pixels[~p.mask].min() + 3
    assert not (lit & ~grown_by(p.mask, 2)).any(), 'nothing shines outside'
    assert lit[shrunk_by(p.mask, 4)].all(), 'nothing is empty inside'


@pytest.mark.parametrize('seed', range(4))
def test_the_same_hand_at_another_size(seed):
    small, large = (make_phantom(seed, size=s) for s in (160, 480))
    height, width = small.mask.shape
    shrunk = cv2.resize(large.mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA) > .5
    dice = 2*(small.mask & shrunk).sum()/(small.mask.sum()+shrunk.sum())
    assert dice > .975    # one pixel all round would be 0.95
    for name, place in small.landmarks.items():
        np.testing.assert_allclose(np.array(large.landmarks[name])/3, place, atol=1.5)


@pytest.mark.parametrize('seed', range(6))
def test_landmarks_lie_in_the_hand(seed):
    p = make_phantom(seed, size=200, nuisance=0)
    height, width = p.shape
    for name, (y, x) in p.landmarks.items():
        on_the_film = 0 <= y < height-1 and 0 <= x < width-1
        if on_the_film and not name.startswith('tip'):
            assert p.mask[round(y), round(x)], name
    assert len(p.landmarks) >= 2*19 + 5 + 3


@pytest.mark.parametrize('seed', range(20))
def test_what_is_no_hand_is_not_in_the_mask(seed):
    p = make_phantom(seed, size=96)
    assert .05 < p.mask.mean() < .55
    for name in {'frame', 'marker'} & p.objects.keys():
        assert not (p.objects[name] & p.mask).any(), name
    assert not (p.objects['forearm'] & ~p.mask).any()


def test_clean_films_show_bone_bright_to_the_loader():
    "Wide white surrounds used to make the loader turn some films."
    seeds = [*range(24), 265, 674, 385, 595, 592, 1098, 1161]
    assert [s for s in seeds if looks_inverted(make_phantom(s, size=128).pixels)[0]] == []


# ---------------------------------------------------------------- faults

def of_hand(p): # greys
    return p.pixels[p.mask].astype(float)


def contrast(p): # 60th percentile of the hand above the film around it
    around = ~p.mask & ~p.objects.get('frame', p.mask)
    return np.percentile(of_hand(p) - np.median(p.pixels[around]), 60)


def tilt(p): # degrees
    y0, x0 = p.landmarks['wrist']
    y1, x1 = p.landmarks['MC3_head']
    return abs(np.degrees(np.arctan2(x1-x0, y0-y1)))


def highest_tip(p): # px from the upper edge
    return min(p.landmarks[f'tip{k}'][0] for k in (2, 3, 4))


def sharpness(p):
    return cv2.Laplacian(p.pixels, cv2.CV_32F)[p.mask].std()


def is_inverted(p, clean):
    turned = (p.pixels == 255-clean.pixels).all() and (p.mask == clean.mask).all()
    return turned and looks_inverted(p.pixels)[0]


def has_second_hand(p, clean):
    other = p.objects['second_hand']
    return other.sum() > .3*p.mask.sum() and not (other & p.mask).any()


def has_plate(p, clean):
    plate = p.objects['plate']
    return (plate & p.mask).any() and (plate & ~p.mask).any()


def has_marker_on_hand(p, clean):
    marker = p.objects['marker']
    return (marker & p.mask).sum() > .3*marker.sum()


SHOWS = dict(
    inverted=is_inverted,
    second_hand=has_second_hand,
    rotated=lambda p, clean: tilt(p) > 30 > tilt(clean),
    cropped=lambda p, clean: highest_tip(p) < 0 < highest_tip(clean),
    dark=lambda p, clean: np.percentile(of_hand(p), 90) < 40,
    overexposed=lambda p, clean: contrast(p) < .7*contrast(clean),
    bright_plate=has_plate,
    blurred=lambda p, clean: sharpness(p) < .9*sharpness(clean),
    marker_on_hand=has_marker_on_hand)


@pytest.mark.parametrize('fault', FAULTS)
@pytest.mark.parametrize('seed', [5, 31])
def test_each_fault_shows(fault, seed):
    p, clean = (make_phantom(seed, 118, 'M', fault=f, aspect=.8, size=192) for f in (fault, None))
    assert p.fault == fault
    assert p.mask.any()
    assert SHOWS[fault](p, clean)


def test_every_fault_has_a_test():
    assert set(FAULTS) == set(SHOWS)


# ---------------------------------------------------------------- films without a hand

@pytest.mark.parametrize('kind', NONHANDS)
def test_nonhands(kind):
    film, again, other = (make_nonhand(kind, seed, size=120) for seed in (1, 1, 2))
    assert film.dtype == np.uint8
    assert max(film.shape) == 120
    assert (film == again).all()
    assert film.shape != other.shape or (film != other).any()
    assert (np.ptp(film) == 0) == (kind == 'uniform')


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match='use one of empty'):
        make_nonhand('hand')


# ---------------------------------------------------------------- a labelled folder

COLUMNS = ['id', 'path', 'sex', 'age_months', 'patient_id', 'split', 'source', 'fault', 'true_mask_path']


def files(folder):
    "Every film and mask below a folder: path -> bytes."
    pngs = [p for p in sorted(Path(folder).rglob('*.png')) if not p.name.startswith('.')]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in pngs}


def test_the_table_is_true(tmp_path):
    df = phantom_df(8, tmp_path/'röntgen films', seed=2, size=80, fault_rate=.4)
    assert list(df.columns) == COLUMNS
    assert df.id.is_unique
    assert (df.source == 'synthetic').all()
    assert df.fault.ne('').any()
    assert df.fault.eq('').any()
    for k, row in enumerate(df.itertuples()):
        p = make_phantom(2*100_003+k, row.age_months, row.sex, size=80, fault=row.fault or None)
        assert (cv2.imread(row.path, 0) == p.pixels).all()
        assert (read_mask(row.true_mask_path, p.shape) == p.mask).all()


def test_ages_spread_evenly_for_each_sex_and_splits_are_used(tmp_path):
    df = phantom_df(60, tmp_path, size=32)
    for _, rows in df.groupby('sex'):
        ages = np.sort(rows.age_months)
        steps = np.diff(ages)
        assert len(rows) == 30
        assert steps.max() < 3*steps.mean()
        assert ages[0] < 30
        assert ages[-1] > 198
    n = df.split.value_counts()
    assert 36 <= n['train'] <= 48
    assert min(n['valid'], n['test']) >= 5
    assert df.groupby('patient_id').split.nunique().max() == 1


def test_workers_draw_the_same_films(tmp_path):
    phantom_df(4, tmp_path/'a', size=64)
    phantom_df(4, tmp_path/'b', size=64, n_jobs=2)
    assert files(tmp_path/'a') == files(tmp_path/'b')


def kill_after(films, folder, call):
    "Kill another process when it has drawn so many files; time stamps of its films."
    job = subprocess.Popen([sys.executable, '-c', f'from boneage.films.phantom import phantom_df; phantom_df({call})'])
    while not folder.exists() or len(files(folder)) < films:
        assert job.poll() is None, 'finished before it could be killed'
        time.sleep(.005)
    job.send_signal(signal.SIGKILL)
    job.wait()
    return {p: p.stat().st_mtime_ns for p in folder.glob('phantom-*.png')}


def test_killed_and_run_again_is_as_if_never_killed(tmp_path):
    cut = tmp_path/'cut'
    before = kill_after(4, cut, f'14, {str(cut)!r}, seed=3, size=300')
    assert 0 < len(before) < 14
    df = phantom_df(14, cut, seed=3, size=300)
    last = max(before)    # the film being written when the process died may be drawn again
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in before.items() if p != last)
    phantom_df(14, tmp_path/'whole', seed=3, size=300)
    assert files(cut) == files(tmp_path/'whole')
    assert len(df) == 14


def test_other_settings_redraw(tmp_path):
    df = phantom_df(3, tmp_path, size=64)
    old = files(tmp_path)
    phantom_df(3, tmp_path, size=64, seed=9)
    new = files(tmp_path)
    assert all(new[k] != v for k, v in old.items() if not k.startswith('true'))
    assert len(df) == 3


def test_a_strangers_folder_is_left_alone(tmp_path):
    phantom_df(3, tmp_path, size=64)
    (tmp_path/'phantoms.json').unlink()
    mine = files(tmp_path)
    with pytest.raises(FileExistsError, match='give an empty folder'):
        phantom_df(3, tmp_path, size=64)
    assert files(tmp_path) == mine


def test_the_folder_says_it_is_synthetic(tmp_path):
    phantom_df(1, tmp_path, size=48)
    assert json.loads((tmp_path/'phantoms.json').read_text())['synthetic'] is True


# ---------------------------------------------------------------- speed

def least_cpu_time(size, n=4):
    "Seconds of this process for one film, the best of several."
    seconds = []
    for _ in range(n):
        start = time.process_time()
        make_phantom(3, size=size)
        seconds.append(time.process_time()-start)
    return min(seconds)


def test_a_film_costs_no_more_than_its_pixels():
    small, middle, large = (least_cpu_time(size) for size in (128, 256, 768))
    assert large < 40*small
    assert large < 9*2*middle
