"What a stranger meets first: imports that cost nothing, pages that are clean, facts that stand once."
import json, re, subprocess, sys, time
from configparser import ConfigParser
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)

def fresh(code): # run in a fresh interpreter, return what it prints
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()

def test_import_costs_nothing():
    "The least of three: other work on the machine can only slow it down"
    times = [float(fresh('import time; t=time.perf_counter(); import boneage; print(time.perf_counter()-t)')) for _ in range(3)]
    assert min(times) < .3

@pytest.mark.parametrize('module', ['core', 'rsna', 'phantom', 'segmentation', 'cropping', 'qc_widgets', 'evaluate', 'cli'])
def test_no_torch_until_it_is_needed(module):
    heavy = fresh(f'import sys, boneage.{module}; print([m for m in ("torch","fastai","segment_anything","pydicom","ipywidgets") if m in sys.modules])')
    assert heavy == '[]'

ORDER = ['core', ('rsna', 'phantom', 'segmentation', 'cropping', 'qc_widgets', 'evaluate'), 'hand_sam', 'train_fastai', 'predict', 'cli']

def test_nobody_imports_a_later_module():
    rank = {m: i for i, group in enumerate(ORDER) for m in ([group] if isinstance(group, str) else group)}
    for mod, r in rank.items():
        used = re.findall(r'from (?:boneage)?\.(\w+) import', (ROOT/f'boneage/{mod}.py').read_text('utf-8'))
        assert [u for u in used if rank.get(u, -1) > r] == [], f'{mod} imports a later module'

def test_each_fact_stands_once():
    ini = ConfigParser(delimiters=['='], interpolation=None)
    ini.read(ROOT/'settings.ini')
    assert not [o for o in ini['DEFAULT']['requirements'].splitlines() if '==' in o]
    assert 'version' not in ini['DEFAULT'] and 'requirements' in (ROOT/'setup.py').read_text()

@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.stem)
def test_page_is_fit_to_read(page):
    text = page.read_text('utf-8')
    nb = json.loads(text)
    outputs = [(c, o) for c in nb['cells'] for o in c.get('outputs', [])]
    assert len(text) < 300_000, 'a page stays under 300 kB'
    assert not re.search(r'/(home|root|work|tmp|Users)/', text), 'a path of somebody\'s machine'
    assert not [o for _, o in outputs if o.get('name') == 'stderr'], 'stored warnings or progress bars'
    assert not [o for _, o in outputs if o['output_type'] == 'error']
    assert not [o for _, o in outputs if 'application/vnd.jupyter.widget-view+json' in o.get('data', {})], 'a widget state that no reader of the site can see'
    longest = max((len(''.join(c['source']).splitlines()) for c in nb['cells'] if c['cell_type'] == 'code'), default=0)
    assert longest <= 50

def test_every_page_is_in_the_sidebar():
    import yaml
    site = (ROOT/'_quarto.yml').read_text()
    missing = [p.name for p in PAGES if str(p.relative_to(ROOT/'nbs')) not in site]
    assert not missing

def test_no_big_file_is_tracked():
    listed = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode: pytest.skip('not a git checkout')
    big = [f for f in listed.stdout.splitlines() if (ROOT/f).is_file() and (ROOT/f).stat().st_size > 2_000_000 and not f.startswith('boneage/weights/')]
    assert not big

def test_readme_is_the_index_page():
    from site_build import readme
    text, pics = readme()
    assert (ROOT/'README.md').read_text('utf-8') == text, 'run: python tests/site_build.py --readme'
    assert all((ROOT/name).read_bytes() == data for name, data in pics.items())
