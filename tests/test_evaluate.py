"What the evaluation page cannot show: wrong tables, small and odd ones, repeating patients."
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from boneage.core import ManifestError
from boneage.evaluate import check_predictions, evaluate_df
from boneage.evidence.stats import AGE_BANDS
from predictions import odd, readings


# ---- the door

def first(col, value):
    "A table whose first row has another value."
    return lambda d: d.assign(**{col: [value, *d[col][1:]]})


def upside_down(d):
    return d.assign(pred_low=d.pred_high, pred_high=d.pred_low)


FAULTS = { # name -> what is done to ten readings, and words that the message must hold
    'missing column': (lambda d: d.drop(columns='age_months'), ['age_months', 'missing']),
    'doubled column': (lambda d: pd.concat([d, d.pred_months], axis=1), ['pred_months', '2 times']),
    'doubled id': (lambda d: d.assign(id=['x', 'x', *d.id[2:]]), ['row 2', 'row 3', 'more than one row']),
    'no id': (first('id', None), ['row 2', 'id is empty']),
    'negative age': (first('age_months', -1), ['row 2', '-1', '0 to 300']),
    'huge age': (first('age_months', 301), ['301', '0 to 300']),
    'no age': (first('age_months', np.nan), ['row 2', 'age_months is empty']),
    'text age': (first('age_months', 'ten'), ['ten', 'months']),
    'text prediction': (first('pred_months', 'n/a!'), ['row 2', 'n/a!', 'number of months']),
    'infinite prediction': (first('pred_months', np.inf), ['row 2', 'inf']),
    'unknown sex': (first('sex', 'unknown'), ['row 2', 'unknown', 'F or M']),
    'upside-down interval': (upside_down, ['row 2', 'row 11', 'swap']),
    'empty table': (lambda d: d.head(0), ['no rows']),
    'no column at all': (lambda d: pd.DataFrame(), ['id', 'missing']),
}


@pytest.mark.parametrize('name', FAULTS)
def test_faults_are_named(name):
    spoil, words = FAULTS[name]
    with pytest.raises(ManifestError) as e:
        evaluate_df(spoil(readings(10)))
    assert all(w in str(e.value) for w in words), str(e.value)


def test_every_wrong_row_is_listed():
    df = readings(40)
    df.loc[3:30, 'age_months'] = -5
    with pytest.raises(ManifestError) as e:
        check_predictions(df)
    assert len(e.value.problems) == 28


def test_the_callers_table_is_untouched():
    df = readings(30).assign(id=range(30), sex='male')
    before = df.copy()
    evaluate_df(df)
    pd.testing.assert_frame_equal(df, before)


# ---- small and odd tables

def test_one_film_has_no_interval():
    ev = evaluate_df(readings(1))
    assert all(np.isnan(ev[k].low) for k in ('mae', 'bias', 'loa_low', 'icc'))


def test_empty_bands_stay_in_the_table():
    s = evaluate_df(odd('missing band')).strata
    assert s.query("sex == 'all' and band == '0-23'").n.item() == 0
    assert len(s) == 3*len(AGE_BANDS)


# ---- the statistics

def test_clustered_measures_match_the_plain_ones():
    d = readings(90)
    plain = evaluate_df(d, n_boot=300)
    clustered = evaluate_df(d.assign(patient_id=d.index//3), n_boot=300)
    assert clustered.clustered and not plain.clustered
    for k in plain.measures:
        assert plain[k].value == pytest.approx(clustered[k].value), k


def test_same_seed_same_numbers():
    a, b, c = (evaluate_df(readings(80), seed=s, n_boot=300).to_dict() for s in (1, 1, 2))
    assert a == b
    assert a['measures']['mae'] != c['measures']['mae']


def test_row_order_changes_no_value():
    d = readings(80)
    a = evaluate_df(d, n_boot=200)
    b = evaluate_df(d.sample(frac=1, random_state=0), n_boot=200)
    assert {k: v.value for k, v in a.measures.items()} == pytest.approx({k: v.value for k, v in b.measures.items()})


# ---- what an import costs

def absent_after(module, *names):
    "Whether a fresh interpreter that imports a module does without others."
    code = f'import sys, {module}; sys.exit(any(m in sys.modules for m in {names!r}))'
    return subprocess.run([sys.executable, '-c', code]).returncode == 0


def test_imports_without_torch():
    assert absent_after('boneage.evaluate', 'torch', 'fastai', 'segment_anything', 'ipywidgets')


@pytest.mark.parametrize('module', ['boneage.evaluate', 'boneage.evidence.stats', 'boneage.evidence.comparison',
                                    'boneage.evidence.calibration'])
def test_imports_without_drawing_or_scipy(module):
    assert absent_after(module, 'matplotlib', 'scipy.stats', 'torch')
