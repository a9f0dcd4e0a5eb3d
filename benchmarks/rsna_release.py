"""Judge a trained network once on the RSNA films set apart, and write what ships: weights, card, and the tables that the results page reads.

    python benchmarks/rsna_release.py work/model/boneage_lite0 work/cropped.csv boneage/weights data/results

The table's rows of split 'test' judge. Their crops may be made otherwise than those of the training, turned upright for instance; the card then says how films
are to be prepared, and metrics and intervals are of films prepared so. The file of half-precision weights is compared with the checkpoint that it was made from."""
import argparse, json, shutil
from pathlib import Path
from boneage.core import read_manifest, write_csv
from boneage.evaluate import evaluate_df
from boneage.train_fastai import cross_intervals, judge, load_release, predict_df, read_checkpoint, save_release

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for k in ('release', 'table', 'weights', 'results'): p.add_argument(k, type=Path)
    o = p.parse_args()
    df, name, trained = read_manifest(o.table, ('id',)), o.release.stem, load_release(o.release)
    trained.net.load_state_dict(read_checkpoint(o.release.parent/'checkpoint.pth')['model'])
    model, valid = judge(trained, df, crop=json.loads((o.table.parent/'crop.json').read_text()))
    shipped = load_release(save_release(model, o.weights/name, name=name, dtype=trained.card['weights']['dtype']))
    out = cross_intervals(predict_df(valid.rename(columns=dict(pred_months='months_fp32')), shipped)).rename(columns=dict(months_fp32='pred_months_fp32'))
    write_csv(out[['id', 'sex', 'age_months', 'pred_months', 'pred_low', 'pred_high', 'pred_months_fp32', 'model']], o.results/f'{name}_holdout.csv')
    shutil.copy(o.release.parent/'history.csv', o.results/f'{name}_history.csv')
    print(evaluate_df(out), f"\n{shipped.version}, {shipped.card['weights']['bytes']:,} bytes; largest change by rounding: {(out.pred_months - out.pred_months_fp32).abs().max():.3f} months")
    print(json.dumps(shipped.card['preprocessing']))

if __name__ == '__main__': main()
