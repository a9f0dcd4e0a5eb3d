"""What became of all RSNA films: the table of outcomes, and the two small files that the page shows.

    boneage rsna data/rsna                                   # the manifest: films.csv, say
    boneage segment films.csv --out WORK --jobs 2            # segmented.csv and masks/
    python benchmarks/rsna_films.py WORK                     # writes data/rsna_films.csv and data/rsna_bands.csv
    python benchmarks/rsna_films.py WORK --time 100          # also seconds a film and peak memory, one process
    python benchmarks/rsna_films.py WORK --look ids.txt      # contact sheets of these films below WORK/look, to be looked at
    python benchmarks/rsna_films.py WORK --pairs             # the most similar pairs of films, mirrored ones too
    python benchmarks/rsna_films.py WORK --prune             # after a run with other weights: see below

Findings in data/rsna_defects.csv are made by eye. Of them only `mask_wrong` depends on the weights. With other weights, `--prune` takes
refusals that are gone from the list and writes the films whose outline must be looked at again to WORK/look_again.txt, for `--look`.

WORK holds `segmented.csv`, or `films.csv` and the journal `segment.jsonl` of a run that is still going on.
No pixels are written into data/: ids, scores and counts only. The sheets show films: they stay in WORK.
"""
import argparse, json, re, time
from pathlib import Path

import cv2, numpy as np, pandas as pd

from boneage.core import load_film, outline, read_manifest, read_mask, shrink, write_csv, write_png

DATA = Path(__file__).resolve().parents[1]/'data'
SCORES = ['predicted_iou', 'stability_score', 'mask_area', 'mask_weight']
BANDS = [0, 24, 60, 96, 132, 168, 229]  # months

def read_run(work):
    "The segmented manifest of a workspace; of a run still going on, the films done so far"
    work = Path(work)
    if (work/'segmented.csv').exists(): return read_manifest(work/'segmented.csv')
    df = read_manifest(work/'films.csv')
    done = {}
    for line in (work/'segment.jsonl').read_text().splitlines():
        try: o = json.loads(line)
        except ValueError: continue  # a line that is being written
        done[str(o['id'])] = o['row'] or dict(seg_status='error', seg_error=o['error'])
    rows = pd.DataFrame.from_dict(done, orient='index')
    return df[df.id.isin(rows.index)].join(rows, on='id')

def short_reason(text):
    "The feature that failed, without its value"
    if pd.isna(text) or not str(text): return ''
    found = re.search(r'its (.+?) is (?!refused)', str(text))
    return found[1] if found else str(text).split(',')[0]

def doubtful(df):
    "Accepted, but with a score or an area that few films have: what a reader should see first"
    return (df.status == 'ok') & ((df.predicted_iou < .95) | (df.stability_score < .85) | (df.mask_weight < .7) | (df.mask_area < .08) | (df.mask_area > .45))

def film_table(df):
    "One row a film: outcome, reason, scores"
    out = pd.DataFrame(dict(id=df.id.astype(int), status=df.seg_status.fillna('error'), reason=[short_reason(o) for o in df.seg_error]))
    for c in SCORES: out[c] = pd.to_numeric(df[c]).where(out.status == 'ok').round(3).to_numpy()
    out['flagged'] = doubtful(out).astype(int)
    return out.sort_values('id')

def band_table(df):
    "Counts and area by age band and sex, so that the page needs no labels"
    t = film_table(df).set_index('id').join(df.assign(id=df.id.astype(int)).set_index('id')[['sex', 'age_months']])
    t['band'] = pd.cut(t.age_months, BANDS, right=False, labels=[f'{a}-{b-1}' for a, b in zip(BANDS, BANDS[1:])])
    g, q = t.groupby(['band', 'sex'], observed=True), lambda p: lambda s: s.quantile(p)
    return g.agg(films=('status', 'size'), refused=('status', lambda s: (s != 'ok').sum()), flagged=('flagged', 'sum'),
                 area_p01=('mask_area', q(.01)), area_median=('mask_area', 'median'), area_p99=('mask_area', q(.99))).round(3).reset_index()

def outcomes(t):
    "Accepted, flagged and refused films with their reasons"
    ok = t.status == 'ok'
    rows = [('accepted', (ok & (t.flagged == 0)).sum()), ('accepted, flagged', (ok & (t.flagged == 1)).sum()), ('refused', (~ok).sum())]
    rows += [(f'refused: {r}', n) for r, n in t.reason[~ok].value_counts().items()]
    return pd.DataFrame(rows, columns=['outcome', 'films']).assign(share=lambda d: (d.films/len(t)).round(4))

def time_films(df, n, seed=0):
    "Seconds a film, median and 95th percentile, decode included, and peak memory of this process"
    import resource, torch
    from boneage.hand_sam import HandSam
    torch.set_num_threads(1)
    seg, times = HandSam(), []
    for _, row in df.sample(min(n, len(df)), random_state=seed).iterrows():
        start = time.perf_counter()
        seg.segment(load_film(row).pixels)
        times.append(time.perf_counter() - start)
    mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024
    return f'{len(times)} films, one thread: median {np.median(times):.2f} s, 95th percentile {np.percentile(times, 95):.2f} s, peak memory {mb:.0f} MB'

def tile(row, side=180):
    "One film with its outline, stretched, its id below"
    p = load_film(row).pixels
    lo, hi = np.percentile(p, (1, 99))
    p = np.clip((p - lo)*255./max(hi - lo, 1), 0, 255).astype(np.uint8)
    img = outline(p, read_mask(row.mask_path, p.shape)) if row.seg_status == 'ok' else np.repeat(p[..., None], 3, 2)
    out = np.zeros((side + 14, side, 3), np.uint8)
    img = shrink(img, side)
    out[:img.shape[0], :img.shape[1]] = img
    cv2.putText(out, str(row.id), (2, side + 11), cv2.FONT_HERSHEY_SIMPLEX, .4, (255,)*3, 1, cv2.LINE_AA)
    return out

def contact_sheets(df, ids, folder, cols=8, rows=5):
    "Sheets of `cols` x `rows` films as PNG files in a folder"
    tiles = [tile(df.loc[i]) for i in map(str, ids) if i in df.index]
    for k in range(0, len(tiles), cols*rows):
        part = tiles[k:k + cols*rows]
        part += [np.zeros_like(part[0])]*(-len(part) % cols)
        write_png(Path(folder)/f'sheet-{k//(cols*rows):03d}.png', np.vstack([np.hstack(part[i:i + cols]) for i in range(0, len(part), cols)]))
    return len(tiles)

def prune(defects, t):
    "Without refusals of films that are now accepted; a film with no other finding becomes `none`"
    gone = (defects.defect == 'mask_wrong') & defects.note.str.startswith('refused') & ~defects.id.isin(t.id[t.status != 'ok'])
    alone = gone & ~defects.id.duplicated(keep=False)
    out = defects[~gone | alone].copy()
    out.loc[alone[alone].index, ['defect', 'severity', 'note', 'found_by']] = ['none', '', '', '']
    return out

def look_again(defects, t):
    "Ids to look at after a run with other weights: refused, flagged, or once outlined wrongly"
    return sorted({*t.id[(t.status != 'ok') | (t.flagged == 1)], *defects.id[defects.defect == 'mask_wrong']})

def fine_grain(pixels, side=64):
    "What is left of a film without its slow changes, each place at the same contrast: a vector of length 1"
    p = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    p -= cv2.GaussianBlur(p, (0, 0), side/50)
    p /= np.sqrt(cv2.GaussianBlur(p*p, (0, 0), side/16)) + .5
    p = p[side//10:-(side//10), side//10:-(side//10)]
    return (p - p.mean())/max(np.linalg.norm(p - p.mean()), 1e-6)

def similar_pairs(df, top=20, block=1000):
    "Pairs of films by the correlation of their fine grain; `mirrored` compares with the mirror image. A copy reaches 0.93 after JPEG 50, gamma 0.7 or halving, 0.81 when shifted by 1%"
    from joblib import Parallel, delayed
    grain = np.stack(Parallel(-1)(delayed(lambda row: fine_grain(load_film(row).pixels))(row) for _, row in df.iterrows())).astype(np.float32)
    flat, ids, out = lambda g: g.reshape(len(g), -1), df.id.to_numpy(), []
    for mirrored, other in ((False, flat(grain)), (True, flat(grain[:, :, ::-1]))):
        for k in range(0, len(df), block):
            c = np.triu(flat(grain[k:k + block]) @ other.T, k + 1)
            for i, j in zip(*np.unravel_index(np.argpartition(-c, top, axis=None)[:top], c.shape)): out.append((ids[k + i], ids[j], mirrored, round(float(c[i, j]), 3)))
    return pd.DataFrame(out, columns=['a', 'b', 'mirrored', 'correlation']).nlargest(top, 'correlation')

if __name__ == '__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('work', help='workspace folder of the segmentation run')
    ap.add_argument('--out', default=DATA, help='where the two CSV files go')
    ap.add_argument('--time', type=int, default=0, metavar='N', help='segment N films again, timed')
    ap.add_argument('--look', metavar='FILE', help='text file of ids, one a line: contact sheets below WORK/look')
    ap.add_argument('--prune', action='store_true', help='bring the list of defects in line with a run of other weights')
    ap.add_argument('--pairs', action='store_true', help='the most similar pairs of films')
    a = ap.parse_args()
    df = read_run(a.work)
    t = film_table(df)
    write_csv(t, Path(a.out)/'rsna_films.csv')
    write_csv(band_table(df), Path(a.out)/'rsna_bands.csv')
    print(f'{len(t):,} films, {df.segmenter.dropna().iloc[0]}')
    print(outcomes(t).to_string(index=False))
    print(t.mask_area.describe(percentiles=[.01, .05, .5, .95, .99]).round(3).to_string())
    if a.time: print(time_films(df, a.time))
    if a.look: print(contact_sheets(df.set_index('id', drop=False), Path(a.look).read_text().split(), Path(a.work)/'look'), 'films on sheets in', Path(a.work)/'look')
    if a.pairs: print(similar_pairs(df).to_string(index=False))
    if a.prune:
        listed = pd.read_csv(DATA/'rsna_defects.csv', keep_default_na=False)
        write_csv(prune(listed, t), Path(a.out)/'rsna_defects.csv')
        again = look_again(listed, t)
        (Path(a.work)/'look_again.txt').write_text('\n'.join(map(str, again)))
        print(f'{len(again)} films to look at again: {Path(a.work)/"look_again.txt"}')
