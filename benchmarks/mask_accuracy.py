"""Dice of segmenters on the outlined films, and seconds a film.

    python benchmarks/mask_accuracy.py FOLDER test hand_vit_tiny hand_vit_tiny:raw classical

FOLDER holds rsna-299/ and rsna-original/; dev or test is the half of the outlined films. A name may be the path of
a checkpoint; with `:raw` the outline stays as the network drew it. A refused film counts with Dice 0 in the mean
and is also counted apart. --card writes the numbers into the card of the weights that were measured. Seconds are
those of reading and segmenting one film, one after another, warm, on as many threads as OMP_NUM_THREADS says.
"""
from pathlib import Path

import numpy as np
import pandas as pd

from boneage.films.files import write_csv
from boneage.films.radiograph import load_film
from boneage.films.rsna import rsna_manifest
from boneage.hand.shapes import dice
from boneage.segmentation import get_segmenter
from common import add_metrics, bootstrap_interval, parser, timed
from drawn_masks import hand_mask, load_hand_masks

SOURCES = 'rsna-299', 'rsna-original'
WORST = 6 # films that are printed
HOW = 'benchmarks/mask_accuracy.py; a refused film counts as Dice 0; intervals by bootstrap over films'


def films(folder, split)->tuple: # table of the outlines, list of manifest rows
    "The outlined films of one half."
    sets = [rsna_manifest(Path(folder)/source, verbose=False).assign(source=source) for source in SOURCES]
    manifest = pd.concat(sets).astype(dict(id=str)).set_index(['source', 'id'])
    outlined = load_hand_masks(split=split)
    keys = zip(outlined.source, outlined.id.astype(str))
    return outlined, [manifest.loc[key] for key in keys]


def measure_film(segmenter, outlined, row)->dict:
    "One film: how well its outline is met, and how quickly."
    def read_and_segment():
        pixels = load_film(row).pixels
        return pixels, segmenter.segment(pixels)
    (pixels, found), seconds = timed(read_and_segment)
    truth = hand_mask(outlined, pixels.shape)
    known = {name: outlined[name] for name in ('id', 'source', 'why', 'confidence')}
    return known | dict(
        dice=dice(found.mask, truth),
        ok=found.ok,
        reason=found.reason,
        score=found.predicted_iou,
        seconds=seconds,
        longer_side=max(pixels.shape))


def measure(segmenter, outlined, rows)->pd.DataFrame:
    "One row a film: Dice, status, seconds; the first film is segmented once before the clock runs."
    segmenter.segment(load_film(rows[0]).pixels)
    pairs = zip(outlined.iterrows(), rows)
    return pd.DataFrame([measure_film(segmenter, film, row) for (_, film), row in pairs])


def fifth_percentile(values)->float:
    return np.percentile(values, 5)


def rounded(values)->list:
    return [round(float(o), 4) for o in values]


def summary(df)->dict:
    "What the card tells about one segmenter."
    values = df.dice.to_numpy()
    numbers = values.mean(), fifth_percentile(values), np.median(values), values.min(), df.dice[df.ok].mean()
    mean, low, median, least, accepted = rounded(numbers)
    return dict(
        films=len(df),
        mean_dice=mean,
        mean_dice_ci95=rounded(bootstrap_interval(values, np.mean)),
        p5_dice=low,
        p5_dice_ci95=rounded(bootstrap_interval(values, fifth_percentile)),
        median_dice=median,
        least=least,
        refused=int((~df.ok).sum()),
        mean_of_accepted=accepted)


def named(name:str):
    "A segmenter by name or checkpoint; with `:raw` the outline stays as the network drew it."
    options = dict(snap=False) if name.endswith(':raw') else {}
    return get_segmenter(name.removesuffix(':raw'), **options)


def show(measured:dict, told:dict):
    "The table of all segmenters, and the films that each does worst on."
    table = pd.DataFrame(told)
    table.loc['seconds'] = {name: round(df.seconds.median(), 3) for name, df in measured.items()}
    table.loc['slowest'] = {name: round(df.seconds.max(), 2) for name, df in measured.items()}
    print(table.to_string())
    columns = ['id', 'source', 'why', 'dice', 'ok', 'score', 'reason']
    for name, df in measured.items():
        worst = df.sort_values('dice').head(WORST)[columns]
        print(f'\n{name}, lowest:\n', worst.to_string(index=False))


def metrics(split:str, told:dict)->dict:
    "Entries of a card: the first segmenter's numbers, those of the others inside."
    (_, mine), *others = told.items()
    return {split: mine | dict(others), 'how': HOW}


def main():
    p = parser(__doc__, out=None, card=None)
    p.add_argument('folder', help='holds rsna-299/ and rsna-original/')
    p.add_argument('split', nargs='?', default='dev', choices=('dev', 'test'))
    p.add_argument('names', nargs='*', default=['hand_vit_tiny', 'classical'], help='segmenters')
    o = p.parse_args()
    outlined, rows = films(o.folder, o.split)
    measured = {name: measure(named(name), outlined, rows) for name in o.names}
    told = {name: summary(df) for name, df in measured.items()}
    show(measured, told)
    if o.card:
        add_metrics(o.card, metrics(o.split, told))
    if o.out:
        tables = [df.assign(segmenter=name) for name, df in measured.items()]
        write_csv(pd.concat(tables), o.out)


if __name__ == '__main__':
    main()
