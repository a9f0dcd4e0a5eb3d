"""Which choices of the training matter: short trainings that differ from the first in one thing each, compared on the films set apart.

    python benchmarks/ablation.py work/segmented.csv --out work/ablation [--films 4000] [--epochs 6] [--size 96] [--seed 1] [--arms base whole-film ...]

The table comes from `boneage rsna --holdout` and `boneage segment`. Every training has the same films, drawn with --seed, and the same number of steps. Rows of split 'test' judge all of them, by
paired bootstrap over films; that interval knows nothing of the spread between trainings, so repeat with other seeds before a small difference is believed. What short
trainings of a small network say need not hold for long ones of a large one. Finished trainings are kept in --out, and a second run takes them from there."""
import argparse
from pathlib import Path
import numpy as np, pandas as pd
from fastai.losses import L1LossFlat, MSELossFlat
from boneage.core import load_film, read_manifest, run_rows, stem, write_csv, write_png
from boneage.cropping import crop_df, crop_film
from boneage.evaluate import compare_df
from boneage.phantom import phantom_df
from boneage import train_fastai as t

class Scaled:
    "A loss of fastai on errors in standard deviations"
    def __init__(self, loss, sd): self.loss, self.sd = loss, sd
    def __call__(self, pred, months): return self.loss(pred/self.sd, months/self.sd)

ARMS = dict(base={}, again=dict(seed=1000), upright=dict(crop=dict(upright=True)), background=dict(crop=dict(background=None)), forearm=dict(crop=dict(forearm=None)),
            contrast=dict(crop=dict(contrast=None)), **{'whole-film': dict(crop='whole')}, **{'no-sex': dict(sex='F')}, **{'no-augmentation': dict(augment='none')}, strong=dict(augment='strong'), worn=dict(augment='worn'),
            **{'random-start': dict(weights=None)}, phantoms=dict(weights='phantoms'), l1=dict(loss=L1LossFlat), mse=dict(loss=MSELossFlat), larger=dict(grow=32), resnet18=dict(arch='resnet18', weights=None))

def whole_film(row, out):
    "Film without mask, padded to a square, its greys stretched"
    film = load_film(row).pixels
    write_png(path := out/'crops'/f"{stem(row['id'])}.png", crop_film(film, np.ones(film.shape, bool), 512, margin=0, forearm=None, background=None).pixels)
    return dict(crop_path=str(path))

def crops(df, out, how):
    "The films cropped one way"
    if how != 'whole': return crop_df(df, out, **how)
    return run_rows(df, lambda row: whole_film(row, out), out/'crops.jsonl', settings='whole', inputs=('path',), outputs=('crop_path',), error_col='crop_error', desc='films')

def phantom_weights(o):
    "Weights that have learned from as many drawn hands, from nothing"
    films = phantom_df(o.films, o.out/'drawn', o.seed)
    drawn = crop_df(films.assign(mask_path=films.true_mask_path), o.out/'drawn')
    made = t.train_df(drawn, o.out/f'drawn-{o.seed}', arch='efficientnet_lite0', weights=None, size=o.size, epochs=o.epochs, keep='last', seed=o.seed, log=print)
    return made.release.with_suffix('.safetensors')

def train(df, out, o, *, arch='efficientnet_lite0', weights='imagenet', sex=None, augment='light', loss=None, grow=0, seed=0):
    "One training -> predictions on the films that judge, one view each"
    if sex: df = df.assign(sex=sex)
    rows, test = t.training_rows(df)[0], t.test_rows(df)
    learn = t.bone_age_learner(t.bone_age_dls(t.with_split(rows, .02, o.seed), o.size + grow, augment=augment), arch, weights, path=out, seed=o.seed + seed)
    if loss: learn.loss_func = Scaled(loss(), float(learn.model.age_sd))
    learn.fit_months(o.epochs, keep='last', resume=True, seed=o.seed + seed, log=print)
    months = t.predict_films(learn.model, t.load_crops(test.crop_path, o.size + grow), test.sex, bs=16)
    return test.assign(pred_months=months)[['id', 'age_months', 'pred_months']]

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('table'); p.add_argument('--out', type=Path, default='work/ablation'); p.add_argument('--arms', nargs='+', default=list(ARMS), choices=list(ARMS))
    for k, v in dict(films=4000, epochs=6, size=96, seed=1).items(): p.add_argument(f'--{k}', type=int, default=v)
    o = p.parse_args()
    df = read_manifest(o.table, ('id', 'path'))
    df = df[df.mask_path.notna() & (df.seg_status == 'ok')]
    train_ids = set(df['id'][df.split == 'train'].sample(min(o.films, (df.split == 'train').sum()), random_state=o.seed))
    df, done = df[df['id'].isin(train_ids) | df.split.eq('test')].reset_index(drop=True), {}
    for arm in o.arms:
        kw, file = dict(ARMS[arm]), o.out/f'{arm}-{o.seed}'/'predictions.csv'
        how = kw.pop('crop', {})
        if not file.exists():
            print(arm, flush=True)
            if kw.get('weights') == 'phantoms': kw['weights'] = phantom_weights(o)
            made = crops(df, o.out/'crops'/('whole' if how == 'whole' else '-'.join(how) or 'plain'), how)
            write_csv(train(made, file.parent, o, **kw), file)
        done[arm] = pd.read_csv(file, dtype={'id': str})
    table = compare_df(done).drop(columns=['left_out', 'better']).rename(columns=dict(model='arm')).round(3).assign(seed=o.seed, films=len(train_ids), epochs=o.epochs, size=o.size)
    print(table.to_string(index=False))
    write_csv(table, o.out/f'ablation-{o.seed}.csv')

if __name__ == '__main__': main()
