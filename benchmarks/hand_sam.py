"""Dice of segmenters on the outlined films, and seconds a film.

    python benchmarks/hand_sam.py FOLDER [dev|test] [hand_vit_tiny classical] [--csv FILE]

FOLDER holds rsna-299/ and rsna-original/. A refused film counts with Dice 0 in the mean and is also counted apart.
Seconds are those of reading and segmenting one film, one after another, warm, on as many threads as OMP_NUM_THREADS says.
"""
import argparse, sys, time
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
    d = df.dice.to_numpy(); (a, b), (c, e) = ci(d, np.mean), ci(d, lambda x: np.percentile(x, 5))
    return dict(n=len(df), mean_dice=f'{d.mean():.4f} [{a:.4f}, {b:.4f}]', p5=f'{np.percentile(d, 5):.4f} [{c:.4f}, {e:.4f}]', median=f'{np.median(d):.4f}', least=f'{d.min():.3f}',
                refused=int((~df.ok).sum()), mean_of_accepted=f'{df.dice[df.ok].mean():.4f}', seconds=f'{df.seconds.median():.3f}', slowest=f'{df.seconds.max():.2f}')

def segmenter(name):
    "By name; the small hand SAM has its own class"
    if not name.startswith('hand_vit_tiny'): return get_segmenter(name)
    from boneage.hand_sam import HandSam
    return HandSam(name.partition('=')[2] or None)

if __name__ == '__main__':
    p = argparse.ArgumentParser(); p.add_argument('folder'); p.add_argument('split', nargs='?', default='dev'); p.add_argument('names', nargs='*'); p.add_argument('--csv')
    a = p.parse_args()
    m, rows = films(a.folder, a.split)
    res = {n: measure(segmenter(n), m, rows) for n in a.names or ['hand_vit_tiny', 'classical']}
    print(pd.DataFrame({n: summary(d) for n, d in res.items()}).to_string())
    for n, d in res.items(): print(f'\n{n}, lowest:\n', d.sort_values('dice').head(6)[['id', 'source', 'why', 'dice', 'ok', 'score', 'reason']].to_string(index=False))
    if a.csv: pd.concat([d.assign(segmenter=n) for n, d in res.items()]).to_csv(a.csv, index=False)
