"""Which rule picks the hand among SAM's masks, and what each way of asking costs: Dice on the outlined films.

    python benchmarks/selection.py FOLDER dev|test [--name hand_vit_tiny] [--films N] [--out PREFIX]

FOLDER holds rsna-299/ and rsna-original/. Two tables. `asking`: records, seconds and Dice for each way to ask, the hand picked by the full rule.
`picking`: the same candidates, those of a grid of 8 x 8 points with all thresholds off and of the pipeline's prompts, picked by score, by weighted pixel quantity,
by both, and with the limits of shape. A film on which nothing is left counts as Dice 0. Intervals: 95% bootstrap over films.
"""
import argparse, time
from functools import partial

import numpy as np, pandas as pd
from boneage.core import load_film
from boneage.hand_sam import HAND_GRID, HAND_SAM_RULES, film_prompts, snap_mask
from boneage.segmentation import auto_records, dice, film_field, get_segmenter, hand_prompts, mask_features, not_a_hand, pixel_weights, prompt_records, to_frame, to_sam_input, work_size
from hand_masks import hand_mask
from hand_sam import ci, films

OPEN = HAND_GRID | dict(pred_iou_thresh=-9, stability_score_thresh=-1)

def ways(sam, img, field):
    "Each way to ask: name -> (prompts, function)"
    rgb, film = to_sam_input(img), film_prompts(img)
    ask = lambda ps: (len(ps), lambda: prompt_records(sam, rgb, ps))
    return {'box around the film': ask(film[:1]), 'three points in the middle': ask(film[1:]), 'both (the default)': ask(film), 'box and point of the classical mask': (4, lambda: prompt_records(sam, rgb, hand_prompts(img, field))),
            'automatic 8 x 8': (64, lambda: auto_records(sam, rgb, **HAND_GRID))}

RANKS = {'score': lambda r: r['predicted_iou'], 'quantity': lambda r: r['weight'], 'score x quantity': lambda r: max(r['predicted_iou'], 0)*r['weight'],
         'score x stability x quantity': lambda r: max(r['predicted_iou'], 0)*max(r['stability_score'], 0)*r['weight']}
LIMITS = {'': {}, 'area': ('area',), 'area, edge, solidity': ('area', 'edge_contact', 'solidity'), 'all limits': tuple(HAND_SAM_RULES)}

def described(records, img, field):
    "Records with their features"
    w = pixel_weights(img, field)
    return [{**r, **mask_features(r['segmentation'], img, field=field, weights=w)} for r in records]

def picked(rs, rank, limits=tuple(HAND_SAM_RULES)):
    "The record that a rule takes, or None"
    rs = [r for r in rs if not not_a_hand(r, {k: HAND_SAM_RULES[k] for k in limits})]
    return max(rs, key=RANKS[rank]) if rs else None

def score(r, truth, img, field):
    "Dice of a picked record as the pipeline would finish it"
    if r is None: return 0.
    if 'dice' not in r: r['dice'] = dice(to_frame(snap_mask(r['segmentation'], img, field), truth.shape), truth)
    return r['dice']

def nearest(rs, truth):
    "The record that overlaps most with the truth"
    return max(rs, key=lambda r: dice(to_frame(r['segmentation'], truth.shape), truth), default=None)

def measure(sam, m, rows):
    "-> long tables of asking and picking, one row per film and way"
    asking, picking = [], []
    for (_, t), row in zip(m.iterrows(), rows):
        px = load_film(row).pixels; img = work_size(px); field = film_field(img); truth = hand_mask(t, px.shape)
        for way, (n, ask) in ways(sam, img, field).items():
            a = time.perf_counter(); rs = ask(); s = time.perf_counter() - a
            asking.append(dict(id=t.id, way=way, prompts=n, records=len(rs), seconds=s, dice=score(picked(described(rs, img, field), 'score x stability x quantity'), truth, img, field)))
        rs = described(auto_records(sam, to_sam_input(img), **OPEN) + prompt_records(sam, to_sam_input(img), film_prompts(img)), img, field)
        for rank in RANKS:
            for name, limits in LIMITS.items(): picking.append(dict(id=t.id, rank=rank, limits=name, candidates=len(rs), dice=score(picked(rs, rank, limits), truth, img, field)))
        picking.append(dict(id=t.id, rank='the best there is', limits='', candidates=len(rs), dice=score(nearest(rs, truth), truth, img, field)))
    return pd.DataFrame(asking), pd.DataFrame(picking)

def table(df, by, more):
    "Mean and 5th percentile of the Dice with intervals"
    def row(g):
        d = g.dice.to_numpy(); (a, b), (c, e) = ci(d, np.mean), ci(d, lambda x: np.percentile(x, 5))
        return pd.Series({k: g[k].median().round(3) for k in more} | dict(mean=f'{d.mean():.4f} [{a:.4f}, {b:.4f}]', p5=f'{np.percentile(d, 5):.3f} [{c:.3f}, {e:.3f}]', without=int((d == 0).sum())))
    return df.groupby(by, sort=False).apply(row, include_groups=False)

if __name__ == '__main__':
    p = argparse.ArgumentParser(); p.add_argument('folder'); p.add_argument('split', choices=('dev', 'test')); p.add_argument('--name', default='hand_vit_tiny'); p.add_argument('--films', type=int); p.add_argument('--out')
    a = p.parse_args()
    m, rows = films(a.folder, a.split)
    asking, picking = measure(get_segmenter(a.name).sam, m.head(a.films or len(m)), rows)
    tabs = dict(asking=table(asking, ['way'], ['prompts', 'records', 'seconds']), picking=table(picking, ['rank', 'limits'], ['candidates']))
    for name, t in tabs.items(): print(f'\n{name}, {a.split}, {m.head(a.films or len(m)).shape[0]} films\n', t.to_string(), flush=True); a.out and t.to_csv(f'{a.out}-{name}-{a.split}.csv')
