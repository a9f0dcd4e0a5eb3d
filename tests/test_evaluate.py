"What the evaluate page cannot show: odd tables, large tables, coverage of the intervals, the report in a file."
import re, subprocess, sys, time

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from boneage.core import ManifestError
from boneage.evaluate import (AGE_BANDS, RSNA_TEST_SHA256, bland_altman, calibrate, check_predictions, compare_df, evaluate_df,
                              fit_calibration, icc, mean_ci, plot_bands, plot_bland_altman, plot_calibration, plot_coverage,
                              plot_scatter, plot_within, readers_df, report_html, share_ci, truth_checksum)

PLOTS = [plot_scatter, plot_bland_altman, plot_bands, plot_within, plot_calibration, plot_coverage]


def readings(n, seed=0, bias=2., sd=8.):
    "Simulated readings"
    rng = np.random.default_rng(seed)
    age = np.clip(rng.normal(127, 41, n), 1, 228).round()
    df = pd.DataFrame(dict(id=[f'f{i}' for i in range(n)], sex=rng.choice(['F', 'M'], n), age_months=age,
                           pred_months=age + bias + rng.normal(0, sd, n), model='sim'))
    return df.assign(pred_low=df.pred_months - 13, pred_high=df.pred_months + 13)


# ---- the door

FAULTS = {
    'missing column': (lambda d: d.drop(columns='age_months'), ['age_months', 'missing']),
    'doubled column': (lambda d: pd.concat([d, d.pred_months], axis=1), ['pred_months', '2 times']),
    'doubled id': (lambda d: d.assign(id=['x', 'x', *d.id[2:]]), ['row 2', 'row 3', 'more than one row']),
    'no id': (lambda d: d.assign(id=[None, *d.id[1:]]), ['row 2', 'id is empty']),
    'negative age': (lambda d: d.assign(age_months=[-1, *d.age_months[1:]]), ['row 2', '-1', '0 to 300']),
    'huge age': (lambda d: d.assign(age_months=[301, *d.age_months[1:]]), ['301', '0 to 300']),
    'no age': (lambda d: d.assign(age_months=[np.nan, *d.age_months[1:]]), ['row 2', 'age_months is empty']),
    'text age': (lambda d: d.assign(age_months=['ten', *d.age_months[1:]]), ['ten', 'months']),
    'text prediction': (lambda d: d.assign(pred_months=['n/a!', *d.pred_months[1:]]), ['row 2', 'n/a!', 'number of months']),
    'infinite prediction': (lambda d: d.assign(pred_months=[np.inf, *d.pred_months[1:]]), ['row 2', 'inf']),
    'unknown sex': (lambda d: d.assign(sex=['unknown', *d.sex[1:]]), ['row 2', 'unknown', 'F or M']),
    'upside-down interval': (lambda d: d.assign(pred_low=d.pred_high, pred_high=d.pred_low), ['row 2', 'row 11', 'swap']),
    'empty table': (lambda d: d.head(0), ['no rows']),
    'no column at all': (lambda d: pd.DataFrame(), ['id', 'missing']),
}


@pytest.mark.parametrize('name', FAULTS)
def test_faults_are_named(name):
    spoil, words = FAULTS[name]
    with pytest.raises(ManifestError) as e: evaluate_df(spoil(readings(10)))
    assert all(w in str(e.value) for w in words), str(e.value)


def test_every_wrong_row_is_listed():
    df = readings(40)
    df.loc[3:30, 'age_months'] = -5
    with pytest.raises(ManifestError) as e: check_predictions(df)
    assert len(e.value.problems) == 28


def test_the_callers_table_is_untouched():
    df = readings(30).assign(id=range(30), sex='male')
    before = df.copy()
    evaluate_df(df)
    pd.testing.assert_frame_equal(df, before)


# ---- small and odd tables

def odd(kind):
    d = readings(60)
    return {'one film': d.head(1), 'two films': d.head(2), 'three films': d.head(3), 'one sex': d[d.sex == 'F'], 'no sex': d.drop(columns='sex'),
            'some sex unknown': d.assign(sex=d.sex.where(d.index > 20)), 'constant prediction': d.assign(pred_months=120., pred_low=100., pred_high=140.),
            'perfect': d.assign(pred_months=d.age_months), 'one age': d.assign(age_months=120.), 'all the same': d.assign(age_months=120., pred_months=120.),
            'missing band': d[d.age_months >= 60], 'no prediction for some': d.assign(pred_months=d.pred_months.where(d.index % 3 > 0)),
            'no intervals': d.drop(columns=['pred_low', 'pred_high']), 'intervals for some': d.assign(pred_low=d.pred_low.where(d.index > 20)),
            'no interval at all': d.assign(pred_low=np.nan, pred_high=np.nan), 'ages at the edges': d.assign(age_months=[0., 300.] * 30),
            'one patient': d.assign(patient_id='p'), 'two patients': d.assign(patient_id=d.index % 2), 'twenty patients': d.assign(patient_id=d.index % 20),
            'some patients unknown': d.assign(patient_id=(d.index % 20).astype(float)).assign(patient_id=lambda o: o.patient_id.where(o.index > 9)),
            'markup in ids': d.assign(id=[f'<b>{i}&"' for i in range(60)], model='<script>alert(1)</script>')}[kind]


KINDS = ['one film', 'two films', 'three films', 'one sex', 'no sex', 'some sex unknown', 'constant prediction', 'perfect', 'one age', 'all the same',
         'missing band', 'no prediction for some', 'no intervals', 'intervals for some', 'no interval at all', 'ages at the edges', 'one patient',
         'two patients', 'twenty patients', 'some patients unknown', 'markup in ids']


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('kind', KINDS)
def test_odd_tables_give_a_report_without_a_warning(kind, tmp_path):
    df = odd(kind)
    ev = evaluate_df(df, train=readings(50, 1), n_boot=200)
    assert ev.n + len(ev.unread) == len(df)
    assert ev['mae'].value == pytest.approx((ev.df.pred_months - ev.df.age_months).abs().mean())
    for e in ev.measures.values(): assert not (e.low > e.value + 1e-9 or e.high < e.value - 1e-9), ev.table
    page = report_html(ev, tmp_path / 'a folder é' / 'r.html').read_text()
    assert '<script' not in page and not re.search(r'\bnan\b', re.sub(r'base64,[^"]*', '', page), re.I)
    assert ev._repr_html_() and ev.to_dict()


def test_one_film_has_no_interval():
    ev = evaluate_df(readings(1))
    assert all(np.isnan(ev[k].low) for k in ('mae', 'bias', 'loa_low', 'icc'))


def test_empty_bands_stay_in_the_table():
    s = evaluate_df(odd('missing band')).strata
    assert s.query("sex == 'all' and band == '0-23'").n.item() == 0
    assert len(s) == 3 * len(AGE_BANDS)


# ---- the statistics

def test_bias_and_slope_against_scipy():
    d = readings(200)
    ba, diff = bland_altman(d.pred_months, d.age_months), d.pred_months - d.age_months
    assert ba.bias[1:] == pytest.approx(stats.ttest_1samp(diff, 0).confidence_interval())
    assert ba.p == pytest.approx(stats.linregress((d.pred_months + d.age_months) / 2, diff).pvalue)
    assert (ba.lower.value + ba.upper.value) / 2 == pytest.approx(ba.bias.value)


@pytest.mark.parametrize('n', [5, 40])
def test_limits_cover_at_the_promised_rate(n):
    rng, hits = np.random.default_rng(0), 0
    for _ in range(2000):
        u = bland_altman(rng.normal(0, 1, n), np.zeros(n)).upper
        hits += u.low <= 1.96 <= u.high
    assert .935 < hits / 2000 < .965


def test_mae_interval_covers_at_the_promised_rate():
    rng, truth, hits = np.random.default_rng(0), np.sqrt(2 / np.pi), 0
    for i in range(400):
        e = mean_ci(np.abs(rng.normal(0, 1, 80)), n_boot=500, seed=i)
        hits += e.low <= truth <= e.high
    assert .91 < hits / 400 < .98


def test_patients_widen_the_interval_to_the_right_size():
    rng, hits, naive = np.random.default_rng(0), 0, 0
    for i in range(200):
        v = np.repeat(rng.normal(0, 1, 40), 8)
        e, f = mean_ci(v, np.repeat(np.arange(40), 8), n_boot=400, seed=i), mean_ci(v, n_boot=400, seed=i)
        hits += e.low <= 0 <= e.high
        naive += f.low <= 0 <= f.high
    assert hits / 200 > .88 and naive / 200 < .7


def test_clustered_measures_match_the_plain_ones():
    d = readings(90)
    a, b = evaluate_df(d, n_boot=300), evaluate_df(d.assign(patient_id=d.index // 3), n_boot=300)
    assert b.clustered and not a.clustered
    for k in a.measures: assert a[k].value == pytest.approx(b[k].value), k


def test_icc_covers_at_the_promised_rate():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(800):
        e = icc(rng.normal(0, 2, 30)[:, None] + rng.normal(0, 1, (1, 6)) + rng.normal(0, 1, (30, 6)))
        hits += e.low <= 4 / 6 <= e.high
    assert .92 < hits / 800 < .975


def test_wilson_by_hand():
    z, n, p = stats.norm.ppf(.975), 50, .8
    mid, half = (p + z**2 / 2 / n) / (1 + z**2 / n), z * np.sqrt(p * (1 - p) / n + z**2 / 4 / n**2) / (1 + z**2 / n)
    assert share_ci([True] * 40 + [False] * 10) == pytest.approx((.8, mid - half, mid + half))


def test_same_seed_same_numbers():
    a, b, c = (evaluate_df(readings(80), seed=s, n_boot=300).to_dict() for s in (1, 1, 2))
    assert a == b and a['measures']['mae'] != c['measures']['mae']


def test_row_order_changes_no_value():
    d = readings(80)
    a, b = evaluate_df(d, n_boot=200), evaluate_df(d.sample(frac=1, random_state=0), n_boot=200)
    assert {k: v.value for k, v in a.measures.items()} == pytest.approx({k: v.value for k, v in b.measures.items()})


# ---- comparing, calibrating

def test_comparison_has_the_right_false_alarm_rate():
    rng, alarms = np.random.default_rng(0), 0
    for i in range(200):
        age = rng.uniform(20, 200, 60)
        t = {m: pd.DataFrame(dict(id=range(60), age_months=age, pred_months=age + rng.normal(0, 8, 60))) for m in 'ab'}
        alarms += compare_df(t, n_boot=400, seed=i).p[1] < .05
    assert .01 <= alarms / 200 <= .1


def test_refused_films_are_left_out_for_both_and_counted():
    a = readings(50)
    b = a.assign(pred_months=(a.pred_months + 1).where(a.index >= 5))
    o = compare_df({'a': a, 'b': b})
    assert list(o.n) == [45, 45] and list(o.left_out) == [5, 5]


def test_calibration_refuses_the_films_it_was_fitted_on():
    d = readings(80).assign(patient_id=lambda o: o.index // 2)
    with pytest.raises(ValueError, match='same films or patients'): calibrate(d[30:], d[:40])
    with pytest.raises(ValueError, match='same films or patients'): calibrate(d[41:], d[:41])
    assert len(calibrate(d[40:], d[:40])) == 40


def test_numeric_and_text_ids_are_one_film():
    d = readings(40).assign(id=range(40))
    with pytest.raises(ValueError, match='same films'): calibrate(d.assign(id=d.id.astype(str)), d)


def test_calibration_needs_films_of_both_sexes():
    d = readings(60)
    with pytest.raises(ValueError, match='no line for sex M'): fit_calibration(d[d.sex == 'F']).apply(d[d.sex == 'M'])
    with pytest.raises(ValueError, match='at least 10'): fit_calibration(d.head(8))


def test_readers_need_two():
    with pytest.raises(ValueError, match='two or more'): readers_df(readings(10).assign(reader_a=100.))


# ---- size, files, imports

def test_the_whole_training_set_in_seconds(tmp_path):
    d = readings(12_611)
    t = time.perf_counter()
    page = report_html(d, tmp_path / 'r.html', train=d)
    assert time.perf_counter() - t < 60 and page.stat().st_size < 2_000_000


def test_the_report_is_one_file(tmp_path):
    d = readings(60)
    page = report_html(d, tmp_path / 'r.html', source='simulated').read_text()
    assert re.findall(r'(?:src|href)="(?!data:image/svg)', page) == [] and '@import' not in page and 'url(' not in re.sub(r'base64,[^"]*', '', page)
    assert list(tmp_path.iterdir()) == [tmp_path / 'r.html']


def test_a_failed_report_leaves_the_old_one(tmp_path):
    old = report_html(readings(20), tmp_path / 'r.html').read_text()
    with pytest.raises(ManifestError): report_html(readings(0), tmp_path / 'r.html')
    assert (tmp_path / 'r.html').read_text() == old


def test_checksum_is_of_the_written_form():
    assert len(RSNA_TEST_SHA256) == 64
    d = pd.DataFrame(dict(id=[4361, 4360], age_months=[12.346, 7]))
    assert truth_checksum(d) == truth_checksum(d.assign(id=['4361', '4360'])) != truth_checksum(d.assign(age_months=[12, 7]))


@pytest.mark.parametrize('plot', PLOTS)
def test_plots_are_figures_with_labelled_axes(plot):
    ax, = plot(evaluate_df(readings(60), n_boot=200)).axes
    assert 'months' in ax.get_xlabel() and ax.get_ylabel()


def test_imports_without_torch():
    code = "import sys, boneage.evaluate; sys.exit(any(m in sys.modules for m in ('torch', 'fastai', 'segment_anything', 'ipywidgets')))"
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0
