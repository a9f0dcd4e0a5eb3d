"""What ways of reading are worth for networks that are already trained: mirror image read as well, hand turned
upright, two networks averaged.

    python benchmarks/reading_ways.py work/cropped.csv work-upright/cropped.csv \\
        --models boneage_lite0 boneage_blend boneage_resnet50 --out data/results/reading_ways.csv

Both tables hold the same films, cropped as they lie and turned upright (`boneage crop --upright`); their rows of
split 'test' are read. Every row is set against the first, on the same films, by paired bootstrap.
"""
import numpy as np

from boneage.evidence.comparison import compare_df
from boneage.films.files import write_csv
from boneage.films.manifest import read_manifest
from boneage.model.network import load_crops, predict_films
from boneage.model.release import as_model
from boneage.model.rows import test_rows
from common import parser

BATCH = 16 # films
BEST = 'upright, both views' # the way in which networks are averaged


def views(model, df)->dict: # name of the way -> months
    "Films read once, and as the mean of film and mirror image."
    films = load_crops(df.crop_path, model.size)
    one = predict_films(model.net, films, df.sex, bs=BATCH)
    other = predict_films(model.net, np.ascontiguousarray(films[..., ::-1]), df.sex, bs=BATCH)
    return {'one view': one, 'both views': (one + other)/2}


def ways(names, poses:dict)->dict: # name -> table of predictions
    "Every network, hand's pose and number of views."
    found = {}
    for model in map(as_model, names):
        for pose, df in poses.items():
            for view, months in views(model, df).items():
                found[f"{model.card['name']}, {pose}, {view}"] = df.assign(pred_months=months)
    return found


def mean_of_networks(found:dict):
    "The networks' best ways, averaged film by film."
    best = [df for name, df in found.items() if name.endswith(BEST)]
    return best[0].assign(pred_months=np.mean([df.pred_months for df in best], 0))


def main():
    p = parser(__doc__, out=None)
    p.add_argument('as_it_lies', help='table after `boneage crop`')
    p.add_argument('upright', help='the same films after `boneage crop --upright`')
    p.add_argument('--models', nargs='+', required=True, help='released names or paths')
    o = p.parse_args()
    tables = {'as it lies': o.as_it_lies, 'upright': o.upright}
    found = ways(o.models, {pose: test_rows(read_manifest(path, ('id',))) for pose, path in tables.items()})
    if len(o.models) > 1:
        found[f'mean of the networks, {BEST}'] = mean_of_networks(found)
    table = compare_df(found).drop(columns=['left_out', 'better']).round(3)
    print(table.to_string(index=False))
    if o.out:
        write_csv(table, o.out)


if __name__ == '__main__':
    main()
