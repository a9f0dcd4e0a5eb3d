"""Hand masks outlined on real films: read them, draw them, compare two.

    from hand_masks import load_hand_masks, hand_mask
    df = load_hand_masks()                   # one row per film; `split` is dev or test
    msk = hand_mask(df.loc['1404'])          # bool HxW in the frame of `load_radiograph`

A film of the 299 px set must be read at its true aspect, `load_radiograph(path, width/height of the original)`;
`hand_mask` takes the shape it must have and says so when it differs.
"""
import json, sys
from pathlib import Path

import cv2, numpy as np, pandas as pd

MASKS = Path(__file__).resolve().parents[1]/'data'/'hand_masks'/'masks.json'

def load_hand_masks(path=MASKS, split=None):
    "A table of the outlined films, indexed by id, or only those of one split"
    df = pd.DataFrame(json.loads(Path(path).read_text())['films'])
    if split is not None and split not in set(df.split): raise ValueError(f"split is {split!r}; expected 'dev' or 'test'")
    df = df.set_index('id', drop=False)
    return df if split is None else df[df.split == split]

def hand_mask(row, shape=None, *, second=False):
    "Fill a film's polygons: bool HxW; `second` takes the second annotation where there is one"
    h, w = int(row['height']), int(row['width'])
    if shape is not None and tuple(shape[:2]) != (h, w):
        raise ValueError(f"film {row['id']}: outlined at {(h, w)} (height, width), asked for {tuple(shape[:2])}; read the film at its true aspect")
    rings = row['second'] if second else row
    if not isinstance(rings, (dict, pd.Series)): raise ValueError(f"film {row['id']}: no second annotation")
    msk = np.zeros((h, w), np.uint8)
    for value, key in ((1, 'outer'), (0, 'holes')):
        for ring in rings[key]: cv2.fillPoly(msk, [np.array(ring, np.int32)], value)
    return msk > 0

def dice(a, b):
    "Twice the overlap over the sum of both areas; 1 for two empty masks"
    total = int(a.sum()) + int(b.sum())
    return 2*int((a & b).sum())/total if total else 1.

def boundary_distance(a, b, side=512):
    "Mean distance between two outlines, both ways, in px of a film whose longer side is `side`"
    rim = lambda m: m & ~(cv2.erode(m.astype(np.uint8), np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0)
    a, b = rim(a), rim(b)
    if not a.any() or not b.any(): return float('nan')
    away = lambda m: cv2.distanceTransform((~m).astype(np.uint8), cv2.DIST_L2, 5)
    return float((away(b)[a].mean() + away(a)[b].mean())/2*side/max(a.shape))

def agreement(df=None):
    "Dice and boundary distance of the two annotations, one row per film that has both"
    df = load_hand_masks() if df is None else df
    both = df[[isinstance(o, dict) for o in df.second]]
    pairs = [(r.id, hand_mask(r), hand_mask(r, second=True)) for _, r in both.iterrows()]
    return pd.DataFrame([dict(id=i, dice=dice(a, b), distance_px=boundary_distance(a, b)) for i, a, b in pairs])

if __name__ == '__main__':
    df = load_hand_masks(*sys.argv[1:2])
    print(df.groupby(['split', 'source', 'confidence']).size().to_string())
    print(agreement(df).set_index('id').round(3).describe(percentiles=[.05, .5]).to_string())
