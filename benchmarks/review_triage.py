"""How early the queue of `boneage qc` shows faults planted by plain transforms, and faults known beforehand.

    boneage segment films.csv --out work && boneage crop work && boneage qc work
    python benchmarks/review_triage.py work --seed 2     planted faults, 6 films of each kind
    python benchmarks/review_triage.py work --seed 2 --defects data/rsna_defects.csv \\
        --curve data/results/review_triage.csv        and films a person called defective
    python benchmarks/review_triage.py demo --films 600  the same on synthetic films

Each kind of fault is planted on films of the table drawn with --seed. A film with a fault goes through segmenter
and crop like any other; a wrong outline or a wrong crop is put in their place. The films that were changed leave
the table (copies keep theirs), the changed ones join it, and the whole queue is ranked again; known defects are
looked for in the queue as it is. Nothing here knows what `boneage.films.phantom` plants. The limits of the flags
were set with --seed 1; report another seed. --curve writes the share of faults met against the share of films
looked at.
"""
import time
from pathlib import Path

import numpy as np
import pandas as pd

from boneage.cropping import crop_df
from boneage.films.files import read_grey, read_mask, write_csv, write_png
from boneage.films.manifest import read_manifest
from boneage.films.phantom import phantom_df
from boneage.films.radiograph import load_film
from boneage.review.flags import found_in, qc_flags, qc_measure, rank_films, triage_curve
from boneage.review.twins import find_twins
from boneage.segmentation import get_segmenter, segment_df
from common import parser
from planted_faults import COPY, CROP, FILM, OUTLINE, Film

KINDS = dict(film=FILM, copy=COPY, outline=OUTLINE, crop=CROP)
FAULTS = FILM | COPY | OUTLINE | CROP
CROP_SIDE = 256 # px; a review needs no more
STRIDE, OFFSET = 7, 3 # film k of the pool gets the neighbour 7 k + 3: never itself, and not always the next
EARLY = .05, .1, .2 # shares of the queue that are printed
FINE, COARSE = np.linspace(0, .3, 46), np.linspace(.35, 1, 14) # shares of the queue that the file holds
DEMO_SEEDS = 10 # added to --seed, so that no film of the pages is among them


def read_film(row)->Film:
    "Pixels and mask of a row."
    film = load_film(row)
    return Film(film.pixels, read_mask(row.mask_path, film.shape))


def plant_one(row, other, kind:str, name:str, out:Path, rng)->dict:
    "One changed film, written; its row of the table."
    film = read_film(row)
    neighbour = read_film(other)
    made = dict(id=name, fault=kind, source_id=row['id'], path=str(out/'films'/f'{name}.png'))
    made |= {c: row[c] for c in ('sex', 'age_months') if c in row}
    change = (FILM | COPY).get(kind)
    write_png(made['path'], change(film, rng, neighbour) if change else film.pixels)
    if kind in OUTLINE:
        made |= dict(mask_path=str(out/'outlines'/f'{name}.png'), seg_status='ok')
        write_png(made['mask_path'], OUTLINE[kind](film, rng, neighbour))
    if kind in CROP:
        made |= dict(mask_path=row.mask_path, seg_status='ok', crop_from=other.crop_path)
    return made


def plant(pool, out:Path, *, seed:int, per:int)->pd.DataFrame:
    "Changed films, their outlines and crops as a table; each film of the pool is used once."
    rng = np.random.default_rng(seed)
    rows = []
    for kind in FAULTS:
        for j in range(per):
            k = len(rows)
            film = pool.iloc[k % len(pool)]
            other = pool.iloc[(STRIDE*k + OFFSET) % len(pool)]
            rows.append(plant_one(film, other, kind, f'{kind}-{j}', out, rng))
    return pd.DataFrame(rows)


def spoil_crops(df):
    "Put wrong crops in the place of those that were made."
    for row in df[df.fault.isin(list(CROP))].itertuples():
        crop = CROP[row.fault](read_grey(row.crop_path, 'crop'), read_grey(row.crop_from, 'crop'))
        if crop is None:
            Path(row.crop_path).unlink(missing_ok=True)
        else:
            write_png(row.crop_path, crop)


def planted(pool, out:Path, o)->pd.DataFrame: # o: the options
    "The changed films, segmented, cropped and measured; a second call takes the files of the first."
    done = out/f'planted-{o.seed}-{o.per}-{o.segmenter}.pkl'
    if done.exists():
        return pd.read_pickle(done)
    df = plant(pool, out, seed=o.seed, per=o.per)
    given = df.mask_path.notna()
    start = time.time()
    films = segment_df(df[~given].drop(columns=['mask_path', 'seg_status']), out, get_segmenter(o.segmenter), n_jobs=1)
    df = crop_df(pd.concat([films, df[given]], ignore_index=True), out, CROP_SIDE, n_jobs=o.jobs)
    spoil_crops(df)
    df = qc_measure(df, out, n_jobs=o.jobs)
    print(f'{len(df)} films changed, segmented, cropped and measured in {time.time() - start:.0f} s')
    df.to_pickle(done)
    return df


def demo_table(out:Path, o)->pd.DataFrame:
    "Synthetic films with measures."
    folder = out/'clean'
    df = phantom_df(o.films, folder, seed=DEMO_SEEDS + o.seed, n_jobs=o.jobs)
    df = df.assign(mask_path=df.true_mask_path, seg_status='ok')
    return qc_flags(crop_df(df, folder, CROP_SIDE, n_jobs=o.jobs), folder, n_jobs=o.jobs)


def read_table(o)->tuple: # table with measures, folder for the changed films
    "What `boneage qc` wrote, or synthetic films."
    if str(o.work) != 'demo':
        return read_manifest(o.work/'qc.csv'), o.out or o.work/'planted'
    out = o.out or Path('data/demo_triage')
    return demo_table(out, o), out


def queue_with(base, bad)->pd.DataFrame:
    "The whole queue, ranked with the changed films in the place of those they were made from."
    replaced = bad.source_id[~bad.fault.isin(list(COPY))].astype(base['id'].dtype)
    rest = base[~base['id'].isin(replaced)]
    queue = pd.concat([rest.assign(fault=''), bad], ignore_index=True)
    queue = queue.drop(columns=[c for c in ('m_twin', 'twin_id') if c in queue])
    return rank_films(queue.assign(m_twin=find_twins(queue)[0]))


def worst_severity(severities)->str:
    "Of all findings on one film."
    return next((o for o in ('major', 'minor') if (severities == o).any()), '')


def known(queue, defects)->dict: # name -> bool, one a film
    "Films a person has called defective, by their worst severity."
    worst = defects.assign(id=defects['id'].astype(str)).groupby('id').severity.agg(worst_severity)
    severity = queue['id'].astype(str).map(worst)
    return {f'known defect: {o}': severity == o for o in ('major', 'minor')}


def planted_sets(queue)->dict: # name -> bool, one a film
    "Films with a planted fault, together and by what is wrong."
    sets = {'planted, all kinds': queue.fault != ''}
    return sets | {f'planted: fault of the {name}': queue.fault.isin(list(faults)) for name, faults in KINDS.items()}


def thin(curve)->pd.DataFrame:
    "A curve at 60 points."
    at = np.r_[FINE, COARSE]
    return pd.DataFrame(dict(queue=at.round(4), found=np.interp(at, curve.queue, curve.found).round(4)))


def met(queue, sets)->list: # a table for each set
    "How early each set of films is met in a queue, printed; the curves."
    tables = []
    for name, bad in sets.items():
        if not bad.any():
            continue
        curve = triage_curve(queue, bad)
        shares = '  '.join(f'{found_in(curve, share):6.1%}' for share in EARLY)
        print(f'{name:42} {int(bad.sum()):6}  {shares}')
        tables.append(thin(curve).assign(faults=name, films=int(bad.sum())))
    return tables


def say_rest(queue, per:int):
    "Which kinds come late, and how many films carry a flag for nothing."
    late = queue[(queue.fault != '') & (queue.qc_rank > .1*len(queue))]
    counts = late.groupby('fault').size().sort_values(ascending=False)
    print('later than the first 10%:', ', '.join(f'{k} {n} of {per}' for k, n in counts.items()) or 'none')
    flagged = queue.qc_flags[queue.fault == ''] != ''
    print(f'films without a planted fault that carry a flag: {flagged.mean():.1%}')


def options():
    p = parser(__doc__, seed=2, films=600, jobs=1, out=None)
    p.add_argument('work', type=Path, help='folder with qc.csv from `boneage qc`, or `demo`')
    p.add_argument('--per', type=int, default=6, help='films of each kind of fault')
    p.add_argument('--segmenter', default='hand_vit_tiny', help='hand_vit_tiny, classical, vit_b, vit_l or vit_h')
    p.add_argument('--defects', type=Path, help='CSV with id, defect, severity of films a person looked at')
    p.add_argument('--curve', type=Path, help='CSV to write')
    return p.parse_args()


def main():
    o = options()
    base, out = read_table(o)
    good = base[(base.seg_status == 'ok') & base.crop_path.notna()]
    pool = good.sample(min(len(good), o.per*len(FAULTS)), random_state=o.seed)
    queue = queue_with(base, planted(pool, out, o))
    n = (queue.fault != '').sum()
    print(f'{len(queue):,} films in the queue, {n} with a planted fault; met in the first   5%     10%     20%')
    tables = met(queue, planted_sets(queue))
    if o.defects:
        alone = rank_films(base)
        tables += met(alone, known(alone, pd.read_csv(o.defects)))
    say_rest(queue, o.per)
    if o.curve:
        write_csv(pd.concat(tables), o.curve)


if __name__ == '__main__':
    main()
