"The reviewer in a real JupyterLab with 12,611 films: mouse, keyboard, note, grid, reload, a killed kernel, and what the file holds afterwards."
import json, os, subprocess, sys, time, urllib.request
from pathlib import Path

import psutil, pytest

pytest.importorskip('jupyterlab', reason='needs jupyterlab')
pytest.importorskip('ipyevents', reason='needs ipyevents')
from browsing import WIDTH, end_server, free_port, new_page, wait_for

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
df = qc_flags(pd.DataFrame(rows))
df = pd.concat([df]*1577).head(12_611).assign(id=[f'f{i}' for i in range(12_611)], qc_rank=range(12_611))
rev = QCReviewer(df, 'd.csv', 'anna')
rev'''
CLOCK = '''() => { // ms from a key to the next picture on the screen
    window.took = []; let at = 0
    document.addEventListener('keydown', () => { at = performance.now() }, true)
    document.querySelector('img.widget-image').addEventListener('load', () => { if (at) requestAnimationFrame(() => { window.took.push(performance.now()-at); at = 0 }) })
}'''
SETTINGS = dict(themes=dict(theme=os.environ.get('BONEAGE_TEST_THEME', 'JupyterLab Light')), notification=dict(fetchNews='false', checkForUpdates=False))

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
    port = free_port()
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
        yield url, tmp_path, p.pid
    finally: end_server(p)

def kill_kernels(pid):
    "End the kernels below a server as a crash would."
    for p in psutil.Process(pid).children(recursive=True):
        if 'ipykernel_launcher' in ' '.join(p.cmdline()): p.kill()

def no_overlap(page, where):
    boxes = [b for o in page.locator(f'{where} .widget-button, {where} .widget-image').all() if (b := o.bounding_box())]
    assert len(boxes) >= 8
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            apart = a['x']+a['width'] <= b['x']+1 or b['x']+b['width'] <= a['x']+1 or a['y']+a['height'] <= b['y']+1 or b['y']+b['height'] <= a['y']+1
            assert apart, f'overlap: {a} {b}'

def shoot(page, name):
    "A screenshot to look at, where BONEAGE_TEST_SHOT names a folder."
    if not (folder := os.environ.get('BONEAGE_TEST_SHOT')): return
    page.mouse.move(2, 2)
    page.wait_for_timeout(300)
    page.screenshot(path=str(Path(folder)/f'{name}-{WIDTH}.png'))

def test_review_in_jupyterlab(lab):
    url, folder, pid = lab
    lines = lambda: (folder/'d.csv').read_text().splitlines()[1:] if (folder/'d.csv').exists() else []
    said = lambda n: [l.split(',')[1] for l in lines()][-n:]
    with new_page(1150, 30_000) as page:
        def run():
            page.goto(f'{url}/lab/tree/r.ipynb')
            page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]')
            begun = lambda: '[ ]' not in page.locator('.jp-InputPrompt').first.inner_text()
            for _ in range(5):                       # a key pressed before the notebook is ready is lost
                page.click('.jp-Notebook .jp-Cell .jp-InputArea-editor')
                page.keyboard.press('Control+Enter')
                if wait_for(begun, 3): break
            page.wait_for_selector('text=Keep (K)')
            page.wait_for_function('[...document.querySelectorAll("img.widget-image")].filter(i => i.naturalWidth > 0).length >= 2')
        run()
        film, note = page.locator('img.widget-image').first, page.locator('input[placeholder=note]')
        page.click('text=Reject (R)')
        assert wait_for(lambda: said(1) == ['reject'])
        film.hover()
        for key, qc in (('k', 'keep'), ('u', 'unsure'), ('z', 'undo')):
            n = len(lines())
            page.wait_for_timeout(300)
            page.keyboard.press(key)
            assert wait_for(lambda: len(lines()) == n+1) and said(1) == [qc]
        for key in 'xdd': page.keyboard.press(key)   # JupyterLab's own keys for deleting a cell must not get through

        page.keyboard.press('n')                     # the pointer rests on the film while the note is typed
        page.wait_for_selector('text=typing the note')
        page.keyboard.type('kruz, ')
        page.keyboard.press('Enter')
        page.wait_for_selector('text=typing the note', state='detached')
        note.click()                                 # and with the pointer in the field
        page.keyboard.press('End')
        page.keyboard.type('nothing but a note')
        assert len(lines()) == 4 and note.input_value() == 'kruz, nothing but a note', 'typing a note must not decide anything'
        film.hover()
        page.keyboard.press('1')
        page.wait_for_selector('button.mod-active:has-text("mask wrong")')
        page.keyboard.press('r')
        assert wait_for(lambda: len(lines()) == 5) and 'reject,mask wrong,"kruz, nothing but a note"' in lines()[-1]
        assert page.locator('.jp-Cell').count() == 1
        shoot(page, 'one')
        no_overlap(page, '.jp-OutputArea-output')

        film.hover()
        page.evaluate(CLOCK)
        for n in range(30):
            page.wait_for_timeout(400)
            page.keyboard.press('k')
            assert wait_for(lambda: len(lines()) == 6+n)
        page.wait_for_timeout(500)
        took = sorted(page.evaluate('window.took'))
        print(f'key to next film on the screen, {len(took)} keys: p50 {took[len(took)//2]:.0f} ms, p95 {took[int(.95*len(took))]:.0f} ms')
        assert len(took) >= 25 and took[len(took)//2] < 1000

        page.keyboard.press('g')                     # a page at a time: open one, reject it, keep the rest
        page.wait_for_selector('text=Keep page (K)')
        page.wait_for_function('[...document.querySelectorAll("img.widget-image")].filter(i => i.naturalWidth > 0 && i.offsetParent).length == 24')
        shoot(page, 'grid')
        no_overlap(page, '.jp-OutputArea-output')
        n = len(lines())
        page.locator('.jp-OutputArea-output img.widget-image:visible').nth(20).click()
        page.wait_for_selector('text=Keep (K)')
        page.click('text=Reject (R)')
        assert wait_for(lambda: len(lines()) == n+1) and lines()[-1].startswith('f44,reject')
        page.click('text=Keep page (K)')
        assert wait_for(lambda: len(lines()) == n+15), lines()[n:]       # of 24 nine were kept before, f44 is rejected
        total = f'{len(lines())-2} of 12,611 decided'                    # all but the undone one and its undo
        page.wait_for_selector(f'text={total}')

        kill_kernels(pid)                            # as a crash would; then the page is opened again
        run()
        page.wait_for_selector(f'text={total}')
        film.hover()
        n = len(lines())
        page.keyboard.press('z')
        assert wait_for(lambda: len(lines()) == n+1) and said(1) == ['undo']
