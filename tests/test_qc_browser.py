"The reviewer in a real JupyterLab: mouse, keyboard, note, reload, and what the file holds afterwards."
import json, os, shutil, signal, socket, subprocess, sys, time, urllib.request
from pathlib import Path

import pytest

pytest.importorskip('jupyterlab', reason='needs jupyterlab')
pytest.importorskip('ipyevents', reason='needs ipyevents')
sync_api = pytest.importorskip('playwright.sync_api', reason='needs playwright')
CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
if not CHROMIUM: pytest.skip('needs a chromium on the path', allow_module_level=True)

CELL = '''import pandas as pd
from pathlib import Path
from boneage.core import write_png
from boneage.phantom import make_phantom
from boneage.qc_widgets import QCReviewer, qc_flags
rows = []
for i in range(8):
    ph = make_phantom(i, 40+15*i, 'FM'[i%2], fault=[None,'rotated','dark','blurred'][i%4])
    rows.append(dict(id=f'f{i}', sex=ph.sex, age_months=ph.age_months, seg_status='ok'))
    for k,img in dict(path=ph.pixels, mask_path=ph.mask, crop_path=ph.pixels*ph.mask).items():
        rows[-1][k] = f'{k}-{i}.png'
        write_png(rows[-1][k], img)
rev = QCReviewer(qc_flags(pd.DataFrame(rows)), 'd.csv', 'anna')
rev'''
SETTINGS = dict(themes=dict(theme=os.environ.get('BONEAGE_TEST_THEME', 'JupyterLab Light')), notification=dict(fetchNews='false', checkForUpdates=False))
WIDTH = int(os.environ.get('BONEAGE_TEST_WIDTH', 1280))

@pytest.fixture
def lab(tmp_path):
    "A JupyterLab of its own on a free port; it and its kernels are ended whatever happens."
    home = tmp_path/'jupyter'
    for name, d in SETTINGS.items():
        f = home/f'settings/@jupyterlab/apputils-extension/{name}.jupyterlab-settings'
        f.parent.mkdir(parents=True, exist_ok=True)
        f.write_text(json.dumps(d))
    cell = dict(cell_type='code', source=CELL, metadata={}, outputs=[], execution_count=None, id='review')
    kernel = dict(name='python3', display_name='python3', language='python')
    (tmp_path/'r.ipynb').write_text(json.dumps(dict(cells=[cell], metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)))
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    root = str(Path(__file__).parents[1])
    env = os.environ | dict(JUPYTER_CONFIG_DIR=str(home), JUPYTERLAB_SETTINGS_DIR=str(home/'settings'), JUPYTERLAB_WORKSPACES_DIR=str(home/'w'),
        JUPYTER_RUNTIME_DIR=str(home/'run'), PYTHONPATH=os.pathsep.join([root, os.environ.get('PYTHONPATH', '')]), OMP_NUM_THREADS='1')
    with open(tmp_path/'lab.log', 'w') as log:
        p = subprocess.Popen([sys.executable, '-m', 'jupyterlab', '--no-browser', f'--port={port}', '--IdentityProvider.token=', '--ServerApp.allow_root=True',
            f'--ServerApp.root_dir={tmp_path}'], env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        url, end = f'http://127.0.0.1:{port}', time.time()+40
        while True:
            try:
                with urllib.request.urlopen(f'{url}/api') as r: r.read()
                break
            except OSError:
                if p.poll() is not None or time.time() > end: pytest.skip('JupyterLab does not start here: ' + (tmp_path/'lab.log').read_text()[-300:])
                time.sleep(.2)
        yield url, tmp_path
    finally:
        for sig in (signal.SIGTERM, signal.SIGKILL):
            try: os.killpg(p.pid, sig)
            except ProcessLookupError: break
            try: p.wait(8)
            except subprocess.TimeoutExpired: pass

def wait_for(what, seconds=8):
    end = time.time()+seconds
    while time.time() < end:
        if what(): return True
        time.sleep(.05)
    return False

def test_review_in_jupyterlab(lab):
    url, folder = lab
    lines = lambda: (folder/'d.csv').read_text().splitlines()[1:] if (folder/'d.csv').exists() else []
    said = lambda n: [l.split(',')[1] for l in lines()][-n:]
    with sync_api.sync_playwright() as pw:
        browser = pw.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox', '--disable-gpu', '--disable-background-networking'])
        try:
            page = browser.new_page(viewport=dict(width=WIDTH, height=1150))
            page.set_default_timeout(30_000)
            def run():
                page.goto(f'{url}/lab/tree/r.ipynb')
                page.click('.jp-Notebook .jp-Cell .jp-InputArea-editor')
                page.keyboard.press('Control+Enter')
                page.wait_for_selector('text=Keep (K)')
                page.wait_for_function('[...document.querySelectorAll("img.widget-image")].filter(i => i.naturalWidth > 0).length == 2')
            run()
            film = page.locator('img.widget-image').first
            page.click('text=Reject (R)')
            assert wait_for(lambda: said(1) == ['reject'])
            film.hover()
            for key, qc in (('k', 'keep'), ('u', 'unsure'), ('z', 'undo')):
                n = len(lines())
                page.keyboard.press(key)
                assert wait_for(lambda: len(lines()) == n+1) and said(1) == [qc]
            for key in 'xdd': page.keyboard.press(key)   # JupyterLab's own keys for deleting a cell must not get through
            page.locator('input[placeholder=note]').click()
            page.keyboard.type('kruz, nothing but a note')
            assert len(lines()) == 4, 'typing a note must not decide anything'
            film.hover()
            page.keyboard.press('1')
            page.wait_for_selector('button.mod-active:has-text("mask wrong")')
            page.keyboard.press('r')
            assert wait_for(lambda: len(lines()) == 5) and 'reject,mask wrong,"kruz, nothing but a note"' in lines()[-1]
            assert page.locator('.jp-Cell').count() == 1
            shot = os.environ.get('BONEAGE_TEST_SHOT')
            if shot:
                page.mouse.move(2, 2)
                page.wait_for_timeout(300)
                page.screenshot(path=shot)
                page.locator('.jp-OutputArea-output .widget-vbox').first.screenshot(path=shot.replace('.png', '-widget.png'))
            boxes = [o.bounding_box() for o in page.locator('.jp-OutputArea-output .widget-button, .jp-OutputArea-output .widget-image').all()]
            for i, a in enumerate(boxes):
                for b in boxes[:i]:
                    apart = a['x']+a['width'] <= b['x']+1 or b['x']+b['width'] <= a['x']+1 or a['y']+a['height'] <= b['y']+1 or b['y']+b['height'] <= a['y']+1
                    assert apart, f'overlap: {a} {b}'
            run()                                       # reload the page and run again: taken up where it was left
            page.wait_for_selector('text=3 of 8 decided')
        finally: browser.close()
