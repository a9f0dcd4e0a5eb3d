"The published tables of the RSNA films: their words, their ids, and the numbers that the page states"
import json, os, sys
from pathlib import Path

import pandas as pd, pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT/'benchmarks'))
import rsna_films as rf

WORDS = {'rotated', 'right_hand', 'thumb_left', 'second_hand', 'bent_fingers', 'cropped', 'object', 'malformed', 'low_contrast', 'mask_wrong', 'turned_wrongly', 'inverted', 'duplicate', 'none'}

@pytest.fixture(scope='module')
def defects(): return pd.read_csv(ROOT/'data/rsna_defects.csv', keep_default_na=False)

@pytest.fixture(scope='module')
def films(): return pd.read_csv(ROOT/'data/rsna_films.csv', keep_default_na=False, na_values={c: '' for c in rf.SCORES})

def page_outputs():
    nb = json.loads((ROOT/'nbs/results/rsna_films.ipynb').read_text())
    return '\n'.join(''.join(o.get('data', {}).get('text/plain', '')) for c in nb['cells'] if c['cell_type'] == 'code' for o in c['outputs'])

def test_vocabulary(defects):
    assert list(defects.columns) == ['id', 'defect', 'severity', 'note', 'found_by', 'looked_at', 'in_sample']
    assert set(defects.defect) <= WORDS
    assert set(defects.severity[defects.defect != 'none']) <= {'minor', 'major'} and set(defects.severity[defects.defect == 'none']) == {''}
    assert set(defects.found_by[defects.defect != 'none']) <= {'scan', 'mask', 'angle', 'edge', 'side', 'sign', 'contrast'}
    assert set(defects.looked_at) <= {'yes', 'no'}

def test_one_row_a_finding(defects):
    assert not defects.duplicated(['id', 'defect']).any()
    fine = set(defects.id[defects.defect == 'none'])
    assert not fine & set(defects.id[defects.defect != 'none'])
    assert defects.groupby('id').in_sample.nunique().max() == 1

def test_sample_can_be_drawn_again(defects, films):
    "The sample is that of the manifest in RSNA's order, which is the order of ids"
    assert set(films.id.sample(200, random_state=2017)) == set(defects.id[defects.in_sample == 1])

def test_tables_agree(defects, films):
    bands = pd.read_csv(ROOT/'data/rsna_bands.csv')
    assert films.id.is_unique and set(defects.id) <= set(films.id)
    assert bands.films.sum() == len(films) and bands.refused.sum() == (films.status != 'ok').sum() and bands.flagged.sum() == films.flagged.sum()
    wrongly_refused = defects[(defects.defect == 'mask_wrong') & defects.note.str.startswith('refused')].id
    assert (films.set_index('id').status[wrongly_refused] == 'refused').all()

def test_page_states_what_the_tables_hold(defects, films):
    page = page_outputs()
    assert str(rf.outcomes(films)) in page, 'run nbs/results/rsna_films.ipynb again: its table of outcomes is not that of data/rsna_films.csv'
    for word, n in defects[defects.defect != 'none'].defect.value_counts().items(): assert word in page, f'{word} ({n} films) is not on the page'

def test_ids_are_rsna_films(films):
    root = os.environ.get('BONEAGE_DATA')
    if not root or not Path(root, 'rsna-299/train.csv').exists(): pytest.skip('BONEAGE_DATA is not set or has no rsna-299: ids are not compared with the RSNA table')
    assert set(films.id) == set(pd.read_csv(Path(root, 'rsna-299/train.csv')).id)

def test_script_reads_a_run_that_goes_on(tmp_path):
    "A half-written last line of the journal is left out, and a failed film counts as an error"
    pd.DataFrame(dict(id=['1', '2', '3', '4'], path='x.png', sex='F', age_months=[12., 70., 100., 200.])).to_csv(tmp_path/'films.csv', index=False)
    ok = dict(mask_path='m.png', segmenter='s', predicted_iou=1., stability_score=.96, mask_area=.3, mask_weight=.9, seg_status='ok', seg_error=None)
    no = {**ok, 'seg_status': 'refused', 'seg_error': 'no hand found: of 6 candidate(s) the best is refused, its solidity is 0.93, a hand has at most 0.9'}
    lines = [json.dumps(dict(id='1', row=ok, error=None)), json.dumps(dict(id='2', row=no, error=None)), json.dumps(dict(id='3', row=None, error='damaged')), '{"id": "4", "ro']
    (tmp_path/'segment.jsonl').write_text('\n'.join(lines))
    t = rf.film_table(rf.read_run(tmp_path)).set_index('id')
    assert t.status.tolist() == ['ok', 'refused', 'error'] and t.reason.tolist() == ['', 'solidity', 'damaged']
    assert rf.band_table(rf.read_run(tmp_path)).films.sum() == 3

def test_flag_follows_its_rule():
    t = pd.DataFrame(dict(status=['ok', 'ok', 'refused', 'ok'], predicted_iou=[1, .9, None, 1], stability_score=[.95]*4, mask_weight=[.9]*4, mask_area=[.3, .3, None, .5]))
    assert rf.doubtful(t).tolist() == [False, True, False, True]

def test_prune_drops_only_refusals_that_are_gone():
    t = pd.DataFrame(dict(id=[1, 2, 3], status=['ok', 'refused', 'ok'], flagged=[0, 0, 1]))
    row = lambda i, d, note='': dict(id=i, defect=d, severity='major', note=note, found_by='mask', looked_at='yes', in_sample=0)
    d = pd.DataFrame([row(1, 'mask_wrong', 'refused although one hand is seen'), row(2, 'mask_wrong', 'refused although one hand is seen'),
                      row(3, 'mask_wrong', 'refused although one hand is seen'), row(3, 'rotated')])
    new = rf.prune(d, t)
    assert list(zip(new.id, new.defect)) == [(1, 'none'), (2, 'mask_wrong'), (3, 'rotated')]
    assert new.severity.tolist() == ['', 'major', 'major']
    assert rf.look_again(d, t) == [1, 2, 3]
