"""What ways of reading are worth for networks that are already trained: mirror image read as well, hand turned upright, two networks averaged.

    python benchmarks/reading.py work/cropped.csv work-upright/cropped.csv --models boneage_lite0 boneage_resnet50 --out data/results/reading.csv

Both tables hold the same films, cropped as they lie and turned upright (`boneage crop --upright`); rows of split 'test' judge. Every row is
set against the first, on the same films, by paired bootstrap."""
import argparse
import numpy as np, pandas as pd
from boneage.core import read_manifest, write_csv
from boneage.evaluate import compare_df
from boneage.train_fastai import as_model, load_crops, predict_films, test_rows

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('as_it_lies'); p.add_argument('upright'); p.add_argument('--models', nargs='+', required=True); p.add_argument('--out')
    o = p.parse_args()
    tables, arms = {k: test_rows(read_manifest(v, ('id',))) for k, v in {'as it lies': o.as_it_lies, 'upright': o.upright}.items()}, {}
    for name in o.models:
        m = as_model(name)
        for pose, df in tables.items():
            films = load_crops(df.crop_path, m.size)
            one, other = (predict_films(m.net, x, df.sex, bs=16) for x in (films, np.ascontiguousarray(films[..., ::-1])))
            for views, months in {'one view': one, 'both views': (one + other)/2}.items(): arms[f"{m.card['name']}, {pose}, {views}"] = df.assign(pred_months=months)
    if len(o.models) > 1:
        best = [v for k, v in arms.items() if k.endswith('upright, both views')]
        arms['mean of the networks, upright, both views'] = best[0].assign(pred_months=np.mean([v.pred_months for v in best], 0))
    table = compare_df(arms).drop(columns=['left_out', 'better']).round(3)
    print(table.to_string(index=False))
    if o.out: write_csv(table, o.out)

if __name__ == '__main__': main()
