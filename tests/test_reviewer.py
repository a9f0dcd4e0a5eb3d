"The reviewer and its app under bad conditions: vanished and damaged films, many films, missing extras, odd names."
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from reviewing import HEAD, LINE, film, twenty_films

from boneage import cli
from boneage.core import ManifestError
from boneage.qc_widgets import QCReviewer, write_app
from boneage.review.decisions import Decisions
from boneage.review.pictures import brighten, film_pair
from boneage.review.queue import ReviewQueue
from boneage.review.sheet import contact_sheet_html

@pytest.fixture(scope='module')
def films(tmp_path_factory):
    return twenty_films(tmp_path_factory.mktemp('films'))

@pytest.fixture
def review(tmp_path):
    "Opens a reviewer on a table, its decisions in a file of this test."
    pytest.importorskip('ipywidgets')
    return lambda df, decisions=tmp_path/'d.csv': QCReviewer(df, decisions, 'anna', side=64)

# ---- many films, bad films

def test_open_12611_films_draws_only_what_is_shown(films, tmp_path, review):
    n = 12_611
    many = films.iloc[np.arange(n) % len(films)]
    many = many.assign(id=range(n), qc_flags='', qc_rank=range(1, n+1))
    r = review(many)
    for _ in range(60):
        r.do('keep')
    assert r.queue.id == '60'
    assert len(r.store) <= r.store.keep
    assert '60 of 12,611' in r.bar.value
    assert len(Decisions(tmp_path/'d.csv', 'anna').mine) == 60
    assert review(many).queue.id == '60'

def test_review_goes_on_over_vanished_and_damaged_films(films, tmp_path, review):
    df = films.head(5).copy()
    for i, column in enumerate(('path', 'mask_path', 'crop_path')):
        df.loc[i, column] = str(tmp_path/f'gone-{column}.png')
    zero = tmp_path/'zero.png'
    zero.write_bytes(b'')
    df.loc[3, 'path'] = str(zero)
    r = review(df)
    for i, said in enumerate(('gone-path.png', 'gone-mask_path.png', 'gone-crop_path.png', 'zero.png', '')):
        assert said in r.message.value
        assert r.queue.id == f'f{i}'
        r.buttons['reject'].click()
    assert len(r.decisions.mine) == 5

def test_a_table_that_cannot_be_used_is_refused(tmp_path):
    decisions = Decisions(tmp_path/'d.csv', 'anna')
    tables = {'no films': dict(id=[]), 'no column': dict(x=[1]), 'more than one row': dict(id=[1, 1])}
    for said, table in tables.items():
        with pytest.raises(ManifestError, match=said):
            ReviewQueue(pd.DataFrame(table), decisions)

# ---- what is said

def test_problems_of_the_file_are_said_in_the_widget(films, tmp_path, review):
    p = tmp_path/'d.csv'
    p.write_text(HEAD + LINE + LINE.replace('f1', 'stranger') + 'f2,ke')
    r = review(films, p)
    assert 'line 4' in r.message.value
    assert 'stranger' in r.message.value

def test_decisions_that_are_not_on_disk_are_said_and_offered(films, tmp_path, review):
    r = review(films, tmp_path/'nowhere'/'d.csv')
    r.buttons['keep'].click()
    assert '1 decision is not on disk' in r.message.value
    assert 'download' in r.message.value
    assert r.queue.id == 'f1'

def test_html_in_names_is_shown_not_run(films, tmp_path, review):
    df = films.head(1).assign(id='<img src=x onerror=alert(1)>', qc_flags='<b>bold</b>')
    sheet = contact_sheet_html(df, tmp_path/'s.html', side=64).read_text('utf-8')
    for page in (review(df).info.value, sheet):
        assert '<img src=x' not in page
        assert '<b>bold' not in page

def test_without_ipywidgets_the_install_command_is_named(films, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'ipywidgets', None)
    with pytest.raises(ImportError, match=r'boneage\[qc\]'):
        QCReviewer(films, tmp_path/'d.csv')

def test_without_ipyevents_the_widget_says_so(films, review, monkeypatch):
    monkeypatch.setitem(sys.modules, 'ipyevents', None)
    r = review(films)
    assert 'Keyboard: not available' in r.hint.value
    r.buttons['keep'].click()
    assert r.queue.id == 'f1'

def test_module_imports_without_torch_and_widgets():
    code = '''
import sys
sys.modules['ipywidgets'] = None
import boneage.qc_widgets
assert 'torch' not in sys.modules and 'fastai' not in sys.modules
'''
    subprocess.run([sys.executable, '-c', code], check=True)

# ---- brightening

def test_brighten_shows_a_dark_film_and_changes_no_file(tmp_path):
    row = pd.Series(film(tmp_path, 'dark', 'dark'))
    before = Path(row.path).read_bytes()
    plain, *_ = film_pair(row, 200)
    bright, crop, _ = film_pair(row, 200, bright=True)
    grey = plain[..., :1] == plain[..., 2:] # all but the outline, which is amber
    assert plain.max(initial=0, where=grey) < bright[..., 0].max()
    assert crop.max() == 255
    assert Path(row.path).read_bytes() == before
    assert brighten(np.zeros((9, 9), np.uint8)).max() == 0

def level(r):
    "The brightest grey of the crop that is shown."
    return cv2.imdecode(np.frombuffer(r.crop.value, np.uint8), 0).max()

def test_brighten_is_one_click(films, review):
    r = review(films[films.fault == 'dark'])
    dark = level(r)
    r.on_key(dict(key='b'))
    assert level(r) > 200 > dark
    assert r.buttons['bright'].button_style == 'info'
    r.buttons['bright'].click()
    assert level(r) == dark
    assert not r.decisions.mine

# ---- the app

def test_review_command_says_what_is_missing(tmp_path, capsys, monkeypatch):
    def said():
        assert cli.main(['review', str(tmp_path)]) == 1
        return capsys.readouterr().err
    table = tmp_path/'qc.csv'
    assert 'boneage qc' in said()
    table.write_text('id,age\n1,2\n')
    assert 'path' in said()
    table.write_text('id,path\n1,a.png\n')
    monkeypatch.setattr('boneage.qc_widgets.find_spec', lambda name: None)
    assert 'boneage[qc]' in said()

def test_the_app_takes_any_path_and_name(tmp_path):
    odd = tmp_path/"it's a \"folder\" é"
    odd.mkdir()
    app = write_app(odd/'a.ipynb', odd/'qc.csv', odd/'d.csv', reviewer="O'Neil")
    code = json.loads(app.read_text('utf-8'))['cells'][0]['source']
    got = []
    code = code.replace('from boneage.qc_widgets import review_app', '')
    exec(code, dict(review_app=lambda *args, **kwargs: got.append(args)))
    assert got == [(str(odd/'qc.csv'), str(odd/'d.csv'), "O'Neil")]
