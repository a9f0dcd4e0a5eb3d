"""What became of all RSNA films: the table of outcomes, and the two small files that the page shows.

    boneage rsna data/rsna                               the manifest: films.csv, say
    boneage segment films.csv --out WORK --jobs 2        segmented.csv and masks/
    python benchmarks/rsna_films.py WORK                 writes data/rsna_films.csv and data/rsna_bands.csv
    python benchmarks/rsna_films.py WORK --time 100      also seconds a film and peak memory, one process
    python benchmarks/rsna_films.py WORK --look ids.txt  contact sheets of these films below WORK/look
    python benchmarks/rsna_films.py WORK --pairs         the most similar pairs of films, mirrored ones too
    python benchmarks/rsna_films.py WORK --prune         after a run with other weights: see below

Findings in data/rsna_defects.csv are made by eye. Of them only `mask_wrong` depends on the weights. With other
weights, `--prune` takes refusals that are gone from the list and writes the films whose outline must be looked at
again to WORK/look_again.txt, for `--look`.

WORK holds `segmented.csv`, or `films.csv` and the journal `segment.jsonl` of a run that is still going on. A run
from before December 2026 has no codes: its films get no reason. No pixels are written into data/: ids, scores and
counts only. The sheets show films: they stay in WORK.
"""
import resource
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from boneage.core import outline, shrink
from boneage.cropping import stretch_contrast
from boneage.films.files import read_mask, write_csv, write_png
from boneage.films.journal import read_journal
from boneage.films.manifest import read_manifest
from boneage.films.radiograph import load_film
from boneage.segmentation import RULE_WORDS, HandSam
from common import parser, timed

DATA = Path(__file__).resolve().parents[1]/'data'
SCORES = ['predicted_iou', 'stability_score', 'mask_area', 'mask_weight']
BANDS = [0, 24, 60, 96, 132, 168, 229] # months
LEAST = dict(predicted_iou=.95, stability_score=.85, mask_weight=.7, mask_area=.08) # few accepted films have less
MOST_AREA = .45 # of the film; published as the 99th percentile


# ---- what the run says

def finished(line:dict)->dict:
    "The columns of a film whose line stands in the journal."
    failed = dict(seg_status='error', seg_error=line['error'], seg_code=line.get('code'))
    return line['row'] or failed


def read_run(work)->pd.DataFrame:
    "The segmented manifest of a workspace; of a run still going on, the films done so far."
    work = Path(work)
    if (work/'segmented.csv').exists():
        return read_manifest(work/'segmented.csv')
    df = read_manifest(work/'films.csv')
    done = {i: finished(line) for i, line in read_journal(work/'segment.jsonl').items()}
    rows = pd.DataFrame.from_dict(done, orient='index')
    return df[df.id.isin(rows.index)].join(rows, on='id')


def short_reason(
    code:str, # such as 'hand.solidity'; '' for a film that is well
)->str: # such as 'solidity'
    "What a refusal or error is about, in a few words."
    name = code.rpartition('.')[2]
    return RULE_WORDS.get(name, name)


def reasons(df)->list:
    "Why each film was refused; '' for those that were not."
    codes = df.get('seg_code', pd.Series('', df.index))
    return [short_reason(code) for code in codes.astype(object).fillna('')]


# ---- the tables

def doubtful(df)->pd.Series: # bool
    "Accepted, but with a score or an area that few films have: what a reader should see first."
    odd = df.mask_area > MOST_AREA
    for column, least in LEAST.items():
        odd |= df[column] < least
    return (df.status == 'ok') & odd


def film_table(df)->pd.DataFrame:
    "One row a film: outcome, reason, scores."
    status = df.seg_status.fillna('error')
    out = pd.DataFrame(dict(id=df.id.astype(int), status=status, reason=reasons(df)))
    for column in SCORES:
        out[column] = pd.to_numeric(df[column]).where(status == 'ok').round(3)
    out['flagged'] = doubtful(out).astype(int)
    return out.sort_values('id')


def quantile(share:float):
    "A function that takes a quantile, for `agg`."
    def of(values):
        return values.quantile(share)
    return of


def not_ok(status)->int:
    return (status != 'ok').sum()


def band_table(df)->pd.DataFrame:
    "Counts and area by age band and sex, so that the page needs no labels."
    labels = df.assign(id=df.id.astype(int)).set_index('id')[['sex', 'age_months']]
    table = film_table(df).set_index('id').join(labels)
    names = [f'{low}-{high - 1}' for low, high in zip(BANDS, BANDS[1:])]
    table['band'] = pd.cut(table.age_months, BANDS, right=False, labels=names)
    counts = table.groupby(['band', 'sex'], observed=True).agg(
        films=('status', 'size'), refused=('status', not_ok), flagged=('flagged', 'sum'),
        area_p01=('mask_area', quantile(.01)), area_median=('mask_area', 'median'),
        area_p99=('mask_area', quantile(.99)))
    return counts.round(3).reset_index()


def outcomes(table)->pd.DataFrame:
    "Accepted, flagged and refused films with their reasons."
    ok = table.status == 'ok'
    rows = [
        ('accepted', (ok & (table.flagged == 0)).sum()),
        ('accepted, flagged', (ok & (table.flagged == 1)).sum()),
        ('refused', (~ok).sum())]
    rows += [(f'refused: {reason}', n) for reason, n in table.reason[~ok].value_counts().items()]
    out = pd.DataFrame(rows, columns=['outcome', 'films'])
    return out.assign(share=(out.films/len(table)).round(4))


# ---- the list of defects after a run with other weights

def prune(defects, table)->pd.DataFrame:
    "Without refusals of films that are now accepted; a film with no other finding becomes `none`."
    refusal = (defects.defect == 'mask_wrong') & defects.note.str.startswith('refused')
    gone = refusal & ~defects.id.isin(table.id[table.status != 'ok'])
    alone = gone & ~defects.id.duplicated(keep=False)
    out = defects[~gone | alone].copy()
    out.loc[alone[alone].index, ['defect', 'severity', 'note', 'found_by']] = ['none', '', '', '']
    return out


def look_again(defects, table)->list:
    "Ids to look at after a run with other weights: refused, flagged, or once outlined wrongly."
    odd = table.id[(table.status != 'ok') | (table.flagged == 1)]
    return sorted({*odd, *defects.id[defects.defect == 'mask_wrong']})


def prune_list(table, out:Path, work:Path):
    "Write the list without what is gone, and the ids to look at."
    listed = pd.read_csv(DATA/'rsna_defects.csv', keep_default_na=False)
    write_csv(prune(listed, table), out/'rsna_defects.csv')
    again = look_again(listed, table)
    file = work/'look_again.txt'
    file.write_text('\n'.join(map(str, again)))
    print(f'{len(again)} films to look at again: {file}')


# ---- time and memory

def read_and_segment(segmenter, row):
    return segmenter.segment(load_film(row).pixels)


def time_films(df, n:int, seed:int=0)->str:
    "Seconds a film, median and 95th percentile, decode included, and peak memory of this process."
    import torch
    torch.set_num_threads(1)
    segmenter = HandSam()
    spent = []
    for _, row in df.sample(min(n, len(df)), random_state=seed).iterrows():
        spent.append(timed(partial(read_and_segment, segmenter, row))[1])
    median, late = np.percentile(spent, [50, 95])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024
    return (f'{len(spent)} films, one thread: median {median:.2f} s, 95th percentile {late:.2f} s, '
            f'peak memory {peak:.0f} MB')


# ---- contact sheets

LABEL = 14 # px below a film, for its id


def film_picture(row)->np.ndarray: # uint8 HxWx3
    "A film stretched between its darkest and brightest greys, with its outline."
    pixels = stretch_contrast(load_film(row).pixels, low=1, high=99)
    if row.seg_status == 'ok':
        return outline(pixels, read_mask(row.mask_path, pixels.shape))
    return np.repeat(pixels[..., None], 3, 2)


def tile(row, side:int=180)->np.ndarray: # uint8, side + LABEL x side x 3
    "One film of a sheet, its id below."
    img = shrink(film_picture(row), side)
    out = np.zeros((side + LABEL, side, 3), np.uint8)
    out[:img.shape[0], :img.shape[1]] = img
    at = 2, side + LABEL - 3
    return cv2.putText(out, str(row.id), at, cv2.FONT_HERSHEY_SIMPLEX, .4, (255, 255, 255), 1, cv2.LINE_AA)


def sheet(tiles:list, columns:int)->np.ndarray:
    "Tiles side by side and below each other; black where there is none."
    empty = -len(tiles) % columns
    tiles = tiles + [np.zeros_like(tiles[0])]*empty
    return np.vstack([np.hstack(tiles[i:i + columns]) for i in range(0, len(tiles), columns)])


def contact_sheets(df, ids, folder, columns:int=8, rows:int=5)->int: # films on the sheets
    "Sheets of films as PNG files in a folder."
    tiles = [tile(df.loc[i]) for i in map(str, ids) if i in df.index]
    n = columns*rows
    for k in range(0, len(tiles), n):
        write_png(Path(folder)/f'sheet-{k//n:03d}.png', sheet(tiles[k:k + n], columns))
    return len(tiles)


# ---- films that are alike

SLOW = 1/50 # of the side: what changes more slowly is no grain
PLACE = 1/16 # of the side: how wide the places are that get the same contrast
RIM = 1/10 # of the side, left out: frames and collimation


def fine_grain(pixels, side:int=64)->np.ndarray: # float32, a vector of length 1 laid out as a square
    "What is left of a film without its slow changes, each place at the same contrast."
    grain = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    grain -= cv2.GaussianBlur(grain, (0, 0), side*SLOW)
    grain /= np.sqrt(cv2.GaussianBlur(grain*grain, (0, 0), side*PLACE)) + .5
    rim = int(side*RIM)
    grain = grain[rim:-rim, rim:-rim]
    grain = grain - grain.mean()
    return grain/max(np.linalg.norm(grain), 1e-6)


def grain_of(row)->np.ndarray:
    return fine_grain(load_film(row).pixels)


def most_alike(a, b, first:int, top:int): # yields row of a, row of b, correlation
    "The most similar pairs of two stacks of grain; row i of a is film first + i, and counts with later films only."
    correlation = np.triu(a.reshape(len(a), -1) @ b.reshape(len(b), -1).T, first + 1)
    order = np.argpartition(-correlation, top, axis=None)[:top]
    for i, j in zip(*np.unravel_index(order, correlation.shape)):
        yield first + i, j, round(float(correlation[i, j]), 3)


def similar_pairs(df, top:int=20, block:int=1000)->pd.DataFrame: # a, b, mirrored, correlation
    """Pairs of films by the correlation of their fine grain; `mirrored` compares with the mirror image.

    A copy reaches 0.93 after JPEG 50, gamma 0.7 or halving, 0.81 when shifted by 1%."""
    grain = np.stack(Parallel(-1)(delayed(grain_of)(row) for _, row in df.iterrows())).astype(np.float32)
    ids = df.id.to_numpy()
    pairs = []
    for mirrored in (False, True):
        other = grain[:, :, ::-1] if mirrored else grain
        for k in range(0, len(df), block):
            found = most_alike(grain[k:k + block], other, k, top)
            pairs += [(ids[i], ids[j], mirrored, r) for i, j, r in found]
    return pd.DataFrame(pairs, columns=['a', 'b', 'mirrored', 'correlation']).nlargest(top, 'correlation')


# ---- the command

def say(table, df):
    "Outcomes and areas."
    print(f'{len(table):,} films, {df.segmenter.dropna().iloc[0]}')
    print(outcomes(table).to_string(index=False))
    print(table.mask_area.describe(percentiles=[.01, .05, .5, .95, .99]).round(3).to_string())


def main():
    p = parser(__doc__, out=DATA)
    p.add_argument('work', type=Path, help='workspace folder of the segmentation run')
    p.add_argument('--time', type=int, default=0, metavar='N', help='segment N films again, timed')
    p.add_argument('--look', type=Path, metavar='FILE', help='ids, one a line: contact sheets below WORK/look')
    p.add_argument('--prune', action='store_true', help='bring the list of defects in line with a run of other weights')
    p.add_argument('--pairs', action='store_true', help='the most similar pairs of films')
    o = p.parse_args()
    df = read_run(o.work)
    table = film_table(df)
    write_csv(table, o.out/'rsna_films.csv')
    write_csv(band_table(df), o.out/'rsna_bands.csv')
    say(table, df)
    if o.time:
        print(time_films(df, o.time))
    if o.look:
        n = contact_sheets(df.set_index('id', drop=False), o.look.read_text().split(), o.work/'look')
        print(n, 'films on sheets in', o.work/'look')
    if o.pairs:
        print(similar_pairs(df).to_string(index=False))
    if o.prune:
        prune_list(table, o.out, o.work)


if __name__ == '__main__':
    main()
