"""What it is worth to take the worst-flagged films out of the training: two short trainings, evaluated on the same
films.

    python benchmarks/review_filtering.py work/cropped.csv work/qc.csv --films 4000 --epochs 6 --size 96 --start-size 96

Both trainings have the same number of films, steps, and seed. One lacks the worst-ranked share of the films, the
other a random draw of as many films that were not flagged. With --films both take no more than that many, the
flagged ones all among them in one and none in the other: a larger dose than any folder has, and quicker. Films of
split 'test' (see `boneage rsna --holdout`) are never trained on and never filtered; errors are given for all of
them and for those without a flag. The bootstrap is over films and knows nothing of the spread between trainings,
which after two or three epochs is larger than any effect of filtering, the more so with small films first: repeat
with several --seed and enough epochs before you believe a difference. qc.csv is what `boneage qc` writes: the worst
are the first `share` of all films by qc_rank, if they carry a flag.
"""
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from boneage.evidence.comparison import compare_df
from boneage.films.files import write_csv
from boneage.films.manifest import read_manifest, read_table
from boneage.model.rows import test_rows
from boneage.train_fastai import train_df
from common import parser

COLUMNS = ['id', 'sex', 'age_months', 'pred_months', 'model']


class Plan(NamedTuple):
    "Which films stay out of which training."
    unfiltered:set # ids that the unfiltered training lacks
    filtered:set
    trained:int # films of each training
    flagged:int # of them, in the unfiltered one


def worst_ids(flagged, share:float, n:int)->set:
    "Films that carry a flag, among the first share of n in the queue."
    first = flagged.sort_values('qc_rank').head(round(share*n))
    return set(first['id'][first.qc_flags.fillna('') != ''].astype(str))


def plan(df, worst:set, films:int, seed:int)->Plan: # films: at most so many are trained on; None: all
    "Two trainings of the same length."
    train = df[df.split.eq('train') & df.crop_path.notna()]
    bad = train['id'].isin(worst)
    clean = train['id'][~bad].sample(frac=1, random_state=seed)
    trained = min(len(clean), films or len(clean))
    spared = set(clean.iloc[:bad.sum()])
    unseen = set(clean.iloc[trained:])
    return Plan(spared | unseen, set(train['id'][bad]) | unseen, trained, int(bad.sum()))


def compare(runs:dict, worst:set):
    "Both trainings on all films, and on those that no flag concerns."
    clean = {name: df[~df['id'].isin(worst)] for name, df in runs.items()}
    for what, tables in {'all films': runs, 'films without a flag': clean}.items():
        print(f'\n{what}\n{compare_df(tables).round(3).to_string(index=False)}')


def options():
    p = parser(__doc__, films=None, size=128, epochs=3, seed=42, out=Path('work/filtering'))
    p.add_argument('table', help='table after `boneage crop`')
    p.add_argument('flagged', help='table after `boneage qc`')
    p.add_argument('--start-size', type=int, default=128, help='side of the films in the first epochs, px')
    p.add_argument('--arch', default='efficientnet_lite0')
    p.add_argument('--weights', default='imagenet', help='where the network starts; none: from nothing')
    p.add_argument('--share', type=float, default=.1, help='of the queue, whose flagged films are taken out')
    return p.parse_args()


def main():
    o = options()
    df = read_manifest(o.table, ('id',))
    worst = worst_ids(read_table(o.flagged), o.share, len(df))
    films = plan(df, worst, o.films, o.seed)
    test = test_rows(df)
    print(f'{films.trained} training films, {films.flagged} of them flagged among the worst {o.share:.0%} '
          f'in one training and none in the other; evaluated on {len(test)} films, '
          f'{test["id"].isin(worst).sum()} of them flagged among the worst {o.share:.0%}')
    recipe = dict(
        arch=o.arch, weights=None if o.weights == 'none' else o.weights, size=o.size, start_size=o.start_size,
        epochs=o.epochs, augment='light', valid_pct=.02, keep='last', evaluate_on='test', seed=o.seed)
    runs = {}
    for name in ('unfiltered', 'filtered'):
        print(name)
        rows = df[~df['id'].isin(getattr(films, name))]
        trained = train_df(rows, o.out/name, name=name, cache=o.out, log=print, **recipe)
        runs[name] = trained.valid.assign(model=name)
    compare(runs, worst)
    write_csv(pd.concat(runs.values())[COLUMNS], o.out/'predictions.csv')


if __name__ == '__main__':
    main()
