"What the browser tests share: a page in a headless Chromium, a server that is waited for and ended, and waiting."
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

sync_api = pytest.importorskip('playwright.sync_api', reason='needs playwright')
CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
if not CHROMIUM:
    pytest.skip('needs a chromium on the path', allow_module_level=True)

WIDTH = int(os.environ.get('BONEAGE_TEST_WIDTH', 1280))
THEME = os.environ.get('BONEAGE_TEST_THEME', 'JupyterLab Light')
PATIENCE = 300 # seconds after which something is called stuck: no measure of speed, a busy machine needs a tenth of it
ROOT = Path(__file__).parents[1]

@contextmanager
def new_page(height): # px
    "A page of a browser of its own."
    flags = ['--no-sandbox', '--disable-gpu', '--disable-background-networking']
    with sync_api.sync_playwright() as pw:
        browser = pw.chromium.launch(executable_path=CHROMIUM, args=flags)
        try:
            page = browser.new_page(viewport=dict(width=WIDTH, height=height))
            page.set_default_timeout(1000*PATIENCE)
            yield page
        finally:
            browser.close()

def shoot(page, name):
    "A screenshot to look at, where BONEAGE_TEST_SHOT names a folder."
    folder = os.environ.get('BONEAGE_TEST_SHOT')
    if not folder:
        return
    page.mouse.move(2, 2)
    page.wait_for_timeout(300)
    page.screenshot(path=str(Path(folder)/f'{name}-{WIDTH}.png'), full_page=True)

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

def jupyter_env(home):
    "Settings of a Jupyter of its own, with this tree's library and these helpers first."
    path = os.pathsep.join([str(ROOT), str(ROOT/'tests'), os.environ.get('PYTHONPATH', '')])
    own = dict(
        JUPYTER_CONFIG_DIR=str(home),
        JUPYTER_RUNTIME_DIR=str(home/'run'),
        JUPYTERLAB_SETTINGS_DIR=str(home/'settings'),
        JUPYTERLAB_WORKSPACES_DIR=str(home/'w'),
        PYTHONPATH=path,
        OMP_NUM_THREADS='1')
    return os.environ | own

def answers(url):
    "Whether somebody answers there, whatever the answer."
    try:
        with urllib.request.urlopen(url, timeout=5) as r:
            r.read()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True

@contextmanager
def served(command, folder, url): # url: a path that is there once the server is
    "A server in a session of its own; it and its kernels are ended whatever happens."
    log = folder/'server.log'
    with open(log, 'w') as f:
        p = subprocess.Popen(command, cwd=folder, env=jupyter_env(folder/'jupyter'), stdout=f,
            stderr=subprocess.STDOUT, start_new_session=True)
    try:
        wait_for(lambda: p.poll() is not None or answers(url))
        assert p.poll() is None and answers(url), f'the server does not start: {log.read_text()[-500:]}'
        yield p
    finally:
        end_server(p)

def end_server(p):
    "End a server and its kernels, whatever they do."
    for sig in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(p.pid, sig)
        except ProcessLookupError:
            return
        try:
            p.wait(10)
        except subprocess.TimeoutExpired:
            pass

def wait_for(what, seconds=PATIENCE):
    "Whether `what` comes true before patience ends."
    end = time.monotonic()+seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(.05)
    return False
