"""Draw the hold-out of the RSNA training films and look for films that stand in it and outside.

    boneage rsna FOLDER --out data/rsna/films.csv
    python benchmarks/rsna_holdout.py data/rsna/films.csv [--write]

A tenth of the 12,611 training films, drawn by `split_df` over sex and age band with the seed below; films that show the same picture
(`find_twins`: perceptual hash, then correlation of the thumbnails; also mirrored) stay on one side. --write puts the ids into the library."""
import argparse
import joblib, numpy as np, pandas as pd
from boneage.core import load_film, read_manifest
from boneage.qc_widgets import TWIN_BITS, dhash, find_twins, nearest_hash, same_film
from boneage.rsna import HOLDOUT, holdout_ids
from boneage.train_fastai import split_df

SEED, SHARE = 2017, .1

def hashes(row):
    "Perceptual hash of a film and of its mirror image"
    pixels = load_film(row).pixels
    return dhash(pixels), dhash(np.ascontiguousarray(pixels[:, ::-1]))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('films'); p.add_argument('--write', action='store_true'); p.add_argument('--jobs', type=int, default=1)
    args = p.parse_args()
    df = read_manifest(args.films)
    df = df[df.source.eq('rsna2017') & df.split.eq('train')].reset_index(drop=True)
    both = joblib.Parallel(args.jobs)(joblib.delayed(hashes)(r) for _, r in df.iterrows())
    df['m_dhash'], mirror = zip(*both)
    near = nearest_hash(list(df.m_dhash))[0]
    dist, who = find_twins(df)
    df['patient_id'] = [min(i, df.id[w]) if d <= TWIN_BITS else i for i, d, w in zip(df.id, dist, who)]
    crossed, _ = nearest_hash(list(df.m_dhash) + list(mirror))
    print(f'{len(df)} films; {(near <= TWIN_BITS).sum()} have a neighbour within {TWIN_BITS} of 256 bits, {(dist <= TWIN_BITS).sum()} of them show the same picture; '
          f'{(crossed[:len(df)] <= TWIN_BITS).sum()} within {TWIN_BITS} bits when mirror images count')
    held = split_df(df, SHARE, SEED).query('split == "valid"')['id'].tolist()
    if args.write: HOLDOUT.write_text('\n'.join(held) + '\n')
    print(f'{len(held)} films held out; the list in the library {"is the same" if set(held) == holdout_ids() else "DIFFERS"}')

if __name__ == '__main__': main()
