"The report and its figures: odd tables, large tables, nothing from outside the file, nothing lost by a failure."
import re

import numpy as np
import pandas as pd
import pytest

from boneage.core import ManifestError
from boneage.evaluate import evaluate_df
from boneage.evidence.figures import (
    plot_bands, plot_bland_altman, plot_calibration, plot_coverage, plot_scatter, plot_within)
from boneage.evidence.report import readings_checksum, report_css, report_html
from boneage.films.rsna import SIX_RATERS, truth_checksum
from predictions import ODD, odd, readings

PLOTS = [plot_scatter, plot_bland_altman, plot_bands, plot_within, plot_calibration, plot_coverage]


def without_pictures(page):
    return re.sub(r'base64,[^"]*', '', page)


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('kind', ODD)
def test_odd_tables_give_a_report_without_a_warning(kind, tmp_path):
    df = odd(kind)
    ev = evaluate_df(df, train=readings(50, 1), n_boot=200)
    assert ev.n + len(ev.unread) == len(df)
    assert ev['mae'].value == pytest.approx((ev.df.pred_months - ev.df.age_months).abs().mean())
    for e in ev.measures.values():
        assert not (e.low > e.value + 1e-9 or e.high < e.value - 1e-9), ev.table
    page = report_html(ev, tmp_path/'a folder é'/'r.html').read_text()
    assert '<script' not in page
    assert not re.search(r'\bnan\b', without_pictures(page), re.I)
    assert ev._repr_html_() and ev.to_dict()


def test_the_whole_training_set_stays_small(tmp_path):
    d = readings(12_611)
    page = report_html(d, tmp_path/'r.html', train=d)
    assert page.stat().st_size < 2_000_000


def test_the_report_is_one_file(tmp_path):
    d = readings(60)
    page = report_html(d, tmp_path/'r.html', source='simulated').read_text()
    assert re.findall(r'(?:src|href)="(?!data:image/svg)', page) == []
    assert '@import' not in page
    assert 'url(' not in without_pictures(page)
    assert list(tmp_path.iterdir()) == [tmp_path/'r.html']


def test_a_failed_report_leaves_the_old_one(tmp_path):
    old = report_html(readings(20), tmp_path/'r.html').read_text()
    with pytest.raises(ManifestError):
        report_html(readings(0), tmp_path/'r.html')
    assert (tmp_path/'r.html').read_text() == old


def test_the_style_sheet_is_in_every_report(tmp_path):
    page = report_html(readings(20), tmp_path/'r.html').read_text()
    assert '.cards{display:grid' in report_css()
    assert f'<style>{report_css()}</style>' in page


# ---- the reference

def test_checksum_is_of_the_written_form():
    assert len(SIX_RATERS) == 64
    d = pd.DataFrame(dict(id=[4361, 4360], age_months=[12.346, 7]))
    assert readings_checksum(d) == truth_checksum(d)
    assert readings_checksum(d) == readings_checksum(d.assign(id=['4361', '4360']))
    assert readings_checksum(d) != readings_checksum(d.assign(age_months=[12, 7]))


# ---- figures

@pytest.mark.parametrize('plot', PLOTS)
def test_plots_are_figures_with_labelled_axes(plot):
    ax, = plot(evaluate_df(readings(60), n_boot=200)).axes
    assert 'months' in ax.get_xlabel()
    assert ax.get_ylabel()


@pytest.mark.parametrize('plot', PLOTS)
def test_a_figure_leaves_the_callers_style_alone(plot):
    import matplotlib
    before = dict(matplotlib.rcParams)
    plot(evaluate_df(readings(40), n_boot=200))
    assert {k: v for k, v in matplotlib.rcParams.items() if not np.all(v == before[k])} == {}
