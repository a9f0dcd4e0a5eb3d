"""Judge a trained network, or a blend of several, once on the RSNA films set apart, and write what ships: weights, card, and the tables that the results page reads.

    python benchmarks/rsna_release.py work/cropped.csv boneage/weights data/results work/model/boneage_lite0
    python benchmarks/rsna_release.py work/cropped.csv boneage/weights data/results work/second/boneage_lite0 work/model/boneage_lite0 --name boneage_blend --size 192

The table's rows of split 'test' judge. Their crops may be made otherwise than those of the training, turned upright for instance; the card then says how films
are to be prepared, and metrics and intervals are of films prepared so. The file of half-precision weights is compared with the checkpoints that it was made from."""
import argparse, json, shutil
from pathlib import Path
from boneage.core import read_manifest, write_csv
from boneage.evaluate import evaluate_df
from boneage.train_fastai import blend, cross_intervals, judge, load_release, predict_df, read_checkpoint, save_release

def full_precision(release):
    "A release with the weights of the checkpoint beside it"
    model = load_release(release)
    model.net.load_state_dict(read_checkpoint(release.parent/'checkpoint.pth')['model'])
    return model

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for k in ('table', 'weights', 'results'): p.add_argument(k, type=Path)
    p.add_argument('releases', type=Path, nargs='+'); p.add_argument('--name'); p.add_argument('--size', type=int)
    o = p.parse_args()
    df, models, name = read_manifest(o.table, ('id',)), [full_precision(r) for r in o.releases], o.name or o.releases[-1].stem
    how = dict(crop=json.loads((o.table.parent/'crop.json').read_text()), size=o.size)
    model, valid = judge(models[0], df, **how) if len(models) == 1 else blend(models, df, name=name, **how)
    shipped = load_release(save_release(model, o.weights/name, name=name, dtype='fp16'))
    out = cross_intervals(predict_df(valid.rename(columns=dict(pred_months='months_fp32')), shipped)).rename(columns=dict(months_fp32='pred_months_fp32'))
    write_csv(out[['id', 'sex', 'age_months', 'pred_months', 'pred_low', 'pred_high', 'pred_months_fp32', 'model']], o.results/f'{name}_holdout.csv')
    if len(models) == 1: shutil.copy(o.releases[0].parent/'history.csv', o.results/f'{name}_history.csv')
    print(evaluate_df(out), f"\n{shipped.version}, {shipped.card['weights']['bytes']:,} bytes; largest change by rounding: {(out.pred_months - out.pred_months_fp32).abs().max():.3f} months")
    print(json.dumps(shipped.card['preprocessing']))

if __name__ == '__main__': main()
