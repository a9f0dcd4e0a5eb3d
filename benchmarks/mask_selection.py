"""Which rule picks the hand among SAM's masks, and what each way of asking costs: Dice on the outlined films.

    python benchmarks/mask_selection.py FOLDER test --out data/results/mask_selection

FOLDER holds rsna-299/ and rsna-original/; dev or test is the half of the outlined films. Two tables. `asking`:
records, seconds and Dice for each way to ask, the hand picked by the full rule. `picking`: the same candidates,
those of a grid of 8 x 8 points with all thresholds off and of the pipeline's prompts, picked by score, by weighted
pixel quantity, by both, and with the limits of shape. A film on which nothing is left counts as Dice 0. Intervals:
95% bootstrap over films. --out begins the names of both files.
"""
from dataclasses import dataclass

import numpy as np
import pandas as pd

from boneage.films.files import write_csv
from boneage.films.radiograph import load_film
from boneage.hand.field import film_field
from boneage.hand.prompts import auto_records, film_prompts, hand_prompts, prompt_records, to_sam_input
from boneage.hand.shapes import dice, to_frame, work_size
from boneage.segmentation import (
    HAND_GRID, HAND_SAM_RULES, broken_rule, get_segmenter, mask_features, pixel_weights, snap_mask)
from common import bootstrap_interval, parser, timed
from drawn_masks import hand_mask
from mask_accuracy import fifth_percentile, films

OPEN_GRID = HAND_GRID | dict(pred_iou_thresh=-9, stability_score_thresh=-1) # keeps every record
FULL = 'score x stability x quantity' # the library's rank
CLASSICAL_PROMPTS = 4 # that `hand_prompts` gives
GRID_POINTS = HAND_GRID['points_per_side']**2


def by_score(record)->float:
    return record['predicted_iou']


def by_quantity(record)->float:
    return record['weight']


def by_score_and_quantity(record)->float:
    return max(record['predicted_iou'], 0)*record['weight']


def by_all(record)->float:
    return max(record['predicted_iou'], 0)*max(record['stability_score'], 0)*record['weight']


RANKS = {
    'score': by_score,
    'quantity': by_quantity,
    'score x quantity': by_score_and_quantity,
    FULL: by_all}
LIMITS = { # name -> features whose limits count
    '': (),
    'area': ('area',),
    'area, edge, solidity': ('area', 'edge_contact', 'solidity'),
    'all limits': tuple(HAND_SAM_RULES)}


@dataclass
class Case:
    "A film at the size that masks are drawn at, its frame, and the outline in the film's own size."
    id:str
    img:np.ndarray # uint8 HxW
    field:np.ndarray # bool HxW
    truth:np.ndarray # bool

    def __post_init__(self):
        self.rgb = to_sam_input(self.img)
        self.weights = pixel_weights(self.img, self.field)


def read_case(outlined, row)->Case:
    "A film and its outline."
    pixels = load_film(row).pixels
    img = work_size(pixels)
    return Case(outlined.id, img, film_field(img), hand_mask(outlined, pixels.shape))


def ways(sam, case:Case)->dict:
    "Each way to ask -> number of prompts, and the function that asks."
    film = film_prompts(case.img)
    def by(prompts):
        return len(prompts), lambda: prompt_records(sam, case.rgb, prompts)
    def by_classical_mask():
        return prompt_records(sam, case.rgb, hand_prompts(case.img, case.field))
    def by_grid():
        return auto_records(sam, case.rgb, **HAND_GRID)
    return {
        'box around the film': by(film[:1]),
        'three points in the middle': by(film[1:]),
        'both (the default)': by(film),
        'box and point of the classical mask': (CLASSICAL_PROMPTS, by_classical_mask),
        'automatic 8 x 8': (GRID_POINTS, by_grid)}


def described(records:list, case:Case)->list:
    "Records with their features."
    found = []
    for record in records:
        features = mask_features(record['segmentation'], case.img, field=case.field, weights=case.weights)
        found.append(record | features)
    return found


def picked(records:list, rank:str, limits:tuple=LIMITS['all limits']):
    "The record that a rule takes, or None."
    rules = {name: HAND_SAM_RULES[name] for name in limits}
    hands = [record for record in records if not broken_rule(record, rules)]
    return max(hands, key=RANKS[rank], default=None)


def final_dice(record, case:Case)->float:
    "Dice of a picked record as the pipeline would finish it; kept in the record."
    if record is None:
        return 0.
    if 'dice' not in record:
        finished = snap_mask(record['segmentation'], case.img, case.field)
        record['dice'] = dice(to_frame(finished, case.truth.shape), case.truth)
    return record['dice']


def nearest(records:list, truth:np.ndarray):
    "The record that overlaps most with the truth."
    def overlap(record):
        return dice(to_frame(record['segmentation'], truth.shape), truth)
    return max(records, key=overlap, default=None)


def ask_film(sam, case:Case)->list:
    "One row for each way to ask."
    rows = []
    for way, (prompts, ask) in ways(sam, case).items():
        records, seconds = timed(ask)
        best = picked(described(records, case), FULL)
        rows.append(dict(
            id=case.id, way=way, prompts=prompts, records=len(records), seconds=seconds, dice=final_dice(best, case)))
    return rows


def pick_film(sam, case:Case)->list:
    "One row for each rule, on the same candidates."
    records = auto_records(sam, case.rgb, **OPEN_GRID) + prompt_records(sam, case.rgb, film_prompts(case.img))
    records = described(records, case)
    best = {(rank, name): picked(records, rank, limits) for rank in RANKS for name, limits in LIMITS.items()}
    best['the best there is', ''] = nearest(records, case.truth)
    rows = []
    for (rank, name), record in best.items():
        score = final_dice(record, case)
        rows.append(dict(id=case.id, rank=rank, limits=name, candidates=len(records), dice=score))
    return rows


def measure(sam, outlined, rows)->tuple: # tables of asking and of picking, one row per film and way
    "All ways and rules on all films."
    asking = []
    picking = []
    for (_, truth), row in zip(outlined.iterrows(), rows):
        case = read_case(truth, row)
        asking += ask_film(sam, case)
        picking += pick_film(sam, case)
    return pd.DataFrame(asking), pd.DataFrame(picking)


def with_interval(values:np.ndarray, statistic, digits:int)->str:
    "A statistic and its interval, as text."
    numbers = [statistic(values), *bootstrap_interval(values, statistic)]
    value, low, high = (f'{o:.{digits}f}' for o in numbers)
    return f'{value} [{low}, {high}]'


def table(df, by:list, medians:list)->pd.DataFrame:
    "Mean and 5th percentile of the Dice with intervals, and how many films were left without a hand."
    def row(group):
        values = group.dice.to_numpy()
        told = {name: group[name].median().round(3) for name in medians}
        told |= dict(mean=with_interval(values, np.mean, 4), p5=with_interval(values, fifth_percentile, 3))
        return pd.Series(told | dict(without=int((values == 0).sum())))
    return df.groupby(by, sort=False).apply(row, include_groups=False)


def main():
    p = parser(__doc__, films=None, out=None)
    p.add_argument('folder', help='holds rsna-299/ and rsna-original/')
    p.add_argument('split', choices=('dev', 'test'))
    p.add_argument('--name', default='hand_vit_tiny', help='segmenter whose network is asked')
    o = p.parse_args()
    outlined, rows = films(o.folder, o.split)
    outlined = outlined.head(o.films or len(outlined))
    asking, picking = measure(get_segmenter(o.name).sam, outlined, rows)
    tables = dict(
        asking=table(asking, ['way'], ['prompts', 'records', 'seconds']),
        picking=table(picking, ['rank', 'limits'], ['candidates']))
    for name, df in tables.items():
        print(f'\n{name}, {o.split}, {len(outlined)} films\n', df.to_string(), flush=True)
        if o.out:
            write_csv(df.reset_index(), f'{o.out}_{name}_{o.split}.csv')


if __name__ == '__main__':
    main()
