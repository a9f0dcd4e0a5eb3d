"What the tests of the review share: synthetic films as rows of a table, and a decisions file as it stands on disk."
import numpy as np
import pandas as pd

from boneage.films.files import write_png
from boneage.films.phantom import make_phantom
from boneage.review.decisions import DECISION_COLS

HEAD = ','.join(DECISION_COLS) + '\n'
LINE = 'f1,reject,blurred,,anna,2026-01-01T10:00:00+00:00,0.1\n'
PLANTED = ['inverted', 'rotated', 'dark', 'blurred', 'second_hand', 'marker_on_hand', 'cropped', 'overexposed']

def film(folder, name, fault=None, seed=0):
    "One synthetic film with its true outline and a crop, written to files; its row of the table."
    ph = make_phantom(seed, 120, 'F', size=256, fault=fault)
    row = dict(id=name, sex='F', age_months=120., seg_status='ok', fault=fault or '')
    pictures = dict(path=ph.pixels, mask_path=ph.mask, crop_path=ph.pixels*ph.mask)
    for kind, img in pictures.items():
        row[kind] = str(folder/f'{name} {kind} é.png')
        write_png(row[kind], img)
    return row

def twenty_films(folder):
    "Twelve clean films and one with each planted fault."
    faults = [None]*12 + PLANTED
    return pd.DataFrame([film(folder, f'f{i}', fault, i) for i, fault in enumerate(faults)])

def put_film(folder, name, pixels, mask):
    "A film and its outline as given, written to files; its row of the table."
    row = dict(id=name, path=str(folder/f'{name}.png'), mask_path=str(folder/f'm{name}.png'))
    write_png(row['path'], np.ascontiguousarray(pixels))
    write_png(row['mask_path'], np.ascontiguousarray(mask))
    return row
