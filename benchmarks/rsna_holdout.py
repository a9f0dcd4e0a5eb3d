"""Draw the hold-out of the RSNA training films and look for films that stand in it and outside.

    boneage rsna FOLDER --out data/rsna/films.csv
    python benchmarks/rsna_holdout.py data/rsna/films.csv

A tenth of the 12,611 training films, drawn by `split_df` over sex and age band with the seed below; films that show
the same picture (`find_twins`: perceptual hash, then correlation of the thumbnails; also mirrored) stay on one
side. --write puts the ids into the library.
"""
import joblib
import numpy as np
import pandas as pd

from boneage.films.manifest import read_manifest
from boneage.films.radiograph import load_film
from boneage.films.rsna import HOLDOUT, holdout_ids
from boneage.model.rows import split_df
from boneage.review.twins import TWIN_BITS, dhash, find_twins, nearest_hash
from common import parser

SEED = 2017
SHARE = .1


def hashes(row)->tuple: # two hex strings
    "Perceptual hash of a film and of its mirror image."
    pixels = load_film(row).pixels
    return dhash(pixels), dhash(np.ascontiguousarray(pixels[:, ::-1]))


def close(distances)->np.ndarray: # bool
    "Which films have a look-alike."
    return np.asarray(distances) <= TWIN_BITS


def with_twins(df, jobs:int)->pd.DataFrame:
    "The films with `patient_id`, the same for films that show the same picture; the counts are printed."
    both = joblib.Parallel(jobs)(joblib.delayed(hashes)(row) for _, row in df.iterrows())
    plain, mirrored = zip(*both)
    df = df.assign(m_dhash=plain)
    near, _ = nearest_hash(list(plain))
    crossed, _ = nearest_hash(list(plain) + list(mirrored))
    distance, twin = find_twins(df)
    ids = df['id'].tolist()
    patient = [min(i, ids[k]) if same else i for i, k, same in zip(ids, twin, close(distance))]
    print(f'{len(df)} films; {close(near).sum()} have a neighbour within {TWIN_BITS} of 256 bits, '
          f'{close(distance).sum()} of them show the same picture; '
          f'{close(crossed[:len(df)]).sum()} within {TWIN_BITS} bits when mirror images count')
    return df.assign(patient_id=patient)


def main():
    p = parser(__doc__, jobs=1)
    p.add_argument('films', help='table after `boneage rsna`')
    p.add_argument('--write', action='store_true', help='put the ids into the library')
    o = p.parse_args()
    df = read_manifest(o.films)
    df = df[df.source.eq('rsna2017') & df.split.eq('train')].reset_index(drop=True)
    held = split_df(with_twins(df, o.jobs), SHARE, SEED).query('split == "valid"')['id'].tolist()
    if o.write:
        HOLDOUT.write_text('\n'.join(held) + '\n')
    same = 'is the same' if set(held) == holdout_ids() else 'DIFFERS'
    print(f'{len(held)} films held out; the list in the library {same}')


if __name__ == '__main__':
    main()
