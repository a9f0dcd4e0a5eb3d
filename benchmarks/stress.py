"""How far a reading moves when a film is turned, mirrored, inverted, brightened, marked, shrunk or enlarged.

    python benchmarks/stress.py work/films.csv [--model boneage_lite0] [--films 100] [--seed 0] [--out stress.csv]

Films of split 'test' (see `boneage rsna --holdout`) are drawn with --seed. Each is changed, written as PNG, and read from the file by the whole of
`boneage predict`: sign, outline, crop, network. Nothing is told about what was done to it. Printed for each change: films refused, error and bias of those read, the mean
move against the same film unchanged, and the share that moved by more than a year, as Santomartino et al. counted clinically significant
changes (Radiol Artif Intell 2024;6(3):e230240)."""
import argparse, os, tempfile
from pathlib import Path

os.environ.setdefault('TQDM_DISABLE', '1')
import cv2, numpy as np, pandas as pd

from boneage.core import load_film, read_manifest, stem, write_csv, write_png
from boneage.cropping import Turn
from boneage.predict import BoneAgePredictor

def grey(x): return np.clip(x, 0, 255).astype(np.uint8)
def scaled(img, f): return cv2.resize(img, None, fx=f, fy=f, interpolation=cv2.INTER_AREA if f < 1 else cv2.INTER_CUBIC)

def turned(img, deg):
    "Turned to the left about the middle on a film that grows with it; what comes into view is as bright as the edge."
    return Turn(img.shape, -deg)(img, int(np.median(img[:5])))

def marked(img):
    "A white letter in the upper corner, a tenth of the film high."
    out, k = img.copy(), img.shape[0]/300
    cv2.putText(out, 'R', (round(.04*img.shape[1]), round(.14*img.shape[0])), cv2.FONT_HERSHEY_SIMPLEX, 1.3*k, 255, max(1, round(3*k)), cv2.LINE_AA)
    return out

CHANGES = {
    'none': lambda x: x, 'turned by 10 degrees': lambda x: turned(x, 10), 'turned by -10 degrees': lambda x: turned(x, -10), 'turned by 20 degrees': lambda x: turned(x, 20),
    'turned by -20 degrees': lambda x: turned(x, -20), 'on its side': lambda x: np.ascontiguousarray(np.rot90(x)), 'upside down': lambda x: np.ascontiguousarray(x[::-1, ::-1]),
    'mirrored': lambda x: np.ascontiguousarray(x[:, ::-1]), 'inverted': lambda x: 255 - x, 'brighter by 40': lambda x: grey(x + 40.), 'darker by 40': lambda x: grey(x - 40.),
    'contrast x 0.6': lambda x: grey((x - 128.)*.6 + 128), 'contrast x 1.4': lambda x: grey((x - 128.)*1.4 + 128), 'gamma 0.7': lambda x: grey((x/255.)**.7*255), 'gamma 1.4': lambda x: grey((x/255.)**1.4*255),
    'marker': marked, 'half the size': lambda x: scaled(x, .5), 'twice the size': lambda x: scaled(x, 2), 'JPEG 30': lambda x: cv2.imdecode(cv2.imencode('.jpg', x, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], 0)}

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('table'); p.add_argument('--model'); p.add_argument('--out')
    for k, v in dict(films=100, seed=0, jobs=1).items(): p.add_argument(f'--{k}', type=int, default=v)
    o = p.parse_args()
    df, reader, rows, plain = read_manifest(o.table, ('id', 'path', 'sex', 'age_months')), BoneAgePredictor(o.model), [], None
    df = df[df.split.eq('test')]
    df = df.sample(min(o.films, len(df)), random_state=o.seed).reset_index(drop=True)
    print(f'{reader}, {len(df)} films')
    for name, change in CHANGES.items():
        with tempfile.TemporaryDirectory() as tmp:
            paths = [Path(tmp)/f"{stem(r['id'])}.png" for _, r in df.iterrows()]
            for path, (_, r) in zip(paths, df.iterrows()): write_png(path, change(load_film(r).pixels))
            months = reader.predict_df(df.assign(path=list(map(str, paths)), aspect=np.nan), n_jobs=o.jobs).pred_months
        if plain is None: plain = months
        error, move = months - df.age_months, (months - plain).abs()
        rows.append(dict(change=name, films=len(df), refused=int(months.isna().sum()), mae=error.abs().mean(), bias=error.mean(), move=move.mean(), over_a_year=(move > 12).mean()))
        print(pd.DataFrame(rows[-1:]).round(3).to_string(index=False, header=len(rows) == 1), flush=True)
    if o.out: write_csv(pd.DataFrame(rows).round(3), o.out)

if __name__ == '__main__': main()
