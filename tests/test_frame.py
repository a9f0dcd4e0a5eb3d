"What a stranger meets first: imports that cost nothing, pages that are clean, facts that stand once."
import json
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
from site_build import readme

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
PAGE_BYTES = 250_000
CELL_LINES = 50
WIDGET = 'application/vnd.jupyter.widget-view+json'


def page_id(page):
    return page.relative_to(ROOT/'nbs').as_posix()


def fresh(code):
    "Run code in a fresh interpreter; what it prints."
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=ROOT)
    return run.stdout.strip()


def test_import_costs_nothing():
    loaded = fresh('import sys; before = set(sys.modules); import boneage; print(*sorted(set(sys.modules) - before))')
    assert loaded == 'boneage'


def test_each_fact_stands_once():
    ini = ConfigParser(delimiters=['='], interpolation=None)
    ini.read(ROOT/'settings.ini')
    assert not [o for o in ini['DEFAULT']['requirements'].splitlines() if '==' in o]
    assert 'version' not in ini['DEFAULT']
    assert 'requirements' in (ROOT/'setup.py').read_text()


@pytest.mark.parametrize('page', PAGES, ids=page_id)
def test_page_is_fit_to_read(page):
    text = page.read_text('utf-8')
    cells = json.loads(text)['cells']
    outputs = [o for cell in cells for o in cell.get('outputs', [])]
    assert len(text.encode()) < PAGE_BYTES
    assert not re.search(r'/(home|root|work|tmp|Users)/', text), 'a path of somebody\'s machine'
    assert not [o for o in outputs if o.get('name') == 'stderr'], 'stored warnings or progress bars'
    assert not [o for o in outputs if o['output_type'] == 'error']
    assert not [o for o in outputs if WIDGET in o.get('data', {})], 'a widget state that no reader of the site can see'
    code = [''.join(cell['source']) for cell in cells if cell['cell_type'] == 'code']
    assert max((len(source.splitlines()) for source in code), default=0) <= CELL_LINES


@pytest.mark.parametrize('page', PAGES, ids=page_id)
def test_links_between_pages_work_in_jupyter_and_on_the_site(page):
    cells = json.loads(page.read_text('utf-8'))['cells']
    prose = '\n'.join(''.join(cell['source']) for cell in cells if cell['cell_type'] == 'markdown')
    links = [o for o in re.findall(r'\]\(([^)#\s]+)', prose) if '://' not in o and not o.startswith('mailto:')]
    assert [o for o in links if o.endswith('.html')] == [], 'a notebook has no .html beside it'
    assert [o for o in links if not (page.parent/o).exists()] == []
    assert not re.search(r'\[`[^`]+`\]\(', prose), 'nbdev links a backticked name itself'


def test_every_page_is_in_the_sidebar():
    site = (ROOT/'_quarto.yml').read_text()
    assert [page_id(p) for p in PAGES if page_id(p) not in site] == []


def test_no_big_file_is_tracked():
    listed = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip('not a git checkout')
    names = [o for o in listed.stdout.splitlines() if not o.startswith('boneage/weights/')]
    assert [o for o in names if (ROOT/o).is_file() and (ROOT/o).stat().st_size > 2_000_000] == []


def test_readme_is_the_index_page():
    text, pictures = readme()
    assert (ROOT/'README.md').read_text('utf-8') == text, 'run: python tests/site_build.py --readme'
    assert all((ROOT/name).read_bytes() == data for name, data in pictures.items())
