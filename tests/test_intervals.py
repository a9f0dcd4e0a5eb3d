"Prediction intervals: they cover what they promise, and are not invented."
import json

import numpy as np
import pandas as pd

from boneage.evidence.stats import age_band
from boneage.model.intervals import fit_intervals, interval


def readings(rng, n):
    "Films whose errors differ by sex and age"
    age = rng.uniform(0, 228, n)
    sex = rng.choice(['F', 'M'], n)
    sd = np.where(sex == 'M', 12, 6)*np.where(age < 60, 2, 1)
    months = np.clip(age + rng.normal(0, sd), 0, None)
    return pd.DataFrame(dict(sex=sex, age_months=age, pred_months=months))


def covered(card, new):
    ends = np.array([interval(card, months, sex) for months, sex in zip(new.pred_months, new.sex)])
    hit = (new.age_months >= ends[:, 0]) & (new.age_months <= ends[:, 1])
    return new.assign(hit=hit, band=age_band(new.pred_months.clip(0, 299)))


def test_interval_coverage_on_new_films():
    rng, hits = np.random.default_rng(0), []
    for _ in range(20):
        card = dict(intervals=fit_intervals(readings(rng, 1500)))
        hits.append(covered(card, readings(rng, 400)))
    by = pd.concat(hits).groupby(['sex', 'band'], observed=True).hit.agg(['mean', 'size'])
    assert by['mean'].between(.86, .94).all(), by


def test_few_films_make_no_interval():
    few = pd.DataFrame(dict(sex='F', age_months=[10., 20], pred_months=[11., 22]))
    card = dict(intervals=json.loads(json.dumps(fit_intervals(few), allow_nan=False)))
    assert np.isnan(interval(card, 50., 'F')).all()


def test_films_without_age_or_answer_do_not_count():
    rng = np.random.default_rng(1)
    whole = readings(rng, 300)
    gaps = pd.DataFrame(dict(sex=['F', 'M'], age_months=[50., np.nan], pred_months=[np.nan, 60.]))
    assert fit_intervals(pd.concat([whole, gaps])) == fit_intervals(whole)


def test_a_prediction_beyond_the_last_band_has_the_last_bands_interval():
    rng = np.random.default_rng(2)
    card = dict(intervals=fit_intervals(readings(rng, 3000)))
    low, high = interval(card, 400., 'M')
    inside = interval(card, 250., 'M')
    assert high - low == inside[1] - inside[0]
    assert interval(card, -20., 'M')[0] == 0.
