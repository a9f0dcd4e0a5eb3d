"What the browser tests share: a page in a headless Chromium, a free port, a server that is ended, and waiting."
import os, shutil, signal, socket, subprocess, time
from contextlib import contextmanager

import pytest

sync_api = pytest.importorskip('playwright.sync_api', reason='needs playwright')
CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
if not CHROMIUM: pytest.skip('needs a chromium on the path', allow_module_level=True)

WIDTH = int(os.environ.get('BONEAGE_TEST_WIDTH', 1280))

@contextmanager
def new_page(height, timeout): # px, ms
    "A page of a browser of its own"
    with sync_api.sync_playwright() as pw:
        browser = pw.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox', '--disable-gpu', '--disable-background-networking'])
        try:
            page = browser.new_page(viewport=dict(width=WIDTH, height=height))
            page.set_default_timeout(timeout)
            yield page
        finally: browser.close()

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

def end_server(p):
    "End a server and its kernels, whatever they do"
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
