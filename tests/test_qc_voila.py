"The reviewer as an app: Voila in a headless browser, with a table, a name, mouse and keyboard, a reload, and what the file holds."
import os, subprocess, sys, time, urllib.request
from pathlib import Path

import pytest

pytest.importorskip('voila', reason='needs voila')
from browsing import WIDTH, end_server, free_port, new_page, wait_for

from boneage.core import write_csv, write_png
from boneage.phantom import make_phantom
from boneage.qc_widgets import Decisions, qc_flags
import pandas as pd

ROOT = Path(__file__).parents[1]
THEME = ['--dark'] if 'Dark' in os.environ.get('BONEAGE_TEST_THEME', '') else []

def make_table(folder):
    rows = []
    for i in range(6):
        ph = make_phantom(i, 40+15*i, 'FM'[i%2], fault=[None, 'rotated', 'dark'][i%3])
        rows.append(dict(id=f'f{i}', sex=ph.sex, age_months=ph.age_months, seg_status='ok'))
        for k, img in dict(path=ph.pixels, mask_path=ph.mask, crop_path=ph.pixels*ph.mask).items():
            rows[-1][k] = str(folder/f'{k}-{i}.png')
            write_png(rows[-1][k], img)
    df = qc_flags(pd.DataFrame(rows))
    write_csv(df, folder/'qc.csv')
    return df

@pytest.fixture
def app(tmp_path):
    "The documented command, run in a user's folder; the server and its kernels are ended whatever happens."
    df = make_table(tmp_path)
    port = free_port()
    env = os.environ | dict(JUPYTER_CONFIG_DIR=str(tmp_path/'jupyter'), JUPYTER_RUNTIME_DIR=str(tmp_path/'jupyter'/'run'),
        PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]), OMP_NUM_THREADS='1')
    log = tmp_path/'voila.log'
    with open(log, 'w') as f:
        p = subprocess.Popen([sys.executable, '-m', 'boneage.cli', 'review', 'qc.csv', '--no-browser', '--port', str(port), *THEME], cwd=tmp_path, env=env, stdout=f, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        url, end = f'http://127.0.0.1:{port}', time.time()+40
        while True:
            try:
                with urllib.request.urlopen(f'{url}/voila/static/', timeout=5): break
            except urllib.error.HTTPError: break
            except OSError:
                assert p.poll() is None and time.time() < end, 'Voila does not start: ' + log.read_text()[-500:]
                time.sleep(.2)
        yield url, tmp_path, df
    finally: end_server(p)

def test_review_in_voila(app):
    url, folder, df = app
    said = lambda: [r['qc'] for r in Decisions(folder/'decisions.csv', 'anna').rows]
    with new_page(1000, 40_000) as page:
        loaded = lambda: page.wait_for_function('[...document.querySelectorAll("img.widget-image")].filter(i => i.naturalWidth > 0).length >= 2')
        page.goto(url)
        page.click('button:has-text("Start")')
        page.wait_for_selector('text=Please give a name')
        page.fill('input[placeholder="your name"]', 'anna')
        page.click('button:has-text("Start")')
        loaded()
        assert not page.locator('.jp-CodeCell .jp-InputArea:visible').count(), 'an app shows no code'
        if folder_shots := os.environ.get('BONEAGE_TEST_SHOT'): page.screenshot(path=str(Path(folder_shots)/f'voila-{WIDTH}.png'), full_page=True)
        page.click('text=Reject (R)')
        assert wait_for(lambda: said() == ['reject'])
        page.locator('img.widget-image').first.hover()
        page.wait_for_timeout(300)
        page.keyboard.press('k')
        assert wait_for(lambda: said() == ['reject', 'keep'])
        page.wait_for_timeout(300)
        page.keyboard.press('z')
        assert wait_for(lambda: said() == ['reject', 'keep', 'undo'])
        page.goto(f'{url}/?reviewer=anna')           # a reload starts a new kernel; the bookmark skips the question
        loaded()
        page.wait_for_selector('text=1 of 6 decided')
        assert Decisions(folder/'decisions.csv', 'anna').mine[df.id.iloc[0]]['qc'] == 'reject'
