"Planted pickles that must not run, names that must not climb, text that must not be obeyed, and a page for one person."
import os
import pickle
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch

from boneage.core import WEIGHTS
from boneage.hand.sam import read_weights
from boneage.films.patients import patient_code
from boneage.model.cards import as_cell, check_name
from boneage.model.network import load_crops
from boneage.model.release import BoneAgeModel, load_release, save_release
from boneage.model.starts import start_state
from boneage.review.server import IDLE_SECONDS, MOST_KERNELS, free_port, write_config
from boneage.train_fastai import train_df
from boneage.training.recipe import Recipe
from boneage.training.resume import read_checkpoint
from commands import ENV, ROOT, program
from small_models import crop_table, small_model

SMALL = dict(arch='tiny', weights=None, size=64, bs=8, seed=3)


@pytest.fixture(scope='module')
def films(tmp_path_factory):
    return crop_table(tmp_path_factory.mktemp('crops'), 16)


# --- planted files --------------------------------------------------------------------------------------------------

class Trap:
    "Unpickled, it writes a file."
    def __init__(self, sprung):
        self.sprung = sprung

    def __reduce__(self):
        return Path.touch, (Path(self.sprung),)


def as_pickle(path, trap):
    path.write_bytes(pickle.dumps(trap))


def as_torch(path, trap):
    torch.save(dict(model=trap, w=torch.ones(2)), path)


def as_old_torch(path, trap):
    torch.save(dict(w=trap), path, _use_new_zipfile_serialization=False)


def as_array(path, trap):
    with open(path, 'wb') as f: # numpy would add its own ending to a name
        np.save(f, np.array([trap], object), allow_pickle=True)


PLANTS = [as_pickle, as_torch, as_old_torch, as_array]


@pytest.fixture
def sprung(tmp_path):
    return tmp_path/'sprung'


def test_the_trap_works(tmp_path, sprung):
    as_torch(tmp_path/'a.pth', Trap(sprung))
    torch.load(tmp_path/'a.pth', weights_only=False)
    assert sprung.exists()


@pytest.mark.parametrize('plant', PLANTS)
@pytest.mark.parametrize('read', [read_checkpoint, read_weights, lambda path: start_state('tiny', path)])
@pytest.mark.parametrize('ending', ['.pth', '.safetensors'])
def test_no_reader_runs_what_is_in_a_file(tmp_path, sprung, plant, read, ending):
    file = tmp_path/f'planted{ending}'
    plant(file, Trap(sprung))
    with pytest.raises(ValueError, match='planted'):
        read(file)
    assert not sprung.exists()


@pytest.mark.parametrize('plant', PLANTS)
@pytest.mark.parametrize('name', ['best.pth', 'checkpoint.pth'])
def test_train_runs_no_planted_state(films, tmp_path, sprung, plant, name):
    "fastai opens best.pth after the last epoch with every pickle allowed."
    run = tmp_path/'run'
    train_df(films, run, epochs=1, **SMALL)
    plant(run/name, Trap(sprung))
    with pytest.raises(ValueError, match=name):
        train_df(films, run, epochs=1, **SMALL)
    assert not sprung.exists()
    assert len(train_df(films, run, epochs=1, resume=False, **SMALL).history) == 1
    assert not sprung.exists()


@pytest.mark.parametrize('plant', PLANTS)
def test_a_planted_cache_is_made_again(films, tmp_path, sprung, plant):
    right = load_crops(films.crop_path, 64)
    load_crops(films.crop_path, 64, tmp_path)
    file = next(tmp_path.glob('*.npy'))
    plant(file, Trap(sprung))
    file.with_suffix('.sha256').unlink()
    assert np.array_equal(load_crops(films.crop_path, 64, tmp_path), right)
    plant(file, Trap(sprung))
    assert np.array_equal(load_crops(films.crop_path, 64, tmp_path), right)
    assert not sprung.exists()


@pytest.mark.parametrize('plant', PLANTS)
def test_a_planted_release_is_refused(films, tmp_path, sprung, plant):
    card = save_release(small_model(films), tmp_path/'small')
    plant(card.with_suffix('.safetensors'), Trap(sprung))
    with pytest.raises(ValueError, match='small.safetensors'):
        load_release(card)
    assert not sprung.exists()


TRUSTED = {'train_fastai.py'} # `load_exported` says aloud that it is for files one trusts


def test_every_loader_of_the_library_is_a_safe_one():
    unsafe = re.compile(
        r'pickle\.load|joblib\.load|read_pickle|load_learner|allow_pickle=True|weights_only=False|'
        r'torch\.load\((?!.*weights_only=True)|np\.load\((?!.*allow_pickle=False)|yaml\.load\(|\bexec\(|'
        r'shell=True|os\.system')
    found = []
    for file in sorted((ROOT/'boneage').rglob('*.py')):
        lines = [line for line in file.read_text('utf-8').splitlines() if unsafe.search(line)]
        found += [(file.name, line.strip()) for line in lines]
    assert {name for name, _ in found} <= TRUSTED, found
    assert len(found) <= 1


# --- names and text -------------------------------------------------------------------------------------------------

CLIMBING = [
    '../../x', '..', '/etc/x', 'a/b', 'a\\b', 'C:x', '.x', '', ' ', 'x\n', 'x\0', 'a|x', 'x*', 'x'*101, 'x.', None, 5]


@pytest.mark.parametrize('name', CLIMBING)
def test_names_that_are_no_file_names(name):
    with pytest.raises(ValueError, match='expected a name'):
        check_name(name)


@pytest.mark.parametrize('name', ['resnet50-256', 'boneage_lite0', 'Röntgen 2', 'a.b', '骨龄'])
def test_names_that_are(name):
    assert check_name(name) == name


@pytest.mark.parametrize('name', ['../../x', '/etc/boneage-x'])
def test_a_training_refuses_such_a_name_before_it_begins(films, tmp_path, name):
    table = tmp_path/'a'/'b'/'cropped.csv'
    table.parent.mkdir(parents=True)
    films.to_csv(table, index=False)
    words = '--arch tiny --weights none --size 64 --bs 8 --epochs 1'.split()
    done = program('train', table, '--out', tmp_path/'a'/'b'/'m', '--name', name, *words)
    assert done.returncode == 1 and 'expected a name' in done.stderr and 'Traceback' not in done.stderr
    assert not list((tmp_path/'a'/'b'/'m').glob('*.pth'))
    assert not list(tmp_path.glob('x.*')) and not Path(f'{name}.json').exists()


def test_a_release_is_not_written_under_such_a_name(films, tmp_path):
    model = small_model(films)
    odd = BoneAgeModel(model.net, model.card | dict(name='../../x'))
    with pytest.raises(ValueError, match='expected a name'):
        save_release(odd, tmp_path/'fine')
    assert not list(tmp_path.iterdir())


HOSTILE = '<script>alert(1)</script> | x |\n# big [free](javascript:x) ![a](http://evil/x) `x` <img src=x onerror=y>'


def test_text_of_a_card_is_shown_as_text(films):
    model = small_model(films)
    card = model.card | dict(licence=HOSTILE, intended_use=HOSTILE, name='fine')
    card['training'] |= dict(hardware=HOSTILE, weights=HOSTILE)
    card['data'] |= dict(sources=[HOSTILE])
    shown = BoneAgeModel(model.net, card)._repr_markdown_()
    assert '<script' not in shown and '<img' not in shown and '](' not in shown.replace('\\](', '')
    assert len(shown.splitlines()) == 9 # two of the heading, seven rows: no row was added
    assert '<script' not in Recipe(arch='tiny', weights=HOSTILE)._repr_markdown_()


@pytest.mark.parametrize('text', ['a|b', 'a\nb', '<b>', '[x](y)', '`x`', '*x*', '_x_', '\\|', '$x$', '&lt;'])
def test_a_cell_has_no_marks_of_its_own(text):
    cell = as_cell(text)
    assert '<' not in cell and '\n' not in cell
    assert not re.search(r'(?<!\\)(?:\\\\)*[|`*_\[\]$]', cell), cell


def test_two_programs_that_begin_at_once_have_one_key(tmp_path, monkeypatch):
    monkeypatch.setenv('BONEAGE_PATIENT_KEY', str(tmp_path/'key'))
    run = [sys.executable, '-c', 'from boneage.films.patients import patient_code; print(patient_code("4711"))']
    jobs = [subprocess.Popen(run, stdout=subprocess.PIPE, text=True, env=ENV | dict(os.environ)) for _ in range(6)]
    codes = {job.communicate()[0].strip() for job in jobs}
    assert len(codes) == 1 and patient_code('4711') in codes
    assert [o.name for o in tmp_path.iterdir()] == ['key']


# --- the page of the review -----------------------------------------------------------------------------------------

def status(url, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=120) as answer:
            return answer.status
    except urllib.error.HTTPError as e:
        return e.code


@pytest.fixture(scope='module')
def review(tmp_path_factory):
    "`boneage review` in a folder with a trap for Voila: its address with the token, its folder"
    pytest.importorskip('voila', reason='needs voila')
    folder = tmp_path_factory.mktemp('review')
    (folder/'qc.csv').write_text('id,path,qc_flags,qc_score\n1,no.png,,0\n')
    for name in ('voila.py', 'voila.json', 'ipykernel_launcher.py', 'jupyter_server.py'):
        (folder/name).write_text('open("sprung", "w")\n')
    port = free_port(18_000)
    words = [sys.executable, '-m', 'boneage.cli', 'review', 'qc.csv', '--no-browser', '--port', str(port)]
    with open(folder/'log', 'w') as log:
        server = subprocess.Popen(words, cwd=folder, env=ENV, stdout=log, stderr=log, start_new_session=True)
        try:
            yield waited(server, port, folder), folder, server
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGTERM)
            server.wait()


def waited(server, port, folder, patience=120): # seconds
    end = time.monotonic() + patience
    while time.monotonic() < end and server.poll() is None:
        found = re.search(r'http://127\.0\.0\.1:\d+/\?token=\S+', (folder/'log').read_text())
        with socket.socket() as s:
            if found and s.connect_ex(('127.0.0.1', port)) == 0:
                return found[0]
        time.sleep(.1)
    raise AssertionError((folder/'log').read_text())


def test_the_page_opens_with_its_token(review):
    assert status(review[0]) == 200


PLACES = '', 'login', 'api/kernels/00000000-0000-0000-0000-000000000000', 'voila/render/x.ipynb'


@pytest.mark.parametrize('place', PLACES)
@pytest.mark.parametrize('query', ['', '?token=', '?token=wrong', '?reviewer=anna'])
def test_nobody_comes_in_without_it(review, place, query):
    page, _ = review[0].split('?')
    assert status(f'{page}{place}{query}') in (403, 404)
    assert place or status(f'{page}{query}') == 403


def test_no_kernel_is_ended_without_it(review):
    page, _ = review[0].split('?')
    request = urllib.request.Request(f'{page}voila/api/shutdown/x', data=b'', method='POST')
    with pytest.raises(urllib.error.HTTPError) as e:
        urllib.request.urlopen(request, timeout=60)
    assert e.value.code in (403, 404)


@pytest.mark.parametrize('host', ['evil.example', 'evil.example:8866', '192.168.1.7', '127.0.0.1.evil.example'])
def test_another_name_for_this_computer_is_refused(review, host):
    "DNS rebinding: the browser of a victim asks this server under the name of the attacker's"
    assert status(review[0], Host=host) == 403


def test_the_token_stands_in_no_list_of_processes(review):
    url, folder, server = review
    token = url.split('token=')[1]
    assert len(token) >= 24
    seen = subprocess.run(['ps', '-eo', 'args'], capture_output=True, text=True).stdout
    assert 'voila' in seen and token not in seen
    assert not (folder/'sprung').exists(), 'what lay in the folder of the films was run'


def test_only_this_computer_is_listened_to(review):
    port = int(re.search(r':(\d+)/', review[0])[1])
    others = {o[4][0] for o in socket.getaddrinfo(socket.gethostname(), None)} - {'127.0.0.1', '::1'}
    for address in others:
        family = socket.AF_INET6 if ':' in address else socket.AF_INET
        with socket.socket(family) as s:
            assert s.connect_ex((address, port)) != 0


@pytest.mark.skipif(os.name != 'posix', reason='needs owners of files')
def test_the_token_is_written_where_others_cannot_read(tmp_path):
    file = write_config(tmp_path, 'secret')
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_few_kernels_and_no_more():
    pytest.importorskip('voila', reason='needs voila')
    from traitlets.config import Config

    from boneage.review.server import configure
    c = Config()
    configure(c, 'secret')
    assert c.MappingKernelManager.cull_idle_timeout == IDLE_SECONDS > 0
    few = c.VoilaConfiguration.multi_kernel_manager_class()
    few._kernels.update({str(n): None for n in range(MOST_KERNELS)})
    import asyncio

    from tornado.web import HTTPError
    with pytest.raises(HTTPError, match='reviews are open'):
        asyncio.run(few.start_kernel())


def test_the_shipped_weights_are_what_their_cards_say():
    for file in WEIGHTS.glob('boneage_*.json'):
        assert load_release(file).card['name'] == file.stem


def test_a_release_that_was_exchanged_is_noticed(tmp_path):
    for ending in ('.json', '.safetensors'):
        shutil.copy(WEIGHTS/f'boneage_lite0{ending}', tmp_path/f'm{ending}')
    shutil.copy(WEIGHTS/'boneage_resnet50.safetensors', tmp_path/'m.safetensors')
    with pytest.raises(ValueError, match='cut off or altered'):
        load_release(tmp_path/'m')
