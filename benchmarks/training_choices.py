"""Which choices of the training matter: short trainings that differ from the first in one thing each.

    python benchmarks/training_choices.py work/segmented.csv --films 3000 --epochs 6 --size 96 --seed 1

The table comes from `boneage rsna --holdout` and `boneage segment`. Every training has the same films, drawn with
--seed, and the same number of steps. All are evaluated on the rows of split 'test', by paired bootstrap over films;
that interval knows nothing of the spread between trainings, so repeat with other seeds before a small difference is
believed. What short trainings of a small network say need not hold for long ones of a large one. Finished trainings
are kept in --out, and a second run takes them from there.
"""
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from fastai.losses import L1LossFlat, MSELossFlat

from boneage.cropping import crop_df, crop_film
from boneage.evidence.comparison import compare_df
from boneage.films.files import stem, write_csv, write_png
from boneage.films.journal import run_rows
from boneage.films.manifest import read_manifest
from boneage.films.phantom import phantom_df
from boneage.films.radiograph import load_film
from boneage.model.network import load_crops, predict_films
from boneage.model.rows import test_rows, training_rows, with_split
from boneage.train_fastai import bone_age_learner, train_df
from boneage.training.data import bone_age_dls
from common import parser

CROP_SIDE = 512 # px
VALID_PCT = .02 # of the films draw the curve; no epoch is chosen on it
BATCH = 16 # films, of a prediction
ARCH = 'efficientnet_lite0'


class Scaled:
    "A loss of fastai on errors in standard deviations."
    def __init__(self, loss, sd):
        self.loss = loss
        self.sd = sd

    def __call__(self, pred, months):
        return self.loss(pred/self.sd, months/self.sd)


@dataclass(frozen=True)
class Arm:
    "What one training does otherwise than the first."
    crop:dict = field(default_factory=dict) # settings of the crops
    whole:bool = False # films instead of crops
    arch:str = ARCH
    weights:str = 'imagenet' # where the network starts; 'phantoms': from what it has learned of drawn hands
    sex:str = None # what the network is told of every child; None: the truth
    augment:str = 'light'
    loss:type = None # of fastai; None: the library's
    grow:int = 0 # px by which films are larger
    seed:int = 0 # added to --seed

    @property
    def folder(self):
        return 'whole' if self.whole else '-'.join(self.crop) or 'plain'


ARMS = {
    'base': Arm(),
    'again': Arm(seed=1000),
    'upright': Arm(crop=dict(upright=True)),
    'background': Arm(crop=dict(background=None)),
    'forearm': Arm(crop=dict(forearm=None)),
    'contrast': Arm(crop=dict(contrast=None)),
    'whole-film': Arm(whole=True),
    'no-sex': Arm(sex='F'),
    'no-augmentation': Arm(augment='none'),
    'strong': Arm(augment='strong'),
    'degraded': Arm(augment='degraded'),
    'random-start': Arm(weights=None),
    'phantoms': Arm(weights='phantoms'),
    'l1': Arm(loss=L1LossFlat),
    'mse': Arm(loss=MSELossFlat),
    'larger': Arm(grow=32),
    'resnet18': Arm(arch='resnet18', weights=None)}


def whole_film(row, out:Path)->dict:
    "A film without mask, padded to a square, its greys stretched."
    film = load_film(row).pixels
    everything = np.ones(film.shape, bool)
    crop = crop_film(film, everything, CROP_SIDE, margin=0, forearm=None, background=None)
    path = out/'crops'/f"{stem(row['id'])}.png"
    write_png(path, crop.pixels)
    return dict(crop_path=str(path))


def crops(df, out:Path, arm:Arm)->pd.DataFrame:
    "The films as this arm crops them."
    if not arm.whole:
        return crop_df(df, out, **arm.crop)
    def crop(row):
        return whole_film(row, out)
    return run_rows(
        df, crop, out/'crops.jsonl', settings='whole', inputs=('path',), outputs=('crop_path',),
        error_col='crop_error', desc='films')


def phantom_weights(o)->Path: # o: the options
    "Weights that have learned from as many drawn hands, from nothing."
    films = phantom_df(o.films, o.out/'drawn', o.seed)
    drawn = crop_df(films.assign(mask_path=films.true_mask_path), o.out/'drawn')
    made = train_df(
        drawn, o.out/f'drawn-{o.seed}', log=print, arch=ARCH, weights=None, size=o.size, epochs=o.epochs, keep='last',
        seed=o.seed)
    return made.release.with_suffix('.safetensors')


def learner(df, out:Path, arm:Arm, o):
    "The network of one arm, before it learns."
    split = with_split(training_rows(df)[0], VALID_PCT, o.seed)
    dls = bone_age_dls(split, o.size + arm.grow, augment=arm.augment)
    weights = phantom_weights(o) if arm.weights == 'phantoms' else arm.weights
    learn = bone_age_learner(dls, arm.arch, weights, path=out, seed=o.seed + arm.seed)
    if arm.loss:
        learn.loss_func = Scaled(arm.loss(), float(learn.model.age_sd))
    return learn


def train(df, out:Path, arm:Arm, o)->pd.DataFrame: # id, age_months, pred_months
    "One training; its predictions on the films set apart, one view each."
    if arm.sex:
        df = df.assign(sex=arm.sex)
    learn = learner(df, out, arm, o)
    learn.fit_months(o.epochs, keep='last', resume=True, seed=o.seed + arm.seed, log=print)
    test = test_rows(df)
    films = load_crops(test.crop_path, o.size + arm.grow)
    test['pred_months'] = predict_films(learn.model, films, test.sex, bs=BATCH)
    return test[['id', 'age_months', 'pred_months']]


def predictions(df, name:str, o)->pd.DataFrame:
    "What an arm predicts, from its file if it was trained before."
    file = o.out/f'{name}-{o.seed}'/'predictions.csv'
    if not file.exists():
        print(name, flush=True)
        arm = ARMS[name]
        cropped = crops(df, o.out/'crops'/arm.folder, arm)
        write_csv(train(cropped, file.parent, arm, o), file)
    return pd.read_csv(file, dtype={'id': str})


def drawn_films(table, n:int, seed:int)->tuple: # rows, how many of them are for training
    "Some training films with a mask, and all of split 'test'."
    df = read_manifest(table, ('id', 'path'))
    df = df[df.mask_path.notna() & (df.seg_status == 'ok')]
    train_ids = df['id'][df.split == 'train']
    drawn = set(train_ids.sample(min(n, len(train_ids)), random_state=seed))
    return df[df['id'].isin(drawn) | df.split.eq('test')].reset_index(drop=True), len(drawn)


def main():
    p = parser(__doc__, films=4000, epochs=6, size=96, seed=1, out=Path('work/training_choices'))
    p.add_argument('table', help='table after `boneage segment`')
    p.add_argument('--arms', nargs='+', default=list(ARMS), choices=list(ARMS), metavar='ARM', help=', '.join(ARMS))
    o = p.parse_args()
    df, n = drawn_films(o.table, o.films, o.seed)
    table = compare_df({name: predictions(df, name, o) for name in o.arms})
    table = table.drop(columns=['left_out', 'better']).rename(columns=dict(model='arm')).round(3)
    table = table.assign(seed=o.seed, films=n, epochs=o.epochs, size=o.size)
    print(table.to_string(index=False))
    write_csv(table, o.out/f'training_choices-{o.seed}.csv')


if __name__ == '__main__':
    main()
