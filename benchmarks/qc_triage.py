"""How early the queue of `boneage qc` shows faults planted by plain transforms, and faults known beforehand.

    boneage segment films.csv --out work && boneage crop work && boneage qc work
    python benchmarks/qc_triage.py work --seed 2                                  # planted faults, 6 films of each kind
    python benchmarks/qc_triage.py work --seed 2 --defects data/rsna_defects.csv  # and films a person has called defective
    python benchmarks/qc_triage.py demo --films 600                               # the same on synthetic films

Each kind of fault is planted on films of the table drawn with --seed. A film with a fault goes through segmenter and crop like any other; a wrong
outline or a wrong crop is put in their place. The films that were changed leave the table (copies keep theirs), the changed ones join it, and the
whole queue is ranked again; known defects are looked for in the queue as it is. Nothing here knows what `boneage.phantom` plants. The limits of the flags were set with --seed 1; report another seed.
--curve writes the share of faults met against the share of films looked at.
"""
import argparse, os, time
from pathlib import Path

os.environ.setdefault('TQDM_DISABLE', '1')
import cv2, numpy as np, pandas as pd

from boneage.core import load_film, read_manifest, read_mask, write_csv, write_png
from boneage.cropping import crop_df
from boneage.phantom import phantom_df
from boneage.qc_widgets import find_twins, found_in, qc_flags, qc_measure, rank_films, triage_curve
from boneage.segmentation import get_segmenter, segment_df

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument('work', type=Path, help='folder with qc.csv from `boneage qc`, or `demo`')
ap.add_argument('--films', type=int, default=600, help='synthetic films, for demo')
ap.add_argument('--per', type=int, default=6, help='films of each kind of fault')
ap.add_argument('--seed', type=int, default=2)
ap.add_argument('--segmenter', default='hand_vit_tiny', help='hand_vit_tiny, classical, vit_b, vit_l or vit_h')
ap.add_argument('--defects', type=Path, help='CSV with id, defect, severity of films a person looked at')
ap.add_argument('--out', type=Path, help='folder for the changed films; kept, so that a second run is quick')
ap.add_argument('--curve', type=Path, help='CSV to write')
ap.add_argument('--jobs', type=int, default=1)

# ---- faults of a film: pixels, hand, generator, pixels of another film -> pixels

def palm(m):
    d = cv2.distanceTransform(np.pad(m, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(d.argmax(), d.shape)
    return int(y), int(x), float(d.max())

def box(m):
    ys, xs = np.nonzero(m)
    return ys.min(), ys.max()+1, xs.min(), xs.max()+1

def grey(x): return np.clip(x, 0, 255).astype(np.uint8)
def like(img, other): return cv2.resize(other, img.shape[::-1], interpolation=cv2.INTER_AREA)
def again(img, quality): return cv2.imdecode(cv2.imencode('.jpg', img, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_GRAYSCALE)
def beyond(n, share): return (np.arange(n) < share*n) if share > 0 else (np.arange(n) >= (1+share)*n)

def turn(img, deg):
    h, w = img.shape
    M = cv2.getRotationMatrix2D((w/2, h/2), deg, 1)
    c, s = abs(M[0, 0]), abs(M[0, 1])
    W, H = int(h*s+w*c), int(h*c+w*s)
    M[:, 2] += (W-w)/2, (H-h)/2
    return cv2.warpAffine(img, M, (W, H), borderValue=int(np.median(img[:5])))

def motion(img, m, g, o):
    n, a = int(max(img.shape)*g.uniform(.05, .1)), g.uniform(0, np.pi)
    k, v = np.zeros((n, n), np.float32), n/2*np.array([np.cos(a), np.sin(a)])
    cv2.line(k, tuple((n/2-v).astype(int).tolist()), tuple((n/2+v).astype(int).tolist()), 1)
    return cv2.filter2D(img, -1, k/k.sum())

def over(img, m, g, o):
    s, o, z = int(img.shape[1]*g.uniform(.4, .6)), like(img, o), np.zeros_like(img)
    if g.random() < .5: z[:, s:] = o[:, :-s]
    else: z[:, :-s] = o[:, s:]
    return np.maximum(img, z)

def written(img, m, g, o):
    (y, x, r), out = palm(m), img.copy()
    for k in (-1, 0, 1): cv2.putText(out, f'NAME {g.integers(1e9)}', (int(x-2.5*r), int(y+k*r)), cv2.FONT_HERSHEY_SIMPLEX, r/32, 255, max(2, int(r/12)))
    return out

def page_of_text(img, m, g, o):
    out = np.zeros_like(img)
    for k in range(1, 13): cv2.putText(out, f'report {g.integers(1e12)}', (5, int(k*img.shape[0]/13)), cv2.FONT_HERSHEY_SIMPLEX, img.shape[1]/450, 230, 1)
    return out

def bar(img, m, g, o):
    (y, x, r), a, out = palm(m), g.uniform(0, np.pi), img.copy()
    v = r*g.uniform(1, 2)*np.array([np.cos(a), np.sin(a)])
    return cv2.line(out, (int(x-v[0]), int(y-v[1])), (int(x+v[0]), int(y+v[1])), 255, max(2, int(r*g.uniform(.12, .3))))

def plate(img, m, g, o):
    out, at = img.astype(float), beyond(img.shape[1], g.choice([-1, 1])*g.uniform(.35, .65))
    out[:, at] = np.maximum(out[:, at], np.median(img[m])*g.uniform(.8, 1.3))+.2*out[:, at]
    return grey(out)

def cast(img, m, g, o):
    (y, x, r), out = palm(m), img.astype(float)
    near = cv2.dilate(m.astype(np.uint8), np.ones((int(.5*r)|1,)*2)) > 0
    near[:int(y+.2*r)] = False
    out[near] = out[near]*.3+g.uniform(130, 190)+cv2.resize(g.normal(0, 25, (12, 12)), img.shape[::-1], interpolation=cv2.INTER_CUBIC)[near]
    return grey(out)

def black_part(img, m, g, o):
    (y, x, r), out = palm(m), img.copy()
    if g.random() < .5: out[int(y-g.uniform(0, .6)*r):] = 0
    else: out[:, :x] = 0
    return out

def wedge(img, m, g, o):
    (y0, *_), (y, x, r), out, k = box(m), palm(m), img.copy(), g.uniform(.3, .6)
    return cv2.fillPoly(out, [np.array([[0, 0], [img.shape[1], 0], [img.shape[1], int(y0+k*(y-y0))], [0, int(y0+(k-.3)*(y-y0))]])], 0)

def covered(img, m, g, o):
    (y, x, r), out = palm(m), img.copy()
    y, x, s = y-g.uniform(-.5, 1.5)*r, x+g.uniform(-.8, .8)*r, r*g.uniform(.6, 1)
    return cv2.rectangle(out, (int(x-s), int(y-s)), (int(x+s), int(y+s)), int(g.choice([0, 255])), -1)

def far_away(img, m, g, o):
    (h, w), f, out = img.shape, g.uniform(.2, .35), np.full_like(img, int(np.median(img[:3])))
    small = cv2.resize(img, (int(w*f), int(h*f)), interpolation=cv2.INTER_AREA)
    y, x = int(g.uniform(0, h-small.shape[0])), int(g.uniform(0, w-small.shape[1]))
    out[y:y+small.shape[0], x:x+small.shape[1]] = small
    return out

def cropped(img, m, g, o):
    (y0, y1, x0, x1), (y, x, r), where = box(m), palm(m), g.integers(4)
    if where == 0: return img[int(y0+g.uniform(.3, .7)*(y-r-y0)):]
    if where == 1: return img[:int(y+r*g.uniform(.2, .8))]
    cut = int(g.uniform(.2, .4)*(x1-x0))
    return img[:, x0+cut:] if where == 2 else img[:, :x1-cut]

def zoomed(img, m, g, o):
    y, x, r = palm(m)
    a = int(r*g.uniform(1.3, 1.8))
    return img[max(0, y-a):y+a, max(0, x-a):x+a]

def finger_gone(img, m, g, o):
    (y0, *_), (y, x, r), out = box(m), palm(m), img.copy()
    s = int(x+g.uniform(-.6, .2)*r)
    out[y0:int(y-.9*r), s:int(s+.8*r)] = np.median(img[~m])
    return out

def striped(img, m, g, o):
    out, n = img.copy(), max(6, img.shape[0]//12)
    for k in range(0, len(img), n): out[k:k+n//2] = 0
    return out

def pixelated(img, m, g, o):
    s = int(g.integers(28, 48))
    return cv2.resize(cv2.resize(img, (s, s), interpolation=cv2.INTER_AREA), img.shape[::-1], interpolation=cv2.INTER_NEAREST)

def ramp(img, m, g, o):
    r = np.linspace(0, g.uniform(180, 250), img.shape[1])[None]
    return grey(img*.5+(r if g.random() < .5 else r[:, ::-1]))

FILM = dict(motion=motion, second_hand_over=over, text_over=written, page_of_text=page_of_text, bar=bar, plate=plate, cast=cast, black_part=black_part, wedge=wedge,
    covered=covered, far_away=far_away, cropped=cropped, zoomed=zoomed, finger_gone=finger_gone, striped=striped, pixelated=pixelated, ramp=ramp,
    blurred=lambda i, m, g, o: cv2.GaussianBlur(i, (0, 0), max(i.shape)*g.uniform(.012, .025)),
    dark=lambda i, m, g, o: grey(i*g.uniform(.06, .14)),
    bright=lambda i, m, g, o: grey(i*g.uniform(2.5, 4)+g.uniform(40, 90)),
    white=lambda i, m, g, o: grey(i*.12+g.uniform(190, 220)),
    flat=lambda i, m, g, o: grey(i*g.uniform(.05, .1)+g.uniform(40, 160)),
    gamma_dark=lambda i, m, g, o: grey(255*(i/255.)**g.uniform(3, 4.5)),
    gamma_bright=lambda i, m, g, o: grey(255*(i/255.)**g.uniform(.12, .22)),
    noise=lambda i, m, g, o: grey(i+g.normal(0, g.uniform(45, 80), i.shape)),
    pepper=lambda i, m, g, o: np.choose(np.digitize(g.random(i.shape), [.1, .9]), [np.zeros_like(i), i, np.full_like(i, 255)]),
    posterized=lambda i, m, g, o: (np.digitize(i, [60, 120, 190])*80).astype(np.uint8),
    crushed=lambda i, m, g, o: again(i, int(g.integers(1, 4))),
    inverted=lambda i, m, g, o: 255-i,
    mirrored=lambda i, m, g, o: i[:, ::-1],
    upside_down=lambda i, m, g, o: i[::-1],
    on_its_side=lambda i, m, g, o: np.rot90(i, g.choice([1, 3])),
    on_its_head=lambda i, m, g, o: np.rot90(i, 2),
    aslant=lambda i, m, g, o: turn(i, g.choice([-1, 1])*g.uniform(35, 70)),
    squashed=lambda i, m, g, o: cv2.resize(i, (i.shape[1]//2, i.shape[0]) if g.random() < .5 else (i.shape[1], i.shape[0]//2), interpolation=cv2.INTER_AREA),
    two_hands=lambda i, m, g, o: np.hstack([i, like(i, o)[:, ::-1] if g.random() < .5 else like(i, o)]),
    double_exposure=lambda i, m, g, o: grey(i*.55+like(i, o)[:, ::-1]*.45),
    rolled=lambda i, m, g, o: np.roll(i, i.shape[1]//2, 1),
    blank=lambda i, m, g, o: grey(g.normal(g.uniform(20, 200), 3, i.shape)),
    static=lambda i, m, g, o: g.integers(0, 256, i.shape).astype(np.uint8))

def two_faults(img, m, g, o):
    a, b = g.choice(['blurred', 'dark', 'aslant', 'two_hands', 'bar', 'noise', 'mirrored', 'far_away'], 2, replace=False)
    img = np.ascontiguousarray(FILM[a](img, m, g, o))
    return FILM[b](img, cv2.resize(m.astype(np.uint8), img.shape[::-1]) > 0, g, o)
FILM['two_faults'] = two_faults

COPY = dict(copy=lambda i, m, g, o: i, copy_darker=lambda i, m, g, o: grey(i*.75), copy_smaller=lambda i, m, g, o: cv2.resize(i, None, fx=.6, fy=.6, interpolation=cv2.INTER_AREA),
    copy_recompressed=lambda i, m, g, o: again(i, 40))

# ---- faults of an outline: hand, pixels, generator, hand of another film -> outline

def disk(r): return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2*max(1, int(r))+1,)*2)
def morph(m, op, r): return cv2.morphologyEx(m.astype(np.uint8), op, disk(r)) > 0
def ring(m): # distance from the palm's centre, palm radii
    y, x, r = palm(m)
    return np.hypot(*np.ogrid[-y:len(m)-y, -x:m.shape[1]-x])/r
def rows(m, a, b): # rows between a and b palm radii below the palm's centre
    y, _, r = palm(m)
    k = (np.arange(len(m))-y)/r
    return ((k >= a) & (k < b))[:, None]
def side(m, g): return (np.arange(m.shape[1]) < palm(m)[1])[None] ^ (g.random() < .5)

def finger_lost(m, i, g, o):
    y, x, r = palm(m)
    thin = m & ~morph(m, cv2.MORPH_OPEN, .5*r)
    thin[y:] = False
    n, lab, stats, _ = cv2.connectedComponentsWithStats(thin.astype(np.uint8))
    large = [k for k in range(1, n) if stats[k, 4] > .2*r*r]
    return m & (lab != g.choice(large)) if large else m & ~rows(m, -9, -1.2)

def hull(m, i, g, o):
    c = np.concatenate(cv2.findContours(m.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0])
    return cv2.fillPoly(np.zeros(m.shape, np.uint8), [cv2.convexHull(c)], 1) > 0

def boxed(m, i, g, o):
    (y0, y1, x0, x1), out = box(m), np.zeros_like(m)
    out[y0:y1, x0:x1] = True
    return out

def corner(m, i, g, o):
    s, out = int(palm(m)[2]*g.uniform(.7, 1.1)), m.copy()
    out[:s, slice(0, s) if g.random() < .5 else slice(-s, None)] = True
    return out

def shifted(m, i, g, o):
    a, r = g.uniform(0, 6.28), .6*palm(m)[2]
    return np.roll(m, (int(r*np.sin(a)), int(r*np.cos(a))), (0, 1))

def tips_lost(m, i, g, o):
    y, x, r = palm(m)
    return m & ~rows(m, -99, (box(m)[0]-y)/r+g.uniform(.6, 1))

OUTLINE = dict(finger_lost=finger_lost, hull=hull, boxed=boxed, corner=corner, shifted=shifted, tips_lost=tips_lost,
    half=lambda m, i, g, o: m & side(m, g),
    no_fingers=lambda m, i, g, o: m & ~rows(m, -99, -g.uniform(.9, 1.3)),
    no_wrist=lambda m, i, g, o: m & ~rows(m, g.uniform(.1, .7), 99),
    forearm_only=lambda m, i, g, o: m & rows(m, .8, 99),
    fat=lambda m, i, g, o: morph(m, cv2.MORPH_DILATE, palm(m)[2]*g.uniform(.25, .4)),
    thin=lambda m, i, g, o: morph(m, cv2.MORPH_ERODE, palm(m)[2]*g.uniform(.12, .2)),
    of_another=lambda m, i, g, o: cv2.resize(o.astype(np.uint8), m.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0,
    everything=lambda m, i, g, o: np.ones_like(m),
    surround=lambda m, i, g, o: ~m,
    hole=lambda m, i, g, o: m & ~(ring(m) < g.uniform(.35, .6)),
    with_plate=lambda m, i, g, o: m | (rows(m, -1, 1.5) & side(m, g)),
    circle=lambda m, i, g, o: ring(m) < 1.2,
    upside=lambda m, i, g, o: m[::-1],
    mirror=lambda m, i, g, o: m[:, ::-1],
    nothing=lambda m, i, g, o: np.zeros_like(m),
    speck=lambda m, i, g, o: ring(m) < .15,
    frayed=lambda m, i, g, o: m & (cv2.resize(g.random((m.shape[0]//4, m.shape[1]//4)).astype(np.float32), m.shape[::-1]) > .35),
    threshold=lambda m, i, g, o: i > np.percentile(i, g.uniform(60, 80)),
    bones=lambda m, i, g, o: m & (i > np.percentile(i[m], g.uniform(45, 60))))

# ---- faults of a crop: crop, crop of another film -> crop

CROP = dict(crop_of_another=lambda c, o: o, crop_black=lambda c, o: c*0, crop_half=lambda c, o: c*(np.arange(c.shape[1]) < c.shape[1]//2)[None].astype(np.uint8),
    crop_turned=lambda c, o: np.rot90(c, 2), crop_lost=None)

# ----

def plant(pool, a, out):
    "Changed films, their outlines and crops as a table; each film of the pool is used once."
    g, rows, k = np.random.default_rng(a.seed), [], 0
    for kind in [*FILM, *COPY, *OUTLINE, *CROP]:
        for j in range(a.per):
            r, other = pool.iloc[k % len(pool)], pool.iloc[(7*k+3) % len(pool)]
            rad, k = load_film(r), k+1
            img, m, pic = rad.pixels, read_mask(r.mask_path, rad.shape), load_film(other)
            row = dict(id=f'{kind}-{j}', fault=kind, source_id=r['id'], path=str(out/'films'/f'{kind}-{j}.png')) | {c: r[c] for c in ('sex', 'age_months') if c in r}
            made = (FILM|COPY)[kind](img, m, g, pic.pixels) if kind in FILM|COPY else img
            write_png(row['path'], np.ascontiguousarray(made))
            if kind in OUTLINE:
                row |= dict(mask_path=str(out/'outlines'/f'{kind}-{j}.png'), seg_status='ok')
                write_png(row['mask_path'], np.ascontiguousarray(OUTLINE[kind](m, img, g, read_mask(other.mask_path, pic.shape))))
            if kind in CROP: row |= dict(mask_path=r.mask_path, seg_status='ok', crop_from=other.crop_path)
            rows.append(row)
    return pd.DataFrame(rows)

def spoil_crops(df):
    for r in df[df.fault.isin(list(CROP))].itertuples():
        if r.fault == 'crop_lost': Path(r.crop_path).unlink(missing_ok=True)
        else: write_png(r.crop_path, np.ascontiguousarray(CROP[r.fault](*(cv2.imread(p, cv2.IMREAD_GRAYSCALE) for p in (r.crop_path, r.crop_from)))))

def planted(pool, a, out):
    "The changed films, segmented, cropped and measured; a second call takes the files of the first."
    done = out/f'planted-{a.seed}-{a.per}-{a.segmenter}.pkl'
    if done.exists(): return pd.read_pickle(done)
    df = plant(pool, a, out)
    given = df.mask_path.notna()
    t0 = time.time()
    films = segment_df(df[~given].drop(columns=['mask_path', 'seg_status']), out, get_segmenter(a.segmenter), n_jobs=1)
    df = crop_df(pd.concat([films, df[given]], ignore_index=True), out, 256, n_jobs=a.jobs)
    spoil_crops(df)
    df = qc_measure(df, out, n_jobs=a.jobs)
    print(f'{len(df)} films changed, segmented, cropped and measured in {time.time()-t0:.0f} s')
    df.to_pickle(done)
    return df

def table(a):
    "A table with measures: `qc.csv`, or synthetic films."
    if str(a.work) != 'demo': return read_manifest(a.work/'qc.csv'), a.out or a.work/'planted'
    out = a.out or Path('data/demo_triage')
    df = phantom_df(a.films, out/'clean', seed=10+a.seed, n_jobs=a.jobs)
    return qc_flags(crop_df(df.assign(mask_path=df.true_mask_path, seg_status='ok'), out/'clean', 256, n_jobs=a.jobs), out/'clean', n_jobs=a.jobs), out

def line(name, curve, bad): print(f'{name:42} {int(bad.sum()):6}  ' + '  '.join(f'{found_in(curve, s):6.1%}' for s in (.05, .1, .2)))

def main(a):
    base, out = table(a)
    good = base[(base.seg_status == 'ok') & base.crop_path.notna()]
    pool = good.sample(min(len(good), a.per*len(FILM|COPY|OUTLINE|CROP)), random_state=a.seed)
    bad = planted(pool, a, out)
    rest = base[~base['id'].isin(bad.source_id[~bad.fault.isin(list(COPY))].astype(base['id'].dtype))]
    q = pd.concat([rest.assign(fault=''), bad], ignore_index=True)
    q = q.drop(columns=[c for c in ('m_twin', 'twin_id') if c in q])
    q = rank_films(q.assign(m_twin=find_twins(q)[0]))
    print(f'{len(q):,} films in the queue, {(q.fault != "").sum()} with a planted fault; met in the first   5%     10%     20%')
    curves, kinds = {}, dict(film=FILM, copy=COPY, outline=OUTLINE, crop=CROP)
    sets = {'planted, all kinds': q.fault != ''} | {f'planted: fault of the {k}': q.fault.isin(list(v)) for k, v in kinds.items()}
    alone = rank_films(base)
    old = known(alone, pd.read_csv(a.defects)) if a.defects else {}
    for name, is_bad in (sets|old).items():
        if not is_bad.any(): continue
        curves[name] = triage_curve(alone if name in old else q, is_bad)
        line(name, curves[name], is_bad)
    late = q[(q.fault != '') & (q.qc_rank > .1*len(q))].groupby('fault').size().sort_values(ascending=False)
    print('later than the first 10%:', ', '.join(f'{k} {v} of {a.per}' for k, v in late.items()) or 'none')
    print(f'films without a planted fault that carry a flag: {(q.qc_flags[q.fault == ""] != "").mean():.1%}')
    if a.curve: write_csv(pd.concat([thin(c).assign(faults=n, films=int((sets|old)[n].sum())) for n, c in curves.items()]), a.curve)

def thin(curve): # 61 points of a curve
    at = np.r_[np.linspace(0, .3, 46), np.linspace(.35, 1, 14)]
    return pd.DataFrame(dict(queue=at.round(4), found=np.interp(at, curve.queue, curve.found).round(4)))

def known(q, defects):
    "Films a person has called defective, by their worst severity."
    worse = defects.assign(id=defects['id'].astype(str)).groupby('id').severity.agg(lambda s: 'major' if (s == 'major').any() else 'minor' if (s == 'minor').any() else '')
    sev = q['id'].astype(str).map(worse)
    return {f'known defect: {k}': sev == k for k in ('major', 'minor')}

if __name__ == '__main__': main(ap.parse_args())
