"The reviewer as an app: Voila in a headless browser, with a name, mouse and keyboard, a reload, and the file."
import re
import sys

import pandas as pd
import pytest

pytest.importorskip('voila', reason='needs voila')
from browsing import THEME, free_port, new_page, served, shoot, wait_for
from reviewing import film

from boneage.films.files import write_csv
from boneage.review.decisions import Decisions
from boneage.review.flags import qc_flags

DARK = ['--dark'] if 'Dark' in THEME else []
DRAWN = '[...document.querySelectorAll("img.widget-image")].filter(i => i.naturalWidth > 0).length'

@pytest.fixture
def app(tmp_path):
    "The documented command, run in a user's folder: its address, its folder, the table."
    faults = [None, 'rotated', 'dark']*2
    df = qc_flags(pd.DataFrame([film(tmp_path, f'f{i}', fault, i) for i, fault in enumerate(faults)]))
    write_csv(df, tmp_path/'qc.csv')
    port = free_port()
    url = f'http://127.0.0.1:{port}'
    command = [sys.executable, '-m', 'boneage.cli', 'review', 'qc.csv', '--no-browser', '--port', str(port), *DARK]
    with served(command, tmp_path, f'{url}/voila/static/'):
        key = re.search(r'token=\S+', (tmp_path/'server.log').read_text())[0]
        yield f'{url}/?{key}', tmp_path, df

def test_review_in_voila(app):
    url, folder, df = app
    def decided(*words):
        return wait_for(lambda: [row['qc'] for row in Decisions(folder/'decisions.csv', 'anna').rows] == list(words))
    with new_page(1000) as page:
        page.goto(url)
        page.click('button:has-text("Start")')
        page.wait_for_selector('text=Please give a name')
        page.fill('input[placeholder="your name"]', 'anna')
        page.click('button:has-text("Start")')
        page.wait_for_function(f'{DRAWN} >= 2')
        assert not page.locator('.jp-CodeCell .jp-InputArea:visible').count(), 'an app shows no code'
        shoot(page, 'voila')
        page.click('text=Reject (R)')
        assert decided('reject')
        page.locator('img.widget-image').first.hover()
        page.wait_for_selector('text=1 of 6 decided')
        page.keyboard.press('k')
        assert decided('reject', 'keep')
        page.wait_for_selector('text=2 of 6 decided')
        page.keyboard.press('z')
        assert decided('reject', 'keep', 'undo')
        page.goto(f'{url}&reviewer=anna') # a reload starts a new kernel; the bookmark skips the question
        page.wait_for_function(f'{DRAWN} >= 2')
        page.wait_for_selector('text=1 of 6 decided')
        assert Decisions(folder/'decisions.csv', 'anna').mine[df.id.iloc[0]]['qc'] == 'reject'
