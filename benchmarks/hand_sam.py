"""Dice of segmenters on the outlined films, and seconds a film.

    python benchmarks/hand_sam.py FOLDER [dev|test] [hand_vit_tiny classical] [--csv FILE] [--card FILE]

FOLDER holds rsna-299/ and rsna-original/. A name may be the path of a checkpoint; `hand_vit_tiny:raw` leaves the outline as the network drew it. A refused film counts with Dice 0 in the mean and is also counted apart.
--card writes the numbers into the card of the weights that were measured. Seconds are those of reading and segmenting one film, one after another, warm, on as many threads as OMP_NUM_THREADS says.
"""
import argparse, json, sys, time
from pathlib import Path
sys.path.insert(0, str(Path(__file__).parent))

import cv2, numpy as np, pandas as pd
from hand_masks import dice, hand_mask, load_hand_masks
from boneage.core import load_film
from boneage.rsna import rsna_manifest
from boneage.segmentation import get_segmenter

def films(folder, split):
    "Manifest rows of the outlined films"
    rows = [rsna_manifest(Path(folder)/s, verbose=False).assign(source=s) for s in ('rsna-299', 'rsna-original')]
    man = pd.concat(rows).astype(dict(id=str)).set_index(['source', 'id'])
    m = load_hand_masks(split=split)
    return m, [man.loc[(r.source, str(r.id))] for _, r in m.iterrows()]

def ci(x, stat, n=2000, seed=0):
    "95% bootstrap interval of a statistic over films"
    rng = np.random.default_rng(seed)
    return np.percentile([stat(x[rng.integers(0, len(x), len(x))]) for _ in range(n)], (2.5, 97.5))

def measure(seg, m, rows):
    "One row per film: Dice, status, seconds"
    out = []
    seg.segment(load_film(rows[0]).pixels)
    for (_, t), r in zip(m.iterrows(), rows):
        a = time.perf_counter(); px = load_film(r).pixels; o = seg.segment(px); s = time.perf_counter() - a
        out.append(dict(id=t.id, source=t.source, why=t.why, confidence=t.confidence, dice=dice(o.mask, hand_mask(t, px.shape)), ok=o.ok, reason=o.reason, score=o.predicted_iou, seconds=s, longer_side=max(px.shape)))
    return pd.DataFrame(out)

def summary(df):
    "Numbers for one segmenter"
    d = df.dice.to_numpy(); r = lambda *x: [round(float(o), 4) for o in x]
    p5 = lambda x: np.percentile(x, 5)
    return dict(films=len(df), mean_dice=r(d.mean())[0], mean_dice_ci95=r(*ci(d, np.mean)), p5_dice=r(p5(d))[0], p5_dice_ci95=r(*ci(d, p5)), median_dice=r(np.median(d))[0], least=r(d.min())[0],
                refused=int((~df.ok).sum()), mean_of_accepted=r(df.dice[df.ok].mean())[0])

def to_card(card, split, all):
    "Write the numbers of the first segmenter, with those of the others inside, into the card of its weights"
    o = json.loads(Path(card).read_text())
    (_, mine), *others = all.items()
    o.setdefault('metrics', {})[split] = mine | dict(others)
    o['metrics']['how'] = 'benchmarks/hand_sam.py; a refused film counts as Dice 0; intervals by bootstrap over films'
    Path(card).write_text(json.dumps(o, indent=1))

def named(name):
    "A segmenter by name or checkpoint; with `:raw` the outline stays as the network drew it"
    return get_segmenter(name.removesuffix(':raw'), **(dict(snap=False) if name.endswith(':raw') else {}))

if __name__ == '__main__':
    p = argparse.ArgumentParser(); p.add_argument('folder'); p.add_argument('split', nargs='?', default='dev'); p.add_argument('names', nargs='*'); p.add_argument('--csv'); p.add_argument('--card')
    a = p.parse_args()
    m, rows = films(a.folder, a.split)
    res = {n: measure(named(n), m, rows) for n in a.names or ['hand_vit_tiny', 'classical']}
    told = {n: summary(d) for n, d in res.items()}
    print(pd.DataFrame({n: o | dict(seconds=round(res[n].seconds.median(), 3), slowest=round(res[n].seconds.max(), 2)) for n, o in told.items()}).to_string())
    if a.card: to_card(a.card, a.split, told)
    for n, d in res.items(): print(f'\n{n}, lowest:\n', d.sort_values('dice').head(6)[['id', 'source', 'why', 'dice', 'ok', 'score', 'reason']].to_string(index=False))
    if a.csv: pd.concat([d.assign(segmenter=n) for n, d in res.items()]).to_csv(a.csv, index=False)
