"""How far a reading moves when a film is turned, mirrored, inverted, brightened, marked, shrunk or enlarged.

    python benchmarks/reading_stress.py work/films.csv --films 60 --seed 0 --out data/results/reading_stress.csv

Films of split 'test' (see `boneage rsna --holdout`) are drawn with --seed. Each is changed, written as PNG, and
read from the file by the whole of `boneage predict`: sign, outline, crop, network. Nothing is told about what was
done to it. Printed for each change: films refused, error and bias of those read, the mean move against the same
film unchanged, and the share that moved by more than a year, as Santomartino et al. counted clinically significant
changes (Radiol Artif Intell 2024;6(3):e230240).
"""
import tempfile
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from boneage.films.files import stem, write_csv, write_png
from boneage.films.manifest import read_manifest
from boneage.films.radiograph import load_film
from boneage.predict import BoneAgePredictor
from boneage.training.data import jpeg_copy
from common import grey, parser, turned

MID_GREY = 128
YEAR = 12 # months


def unchanged(pixels):
    return pixels


def on_its_side(pixels):
    return np.rot90(pixels)


def upside_down(pixels):
    return pixels[::-1, ::-1]


def mirrored(pixels):
    return pixels[:, ::-1]


def inverted(pixels):
    return 255 - pixels


def brighter(pixels, by:float): # grey levels
    return grey(pixels + by)


def with_contrast(pixels, factor:float):
    return grey((pixels - float(MID_GREY))*factor + MID_GREY)


def with_gamma(pixels, exponent:float):
    return grey((pixels/255.)**exponent*255)


def scaled(pixels, factor:float):
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=how)


def marked(pixels):
    "A white letter in the upper corner, a tenth of the film high."
    height, width = pixels.shape
    k = height/300
    at = round(.04*width), round(.14*height)
    return cv2.putText(
        pixels.copy(), 'R', at, cv2.FONT_HERSHEY_SIMPLEX, 1.3*k, 255, max(1, round(3*k)), cv2.LINE_AA)


CHANGES = { # what the table calls it -> function of the pixels; the first is what the others are set against
    'none': unchanged,
    'turned by 10 degrees': partial(turned, degrees=10),
    'turned by -10 degrees': partial(turned, degrees=-10),
    'turned by 20 degrees': partial(turned, degrees=20),
    'turned by -20 degrees': partial(turned, degrees=-20),
    'on its side': on_its_side,
    'upside down': upside_down,
    'mirrored': mirrored,
    'inverted': inverted,
    'brighter by 40': partial(brighter, by=40.),
    'darker by 40': partial(brighter, by=-40.),
    'contrast x 0.6': partial(with_contrast, factor=.6),
    'contrast x 1.4': partial(with_contrast, factor=1.4),
    'gamma 0.7': partial(with_gamma, exponent=.7),
    'gamma 1.4': partial(with_gamma, exponent=1.4),
    'marker': marked,
    'half the size': partial(scaled, factor=.5),
    'twice the size': partial(scaled, factor=2),
    'JPEG 30': partial(jpeg_copy, quality=30)}


def read_changed(df, change, reader:BoneAgePredictor, jobs:int)->pd.Series: # months
    "What is read from films after a change."
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder)/f'{stem(i)}.png') for i in df['id']]
        for path, (_, row) in zip(paths, df.iterrows()):
            write_png(path, change(load_film(row).pixels))
        return reader.predict_df(df.assign(path=paths, aspect=np.nan), n_jobs=jobs).pred_months


def measure(df, months:pd.Series, plain:pd.Series)->dict:
    "How wrong the readings are, and how far they moved."
    error = months - df.age_months
    move = (months - plain).abs()
    return dict(
        films=len(df), refused=int(months.isna().sum()), mae=error.abs().mean(), bias=error.mean(), move=move.mean(),
        over_a_year=(move > YEAR).mean())


def stress(df, reader:BoneAgePredictor, jobs:int)->pd.DataFrame: # one row a change
    "Every change, printed as it is done."
    rows = []
    plain = None
    for name, change in CHANGES.items():
        months = read_changed(df, change, reader, jobs)
        plain = months if plain is None else plain
        rows.append(dict(change=name) | measure(df, months, plain))
        print(pd.DataFrame(rows[-1:]).round(3).to_string(index=False, header=len(rows) == 1), flush=True)
    return pd.DataFrame(rows)


def main():
    p = parser(__doc__, films=100, seed=0, jobs=1, out=None)
    p.add_argument('table', help='table after `boneage rsna --holdout`')
    p.add_argument('--model', help='released name or path; without it the default of `boneage predict`')
    o = p.parse_args()
    df = read_manifest(o.table, ('id', 'path', 'sex', 'age_months'))
    df = df[df.split.eq('test')]
    df = df.sample(min(o.films, len(df)), random_state=o.seed).reset_index(drop=True)
    reader = BoneAgePredictor(o.model)
    print(f'{reader}, {len(df)} films')
    table = stress(df, reader, o.jobs)
    if o.out:
        write_csv(table.round(3), o.out)


if __name__ == '__main__':
    main()
