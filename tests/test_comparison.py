"Comparing models, readers and calibrations: false alarms, refused films, films that were already used."
import numpy as np
import pandas as pd
import pytest

from boneage.evidence.calibration import calibrate, fit_calibration
from boneage.evidence.comparison import compare_df, readers_df
from predictions import readings


# ---- models

def test_comparison_has_the_right_false_alarm_rate():
    rng = np.random.default_rng(0)
    alarms = 0
    for seed in range(200):
        age = rng.uniform(20, 200, 60)
        pred = {m: age + rng.normal(0, 8, 60) for m in 'ab'}
        tables = {m: pd.DataFrame(dict(id=range(60), age_months=age, pred_months=pred[m])) for m in 'ab'}
        alarms += compare_df(tables, n_boot=400, seed=seed).p[1] < .05
    assert .01 <= alarms/200 <= .1


def test_refused_films_are_left_out_for_both_and_counted():
    a = readings(50)
    b = a.assign(pred_months=(a.pred_months + 1).where(a.index >= 5))
    o = compare_df({'a': a, 'b': b})
    assert list(o.n) == [45, 45]
    assert list(o.left_out) == [5, 5]


# ---- readers

def test_readers_need_two():
    with pytest.raises(ValueError, match='two or more'):
        readers_df(readings(10).assign(reader_a=100.))


# ---- calibration

def test_calibration_refuses_the_films_it_was_fitted_on():
    d = readings(80).assign(patient_id=lambda o: o.index//2)
    with pytest.raises(ValueError, match='same films or patients'):
        calibrate(d[30:], d[:40])
    with pytest.raises(ValueError, match='same films or patients'):
        calibrate(d[41:], d[:41])
    assert len(calibrate(d[40:], d[:40])) == 40


def test_numeric_and_text_ids_are_one_film():
    d = readings(40).assign(id=range(40))
    with pytest.raises(ValueError, match='same films'):
        calibrate(d.assign(id=d.id.astype(str)), d)


def test_calibration_needs_films_of_both_sexes():
    d = readings(60)
    with pytest.raises(ValueError, match='no line for sex M'):
        fit_calibration(d[d.sex == 'F']).apply(d[d.sex == 'M'])
    with pytest.raises(ValueError, match='at least 10'):
        fit_calibration(d.head(8))
