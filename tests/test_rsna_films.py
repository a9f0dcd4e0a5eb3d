"The published tables of the RSNA films: their words, their ids, and the numbers that the page states."
import json
import os
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT/'benchmarks'))
import rsna_films as rf

DEFECTS = {
    'rotated', 'right_hand', 'thumb_left', 'second_hand', 'bent_fingers', 'cropped', 'object', 'malformed',
    'low_contrast', 'mask_wrong', 'turned_wrongly', 'inverted', 'duplicate', 'none'}
COLUMNS = ['id', 'defect', 'severity', 'note', 'found_by', 'looked_at', 'in_sample']
STEPS = {'scan', 'mask', 'angle', 'edge', 'side', 'sign', 'contrast'}


@pytest.fixture(scope='module')
def defects():
    return pd.read_csv(ROOT/'data/rsna_defects.csv', keep_default_na=False)


@pytest.fixture(scope='module')
def films():
    numbers = {c: '' for c in rf.SCORES}
    return pd.read_csv(ROOT/'data/rsna_films.csv', keep_default_na=False, na_values=numbers)


def page_outputs():
    "All that the page's cells print."
    page = json.loads((ROOT/'nbs/results/rsna_films.ipynb').read_text())
    outputs = [o for c in page['cells'] if c['cell_type'] == 'code' for o in c['outputs']]
    return '\n'.join(''.join(o.get('data', {}).get('text/plain', '')) for o in outputs)


def test_vocabulary(defects):
    found = defects.defect != 'none'
    assert list(defects.columns) == COLUMNS
    assert set(defects.defect) <= DEFECTS
    assert set(defects.severity[found]) <= {'minor', 'major'}
    assert set(defects.severity[~found]) == {''}
    assert set(defects.found_by[found]) <= STEPS
    assert set(defects.looked_at) <= {'yes', 'no'}


def test_one_row_a_finding(defects):
    fine = set(defects.id[defects.defect == 'none'])
    assert not defects.duplicated(['id', 'defect']).any()
    assert not fine & set(defects.id[defects.defect != 'none'])
    assert defects.groupby('id').in_sample.nunique().max() == 1


def test_sample_can_be_drawn_again(defects, films):
    "The sample is that of the manifest in RSNA's order, which is the order of ids."
    assert set(films.id.sample(200, random_state=2017)) == set(defects.id[defects.in_sample == 1])


def test_tables_agree(defects, films):
    bands = pd.read_csv(ROOT/'data/rsna_bands.csv')
    assert films.id.is_unique
    assert set(defects.id) <= set(films.id)
    assert bands.films.sum() == len(films)
    assert bands.refused.sum() == (films.status != 'ok').sum()
    assert bands.flagged.sum() == films.flagged.sum()
    refusals = defects[(defects.defect == 'mask_wrong') & defects.note.str.startswith('refused')]
    assert (films.set_index('id').status[refusals.id] == 'refused').all()


def test_page_states_what_the_tables_hold(defects, films):
    page = page_outputs()
    again = 'run nbs/results/rsna_films.ipynb again: its table of outcomes is not that of data/rsna_films.csv'
    assert str(rf.outcomes(films)) in page, again
    for word, n in defects[defects.defect != 'none'].defect.value_counts().items():
        assert word in page, f'{word} ({n} films) is not on the page'


def test_ids_are_rsna_films(films):
    root = os.environ.get('BONEAGE_DATA')
    if not root or not Path(root, 'rsna-299/train.csv').exists():
        pytest.skip('BONEAGE_DATA is not set or has no rsna-299: ids are not compared with the RSNA table')
    assert set(films.id) == set(pd.read_csv(Path(root, 'rsna-299/train.csv')).id)


def test_reasons_are_published_in_words(films):
    "The words of the published table are those that codes are given."
    rules = 'weight', 'clefts', 'predicted_iou', 'bright_outside', 'centroid_inside', 'solidity'
    assert {rf.short_reason(f'hand.{rule}') for rule in rules} == set(films.reason) - {''}
    assert rf.short_reason('') == ''


def journal_line(film, row=None, error=None, code=None):
    "A line as `run_rows` writes it: a film that failed has no columns."
    return json.dumps(dict(id=film, key='settings', row=row or {}, error=error, code=code))


def test_script_reads_a_run_that_goes_on(tmp_path):
    "A half-written last line of the journal is left out, and a failed film counts as an error."
    df = pd.DataFrame(dict(id=['1', '2', '3', '4'], path='x.png', sex='F', age_months=[12., 70., 100., 200.]))
    df.to_csv(tmp_path/'films.csv', index=False)
    scores = dict(predicted_iou=1., stability_score=.96, mask_area=.3, mask_weight=.9)
    ok = dict(mask_path='m.png', segmenter='s', seg_status='ok', seg_error=None, seg_code=None, **scores)
    refused = ok | dict(seg_status='refused', seg_error='no hand found: its solidity', seg_code='hand.solidity')
    lines = [
        journal_line('1', ok),
        journal_line('2', refused),
        journal_line('3', error='the file is damaged', code='film.damaged'),
        '{"id": "4", "ro']
    (tmp_path/'segment.jsonl').write_text('\n'.join(lines))
    run = rf.read_run(tmp_path)
    t = rf.film_table(run).set_index('id')
    assert t.status.tolist() == ['ok', 'refused', 'error']
    assert t.reason.tolist() == ['', 'solidity', 'damaged']
    assert rf.band_table(run).films.sum() == 3


def test_a_run_without_codes_has_no_reasons(tmp_path):
    "As the runs of before December 2026."
    ok = dict(seg_status='ok', predicted_iou=1., stability_score=.96, mask_area=.3, mask_weight=.9)
    df = pd.DataFrame([ok, ok | dict(seg_status='refused')]).assign(id=['1', '2'])
    assert rf.film_table(df).reason.tolist() == ['', '']


def test_flag_follows_its_rule():
    t = pd.DataFrame(dict(
        status=['ok', 'ok', 'refused', 'ok'],
        predicted_iou=[1, .9, None, 1],
        stability_score=[.95]*4,
        mask_weight=[.9]*4,
        mask_area=[.3, .3, None, .5]))
    assert rf.doubtful(t).tolist() == [False, True, False, True]


def finding(film, defect, note=''):
    return dict(
        id=film, defect=defect, severity='major', note=note, found_by='mask', looked_at='yes', in_sample=0)


def test_prune_drops_only_refusals_that_are_gone():
    t = pd.DataFrame(dict(id=[1, 2, 3], status=['ok', 'refused', 'ok'], flagged=[0, 0, 1]))
    refused = [finding(film, 'mask_wrong', 'refused although one hand is seen') for film in (1, 2, 3)]
    d = pd.DataFrame([*refused, finding(3, 'rotated')])
    new = rf.prune(d, t)
    assert list(zip(new.id, new.defect)) == [(1, 'none'), (2, 'mask_wrong'), (3, 'rotated')]
    assert new.severity.tolist() == ['', 'major', 'major']
    assert rf.look_again(d, t) == [1, 2, 3]
