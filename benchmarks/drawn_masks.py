"""Hand masks outlined on real films: read them, draw them, compare two.

    python benchmarks/drawn_masks.py           how many there are, and how far two outlines of one film differ

    from drawn_masks import load_hand_masks, hand_mask
    df = load_hand_masks()                     one row per film; `split` is dev or test
    mask = hand_mask(df.loc['1404'])           bool HxW in the frame of `load_radiograph`

A film of the 299 px set must be read at its true aspect, `load_radiograph(path, width/height of the original)`;
`hand_mask` takes the shape it must have and says so when it differs.
"""
import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from boneage.hand.shapes import dice
from common import parser

MASKS = Path(__file__).resolve().parents[1]/'data'/'hand_masks'/'masks.json'


def load_hand_masks(path=MASKS, split=None)->pd.DataFrame:
    "A table of the outlined films, indexed by id, or only those of one split."
    df = pd.DataFrame(json.loads(Path(path).read_text())['films']).set_index('id', drop=False)
    if split is None:
        return df
    if split not in set(df.split):
        raise ValueError(f"split is {split!r}; expected 'dev' or 'test'")
    return df[df.split == split]


def fill_polygons(
    shape:tuple, # (height, width)
    outer:list, # polygons, lists of (x, y)
    holes:list, # polygons that are cut out again
)->np.ndarray: # bool HxW
    "A mask from its outlines."
    mask = np.zeros(shape, np.uint8)
    for ring in outer:
        cv2.fillPoly(mask, [np.array(ring, np.int32)], 1)
    for ring in holes:
        cv2.fillPoly(mask, [np.array(ring, np.int32)], 0)
    return mask > 0


def hand_mask(
    row, # a film of `load_hand_masks`
    shape:tuple=None, # (height, width) that the mask must have
    *,
    second:bool=False, # take the second annotation
)->np.ndarray: # bool HxW
    "A film's polygons, filled."
    own = int(row['height']), int(row['width'])
    if shape is not None and tuple(shape[:2]) != own:
        raise ValueError(f"film {row['id']}: outlined at {own} (height, width), asked for {tuple(shape[:2])}; "
                         'read the film at its true aspect')
    rings = row['second'] if second else row
    if not isinstance(rings, dict | pd.Series):
        raise ValueError(f"film {row['id']}: no second annotation")
    return fill_polygons(own, rings['outer'], rings['holes'])


def rim(mask:np.ndarray)->np.ndarray:
    "The outermost pixels of a mask."
    square = np.ones((3, 3), np.uint8)
    inside = cv2.erode(mask.astype(np.uint8), square, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask & (inside == 0)


def mean_distance(a:np.ndarray, b:np.ndarray)->float:
    "How far the pixels of one line lie from another line, px."
    away = cv2.distanceTransform((~b).astype(np.uint8), cv2.DIST_L2, 5)
    return away[a].mean()


def boundary_distance(
    a:np.ndarray, # bool HxW
    b:np.ndarray, # bool HxW
    side:int=512, # longer side of the film in whose pixels the distance is given
)->float: # NaN where a mask is empty
    "Mean distance between two outlines, both ways."
    rim_a = rim(a)
    rim_b = rim(b)
    if not rim_a.any() or not rim_b.any():
        return float('nan')
    both_ways = mean_distance(rim_a, rim_b) + mean_distance(rim_b, rim_a)
    return float(both_ways/2*side/max(a.shape))


def agreement(df=None)->pd.DataFrame:
    "Dice and boundary distance of the two annotations, one row per film that has both."
    df = load_hand_masks() if df is None else df
    rows = []
    for _, row in df[[isinstance(o, dict) for o in df.second]].iterrows():
        a = hand_mask(row)
        b = hand_mask(row, second=True)
        rows.append(dict(id=row['id'], dice=dice(a, b), distance_px=boundary_distance(a, b)))
    return pd.DataFrame(rows)


def main():
    p = parser(__doc__)
    p.add_argument('masks', nargs='?', type=Path, default=MASKS, help='file with the polygons')
    df = load_hand_masks(p.parse_args().masks)
    print(df.groupby(['split', 'source', 'confidence']).size().to_string())
    print(agreement(df).set_index('id').round(3).describe(percentiles=[.05, .5]).to_string())


if __name__ == '__main__':
    main()
