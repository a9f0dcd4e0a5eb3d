"Synthetic hands: the calendar against published ages, truth against pixels, faults, films without a hand, and a folder that resumes."
import json, os, signal, subprocess, sys, time
from pathlib import Path
import cv2, numpy as np, pytest
from boneage.core import looks_inverted, read_mask
from boneage.phantom import (CARPALS, FAULTS, NONHANDS, OSSIFICATION, draw_bones, growth, hand_geometry, make_nonhand, make_phantom,
                             make_view, phantom_df, stage)

O = OSSIFICATION
TUBULAR = ['MC1', 'PP1', 'DP1'] + [f'{b}{k}' for k in (2, 3, 4, 5) for b in ('MC', 'PP', 'MP', 'DP')]
SEXES = ('F', 'M')

def same(a, b):
    "Two phantoms are equal to the last pixel and landmark"
    return (a.pixels.shape == b.pixels.shape and (a.pixels == b.pixels).all() and (a.mask == b.mask).all() and a.landmarks == b.landmarks
            and a.objects.keys() == b.objects.keys() and all((a.objects[k] == b.objects[k]).all() for k in a.objects) and (a.age_months, a.sex) == (b.age_months, b.sex))

# ---------------------------------------------------------------- the calendar

# Ages in years, written down apart from the module: Gilsanz and Ratib 2005, Greulich and Pyle 1959, in round figures
APPEAR = dict(capitate=((0, .5), (0, .5)), hamate=((0, .6), (0, .6)), radius=((.7, 1.2), (.9, 1.5)), triquetrum=((1.5, 3), (2, 3.5)), lunate=((2.5, 4), (3, 5)),
              trapezium=((3.5, 5), (4.5, 6.5)), trapezoid=((3.5, 5), (4.5, 6.5)), scaphoid=((3.5, 5.5), (4.5, 6.5)), ulna=((5, 6.5), (6, 7.5)),
              pisiform=((8, 10), (10, 12)), sesamoid=((10, 12), (12, 13.5)))
FUSED = dict(DP=((12.5, 14.5), (14.5, 16.5)), PP=((13.5, 15.5), (15.5, 17.5)), MP=((13.5, 15.5), (15.5, 17.5)), MC=((13.5, 15.5), (15.5, 17.5)),
             ulna=((16, 18), (17, 19)), radius=((16, 18), (17, 19)))

@pytest.mark.parametrize('centre', APPEAR)
@pytest.mark.parametrize('sex', SEXES)
def test_centres_appear_when_the_atlases_say(centre, sex):
    lo, hi = APPEAR[centre][sex == 'M']
    assert lo <= O.loc[centre, f'appear_{sex}']/12 <= hi

@pytest.mark.parametrize('bone', [*TUBULAR, 'radius', 'ulna'])
@pytest.mark.parametrize('sex', SEXES)
def test_tubular_bones_get_an_epiphysis_and_fuse_when_the_atlases_say(bone, sex):
    o, first = O.loc[bone], dict(F=(10, 24), M=(13, 36))[sex]
    assert o.kind == 'epiphysis'
    if bone != 'ulna': assert first[0] <= o[f'appear_{sex}'] <= first[1]
    lo, hi = FUSED[bone if bone in FUSED else bone[:2]][sex == 'M']
    assert lo <= o[f'fuse_end_{sex}']/12 <= hi and o[f'fuse_start_{sex}'] < o[f'fuse_end_{sex}']

def test_there_are_nineteen_tubular_bones_and_eight_carpals():
    assert len(TUBULAR) == 19 and set(O.query("kind == 'epiphysis'").index) == {*TUBULAR, 'radius', 'ulna'}
    assert set(O.query("kind == 'carpal'").index) == set(CARPALS) and len(CARPALS) == 8

@pytest.mark.parametrize('sex', SEXES)
def test_order_of_appearance_and_of_fusion(sex):
    a, f = O[f'appear_{sex}'], O[f'fuse_end_{sex}'].astype(float)
    assert a['capitate'] <= a['hamate'] < a['radius'] < a['triquetrum'] < a['lunate'] < a[['trapezium', 'trapezoid', 'scaphoid']].min()
    assert a[['trapezium', 'trapezoid', 'scaphoid']].max() < a['ulna'] < a['pisiform'] < a['sesamoid']
    rest = [b for b in TUBULAR if not b.startswith('DP')]
    assert f[[b for b in TUBULAR if b.startswith('DP')]].max() < f[rest].min() and f[rest].max() < f['ulna'] < f['radius'] == f.max()

def test_girls_are_ahead_months_in_infancy_and_about_two_years_at_puberty():
    lead = lambda c, what: float(O.loc[c, f'{what}_M'] - O.loc[c, f'{what}_F'])
    assert all(lead(c, 'appear') > 0 for c in O.index)
    assert 3 <= lead('PP3', 'appear') <= 9 and 18 <= lead('PP3', 'fuse_end') <= 30

@pytest.mark.parametrize('sex', SEXES)
@pytest.mark.parametrize('centre', O.index)
def test_no_centre_ever_goes_back(centre, sex):
    s = [stage(centre, a, sex) for a in np.arange(0, 241, 3)]
    for k in ('present', 'size', 'fused'): assert (np.diff([float(o[k]) for o in s]) >= 0).all(), k
    if O.kind[centre] == 'epiphysis': assert s[-1]['fused'] == 1 and not s[0]['present'] and max(o['width'] for o in s) > 1
    else: assert s[-1]['size'] == 1 and s[-1]['fused'] == 0

# ---------------------------------------------------------------- what is drawn

def bones(age, sex, seed=None):
    h = hand_geometry(age, sex, None if seed is None else np.random.default_rng(seed), variation=0 if seed is None else 1)
    return h, draw_bones((230, 180), h, make_view(1.02/h.scale, t=(86, 190)))

@pytest.mark.parametrize('sex', SEXES)
def test_every_bone_is_drawn_at_every_age(sex):
    for age in (0, 9, 30, 90, 150, 190, 228):
        h, _ = bones(age, sex)
        names = {t.name for t in h.tubes}
        assert {*TUBULAR, 'radius', 'ulna'} <= names
        half = [c for c in O.index if O.kind[c] == 'epiphysis' and stage(c, age, sex)['present'] and stage(c, age, sex)['fused'] < 1]
        assert {n for n in names if n.endswith('_epiphysis')} == {f'{c}_epiphysis' for c in half}
        assert {b.name for b in h.blobs} == {c for c in O.index if O.kind[c] != 'epiphysis' and stage(c, age, sex)['present']}

@pytest.mark.parametrize('sex', SEXES)
def test_carpals_fill_the_wrist_with_age(sex):
    "The bone between metacarpals and forearm grows from nothing at birth: the sign that is read in infants."
    area = []
    for age in (0, 12, 36, 60, 96, 150):
        h, b = bones(age, sex)
        on, v = np.zeros(b.shape, np.uint8), make_view(1.02/h.scale, t=(86, 190))
        for o in h.blobs:
            if o.name != 'sesamoid': cv2.fillPoly(on, [np.int32(np.rint(v(o.centre+o.contour)))], 1)
        inner = cv2.erode(on, np.ones((3, 3))) > 0
        assert (b[inner] > .5).mean() > .95 if inner.any() else True   # corners of concave bones are cut
        assert bool(h.blobs) == bool(on.any())
        area.append(on.sum())
    assert area[0] == 0 and (np.diff(area) > 0).all() and area[-1] > 1000

@pytest.mark.parametrize('sex,open_at,closed_at', [('F', 120, 200), ('M', 140, 220)])
@pytest.mark.parametrize('bone', ['PP3', 'MP2', 'DP4', 'MC3', 'PP5'])
def test_the_growth_plate_is_a_gap_until_it_fuses(sex, open_at, closed_at, bone):
    "Along the bone's axis the thinnest place near its growing end is nearly empty in childhood and filled when grown."
    def thinnest(age):
        h = hand_geometry(age, sex, variation=0)
        keep = [t for t in h.tubes if t.name.split('_')[0] == bone]
        h.tubes, h.blobs = keep, []
        v = make_view(6/h.scale, t=(500, 1250))
        b = draw_bones((1300, 1000), h, v)
        p, q = (h.landmarks[f'{bone}_{e}'] for e in (('head', 'base') if bone.startswith('MC') else ('base', 'head')))
        line = [v(p + u*(q-p)) for u in np.linspace(3*h.scale/np.linalg.norm(q-p), .4, 200)]   # past the joint's cartilage
        return min(cv2.getRectSubPix(b, (1, 1), tuple(map(float, o)))[0, 0] for o in line), b.max()
    (young, y), (old, o) = thinnest(open_at), thinnest(closed_at)
    assert young < .15*y and old > .15*o and young < .5*old

@pytest.mark.parametrize('sex', SEXES)
def test_bones_never_shrink_and_boys_end_longer(sex):
    g = [growth(a, sex) for a in range(0, 241)]
    assert (np.diff(g) >= 0).all() and g[0] < .3 and growth(228, 'M') > growth(228, 'F') and growth(144, 'F') > growth(144, 'M')

def test_age_can_be_read_from_the_drawn_film():
    "Film by film, the share of bone in the hand rises with age in the median of several individuals."
    def share(age, s):
        p = make_phantom(s, age, 'F', size=160, nuisance=0)
        x, in_ = p.pixels.astype(float), cv2.erode(np.uint8(p.mask & ~p.objects['forearm']), np.ones((5, 5))) > 0
        return np.std(x[in_])/np.mean(x[in_])
    med = [np.median([share(a, s) for s in range(4)]) for a in (9, 60, 190)]
    assert len(set(np.round(med, 3))) == 3
    young, grown = make_phantom(1, 9, 'F', nuisance=0), make_phantom(1, 200, 'F', nuisance=0)
    assert young.spacing < .75*grown.spacing     # both fill the film, so the small hand has the finer pixel

# ---------------------------------------------------------------- seeds, sizes, sexes

@pytest.mark.parametrize('kw', [{}, dict(size=96), dict(fault='second_hand'), dict(fault='bright_plate'), dict(nuisance=0), dict(side='R', sex='F', age_months=60)])
def test_a_seed_is_a_film(kw):
    kw = dict(size=128) | kw
    assert same(make_phantom(7, **kw), make_phantom(7, **kw))
    a, b = make_phantom(7, **kw), make_phantom(8, **kw)
    assert a.pixels.shape != b.pixels.shape or (a.pixels != b.pixels).any()

def test_a_seed_is_a_film_in_another_process():
    code = 'import hashlib; from boneage.phantom import *; print(hashlib.sha256(make_phantom(11, size=128).pixels.tobytes()+make_nonhand("foot", 3, size=96).tobytes()).hexdigest())'
    import hashlib
    here = hashlib.sha256(make_phantom(11, size=128).pixels.tobytes()+make_nonhand('foot', 3, size=96).tobytes()).hexdigest()
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == here

def test_the_global_random_state_is_neither_used_nor_touched():
    np.random.seed(1); a = make_phantom(3, size=64); left = np.random.random()
    np.random.seed(1); assert np.random.random() == left
    np.random.seed(2); assert same(a, make_phantom(3, size=64))

@pytest.mark.parametrize('sex', SEXES)
def test_sex_and_age_are_what_was_asked_for(sex):
    p = make_phantom(2, 100.5, sex, size=64)
    assert (p.age_months, p.sex) == (100.5, sex)

def test_unasked_ages_and_sexes_spread():
    ps = [make_phantom(s, size=48) for s in range(40)]
    assert 12 <= sum(p.sex == 'F' for p in ps) <= 28
    assert min(p.age_months for p in ps) < 50 and max(p.age_months for p in ps) > 180

@pytest.mark.parametrize('size', [32, 64, 192, 600])
def test_sizes(size):
    p = make_phantom(4, size=size)
    assert max(p.pixels.shape) == size and p.pixels.dtype == np.uint8 and p.mask.dtype == bool and p.mask.shape == p.pixels.shape
    assert all(o.shape == p.mask.shape and o.dtype == bool for o in p.objects.values())

@pytest.mark.parametrize('aspect', [.5, 1., 1.6])
def test_aspect(aspect):
    h, w = make_phantom(4, size=200, aspect=aspect).pixels.shape
    assert max(h, w) == 200 and abs(w/h - aspect) < .02

@pytest.mark.parametrize('kw,words', [(dict(fault='upside_down'), 'use None or one of inverted'), (dict(sex='unknown'), "use 'F' or 'M'"), (dict(age_months=-1), 'use 0 to 240'),
                                      (dict(age_months=400), 'use 0 to 240'), (dict(side='both'), "use 'L' or 'R'")])
def test_what_cannot_be_drawn_says_what_can(kw, words):
    with pytest.raises(ValueError, match=words): make_phantom(0, **kw)

# ---------------------------------------------------------------- truth

@pytest.mark.parametrize('seed,age', [(0, 8), (1, 40), (2, 110), (3, 220)])
def test_mask_and_pixels_agree_to_a_pixel(seed, age):
    p = make_phantom(seed, age, 'M', nuisance=0, size=320)
    lit, one = p.pixels > p.pixels[~p.mask].min() + 3, np.ones((3, 3))
    assert not (lit & ~(cv2.dilate(np.uint8(p.mask), one, iterations=2) > 0)).any()            # nothing shines outside
    assert lit[cv2.erode(np.uint8(p.mask), one, iterations=4) > 0].all()                       # nothing is empty inside

@pytest.mark.parametrize('seed', range(4))
def test_the_same_hand_at_another_size(seed):
    a, b = (make_phantom(seed, size=s) for s in (160, 480))
    small = cv2.resize(b.mask.astype(np.float32), a.mask.shape[::-1], interpolation=cv2.INTER_AREA) > .5
    assert 2*(a.mask & small).sum()/(a.mask.sum()+small.sum()) > .975    # one pixel all round would be 0.95
    for k in a.landmarks: np.testing.assert_allclose(np.array(b.landmarks[k])/3, a.landmarks[k], atol=1.5)

@pytest.mark.parametrize('seed', range(6))
def test_landmarks_lie_in_the_hand(seed):
    p = make_phantom(seed, size=200, nuisance=0)
    for k, (y, x) in p.landmarks.items():
        if k.startswith('tip') or not (0 <= y < p.shape[0]-1 and 0 <= x < p.shape[1]-1): continue
        assert p.mask[round(y), round(x)], k
    assert len(p.landmarks) >= 2*19 + 5 + 3

@pytest.mark.parametrize('seed', range(20))
def test_what_is_no_hand_is_not_in_the_mask(seed):
    p = make_phantom(seed, size=96)
    assert .05 < p.mask.mean() < .55
    for k in ('frame', 'marker'):
        if k in p.objects: assert not (p.objects[k] & p.mask).any(), k
    assert not (p.objects['forearm'] & ~p.mask).any()

def test_clean_films_show_bone_bright_to_the_loader():
    "Wide white surrounds used to make the loader turn some films."
    assert [s for s in [*range(24), 265, 674, 385, 595, 592, 1098, 1161] if looks_inverted(make_phantom(s, size=128).pixels)[0]] == []

# ---------------------------------------------------------------- faults

@pytest.mark.parametrize('fault', FAULTS)
@pytest.mark.parametrize('seed', [5, 31])
def test_each_fault_shows(fault, seed):
    p, clean = make_phantom(seed, 118, 'M', fault=fault, aspect=.8, size=192), make_phantom(seed, 118, 'M', aspect=.8, size=192)
    hand, m = lambda o: o.pixels[o.mask].astype(float), p.mask
    contrast = lambda o: hand(o) - np.median(o.pixels[~o.mask & ~o.objects.get('frame', o.mask)])
    tilt = lambda o: abs(np.degrees(np.arctan2(o.landmarks['MC3_head'][1]-o.landmarks['wrist'][1], o.landmarks['wrist'][0]-o.landmarks['MC3_head'][0])))
    assert p.fault == fault and m.any()
    if fault == 'inverted': assert (p.pixels == 255-clean.pixels).all() and (m == clean.mask).all() and looks_inverted(p.pixels)[0]
    if fault == 'second_hand': assert p.objects['second_hand'].sum() > .3*m.sum() and not (p.objects['second_hand'] & m).any()
    if fault == 'rotated': assert tilt(p) > 30 > tilt(clean)
    if fault == 'cropped': assert min(p.landmarks[f'tip{k}'][0] for k in (2, 3, 4)) < 0 < min(clean.landmarks[f'tip{k}'][0] for k in (2, 3, 4))
    if fault == 'dark': assert np.percentile(hand(p), 90) < 40
    if fault == 'overexposed': assert np.percentile(contrast(p), 60) < .7*np.percentile(contrast(clean), 60)
    if fault == 'bright_plate': assert (p.objects['plate'] & m).any() and (p.objects['plate'] & ~m).any()
    if fault == 'blurred': assert cv2.Laplacian(p.pixels, cv2.CV_32F)[m].std() < .9*cv2.Laplacian(clean.pixels, cv2.CV_32F)[m].std()
    if fault == 'marker_on_hand': assert (p.objects['marker'] & m).sum() > .3*p.objects['marker'].sum()

def test_every_fault_has_a_test():
    assert set(FAULTS) == {'inverted', 'second_hand', 'rotated', 'cropped', 'dark', 'overexposed', 'bright_plate', 'blurred', 'marker_on_hand'}

# ---------------------------------------------------------------- films without a hand

@pytest.mark.parametrize('kind', NONHANDS)
def test_nonhands(kind):
    a, b, c = make_nonhand(kind, 1, size=120), make_nonhand(kind, 1, size=120), make_nonhand(kind, 2, size=120)
    assert a.dtype == np.uint8 and max(a.shape) == 120 and (a == b).all() and (a.shape != c.shape or (a != c).any())
    assert (np.ptp(a) == 0) == (kind == 'uniform')

def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match='use one of empty'): make_nonhand('hand')

# ---------------------------------------------------------------- a labelled folder

def files(folder): return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(Path(folder).rglob('*.png')) if not p.name.startswith('.')}

def test_the_table_is_true(tmp_path):
    df = phantom_df(8, tmp_path/'röntgen films', seed=2, size=80, fault_rate=.4)
    assert list(df.columns) == ['id', 'path', 'sex', 'age_months', 'patient_id', 'split', 'source', 'fault', 'true_mask_path']
    assert df.id.is_unique and (df.source == 'synthetic').all() and df.fault.ne('').any() and df.fault.eq('').any()
    for k, r in enumerate(df.itertuples()):
        p = make_phantom(2*100_003+k, r.age_months, r.sex, size=80, fault=r.fault or None)
        assert (cv2.imread(r.path, 0) == p.pixels).all() and (read_mask(r.true_mask_path, p.shape) == p.mask).all()

def test_ages_spread_evenly_for_each_sex_and_splits_are_used(tmp_path):
    df = phantom_df(60, tmp_path, size=32)
    for _, g in df.groupby('sex'):
        a = np.sort(g.age_months)
        assert len(g) == 30 and np.diff(a).max() < 3*np.diff(a).mean() and a[0] < 30 and a[-1] > 198
    n = df.split.value_counts()
    assert 36 <= n['train'] <= 48 and min(n['valid'], n['test']) >= 5 and df.groupby('patient_id').split.nunique().max() == 1

def test_workers_draw_the_same_films(tmp_path):
    phantom_df(4, tmp_path/'a', size=64); phantom_df(4, tmp_path/'b', size=64, n_jobs=2)
    assert files(tmp_path/'a') == files(tmp_path/'b')

def test_killed_and_run_again_is_as_if_never_killed(tmp_path):
    args = f'14, {str(tmp_path/"cut")!r}, seed=3, size=300'
    job = subprocess.Popen([sys.executable, '-c', f'from boneage.phantom import phantom_df; phantom_df({args})'])
    t = time.time()
    while len(files(tmp_path/'cut') if (tmp_path/'cut').exists() else ()) < 4:
        assert job.poll() is None and time.time() - t < 60
        time.sleep(.005)
    job.send_signal(signal.SIGKILL); job.wait()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path/'cut').glob('phantom-*.png')}
    assert 0 < len(before) < 14
    df = phantom_df(14, tmp_path/'cut', seed=3, size=300)
    last = max(before)    # the film being written when the process died may be drawn again
    assert all(p.stat().st_mtime_ns == m for p, m in before.items() if p != last)
    phantom_df(14, tmp_path/'whole', seed=3, size=300)
    assert files(tmp_path/'cut') == files(tmp_path/'whole') and len(df) == 14

def test_other_settings_redraw_and_a_strangers_folder_is_left_alone(tmp_path):
    a = phantom_df(3, tmp_path/'a', size=64); old = files(tmp_path/'a')
    phantom_df(3, tmp_path/'a', size=64, seed=9)
    assert all(files(tmp_path/'a')[k] != v for k, v in old.items() if not k.startswith('true'))
    (tmp_path/'a'/'phantoms.json').unlink(); mine = files(tmp_path/'a')
    with pytest.raises(FileExistsError, match='give an empty folder'): phantom_df(3, tmp_path/'a', size=64)
    assert files(tmp_path/'a') == mine and len(a) == 3

def test_the_folder_says_it_is_synthetic(tmp_path):
    phantom_df(1, tmp_path, size=48)
    assert json.loads((tmp_path/'phantoms.json').read_text())['synthetic'] is True

# ---------------------------------------------------------------- speed

def best(f, n=4):
    t = []
    for _ in range(n): s = time.process_time(); f(); t.append(time.process_time()-s)
    return min(t)

def test_a_film_takes_tens_of_milliseconds_and_grows_with_its_pixels():
    small, mid, big = (best(lambda: make_phantom(3, size=s)) for s in (128, 256, 768))
    assert mid < .5 and big < 40*small and big < 9*2*mid
