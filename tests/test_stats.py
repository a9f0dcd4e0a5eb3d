"The statistics: against scipy, against sums by hand, and whether intervals cover as often as they promise."
import numpy as np
import pytest
from scipy import stats

from boneage.evidence.stats import bland_altman, icc, mean_ci, share_ci
from predictions import readings


def covers(e, truth):
    return e.low <= truth <= e.high


def test_bias_and_slope_against_scipy():
    d = readings(200)
    ba = bland_altman(d.pred_months, d.age_months)
    diff = d.pred_months - d.age_months
    mean = (d.pred_months + d.age_months)/2
    assert ba.bias[1:] == pytest.approx(stats.ttest_1samp(diff, 0).confidence_interval())
    assert ba.p == pytest.approx(stats.linregress(mean, diff).pvalue)
    assert (ba.lower.value + ba.upper.value)/2 == pytest.approx(ba.bias.value)


@pytest.mark.parametrize('n', [5, 40])
def test_limits_cover_at_the_promised_rate(n):
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        hits += covers(bland_altman(rng.normal(0, 1, n), np.zeros(n)).upper, 1.96)
    assert .935 < hits/2000 < .965


def test_mae_interval_covers_at_the_promised_rate():
    rng = np.random.default_rng(0)
    truth = np.sqrt(2/np.pi)
    hits = 0
    for seed in range(400):
        off = np.abs(rng.normal(0, 1, 80))
        hits += covers(mean_ci(off, n_boot=500, seed=seed), truth)
    assert .91 < hits/400 < .98


def test_patients_widen_the_interval_to_the_right_size():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 8)
    hits = 0
    naive = 0
    for seed in range(200):
        v = np.repeat(rng.normal(0, 1, 40), 8)
        hits += covers(mean_ci(v, groups, n_boot=400, seed=seed), 0)
        naive += covers(mean_ci(v, n_boot=400, seed=seed), 0)
    assert hits/200 > .88
    assert naive/200 < .7


def test_icc_covers_at_the_promised_rate():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(800):
        films = rng.normal(0, 2, 30)[:, None]
        readers = rng.normal(0, 1, (1, 6))
        hits += covers(icc(films + readers + rng.normal(0, 1, (30, 6))), 4/6)
    assert .92 < hits/800 < .975


def test_wilson_by_hand():
    z = stats.norm.ppf(.975)
    n = 50
    p = .8
    mid = (p + z**2/2/n)/(1 + z**2/n)
    half = z*np.sqrt(p*(1 - p)/n + z**2/4/n**2)/(1 + z**2/n)
    assert share_ci([True]*40 + [False]*10) == pytest.approx((.8, mid - half, mid + half))
