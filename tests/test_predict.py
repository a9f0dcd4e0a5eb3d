"One film, one answer: that of the steps and of an inverted film, none for what is no hand, and a card obeyed."
import ast
import json
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from boneage import predict as p
from boneage.core import FilmError, ManifestError, months2ym
from boneage.cropping import CropHow, crop_df, crop_film
from boneage.films.files import write_png
from boneage.films.manifest import manifest_from_folder
from boneage.films.nonhands import make_nonhand
from boneage.films.phantom import phantom_df
from boneage.films.radiograph import load_radiograph
from boneage.model.release import DEFAULT_MODEL, load_release, predict_df, pretrained_names, save_release
from boneage.model.rows import training_rows
from boneage.segmentation import DEFAULT_SEGMENTER, get_segmenter, segment_df
from boneage.train_fastai import train_df
from dicoms import dicom
from small_models import small_model

ODD = dict(margin=.1, background='median', contrast=None) # a crop that is not the default


@pytest.fixture(scope='session')
def world(tmp_path_factory):
    "Twenty synthetic films, segmented and cropped in an unusual way, and a tiny model trained on them"
    folder = tmp_path_factory.mktemp("films d'été")
    films = phantom_df(20, folder/'films', seed=31)
    masks = segment_df(films, folder)
    crops = crop_df(masks, folder, size=96, **ODD)
    small = dict(arch='tiny', weights=None, size=64, epochs=12, bs=8, seed=3)
    release = train_df(crops, folder/'model', name='test', **small).release
    return dict(folder=folder, films=films, masks=masks, crops=crops, release=release)


@pytest.fixture(scope='session')
def predictor(world):
    return p.BoneAgePredictor(world['release'])


def film(world, i):
    "Path and sex of the i-th film"
    return world['films'].path[i], world['films'].sex[i]


def test_model_learned_something(world, predictor):
    months = predictor.predict_df(world['films'].head(6)).pred_months
    assert months.std() > 1, 'a constant answer would make the tests below empty'

def test_one_film(world, predictor):
    path, sex = film(world, 0)
    r = predictor.predict(path, sex=sex)
    assert r.ok and np.isfinite(r.months) and r.sex == sex and r.model == predictor.model.version
    assert r.reason == r.code == r.note == ''
    assert r.hand.mask.shape == r.film.shape and r.crop.pixels.shape == (96, 96)
    assert months2ym(r.months) in str(r) and 'research use only' in str(r)

def test_one_film_a_table_and_the_steps_agree_to_the_last_digit(world, predictor):
    films, crops = world['films'].head(8), world['crops'].head(8)
    table, steps = predictor.predict_df(films), predict_df(crops, world['release'])
    assert table.id.tolist() == films.id.tolist() and table.model.eq(predictor.model.version).all()
    cols = ['pred_months', 'pred_low', 'pred_high']
    pd.testing.assert_frame_equal(table[cols], steps[cols], check_exact=True)
    shuffled = predictor.predict_df(films.sample(frac=1, random_state=1))
    assert table.pred_months.tolist() == shuffled.sort_index().pred_months.tolist(), 'the order does not matter'
    for i in range(4):
        path, sex = film(world, i)
        assert round(predictor.predict(path, sex=sex).months, 2) == table.pred_months[i]

def test_the_network_sees_the_crop_of_the_card(world, predictor):
    path, sex = film(world, 2)
    r = predictor.predict(path, sex=sex)
    pixels = load_radiograph(path).pixels
    mask = get_segmenter().segment(pixels).mask
    np.testing.assert_array_equal(r.crop.pixels, crop_film(pixels, mask, 96, **ODD).pixels)
    assert (r.crop.pixels != crop_film(pixels, mask, 96).pixels).any(), 'the defaults would give another crop'

def test_detail_of_the_card_reaches_the_crop(world, tmp_path):
    path, sex = film(world, 2)
    r = p.BoneAgePredictor(copy_with(world, tmp_path, crop=dict(size=96, detail=64))).predict(path, sex=sex)
    pixels = load_radiograph(path).pixels
    np.testing.assert_array_equal(r.crop.pixels, crop_film(pixels, r.hand.mask, 96, detail=64).pixels)
    assert (r.crop.pixels != crop_film(pixels, r.hand.mask, 96).pixels).any()

def test_upright_of_the_card_makes_a_turned_film_read_alike(world, tmp_path):
    path, sex = film(world, 2)
    write_png(tmp_path/'turned.png', np.ascontiguousarray(np.rot90(load_radiograph(path).pixels)))

    def move(**kw): # months between the film as it stands and turned
        o = p.BoneAgePredictor(copy_with(world, tmp_path, crop=dict(size=96, **kw)))
        return abs(o.predict(path, sex=sex).months - o.predict(tmp_path/'turned.png', sex=sex).months)

    assert move(upright=True) < min(4, .5*move())

@pytest.mark.parametrize('i', range(3))
def test_an_inverted_film_gives_nearly_the_same(world, predictor, tmp_path, i):
    path, sex = film(world, i)
    write_png(tmp_path/'inverted.png', 255 - load_radiograph(path).pixels)
    a, b = predictor.predict(path, sex=sex), predictor.predict(tmp_path/'inverted.png', sex=sex)
    assert b.film.inverted and abs(a.months - b.months) < 1

def test_aspect_restores_a_squashed_film(world, predictor, tmp_path):
    path, sex = film(world, 1)
    img = load_radiograph(path).pixels
    aspect = img.shape[1]/img.shape[0]
    squashed = tmp_path/'squashed.png'
    write_png(squashed, cv2.resize(img, (img.shape[0],)*2))
    r = predictor.predict(squashed, sex=sex, aspect=aspect)
    assert abs(r.film.shape[1]/r.film.shape[0] - aspect) < .01
    df = predictor.predict_df(pd.DataFrame([dict(id='1', path=str(squashed), sex=sex, aspect=aspect)]))
    assert df.pred_months[0] == round(r.months, 2)

@pytest.mark.parametrize('word, letter', [
    ('F', 'F'), ('female', 'F'), ('Girl', 'F'), (' m ', 'M'), ('MALE', 'M'), ('boy', 'M')])
def test_sex_spellings(world, predictor, word, letter):
    assert predictor.predict(world['films'].path[0], sex=word).sex == letter

def test_sex_counts(world, predictor):
    a, b = (predictor.predict(world['films'].path[0], sex=s).months for s in 'FM')
    assert a != b

@pytest.mark.parametrize('sex, text', [
    (None, 'sex is missing'), ('', 'sex is missing'), (float('nan'), 'sex is missing'), ('unknown', 'expected F or M'),
    (1, 'expected F or M')])
def test_sex_is_never_guessed(world, predictor, sex, text):
    with pytest.raises(ValueError, match=text):
        predictor.predict(world['films'].path[0], sex=sex)

def test_a_row_without_sex_says_so(world, predictor):
    two = world['films'].head(2)
    df = predictor.predict_df(two.assign(sex=[None, 'F']))
    assert 'sex is missing' in df.pred_error[0] and df.pred_months.isna().tolist() == [True, False]
    assert df.pred_code[0] == 'sex.missing' and not df.pred_code[1]
    with pytest.raises(ManifestError, match="row 3, id phantom-0002: sex is 'unknown'"):
        predictor.predict_df(two.assign(sex=['F', 'unknown']))

@pytest.mark.parametrize('kind', ['empty', 'noise', 'text', 'gradient', 'foot'])
def test_what_is_no_hand_gets_no_number(predictor, tmp_path, kind):
    write_png(tmp_path/'film.png', make_nonhand(kind, 3))
    r = predictor.predict(tmp_path/'film.png', sex='F')
    assert not r.ok and np.isnan(r.months) and 'no hand found' in str(r) and r.crop is None and r.heat is None
    assert r.code.startswith('hand.') and r.code == r.hand.code
    assert r._repr_png_()[:4] == b'\x89PNG'

def test_bad_films_do_not_stop_a_table(world, predictor, tmp_path):
    (tmp_path/'text.png').write_text('x')
    write_png(tmp_path/'letter.png', make_nonhand('text', 1))
    paths = [str(tmp_path/'text.png'), str(tmp_path/'letter.png'), 'gone.png']
    extra = pd.DataFrame(dict(id=['x', 'l', 'g'], path=paths, sex='F'))
    films = pd.concat([extra, world['films'].head(2)], ignore_index=True)
    df = predictor.predict_df(films.assign(pred_months=99., pred_note='old', pred_code='old'))
    assert df.pred_months.isna().tolist() == [True]*3 + [False]*2, 'no answer of an older run stays'
    for error, words in zip(df.pred_error, ('not a picture', 'no hand', 'no such file')):
        assert words in error
    assert df.pred_note.isna().all()
    assert df.pred_code[1].startswith('hand.') and not df.pred_code[3] and not df.pred_code[4]
    with pytest.raises(FilmError, match='text.png: not a picture'):
        predictor.predict(tmp_path/'text.png', sex='F')
    with pytest.raises(FileNotFoundError, match='gone.png'):
        predictor.predict('gone.png', sex='F')

def test_a_table_in_which_every_film_fails_keeps_its_columns(predictor):
    df = predictor.predict_df(pd.DataFrame([dict(id='g', path='gone.png', sex='F', pred_months=3.)]))
    assert df[['pred_months', 'pred_low', 'pred_high']].isna().all(axis=None)
    assert df.model[0] == predictor.model.version

def test_a_journal_reads_again_only_what_changed(world, predictor, tmp_path, monkeypatch):
    seen, read = [], p.BoneAgePredictor._read

    def noting(self, row):
        seen.append(row['path'])
        return read(self, row)

    monkeypatch.setattr(p.BoneAgePredictor, '_read', noting)
    df = world['films'].head(3)
    first = predictor.predict_df(df, tmp_path/'j.jsonl')
    pd.testing.assert_frame_equal(predictor.predict_df(df, tmp_path/'j.jsonl'), first)
    assert len(seen) == 3
    other = df.assign(sex=['M' if df.sex[0] == 'F' else 'F', *df.sex[1:]])
    again = predictor.predict_df(other, tmp_path/'j.jsonl')
    assert again.pred_months[0] != first.pred_months[0] and len(seen) == 4, 'another sex is another question'
    predictor.predict_df(df, tmp_path/'j.jsonl', redo=True)
    assert len(seen) == 7

def test_two_at_a_time_give_the_same(world, predictor):
    df = world['films'].head(4)
    pd.testing.assert_frame_equal(predictor.predict_df(df, n_jobs=2), predictor.predict_df(df))

def test_folder(world, predictor):
    df = predictor.predict_df(manifest_from_folder(world['folder']/'crops', sex='F').head(2))
    assert len(df) == 2 and df.sex.eq('F').all()

# --- the explanation ------------------------------------------------------------------------------------------------

def test_explanation_map(world, predictor):
    path, sex = film(world, 0)
    r = predictor.predict(path, sex=sex)
    assert r.heat.shape == (64, 64) and r.heat.dtype == np.float32
    assert r.heat.min() >= 0 and r.heat.max() == pytest.approx(1)
    np.testing.assert_array_equal(r.heat, predictor.predict(path, sex=sex).heat)
    assert p.heat_overlay(r.crop.pixels, r.heat).shape == (96, 96, 3)
    others = [predictor.predict(path, sex=sex).heat for path, sex in (film(world, i) for i in range(1, 4))]
    assert any(np.abs(o - r.heat).max() > .05 for o in others), 'the map depends on the film'

def test_explanation_finds_the_pixels_that_matter():
    "A network that only sums the upper left quarter must be explained by the upper left quarter"
    class Quarter(torch.nn.Module):
        def features(self, x):
            f = torch.nn.functional.avg_pool2d(x, 8)
            keep = torch.zeros_like(f)
            keep[:, :, :4, :4] = 1
            return f*keep

        def read(self, f, sex):
            return f[:, :, :4, :4].sum((1, 2, 3))

    class Model:
        net = Quarter()

    heat = p.explain(Model, np.full((64, 64), 200, np.uint8), 'F')
    assert heat[:24, :24].min() > .5 and heat[40:, 40:].max() < .05

# --- DICOM ----------------------------------------------------------------------------------------------------------

def test_dicom_brings_sex_and_age(world, predictor, tmp_path):
    path, _ = film(world, 0)
    img = load_radiograph(path).pixels.astype(np.uint16)*16
    f = dicom(tmp_path/'film', img, PatientSex='F', PatientBirthDate='20100115', StudyDate='20200115')
    r = predictor.predict(f)
    assert (r.sex, r.chron_age_months, r.note) == ('F', 120.0, '') and 'girl of 10 y 0 m' in str(r)
    r = predictor.predict(f, sex='M')
    assert r.sex == 'M' and r.note == 'the DICOM header says F' and r.note in str(r)
    df = predictor.predict_df(pd.DataFrame([dict(id='1', path=str(f))]))
    assert df.pred_error.isna().all() and df.pred_months[0] == round(predictor.predict(f).months, 2)
    f = dicom(tmp_path/'nobody.dcm', img, PatientSex='O')
    with pytest.raises(FilmError, match='nobody.dcm: sex is missing') as e:
        predictor.predict(f)
    assert e.value.code == 'sex.missing' and '--sex' in e.value.hint

# --- models and cards -----------------------------------------------------------------------------------------------

def test_every_way_to_name_a_model(world):
    r = world['release']
    ways = r, str(r), r.with_suffix('.safetensors'), r.with_suffix(''), r.parent, load_release(r)
    assert len({p.find_model(o).version for o in ways}) == 1
    wrong = {'nobody': 'no model named', world['folder']: 'holds no release', r.with_name('x.json'): 'x.json'}
    for o, text in wrong.items():
        with pytest.raises((ValueError, FileNotFoundError), match=text):
            p.find_model(o)

def copy_with(world, tmp_path, **preprocessing):
    "The release with another card; `...` takes an entry away"
    card = json.loads(world['release'].read_text())
    changed = card['preprocessing'] | preprocessing
    card['preprocessing'] = {k: v for k, v in changed.items() if v is not ...}
    (tmp_path/'m.json').write_text(json.dumps(card))
    shutil.copy(world['release'].with_suffix('.safetensors'), tmp_path/'m.safetensors')
    return tmp_path/'m.json'

@pytest.mark.parametrize('wrong', [
    dict(crop=...), dict(crop=None), dict(crop={}), dict(crop=dict(size=96, zoom=2)), dict(size=...), dict(size='64')])
def test_a_card_with_wrong_preprocessing_is_refused_before_the_first_film(world, tmp_path, wrong):
    with pytest.raises(ValueError, match='cannot prepare films as the card asks'):
        p.BoneAgePredictor(copy_with(world, tmp_path, **wrong))

def test_masks_of_another_segmenter_are_noted(world, tmp_path):
    path, sex = film(world, 0)
    assert p.BoneAgePredictor(copy_with(world, tmp_path, segmenter=[])).note == ''
    odd = p.BoneAgePredictor(copy_with(world, tmp_path, segmenter=['vit_h']), 'classical')
    assert 'masks by classical, the model learned on those by vit_h' in str(odd.predict(path, sex=sex))
    assert odd.predict_df(world['films'].head(1)).pred_note[0] == odd.note

def test_card_segmenter_is_the_default(world, tmp_path):
    def named(*names):
        return p.card_segmenter(load_release(copy_with(world, tmp_path, segmenter=list(names))))

    assert named('vit_b') == 'vit_b'
    for unclear in ((), ('vit_b', 'vit_h'), ('scissors',)):
        assert named(*unclear) == DEFAULT_SEGMENTER

def test_two_models_in_a_folder_must_be_told_apart(world, tmp_path):
    copy_with(world, tmp_path)
    for e in ('.json', '.safetensors'):
        shutil.copy(tmp_path/f'm{e}', tmp_path/f'n{e}')
    with pytest.raises(ValueError, match='which model.*m.json.*n.json'):
        p.find_model(tmp_path)

# --- how a crop was made travels with it ----------------------------------------------------------------------------

WAYS = {
    'odd': CropHow(size=96, **ODD), 'upright': CropHow(size=96, upright=True),
    'with the forearm': CropHow(size=96, forearm=None), 'coarse': CropHow(size=96, detail=96),
    'large, soft': CropHow(size=256, soft=.05, background=30, contrast=(5, 95))}

@pytest.mark.parametrize('how', WAYS.values(), ids=WAYS)
def test_steps_and_predictor_agree_on_every_film(world, tmp_path, how):
    "Whatever the settings: segment, crop and predict as steps, or one call with nothing but model and film"
    crops = crop_df(world['masks'], tmp_path, **how.settings())
    model = small_model(crops, sd=400.)
    assert p.crop_settings(model) == how and p.crop_settings(load_release(save_release(model, tmp_path/'m'))) == how
    steps = predict_df(crops, model).pred_months
    alone = p.BoneAgePredictor(tmp_path/'m.json').predict_df(world['films']).pred_months
    assert alone.notna().sum() >= 18 and alone.isna().equals(steps.isna())
    assert (alone - steps).abs().max() <= .1
    usual = predict_df(crop_df(world['masks'], tmp_path/'usual', 96), model).pred_months
    assert (usual - steps).abs().max() > .1, 'other crops would have been noticed'

def test_a_training_copies_the_way_of_its_crops(world):
    assert p.crop_settings(load_release(world['release'])) == WAYS['odd']

def test_no_training_on_crops_made_in_two_ways(world, tmp_path):
    other = crop_df(world['masks'].tail(8), tmp_path, 96)
    both = pd.concat([world['crops'].head(12), other], ignore_index=True)
    with pytest.raises(ManifestError, match=r'(?s)12.*margin=0\.1.*8.*margin=0\.03'):
        training_rows(both)

@pytest.mark.parametrize('crop', [
    dict(size=96), dict(size=96, margin=.1), dict(size=96, contrast=[5, 95]), dict(size=96, detail=64, upright=True)])
def test_cards_of_before_name_only_what_differs(world, tmp_path, crop):
    path, sex = film(world, 2)
    o = p.BoneAgePredictor(copy_with(world, tmp_path, crop=crop))
    assert o.crop == CropHow(**crop)
    r = o.predict(path, sex=sex)
    np.testing.assert_array_equal(r.crop.pixels, crop_film(r.film.pixels, r.hand.mask, **crop).pixels)

# --- what reading a film loads --------------------------------------------------------------------------------------

HEAVY = 'fastai', 'timm', 'segment_anything', 'torchvision', 'sklearn', 'statsmodels', 'matplotlib'

def loaded_by(*lines, argv=()):
    "Which of the heavy libraries a fresh Python holds after these lines"
    script = '\n'.join(['import sys', *lines, f'print([o for o in {HEAVY} if o in sys.modules])'])
    done = subprocess.run([sys.executable, '-c', script, *map(str, argv)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]

def test_importing_the_predictor_loads_no_training_library():
    assert loaded_by('import boneage.predict') == '[]'

def test_reading_a_film_loads_no_training_library(world):
    path, sex = film(world, 0)
    read = 'print(BoneAgePredictor().predict(sys.argv[1], sex=sys.argv[2]))'
    loaded = loaded_by('from boneage.predict import BoneAgePredictor', read, argv=(path, sex))
    assert not {'fastai', 'sklearn', 'statsmodels', 'matplotlib'} & set(ast.literal_eval(loaded))

# --- the model that comes with the library ---------------------------------------------------------------------------

def test_without_a_name_the_released_model_reads(world):
    o = p.BoneAgePredictor()
    assert DEFAULT_MODEL in pretrained_names() and o.model.card['name'] == DEFAULT_MODEL and o.note == ''
    r = o.predict(world['films'].path[0], sex=world['films'].sex[0])
    assert r.ok and np.isfinite([r.months, r.low, r.high]).all() and o.model.version in str(r)

def test_a_cold_start_reads(world, tmp_path):
    path, _ = film(world, 0)
    run = [sys.executable, '-m', 'boneage.cli', 'predict', path, '--sex', 'F']
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and 'bone age' in done.stdout, done.stderr

# --- real films -----------------------------------------------------------------------------------------------------

def test_real_films_alone_and_stepwise(real_data, world, predictor, tmp_path):
    films = sorted((real_data/'rsna-original/images').glob('*.png'))[3::10][:3]
    labels = pd.read_csv(real_data/'rsna-original/train.csv', dtype={'id': str}).set_index('id')
    sexes = ['M' if labels.male[f.stem] else 'F' for f in films]
    df = pd.DataFrame(dict(id=[f.stem for f in films], path=[str(f) for f in films], sex=sexes))
    steps = predict_df(crop_df(segment_df(df, tmp_path), tmp_path, size=96, **ODD), world['release'])
    table = predictor.predict_df(df)
    pd.testing.assert_series_equal(table.pred_months, steps.pred_months, check_exact=True)
    assert table.pred_months.notna().sum() >= 2
    first = df.loc[table.pred_months.notna()].iloc[0]
    r = predictor.predict(first.path, sex=first.sex)
    assert round(r.months, 2) == table.pred_months[table.id == first.id].item()
    assert r.heat.shape == (64, 64)
