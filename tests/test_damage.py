"Weights, cards, checkpoints, caches and archives that were cut, altered or exchanged: each is named, none is used."
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from boneage.films.download import unpack
from boneage.films.files import fingerprint
from boneage.model.network import BoneAgeNet, load_crops, make_body
from boneage.model.release import from_pretrained, load_release, pretrained_names, save_release
from boneage.model.rows import with_split
from boneage.model.starts import start_state
from boneage.train_fastai import bone_age_learner, train_df
from boneage.training.data import bone_age_dls
from boneage.training.recipe import Recipe
from boneage.training.resume import read_checkpoint, save_state
from small_models import crop_table, small_model

SMALL = dict(arch='tiny', weights=None, size=64, bs=8, seed=3)


@pytest.fixture(scope='module')
def films(tmp_path_factory):
    return crop_table(tmp_path_factory.mktemp('crops'), 16)


@pytest.fixture(scope='module')
def whole(films, tmp_path_factory):
    "A release that is in order"
    return save_release(small_model(films), tmp_path_factory.mktemp('release')/'small')


@pytest.fixture
def release(whole, tmp_path):
    "A copy to damage: its card"
    for ending in ('.json', '.safetensors'):
        shutil.copy(whole.with_suffix(ending), tmp_path)
    return tmp_path/whole.name


def refused(call, file, *words):
    "What was said; it names the file and what is wrong, and is no traceback of another library."
    with pytest.raises((ValueError, FileNotFoundError)) as e:
        call()
    said = str(e.value)
    assert Path(file).name in said, said
    for word in words:
        assert word in said, said
    return said


# --- cards ----------------------------------------------------------------------------------------------------------

TEXTS = {
    'empty': b'', 'cut': b'{"format": "boneage-release-1", "na', 'utf-16': '{"a": 1}'.encode('utf-16'),
    'latin-1': '{"name": "Müller"}'.encode('latin-1'), 'binary': bytes(range(256)), 'deep': b'['*100_000,
    'nan': b'{"format": NaN}', 'twice': b'{"name": "a", "name": "b"}', 'list': b'[1, 2]', 'number': b'7',
    'null': b'null', 'object': b'{}', 'huge': b'"' + b'x'*2_000_000 + b'"'}


@pytest.mark.parametrize('kind', TEXTS)
@pytest.mark.parametrize('reader', [load_release, Recipe.from_card])
def test_what_is_no_card(release, kind, reader):
    release.write_bytes(TEXTS[kind])
    refused(lambda: reader(release), release, 'card')


GONE = ...
FIELDS = [
    ('architecture.hidden', [-1, 0, 10**9, 128.5, '128', None, True, GONE]),
    ('architecture.sex_features', [-32, 10**12, GONE]),
    ('architecture.drop', [-.1, 2, 'half']),
    ('architecture.arch', ['vgg', '../x', 3, GONE]),
    ('architecture.members', [0, -2, 10**9, 2, 'two']),
    ('architecture.layers', [3]),
    ('architecture', [None, [], 'tiny', GONE]),
    ('preprocessing.size', [0, -64, 10**9, '64', True, GONE]),
    ('preprocessing.crop.size', [10**9, -1]),
    ('preprocessing.crop.margin', [-1, 'wide']),
    ('preprocessing.crop.upright', ['yes']),
    ('preprocessing.mirror', ['yes', 1]),
    ('preprocessing.segmenter', ['hand', [1]]),
    ('preprocessing', [[], 5]),
    ('target.mean', ['100', 1e9, GONE]),
    ('target.sd', [0, -40, GONE]),
    ('target.unit', ['years']),
    ('target', [7, GONE]),
    ('name', ['', '../../x', '/etc/x', 'a\nb', 5, None, GONE]),
    ('weights.sha256', ['', 'abc', 5, GONE]),
    ('weights.bytes', ['many', -1, 10**15, GONE]),
    ('weights.dtype', ['int8']),
    ('weights', [[], 5, GONE]),
    ('intervals.level', [9, 'high', GONE]),
    ('intervals.bands', [[], [60, 24], ['a', 'b'], 5, GONE]),
    ('intervals.table', [5, [5], [{}], [dict(sex='F', band=None, half_width=-9.)], GONE]),
    ('intervals', [[1], 'wide']),
    ('data', [[1], 5]),
    ('data.sources', ['rsna', [1]]),
    ('metrics', [[1]]),
    ('metrics.valid_mae', ['small', -1]),
    ('metrics.valid_mae_ci95', [[1], ['a', 'b'], 'x']),
    ('training', [[1], 5]),
    ('training.epochs', ['many', -1]),
    ('licence', [5, ['a']]),
    ('format', ['boneage-release-0', 1, GONE]),
    ('colour', ['red'])]
ALTERED = [(field, value) for field, values in FIELDS for value in values]


def put(card, field, value):
    *path, last = field.split('.')
    for key in path:
        card = card[key]
    if value is GONE:
        del card[last]
    else:
        card[last] = value


@pytest.mark.parametrize('field, value', ALTERED)
def test_an_altered_card_is_refused_by_field(release, field, value):
    card = json.loads(release.read_text())
    put(card, field, value)
    release.write_text(json.dumps(card))
    refused(lambda: load_release(release), release.stem)


def test_an_altered_card_names_field_value_and_remedy(release):
    card = json.loads(release.read_text())
    put(card, 'architecture.hidden', 10**9)
    release.write_text(json.dumps(card))
    refused(lambda: load_release(release), release, 'architecture.hidden is 1000000000', '1 to 4096', 'copy both files')


def test_a_band_that_stands_twice_or_is_unknown(release):
    card = json.loads(release.read_text())
    table = card['intervals']['table']
    for wrong in (table*2, [table[0] | dict(band='3-4')], [table[0] | dict(sex='X')]):
        release.write_text(json.dumps(card | dict(intervals=card['intervals'] | dict(table=wrong))))
        refused(lambda: load_release(release), release, 'intervals')


def test_a_damaged_card_among_the_shipped_leaves_the_others(release, tmp_path, monkeypatch):
    monkeypatch.setattr('boneage.model.release.WEIGHTS', tmp_path)
    shutil.copy(release, tmp_path/'other.json')
    shutil.copy(release.with_suffix('.safetensors'), tmp_path/'other.safetensors')
    release.write_bytes(b'{')
    assert pretrained_names() == ['other', 'small']
    assert from_pretrained('other').card['name'] == 'small'
    refused(lambda: from_pretrained('small'), release, 'not a readable card')


# --- weights --------------------------------------------------------------------------------------------------------

def rewrite(card_file, state, architecture=None):
    "Other weights, with a card that fits their bytes"
    file = card_file.with_suffix('.safetensors')
    save_file({k: v.contiguous() for k, v in state.items()}, file)
    card = json.loads(card_file.read_text())
    card['weights'] |= fingerprint(file.read_bytes())
    card['architecture'] |= architecture or {}
    card_file.write_text(json.dumps(card))


def nan_in(state):
    state['head.1.weight'][3, 5] = float('nan')
    return state


def inf_in(state):
    state['body.0.weight'][0] = float('inf')
    return state


WEIGHTS = {
    'nan': (nan_in, 'head.1.weight'), 'inf': (inf_in, 'body.0.weight'),
    'missing': (lambda s: {k: v for k, v in s.items() if k != 'head.4.bias'}, 'head.4.bias is missing'),
    'unknown': (lambda s: s | dict(extra=torch.ones(2)), 'extra is unknown'),
    'shape': (lambda s: s | {'sex.0.weight': torch.ones(3, 1)}, 'sex.0.weight is (3, 1), expected (32, 1)'),
    'integers': (lambda s: {k: v.int() if k == 'sex.0.bias' else v for k, v in s.items()}, 'sex.0.bias'),
    'head': (lambda s: BoneAgeNet('tiny', hidden=64).state_dict(), 'hidden'),
    'other': (lambda s: BoneAgeNet('resnet18').state_dict(), 'do not fit the architecture'),
    'nothing': (lambda s: {}, 'no weights')}


@pytest.mark.parametrize('kind', WEIGHTS)
def test_altered_weights_are_refused_by_tensor(release, kind):
    alter, words = WEIGHTS[kind]
    rewrite(release, alter(load_file(release.with_suffix('.safetensors'))))
    refused(lambda: load_release(release), 'small.safetensors', words)


@pytest.mark.parametrize('members', [2, 16])
def test_members_that_are_not_there_are_not_built(release, members, monkeypatch):
    rewrite(release, load_file(release.with_suffix('.safetensors')), dict(members=members))
    monkeypatch.setattr('boneage.model.release.BoneAgeNet', None) # nothing is built before the file was looked at
    refused(lambda: load_release(release), 'small.safetensors', 'members')


@pytest.mark.parametrize('data', [b'', b'no weights', b'\xff'*64, b'\x10' + bytes(7) + b'{"w": 3}' + bytes(8)])
def test_bytes_that_are_no_weights(release, data):
    file = release.with_suffix('.safetensors')
    file.write_bytes(data)
    refused(lambda: load_release(release), file)
    card = json.loads(release.read_text())
    card['weights'] |= fingerprint(data)
    release.write_text(json.dumps(card))
    refused(lambda: load_release(release), release.stem)


# --- starts ---------------------------------------------------------------------------------------------------------

def foreign(folder, ending):
    file = folder/f'foreign{ending}'
    state = make_body('resnet18').state_dict()
    if ending == '.pth':
        torch.save(state, file)
    else:
        save_file(state, file)
    return file


@pytest.mark.parametrize('ending', ['.pth', '.safetensors'])
@pytest.mark.parametrize('arch', ['tiny', 'resnet18', 'efficientnet_lite0'])
def test_foreign_weights_are_refused_and_not_credited(films, tmp_path, arch, ending):
    file = foreign(tmp_path, ending)
    refused(lambda: start_state(arch, file), file, 'the weights to start from')
    with pytest.raises(ValueError, match='foreign'):
        train_df(films, tmp_path/'run', epochs=1, **SMALL | dict(arch=arch, weights=file))
    assert not list((tmp_path/'run').glob('*.json'))


@pytest.mark.parametrize('state', [
    [torch.ones(1)], {}, dict(w='text'), dict(w=torch.tensor([float('nan')])), {3: torch.ones(1)}, torch.ones(3), None])
def test_starts_that_are_no_weights(tmp_path, state):
    torch.save(state, tmp_path/'start.pth')
    refused(lambda: start_state('tiny', tmp_path/'start.pth'), 'start.pth', 'expected a state dict')


# --- checkpoints ----------------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def trained(films, tmp_path_factory):
    folder = tmp_path_factory.mktemp('trained')
    train_df(films, folder, epochs=1, **SMALL)
    return folder


@pytest.fixture
def run(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path/'run'))


def resumed(films, run):
    return train_df(films, run, epochs=1, **SMALL)


def flip(data):
    "The last byte of the largest record of a zip is in the middle of the file: one bit of it"
    at = len(data)//2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]


BYTES = dict(empty=lambda b: b'', cut=lambda b: b[:len(b)//2], flipped=flip, text=lambda b: b'no weights')


@pytest.mark.parametrize('name', ['checkpoint.pth', 'best.pth'])
@pytest.mark.parametrize('kind', BYTES)
def test_damaged_states_are_named_before_the_run_goes_on(films, run, name, kind):
    file = run/name
    file.write_bytes(BYTES[kind](file.read_bytes()))
    refused(lambda: resumed(films, run), name, 'delete it')


ENTRIES = dict(
    settings=[GONE, 5], epoch=[GONE, 'one', -1, True], rows=[GONE, 5, [1]], seconds=[GONE, 'long'],
    model=[GONE, {}, []], opt=[GONE, [], [1, 2], 5], best=[GONE, 'good'], smooth=[GONE, [], [1]], rec=[GONE, [1], 5],
    at=[5, [1], dict(done=1)])


@pytest.mark.parametrize('entry, value', [(k, v) for k, values in ENTRIES.items() for v in values])
def test_an_altered_checkpoint_is_named(films, run, entry, value):
    file = run/'checkpoint.pth'
    state = torch.load(file, weights_only=True)
    put(state, entry, value)
    save_state(state, file)
    refused(lambda: resumed(films, run), file, 'delete it')


@pytest.mark.parametrize('name', ['checkpoint.pth', 'best.pth'])
@pytest.mark.parametrize('kind', ['nan', 'shape'])
def test_a_state_with_other_weights_is_named(films, run, name, kind):
    state = torch.load(run/name, weights_only=True)
    weights = state['model'] if 'checkpoint' in name else state
    odd = dict(nan=torch.full_like(weights['sex.0.bias'], float('nan')), shape=torch.ones(3))[kind]
    weights['sex.0.bias'] = odd
    save_state(state, run/name)
    refused(lambda: resumed(films, run), name, 'sex.0.bias', 'delete it')


def test_a_best_that_is_gone_is_named(films, run):
    (run/'best.pth').unlink()
    refused(lambda: resumed(films, run), 'best.pth')


def test_an_altered_history_is_written_anew(films, run, trained):
    before = (run/'history.csv').read_text()
    (run/'history.csv').write_bytes(b'\xff\x00 nothing')
    assert resumed(films, run).history.to_csv(index=False).split() == before.split()


def test_the_best_of_another_run_is_not_taken_when_training_diverges(films, run):
    "A training without one finite error used to release the weights that an earlier one had left in the folder."
    dls = bone_age_dls(with_split(films, seed=3), 64, 8)
    learn = bone_age_learner(dls, 'tiny', None, path=run, seed=3)
    learn.model.age_sd.fill_(float('nan'))
    with pytest.raises(ValueError, match='diverged'):
        learn.fit_months(1, resume=False)
    assert not (run/'best.pth').exists()


# --- caches ---------------------------------------------------------------------------------------------------------

def swapped(data):
    return data[:-5000] + bytes(5000)


@pytest.mark.parametrize('damage', [*BYTES.values(), swapped])
def test_a_damaged_cache_is_made_again(films, tmp_path, damage):
    right = load_crops(films.crop_path, 64)
    load_crops(films.crop_path, 64, tmp_path)
    file = next(tmp_path.glob('*.npy'))
    file.write_bytes(damage(file.read_bytes()))
    assert np.array_equal(load_crops(films.crop_path, 64, tmp_path), right)


@pytest.mark.parametrize('array', [
    np.zeros((16, 64, 64)), np.zeros((15, 64, 64), np.uint8), np.zeros((16, 32, 32), np.uint8), np.zeros(3, np.uint8)])
def test_a_cache_of_another_shape_is_made_again(films, tmp_path, array):
    right = load_crops(films.crop_path, 64)
    load_crops(films.crop_path, 64, tmp_path)
    file = next(tmp_path.glob('*.npy'))
    np.save(file, array)
    file.with_suffix('.sha256').write_text(fingerprint(file.read_bytes())['sha256'])
    assert np.array_equal(load_crops(films.crop_path, 64, tmp_path), right)


# --- recipes --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('field, value', [
    ('epochs', 'many'), ('epochs', 2.5), ('epochs', True), ('size', -1), ('size', 10**12), ('lr', '0.1'), ('lr', -1.),
    ('bs', None), ('arch', []), ('arch', 'vgg'), ('seed', 'x'), ('mirror', 'yes'), ('keep', 5), ('valid_pct', 'half'),
    ('weights', 5), ('dtype', {}), ('unheard', 1)])
def test_an_altered_recipe_is_named(release, field, value):
    card = json.loads(release.read_text())
    card['recipe'] = Recipe(arch='tiny', weights='none').settings() | {field: value}
    release.write_text(json.dumps(card))
    refused(lambda: Recipe.from_card(release), release, field)


@pytest.mark.parametrize('part', ['recipe', 'training', 'data', 'preprocessing', 'weights'])
@pytest.mark.parametrize('value', [5, [1], 'text'])
def test_a_part_of_a_card_that_is_none(release, part, value):
    card = json.loads(release.read_text()) | {part: value}
    release.write_text(json.dumps(card))
    refused(lambda: Recipe.from_card(release), release, part)


# --- archives -------------------------------------------------------------------------------------------------------

def zipped(path, members, kind=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, 'w', kind) as z:
        for name, data in members:
            z.writestr(name, data)
    return path


def bomb(path):
    return zipped(path, [('zeros', bytes(30_000_000))])


def nested_bomb(path):
    return zipped(path, [('inner.zip', bomb(path.with_name('inner')).read_bytes())])


def link(path):
    info = zipfile.ZipInfo('film')
    info.external_attr = 0o120777 << 16
    return zipped(path, [(info, '/etc/passwd')])


def climbing(path):
    return zipped(path, [('../../evil', 'x')])


def absolute(path):
    return zipped(path, [(str(path.parent/'evil'), 'x')])


def matryoshka(path):
    data = b'film'
    for n in range(6):
        data = zipped(path.with_name(f'{n}.part'), [('film.zip' if n else 'film', data)]).read_bytes()
    path.write_bytes(data)
    return path


@pytest.mark.parametrize('make', [bomb, nested_bomb, link, climbing, absolute, matryoshka])
def test_archives_not_to_be_trusted(tmp_path, make):
    archive = make(tmp_path/'a.zip')
    with pytest.raises(ValueError, match='do not trust this archive'):
        unpack(archive, tmp_path/'out'/'deep')
    assert not (tmp_path/'evil').exists() and not (tmp_path/'out'/'evil').exists()
    written = [o.stat().st_size for o in (tmp_path/'out').rglob('*') if o.is_file()]
    assert sum(written) < 1_000_000 and not any(o.is_symlink() for o in (tmp_path/'out').rglob('*'))


def test_a_film_that_packs_well_is_no_bomb(tmp_path):
    unpack(zipped(tmp_path/'a.zip', [('black.bin', bytes(9_000_000))]), tmp_path/'out')
    assert (tmp_path/'out'/'black.bin').stat().st_size == 9_000_000


@pytest.mark.parametrize('at', [.3, .6])
def test_a_damaged_archive_is_named(tmp_path, at):
    data = np.random.default_rng(0).bytes(200_000)
    archive = zipped(tmp_path/'a.zip', [('film', data)])
    whole = archive.read_bytes()
    n = int(len(whole)*at)
    archive.write_bytes(whole[:n] + bytes([whole[n] ^ 255]) + whole[n + 1:])
    refused(lambda: unpack(archive, tmp_path/'out'), archive, 'delete it')


def test_a_checkpoint_in_order_is_read(run):
    assert read_checkpoint(run/'checkpoint.pth')['epoch'] == 1
