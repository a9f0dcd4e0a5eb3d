"""What it is worth to take the worst-flagged films out of the training: two short trainings, judged on the same films set apart.

    python benchmarks/filtering.py work/cropped.csv work/qc.csv --out work/filtering [--share .1] [--size 128] [--epochs 3] [--films 4000]

Both trainings have the same number of films, steps, and seed. One lacks the worst-ranked share of the films, the other a random draw of as many
films that were not flagged. With --films both take no more than that many, the flagged ones all among them in one and none in the other: a larger dose
than any folder has, and quicker. Films of split 'test' (see `boneage rsna --holdout`) are never trained on and never filtered; errors are given
for all of them and for those without a flag. The bootstrap is over films and knows nothing of the
spread between trainings, which after two or three epochs is larger than any effect of filtering, the more so with small films first: repeat with
several --seed and enough epochs before you believe a difference. qc.csv is what `boneage qc` writes: the worst are the first `share` of all films by qc_rank, if they carry a flag."""
import argparse
from pathlib import Path
import pandas as pd
from boneage.core import read_manifest, read_table, write_csv
from boneage.evaluate import compare_df
from boneage.train_fastai import test_rows, train_df

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('table'); p.add_argument('flagged'); p.add_argument('--out', default='work/filtering')
    for k, v in dict(arch='efficientnet_lite0', weights='imagenet').items(): p.add_argument(f'--{k}', default=v)
    for k, v in dict(size=128, start_size=128, epochs=3, seed=42).items(): p.add_argument(f'--{k.replace("_", "-")}', type=int, default=v)
    p.add_argument('--share', type=float, default=.1); p.add_argument('--films', type=int)
    o = p.parse_args()
    df, flagged, out = read_manifest(o.table, ('id',)), read_table(o.flagged), Path(o.out)
    first = flagged.sort_values('qc_rank').head(round(o.share*len(df)))
    worst = set(first['id'][first.qc_flags.fillna('') != ''].astype(str))
    train, test = df[df.split.eq('train') & df.crop_path.notna()], test_rows(df)
    bad = train['id'].isin(worst)
    clean = train['id'][~bad].sample(frac=1, random_state=o.seed)
    extra = max(0, len(clean) - o.films) if o.films else 0   # clean films that neither training sees
    spared, unseen = set(clean[:bad.sum()]), set(clean[len(clean)-extra:])
    print(f'{len(clean) - extra} training films, {bad.sum()} of them flagged among the worst {o.share:.0%} in one training and none in the other; {len(test)} films judge, {test["id"].isin(worst).sum()} of them flagged among the worst {o.share:.0%}')
    kw = dict(arch=o.arch, weights=None if o.weights == 'none' else o.weights, size=o.size, start_size=o.start_size, epochs=o.epochs, augment='light', valid_pct=.02,
              keep='last', judge_on='test', seed=o.seed, cache=out, log=print)
    runs = {}
    for name, gone in dict(unfiltered=spared | unseen, filtered=set(train['id'][bad]) | unseen).items():
        print(name)
        runs[name] = train_df(df[~df['id'].isin(gone)], out/name, name=name, **kw).valid.assign(model=name)
    for what, keep in {'all films that judge': lambda d: d, 'those that are not flagged': lambda d: d[~d['id'].isin(worst)]}.items():
        print(f'\n{what}\n{compare_df({k: keep(v) for k, v in runs.items()}).round(3).to_string(index=False)}')
    write_csv(pd.concat(runs.values())[['id', 'sex', 'age_months', 'pred_months', 'model']], out/'predictions.csv')

if __name__ == '__main__': main()
