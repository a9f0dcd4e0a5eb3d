"""Evaluate a trained network, or a blend of several, once on the RSNA films set apart, and write what ships: weights,
card, and the tables that the results page reads.

    python benchmarks/rsna_release.py work-upright/cropped.csv boneage/weights data/results \\
        work/model/boneage_lite0 --size 192
    python benchmarks/rsna_release.py work-upright/cropped.csv boneage/weights data/results \\
        work/second/boneage_lite0 work/model/boneage_lite0 --name boneage_blend --size 192

The rows of split 'test' are read. Their crops may be made otherwise than those of the training, turned upright for
instance; the card then says how films are to be prepared, and metrics and intervals are of films prepared so. The
file of half-precision weights is compared with the checkpoints that it was made from.
"""
import json
import shutil
from pathlib import Path

from boneage.evaluate import evaluate_df
from boneage.films.files import write_csv
from boneage.films.manifest import read_manifest
from boneage.model.intervals import cross_intervals
from boneage.model.release import BoneAgeModel, blend, evaluate_on, load_release, predict_df, save_release
from boneage.terminal.tables import with_crop_how
from boneage.training.resume import read_checkpoint
from common import parser

COLUMNS = ['id', 'sex', 'age_months', 'pred_months', 'pred_low', 'pred_high', 'pred_months_fp32', 'model']


def full_precision(release:Path)->BoneAgeModel:
    "A release with the weights of the checkpoint beside it."
    model = load_release(release)
    model.net.load_state_dict(read_checkpoint(release.parent/'checkpoint.pth')['model'])
    return model


def evaluated(releases:list, df, name:str, size:int)->tuple: # model with its card, predictions
    "One network, or the mean of several, on the films set apart."
    models = [full_precision(release) for release in releases]
    if len(models) == 1:
        return evaluate_on(models[0], df, size=size)
    return blend(models, df, name=name, size=size)


def shipped_predictions(model:BoneAgeModel, films):
    "What the rounded weights answer, beside what the exact ones did."
    exact = films.rename(columns=dict(pred_months='pred_months_fp32'))
    return cross_intervals(predict_df(exact, model))[COLUMNS]


def say(model:BoneAgeModel, df):
    "Metrics, size of the file, and what rounding changed."
    print(evaluate_df(df))
    change = (df.pred_months - df.pred_months_fp32).abs().max()
    size = model.card['weights']['bytes']
    print(f'{model.version}, {size:,} bytes; largest change by rounding: {change:.3f} months')
    print(json.dumps(model.card['preprocessing']))


def main():
    p = parser(__doc__)
    p.add_argument('table', type=Path, help='table after `boneage crop`')
    p.add_argument('weights', type=Path, help='folder for weights and card')
    p.add_argument('results', type=Path, help='folder for the tables')
    p.add_argument('releases', type=Path, nargs='+', help='what `boneage train` wrote; several make a blend')
    p.add_argument('--name', help='of what ships; without it that of the last release')
    p.add_argument('--size', type=int, help="side at which films are read, px; without it the model's own")
    o = p.parse_args()
    name = o.name or o.releases[-1].stem
    df = with_crop_how(read_manifest(o.table, ('id',)))
    model, films = evaluated(o.releases, df, name, o.size)
    shipped = load_release(save_release(model, o.weights/name, name=name, dtype='fp16'))
    table = shipped_predictions(shipped, films)
    write_csv(table, o.results/f'{name}_holdout.csv')
    if len(o.releases) == 1:
        shutil.copy(o.releases[0].parent/'history.csv', o.results/f'{name}_history.csv')
    say(shipped, table)


if __name__ == '__main__':
    main()
