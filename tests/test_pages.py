"Run All: every page from top to bottom as JupyterLab would run it, nbdev's flags ignored."
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
WAIT_AT_MOST = 1200 # seconds a cell: only so that a page that hangs does not stop the others


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    "Nothing on a page may need the network: an address that nobody answers stands in for it."
    for name in ('http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY'):
        monkeypatch.setenv(name, 'http://127.0.0.1:9')
    for name in ('no_proxy', 'NO_PROXY'):
        monkeypatch.setenv(name, '127.0.0.1,localhost')


def stderr_of(page):
    outputs = [o for cell in page.cells for o in cell.get('outputs', [])]
    return [o['text'] for o in outputs if o.get('name') == 'stderr']


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.relative_to(ROOT/'nbs').as_posix())
def test_run_all(page):
    before = sorted(os.listdir(page.parent))
    resources = dict(metadata=dict(path=str(page.parent)))
    client = NotebookClient(nbformat.read(page, 4), timeout=WAIT_AT_MOST, kernel_name='python3', resources=resources)
    assert stderr_of(client.execute()) == [], 'warnings and progress bars'
    assert sorted(os.listdir(page.parent)) == before, 'a page leaves no file behind'
