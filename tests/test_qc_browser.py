"The reviewer in a real JupyterLab with 12,611 films: mouse, keyboard, note, grid, a killed kernel, and the file."
import json
import sys

import psutil
import pytest

pytest.importorskip('jupyterlab', reason='needs jupyterlab')
pytest.importorskip('ipyevents', reason='needs ipyevents')
from browsing import THEME, free_port, new_page, served, shoot, wait_for

CELL = '''import pandas as pd
from reviewing import film
from pathlib import Path
from boneage.qc_widgets import QCReviewer
from boneage.review.flags import qc_flags
faults = [None, 'rotated', 'dark', 'blurred']*2
df = qc_flags(pd.DataFrame([film(Path(), f'f{i}', fault, i) for i, fault in enumerate(faults)]))
many = pd.concat([df]*1577).head(12_611)
many = many.assign(id=[f'f{i}' for i in range(12_611)], qc_rank=range(12_611))
rev = QCReviewer(many, 'd.csv', 'anna')
rev'''
CLOCK = '''() => { // ms from a key to the next picture on the screen
    window.took = []; let at = 0
    const shown = () => { window.took.push(performance.now()-at); at = 0 }
    document.addEventListener('keydown', () => { at = performance.now() }, true)
    const film = document.querySelector('img.widget-image')
    film.addEventListener('load', () => { if (at) requestAnimationFrame(shown) })
}'''
DRAWN = '[...document.querySelectorAll("img.widget-image")].filter(i => i.naturalWidth > 0 && i.offsetParent).length'
OUTPUT = '.jp-OutputArea-output'
SETTINGS = dict(themes=dict(theme=THEME), notification=dict(fetchNews='false', checkForUpdates=False))

def write_settings(home):
    for name, chosen in SETTINGS.items():
        f = home/f'settings/@jupyterlab/apputils-extension/{name}.jupyterlab-settings'
        f.parent.mkdir(parents=True, exist_ok=True)
        f.write_text(json.dumps(chosen))

def write_notebook(path):
    cell = dict(cell_type='code', source=CELL, metadata={}, outputs=[], execution_count=None, id='review')
    kernel = dict(name='python3', display_name='python3', language='python')
    path.write_text(json.dumps(dict(cells=[cell], metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)))

@pytest.fixture
def lab(tmp_path):
    "A JupyterLab of its own on a free port: its address, its folder, its process id."
    write_settings(tmp_path/'jupyter')
    write_notebook(tmp_path/'r.ipynb')
    port = free_port()
    url = f'http://127.0.0.1:{port}'
    command = [sys.executable, '-m', 'jupyterlab', '--no-browser', f'--port={port}', '--IdentityProvider.token=',
        '--ServerApp.allow_root=True', f'--ServerApp.root_dir={tmp_path}']
    with served(command, tmp_path, f'{url}/api') as p:
        yield url, tmp_path, p.pid

def kill_kernels(pid):
    "End the kernels below a server as a crash would."
    for p in psutil.Process(pid).children(recursive=True):
        if 'ipykernel_launcher' in ' '.join(p.cmdline()):
            p.kill()

# ---- what a person does and sees

class Reader:
    "A person in front of the page, and the file their decisions go to."
    def __init__(self, page, url, file):
        self.page = page
        self.url = url
        self.file = file
        self.film = page.locator('img.widget-image').first
        self.note = page.locator('input[placeholder=note]')

    def lines(self):
        "Lines of the decisions file, without the header."
        return self.file.read_text().splitlines()[1:] if self.file.exists() else []

    def open(self):
        "Open the notebook and run its cell."
        self.page.goto(f'{self.url}/lab/tree/r.ipynb')
        self.page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]')
        assert any(self.run_cell() for _ in range(20)), 'the cell does not start'
        self.page.wait_for_selector('text=Keep (K)')
        self.sees(2)

    def run_cell(self):
        "A key pressed before the notebook is ready is lost, or answered with a dialog about the kernel."
        if self.page.locator('dialog.jp-Dialog').count():
            self.page.keyboard.press('Escape')
        self.page.click('.jp-Notebook .jp-Cell .jp-InputArea-editor')
        self.page.keyboard.press('Control+Enter')
        prompt = self.page.locator('.jp-InputPrompt').first
        return wait_for(lambda: '[ ]' not in prompt.inner_text(), 5)

    def sees(self, n):
        "At least n pictures are drawn."
        self.page.wait_for_function(f'{DRAWN} >= {n}')

    def sees_decided(self, n):
        "The progress says that n films are decided, and a moment to look has passed: a decision sooner is not counted."
        self.page.wait_for_selector(f'text=/^{n} of 12,611 decided/')
        self.page.wait_for_timeout(400)

    def press(self, key, decided):
        "Press a key that writes one line; the decision in it."
        n = len(self.lines())
        self.page.keyboard.press(key)
        assert wait_for(lambda: len(self.lines()) == n+1)
        self.sees_decided(decided)
        return self.lines()[-1].split(',')[1]

@pytest.fixture
def reader(lab):
    url, folder, _ = lab
    with new_page(1150) as page:
        r = Reader(page, url, folder/'d.csv')
        r.open()
        yield r

def apart(a, b):
    "Whether two boxes have at most one pixel in common."
    beside = a['x']+a['width'] <= b['x']+1 or b['x']+b['width'] <= a['x']+1
    return beside or a['y']+a['height'] <= b['y']+1 or b['y']+b['height'] <= a['y']+1

def no_overlap(page):
    shown = page.locator(f'{OUTPUT} .widget-button, {OUTPUT} .widget-image').all()
    boxes = [o.bounding_box() for o in shown]
    boxes = [b for b in boxes if b]
    assert len(boxes) >= 8
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert apart(a, b), f'overlap: {a} {b}'

# ---- the steps of one review, in order

def decide(r):
    "Mouse and keys; JupyterLab's own keys for deleting a cell must not get through."
    r.page.click('text=Reject (R)')
    assert wait_for(lambda: len(r.lines()) == 1)
    assert r.lines()[0].split(',')[1] == 'reject'
    r.sees_decided(1)
    r.film.hover()
    assert r.press('k', 2) == 'keep'
    assert r.press('u', 3) == 'unsure'
    assert r.press('z', 2) == 'undo'
    for key in 'xdd':
        r.page.keyboard.press(key)

def write_note(r):
    "With the pointer on the film, then with the pointer in the field; neither decides anything."
    r.page.keyboard.press('n')
    r.page.wait_for_selector('text=typing the note')
    r.page.keyboard.type('kruz, ')
    r.page.keyboard.press('Enter')
    r.page.wait_for_selector('text=typing the note', state='detached')
    r.note.click()
    r.page.keyboard.press('End')
    r.page.keyboard.type('nothing but a note')
    assert len(r.lines()) == 4, 'typing a note must not decide anything'
    assert r.note.input_value() == 'kruz, nothing but a note'

def reject_with_reason(r):
    r.film.hover()
    r.page.keyboard.press('1')
    r.page.wait_for_selector('button.mod-active:has-text("mask wrong")')
    assert r.press('r', 3) == 'reject'
    assert len(r.lines()) == 5
    assert 'reject,mask wrong,"kruz, nothing but a note"' in r.lines()[-1]
    assert r.page.locator('.jp-Cell').count() == 1
    shoot(r.page, 'one')
    no_overlap(r.page)

def keep_thirty(r):
    "Every key decides one film, in their order, and shows another picture."
    r.film.hover()
    r.page.evaluate(CLOCK)
    before = [line.split(',')[0] for line in r.lines()]
    for n in range(30):
        assert r.press('k', 4+n) == 'keep'
    kept = [line.split(',')[0] for line in r.lines()[len(before):]]
    first = int(before[-1][1:])+1
    assert kept == [f'f{i}' for i in range(first, first+30)]
    assert wait_for(lambda: len(r.page.evaluate('window.took')) >= 25)
    took = sorted(r.page.evaluate('window.took'))
    p50, p95 = took[len(took)//2], took[int(.95*len(took))]
    print(f'key to next film on the screen, {len(took)} keys: p50 {p50:.0f} ms, p95 {p95:.0f} ms')

def keep_a_page(r):
    "A page at a time: open one, reject it, keep the rest."
    r.page.keyboard.press('g')
    r.page.wait_for_selector('text=Keep page (K)')
    r.page.wait_for_function(f'{DRAWN} == 24')
    shoot(r.page, 'grid')
    no_overlap(r.page)
    n = len(r.lines())
    r.page.locator(f'{OUTPUT} img.widget-image:visible').nth(20).click()
    r.page.wait_for_selector('text=Keep (K)')
    r.page.click('text=Reject (R)')
    assert wait_for(lambda: len(r.lines()) == n+1)
    assert r.lines()[-1].startswith('f44,reject')
    r.page.click('text=Keep page (K)')
    assert wait_for(lambda: len(r.lines()) == n+15), r.lines()[n:] # of 24 nine were kept before, f44 is rejected

def crash_and_return(r, pid):
    "A killed kernel, and the page opened again."
    decided = len(r.lines())-2 # all but the undone one and its undo
    r.sees_decided(decided)
    kill_kernels(pid)
    r.open()
    r.sees_decided(decided)
    r.film.hover()
    assert r.press('z', decided-1) == 'undo'

def test_review_in_jupyterlab(lab, reader):
    decide(reader)
    write_note(reader)
    reject_with_reason(reader)
    keep_thirty(reader)
    keep_a_page(reader)
    crash_and_return(reader, lab[2])
