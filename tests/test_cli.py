"The commands: the whole chain, exit codes, every family of bad input."
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from boneage import cli
from boneage.cropping import CropHow
from boneage.films.files import read_mask, write_png
from boneage.films.manifest import read_manifest, write_manifest
from boneage.films.nonhands import NONHANDS, make_nonhand
from boneage.films.phantom import make_phantom
from boneage.films.radiograph import load_radiograph
from commands import ENV, ROOT, TINY, program, rows
from PIL import Image

# --- the chain ------------------------------------------------------------------------------------------------------


def test_chain_leaves_tables_and_files(work):
    df = read_manifest(work/'cropped.csv')
    assert len(df) == 12
    assert df.crop_path.map(os.path.exists).all()
    assert df.mask_path.map(os.path.exists).all()
    assert not Path(rows(work/'cropped.csv').crop_path[0]).is_absolute(), 'a workspace can be moved'
    assert 'films 1 to 3 of 12' in (work/'qc.html').read_text('utf-8')
    assert {'id', 'age_months', 'pred_months', 'model'} <= set(rows(work/'model/predictions.csv'))


def hows(table):
    return {CropHow.from_json(o) for o in rows(table).crop_how}


def test_how_a_crop_was_made_travels_from_the_row_to_the_card(work):
    made = CropHow(size=96, margin=.05)
    card = json.loads((work/'model/tiny-64.json').read_text())
    assert hows(work/'cropped.csv') == {made}
    assert card['preprocessing']['crop'] == json.loads(made.to_json())
    assert card['preprocessing']['segmenter'] == ['hand_vit_tiny']
    assert not (work/'crop.json').exists()


def test_options_of_crop_stand_in_its_rows(work, boneage, tmp_path):
    bare = '--keep-background', '--keep_contrast', '--keep-forearm'
    assert boneage('crop', work/'segmented.csv', '--out', tmp_path, '--size', 96, *bare)[0] == 0
    assert hows(tmp_path/'cropped.csv') == {CropHow(size=96, background=None, forearm=None, contrast=None)}
    assert boneage('crop', work/'segmented.csv', '--out', tmp_path, '--size', 96, '--detail', 60, '--upright')[0] == 0
    assert hows(tmp_path/'cropped.csv') == {CropHow(size=96, detail=60, upright=True)}
    assert pd.read_csv(tmp_path/'cropped.csv').crop_turn.notna().any()


def test_crops_made_in_different_ways_are_not_mixed(work, boneage, tmp_path):
    assert boneage('crop', work/'segmented.csv', '--out', tmp_path, '--size', 96, '--detail', 60, '--upright')[0] == 0
    here = read_manifest(work/'cropped.csv')
    there = read_manifest(tmp_path/'cropped.csv')
    write_manifest(pd.concat([here.head(6), there.tail(6)]), tmp_path/'mixed.csv')
    code, _, err = boneage('train', tmp_path/'mixed.csv', '--out', tmp_path/'m', *TINY)
    assert code == 1
    assert 'made in different ways' in err


def test_a_workspace_of_an_earlier_version_is_read_with_a_note(work, boneage, tmp_path):
    "Its settings stood in crop.json beside the crops."
    df = read_manifest(work/'cropped.csv').drop(columns='crop_how')
    for path in df.crop_path:
        write_png(tmp_path/'old/crops'/Path(path).name, cv2.imread(path, cv2.IMREAD_GRAYSCALE))
    df['crop_path'] = [str(tmp_path/'old/crops'/Path(p).name) for p in df.crop_path]
    write_manifest(df, tmp_path/'old/cropped.csv')
    (tmp_path/'old/crop.json').write_text('{"margin": 0.05, "background": null}')
    code, _, err = boneage('train', tmp_path/'old', '--out', tmp_path/'m', '--epochs', 1, *TINY)
    assert code == 0
    assert 'crop.json' in err and 'note' in err
    card = json.loads((tmp_path/'m/tiny-64.json').read_text())
    assert card['preprocessing']['crop'] == json.loads(CropHow(size=96, margin=.05, background=None).to_json())


def test_a_card_is_a_recipe(work, boneage, tmp_path):
    "The same films and recipe make the same weights; an option beside it changes one thing."
    card = work/'model/tiny-64.json'
    assert boneage('train', work, '--out', tmp_path/'again', '--recipe', card)[0] == 0
    first = json.loads(card.read_text())
    again = json.loads((tmp_path/'again/tiny-64.json').read_text())
    assert again['weights']['sha256'] == first['weights']['sha256']
    assert boneage('train', work, '--out', tmp_path/'less', '--recipe', card, '--epochs', 1)[0] == 0
    less = json.loads((tmp_path/'less/tiny-64.json').read_text())
    assert less['recipe'] == first['recipe'] | dict(epochs=1)


def test_old_names_of_options_are_known(work, boneage, tmp_path):
    old = '--judge-on', 'valid', '--augment', 'worn', '--epochs', 1
    assert boneage('train', work, '--out', tmp_path, *old, *TINY)[0] == 0
    recipe = json.loads((tmp_path/'tiny-64.json').read_text())['recipe']
    assert (recipe['evaluate_on'], recipe['augment']) == ('valid', 'degraded')


def test_evaluate_and_several_models(work, boneage, tmp_path):
    one = rows(work/'model/predictions.csv')
    both = pd.concat([one, one.assign(model='other', pred_months=one.pred_months + 5)])
    both.to_csv(tmp_path/'p.csv', index=False)
    code, _, err = boneage('evaluate', tmp_path/'p.csv')
    assert code == 1
    assert '--model' in err and 'other' in err
    report = tmp_path/'o.html'
    train = '--train', work/'films.csv'
    code, out, _ = boneage('evaluate', tmp_path/'p.csv', '--model', 'other', *train, '--out', report)
    assert code == 0
    assert 'other' in report.read_text('utf-8')
    assert str(report) in out


def test_review_leaves_films_out(work, boneage, tmp_path):
    from boneage.review.decisions import Decisions
    decisions = tmp_path/'decisions.csv'
    Decisions(decisions).add('phantom-0001', 'reject', 'rotated')
    code, out, _ = boneage('qc', work, '--out', tmp_path, '--decisions', decisions)
    assert code == 0
    assert '11 of 12 films stay' in out
    assert 'phantom-0001' not in set(rows(tmp_path/'kept.csv')['id'])
    assert boneage('qc', work, '--out', tmp_path, '--decisions', tmp_path/'none.csv')[0] == 1


def small_film():
    return np.arange(4096, dtype=np.uint8).reshape(64, 64)


def test_rsna_reports_what_has_no_match(boneage, tmp_path):
    for i in (1377, 1378, 4360, 9999):
        write_png(tmp_path/f'in/{i}.png', small_film())
    (tmp_path/'in/train.csv').write_text('id,boneage,male\n1377,180,False\n1378,94,True\n1379,90,True\n')
    (tmp_path/'in/test truth.csv').write_text('Case ID,Sex,Ground truth bone age (months)\n4360,F,100.5\n')
    code, out, _ = boneage('rsna', tmp_path/'in', '--out', tmp_path/'out/films.csv')
    assert code == 0
    for said in ('2 train', '1 test', '1379', '9999', 'test truth: part of a test set: 1 of 200'):
        assert said in out
    missing = rows(tmp_path/'out/missing.csv')
    assert dict(zip(missing['id'], missing.problem)) == {'1379': 'label without a film', '9999': 'film without a label'}
    assert len(read_manifest(tmp_path/'out/films.csv')) == 3


def test_rsna_without_labels(boneage, tmp_path):
    (tmp_path/'films.csv').write_text('id,path\n1,a.png\n')
    code, _, err = boneage('rsna', tmp_path, '--out', tmp_path/'x.csv')
    assert code == 1
    assert 'no RSNA labels' in err or 'not one film' in err


def test_rsna_again_beside_its_own_table(boneage, tmp_path):
    for i in (1377, 1386):
        write_png(tmp_path/f'{i}.png', small_film())
    (tmp_path/'train.csv').write_text('id,boneage,male\n1377,180,False\n')
    (tmp_path/'valid.csv').write_text('Image ID,male,Bone Age (months)\n1386,TRUE,30\n')
    for _ in range(2):
        assert boneage('rsna', tmp_path, '--out', tmp_path/'films.csv')[0] == 0
    assert rows(tmp_path/'films.csv').split.tolist() == ['train', 'valid']


# --- predict --------------------------------------------------------------------------------------------------------


def test_predict_one_film_with_its_picture(work, phantoms, boneage, tmp_path):
    picture = tmp_path/'seen/a.png'
    code, out, _ = boneage('predict', phantoms.path[0], '--sex', 'girl', '--model', work/'model', '--picture', picture)
    assert code == 0
    assert re.search(r'bone age \d+ y \d+ m .*girl.*research use only', out)
    assert Image.open(picture).size[0] > 300


def test_predict_asks_for_the_sex(work, phantoms, boneage):
    film = phantoms.path[0]
    code, _, err = boneage('predict', film, '--model', work/'model')
    assert code == 1
    assert 'sex is missing' in err and '--sex F' in err and film in err
    code, _, err = boneage('predict', film, '--model', work/'model', '--sex', 'unknown')
    assert code == 1
    assert "'unknown'; expected F or M" in err


def test_predict_without_a_film_or_model(work, phantoms, boneage, tmp_path):
    assert boneage('predict')[0] == 1
    code, _, err = boneage('predict', tmp_path/'gone.png', '--sex', 'F', '--model', work/'model')
    assert code == 1
    assert 'gone.png: no such film' in err
    code, _, err = boneage('predict', phantoms.path[0], '--sex', 'F', '--model', tmp_path/'gone.json')
    assert code == 1
    assert 'gone.json' in err


def test_predict_keeps_films_of_the_same_name_apart(work, phantoms, boneage, tmp_path):
    for i, folder in enumerate('ab'):
        write_png(tmp_path/folder/'film.png', load_radiograph(phantoms.path[i]).pixels)
    films = tmp_path/'a/film.png', tmp_path/'b/film.png', tmp_path/'a/film.png'
    code, out, _ = boneage('predict', *films, '--sex', 'F', '--model', work/'model', '--out', tmp_path/'p.csv')
    df = rows(tmp_path/'p.csv')
    assert code == 0
    assert len(df) == 2 and df['id'].is_unique
    assert df.pred_months.notna().all()
    assert 'Research use only' in out


def test_predict_table_goes_on_and_resumes(work, phantoms, boneage, tmp_path, monkeypatch):
    from boneage.predict import BoneAgePredictor
    good = phantoms.head(3)[['id', 'path', 'sex']]
    bad = pd.DataFrame([
        dict(id='gone', path=str(tmp_path/'gone.png'), sex='F'),
        dict(id='no sex', path=phantoms.path[3], sex=None)])
    write_manifest(pd.concat([good, bad]), tmp_path/'films.csv')
    words = 'predict', tmp_path/'films.csv', '--model', work/'model', '--out', tmp_path/'p.csv'
    code, out, _ = boneage(*words)
    assert code == 3
    for said in ('3 of 5 films read', 'gone.png: no such file', 'no sex', 'sex is missing'):
        assert said in out
    first = rows(tmp_path/'p.csv')
    write_png(tmp_path/'gone.png', load_radiograph(phantoms.path[4]).pixels)
    read = BoneAgePredictor._read
    seen = []

    def counted(self, row):
        seen.append(row['path'])
        return read(self, row)
    monkeypatch.setattr(BoneAgePredictor, '_read', counted)
    code, out, _ = boneage(*words, '--sex', 'M')
    second = rows(tmp_path/'p.csv')
    assert code == 0
    assert '5 of 5' in out
    assert len(seen) == 2, 'only the two that failed are read'
    assert second.sex.tolist() == [*good.sex, 'F', 'M'], '--sex fills gaps only'
    pd.testing.assert_series_equal(first.pred_months.head(3), second.pred_months.head(3))


def test_predict_shows_a_refusal(work, boneage, tmp_path):
    write_png(tmp_path/'letter.png', make_nonhand('text', 1))
    code, out, _ = boneage('predict', tmp_path/'letter.png', '--sex', 'F', '--model', work/'model')
    assert code == 3
    assert 'no reading (no hand found' in out


# --- bad films ------------------------------------------------------------------------------------------------------


def zero_bytes(file, pixels):
    file.write_bytes(b'')


def cut_short(file, pixels):
    write_png(file, pixels)
    file.write_bytes(file.read_bytes()[:2000])


def letter(file, pixels):
    file.write_text('Dear colleague,')


def empty_dicom(file, pixels):
    from dicoms import dicom
    dicom(file, None)


def one_pixel(file, pixels):
    Image.new('L', (1, 1)).save(file)


def one_grey(file, pixels):
    Image.new('L', (300, 300), 77).save(file)


FILMS = {
    'zero bytes.png': (zero_bytes, 'empty file (0 bytes); copy it again'),
    'truncated.png': (cut_short, 'damaged or cut off'),
    'text.png': (letter, 'not a picture; expected PNG, JPEG, TIFF'),
    'no pixels.dcm': (empty_dicom, 'without pixels'),
    'dot.png': (one_pixel, '1 x 1 px; a film needs at least 32'),
    'grey.png': (one_grey, 'every pixel is 77'),
}


@pytest.mark.parametrize('name', FILMS)
def test_bad_film_is_named_the_others_are_done_and_the_next_run_heals(name, boneage, tmp_path):
    make, text = FILMS[name]
    folder = tmp_path/'films é ñ'
    good = make_phantom(1, 120, 'F').pixels
    write_png(folder/'good.png', good)
    make(folder/name, good)
    code, out, _ = boneage('segment', folder, '--out', tmp_path/'w')
    assert code == 3
    assert '1 ok, 0 refused, 1 error' in out
    assert name in out and text in out
    assert boneage('crop', tmp_path/'w', '--size', 64)[0] == 0, 'the error was told by segment'
    assert len(list((tmp_path/'w/crops').iterdir())) == 1
    mask = tmp_path/'w/masks/good.png'
    done = mask.stat().st_mtime_ns
    (folder/name).unlink()
    write_png((folder/name).with_suffix('.png'), good)
    code, out, _ = boneage('segment', folder, '--out', tmp_path/'w')
    assert code == 0
    assert '2 ok' in out
    assert mask.stat().st_mtime_ns == done, 'what was done is not done again'


def test_every_film_fails(boneage, tmp_path):
    for i in range(3):
        (tmp_path/f'{i}.png').write_text('x')
    code, out, err = boneage('segment', tmp_path, '--out', tmp_path/'w')
    assert code == 1
    assert '3 error' in out and 'not one film could be read' in err
    code, out, err = boneage('crop', tmp_path/'w')
    assert code == 1
    assert 'not one film was cropped' in err
    assert boneage('qc', tmp_path/'w')[0] == 0
    flags = rows(tmp_path/'w/qc.csv').qc_flags
    assert set(flags.str.split(';').str[0]) == {'unreadable'}


@pytest.mark.parametrize('kind', [k for k in NONHANDS if k not in ('chest', 'uniform')])
def test_no_hand_is_refused_not_failed(kind, boneage, tmp_path):
    write_png(tmp_path/'film.png', make_nonhand(kind, 2))
    code, out, _ = boneage('segment', tmp_path/'film.png', '--out', tmp_path/'w')
    assert code == 0
    assert '1 refused' in out and 'no hand found' in out


@pytest.mark.parametrize('seed', range(20, 24))
def test_two_hands_are_refused_or_flagged(seed, boneage, tmp_path):
    write_png(tmp_path/'film.png', make_phantom(seed, fault='second_hand').pixels)
    assert boneage('segment', tmp_path/'film.png', '--out', tmp_path/'w')[0] == 0
    boneage('crop', tmp_path/'w', '--size', 64)
    assert boneage('qc', tmp_path/'w')[0] == 0
    flags = rows(tmp_path/'w/qc.csv').qc_flags[0]
    assert 'no hand found' in flags or 'second hand' in flags


def test_a_12000_px_film(boneage, tmp_path):
    huge = cv2.resize(make_phantom(3, 120, 'F').pixels, (10500, 12000), interpolation=cv2.INTER_NEAREST)
    Image.fromarray(huge).save(tmp_path/'huge.png', compress_level=1)
    assert boneage('segment', tmp_path/'huge.png', '--out', tmp_path/'w')[0] == 0
    assert boneage('crop', tmp_path/'w', '--size', 64)[0] == 0
    assert read_mask(tmp_path/'w/masks/huge.png').shape == (12000, 10500)
    assert Image.open(tmp_path/'w/crops/huge.png').size == (64, 64)


def test_a_missing_extra_names_its_install_command(boneage, tmp_path, monkeypatch):
    empty_dicom(tmp_path/'film.dcm', None)
    monkeypatch.setitem(sys.modules, 'pydicom', None)
    code, _, err = boneage('segment', tmp_path, '--out', tmp_path/'w')
    assert code == 1
    assert "pip install -e '.[dicom]'" in err


def test_a_missing_sam_names_its_install_command(boneage, phantoms, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'segment_anything', None)
    asked = '--segmenter', 'vit_b', '--checkpoint', tmp_path/'x.pth'
    code, _, err = boneage('segment', phantoms.path[0], '--out', tmp_path, *asked)
    assert code == 1
    assert 'pip install segment-anything' in err


# --- bad tables -----------------------------------------------------------------------------------------------------

HEAD = 'id,path,sex,age_months,crop_path,pred_months\n'
TABLES = {
    'doubled column': ('id,path,path,age_months,pred_months\n1,a,a,1,1\n', 'column "path" stands there 2 times'),
    'doubled id': (HEAD + '1,a,F,10,c,1\n1,b,F,10,c,1\n', 'id 1: this id stands in more than one row'),
    'age below 0': (HEAD + '1,a,F,-3,c,1\n', 'row 2, id 1: age_months is -3; expected 0 to 300 months'),
    'age above 300': (HEAD + '7,a,F,301,c,1\n', 'row 2, id 7: age_months is 301'),
    'sex unknown': (HEAD + '7,a,unknown,30,c,1\n', "row 2, id 7: sex is 'unknown'; expected F or M"),
    'no rows': (HEAD, 'the table has no rows'),
    'empty file': ('', 'empty file'),
}


@pytest.mark.parametrize('command', ['segment', 'crop', 'qc', 'train', 'evaluate', 'predict'])
@pytest.mark.parametrize('kind', TABLES)
def test_bad_table_is_named_with_its_row(kind, command, boneage, tmp_path):
    text, expected = TABLES[kind]
    table = tmp_path/'Müller films.csv'
    table.write_text(text, encoding='utf-8')
    code, _, err = boneage(command, table, '--out', tmp_path/'out')
    assert code == 1
    assert expected in err and 'Müller films.csv' in err
    assert not (tmp_path/'out').exists() or command == 'train'


COLUMNS = [
    ('segment', 'id,sex\n1,F\n', 'column "path" is missing; found: id, sex'),
    ('crop', 'id,path\n1,a\n', 'Run `boneage segment` first'),
    ('qc', 'path\na\n', 'column "id" is missing'),
    ('train', 'id,sex,age_months\n1,F,10\n', 'Run `boneage crop` first'),
    ('train', 'id,path,crop_path\n1,a,b\n', 'column "sex" is missing'),
    ('evaluate', 'id,age_months\n1,10\n', 'Run `boneage predict` first'),
    ('predict', 'film\n1\n', 'column "id" is missing'),
]


@pytest.mark.parametrize('command,text,expected', COLUMNS)
def test_missing_column_names_the_step_that_makes_it(command, text, expected, boneage, tmp_path):
    (tmp_path/'t.csv').write_text(text)
    code, _, err = boneage(command, tmp_path/'t.csv', '--out', tmp_path/'out')
    assert code == 1
    assert expected in err and 't.csv' in err


@pytest.mark.parametrize('command', ['rsna', 'segment', 'crop', 'qc', 'train', 'evaluate', 'predict'])
def test_empty_folder_and_missing_input(command, boneage, tmp_path):
    (tmp_path/'empty').mkdir()
    code, _, err = boneage(command, tmp_path/'empty', '--out', tmp_path/'out.csv')
    assert code == 1
    assert str(tmp_path/'empty') in err and 'Traceback' not in err
    code, _, err = boneage(command, tmp_path/'gone.csv', '--out', tmp_path/'out.csv')
    assert code == 1
    assert 'gone.csv: no such' in err


# --- the command line -----------------------------------------------------------------------------------------------

SLIPS = [
    (['segmant', 'x'], 'did you mean segment?'),
    (['crop', 'x', '--sise', '3'], 'did you mean --size?'),
    (['crop', 'x', 'y'], 'unknown: y'),
    (['crop'], 'required: table'),
    (['crop', 'x', '--size', 'big'], 'invalid int value'),
    (['crop', 'x', '--size', '0'], '--size is 0; expected 16 to 8192'),
    (['segment', 'x', '--jobs', '0'], 'expected 1 or more, or -1'),
    (['train', 'x', '--augment', 'wild'], '--augment is wild; expected light or strong or degraded or none'),
    (['train', 'x', '--arch', 'resnet5000'], '--arch is resnet5000; expected resnet50'),
    (['train', 'x', '--evaluate-on', 'train'], '--evaluate-on is train; expected valid or test'),
    (['qc', 'x', '--disagree', 'loudly'], '--disagree is loudly; expected strict or lenient'),
    (['train', 'x', '--valid_pct', '2'], '--valid-pct is 2'),
    (['train', 'x', '--epochs', '-1'], '--epochs is -1'),
]


@pytest.mark.parametrize('words,expected', SLIPS)
def test_wrong_words_end_with_2_and_a_remedy(words, expected, boneage):
    code, _, err = boneage(*words)
    assert code == 2
    assert expected in err


def options_of(fn):
    "Parameters that become options: name -> default."
    return {k: v.default for k, v in inspect.signature(fn).parameters.items() if v.default is not v.empty}


@pytest.mark.parametrize('command', cli.COMMANDS)
def test_help_describes_every_option(command, boneage):
    code, out, _ = boneage(command, '--help')
    assert code == 0
    for name in options_of(cli.COMMANDS[command]):
        assert f'--{name.replace("_", "-")}' in out


def registered(command):
    return [o for o in options_of(cli.COMMANDS[command]) if o in cli.REGISTRIES]


@pytest.mark.parametrize('command', cli.COMMANDS)
def test_help_names_every_choice_of_the_registries(command, boneage):
    said = boneage(command, '--help')[1]
    for option in registered(command):
        assert all(re.search(rf'\b{o}\b', said) for o in cli.choices(option)), option


def test_defaults_are_those_of_the_library():
    from boneage.training.recipe import Recipe
    ours = options_of(cli.train)
    shared = {k: v for k, v in options_of(Recipe).items() if k in ours}
    wanted = 'arch weights size start_size epochs bs lr augment valid_pct keep evaluate_on precision seed dtype'
    assert set(wanted.split()) <= set(shared)
    assert {k: ours[k] for k in shared} == shared
    how = CropHow()
    assert (how.size, how.margin) == (options_of(cli.crop)['size'], options_of(cli.crop)['margin'])


LIGHT = '''
import sys
from boneage.cli import main
main(sys.argv[1:])
print("\\nheavy", [m for m in ("torch", "fastai", "cv2", "pandas") if m in sys.modules])
'''


@pytest.mark.parametrize('words', [['--help'], ['train', '--help'], ['--version'], ['crop', '--sise']])
def test_help_imports_nothing_heavy(words):
    run = subprocess.run([sys.executable, '-c', LIGHT, *words], capture_output=True, text=True, env=ENV, cwd=ROOT)
    assert run.stdout.splitlines()[-1] == 'heavy []'


def test_the_program_itself(tmp_path):
    run = program('segment', tmp_path/'gone.csv')
    assert run.returncode == 1
    assert 'gone.csv: no such' in run.stderr and 'Traceback' not in run.stderr
    assert not run.stdout
    assert program('crop').returncode == 2
    assert program('--version').stdout.startswith('boneage ')


def test_a_reader_who_leaves_does_not_stop_the_work(work, tmp_path):
    read_end, write_end = os.pipe()
    os.close(read_end)
    run = program('qc', work, '--out', tmp_path, capture_output=False, stdout=write_end, stderr=subprocess.PIPE)
    os.close(write_end)
    assert (run.returncode, run.stderr) == (0, '')
    assert (tmp_path/'qc.html').exists()


def test_no_progress_bar_where_nobody_watches(phantoms, tmp_path):
    write_manifest(phantoms.head(2), tmp_path/'films.csv')
    run = program('segment', tmp_path/'films.csv', '--out', tmp_path)
    assert (run.returncode, run.stderr) == (0, '')


# --- the demo and real films ----------------------------------------------------------------------------------------


def test_demo_small(boneage, tmp_path):
    out = tmp_path/'démo'
    small = '--films', 24, '--epochs', 2, '--size', 64, '--jobs', 1
    code, said, _ = boneage('demo', '--out', out, *small)
    assert code == 0
    assert re.search(r'MAE [\d.]+ months on synthetic films', said)
    kept = rows(out/'work'/'kept.csv')
    films = rows(out/'films.csv')
    assert kept.fault.notna().sum() < films.fault.notna().sum()
    assert len(kept) > .8*len(films)
    assert (out/'report.html').stat().st_size > 50_000
    assert (out/'reading.png').exists()


def real_table(folder):
    films = sorted((folder/'images').glob('*.png'))[::6][:6]
    labels = pd.read_csv(folder/'train.csv', dtype={'id': str}).set_index('id')
    return pd.DataFrame([dict(id=f.stem, path=str(f), sex='M' if labels.male[f.stem] else 'F') for f in films])


def test_real_films_through_segment_crop_and_predict(real_data, work, boneage, tmp_path):
    write_manifest(real_table(real_data/'rsna-original'), tmp_path/'films.csv')
    assert boneage('segment', tmp_path/'films.csv', '--out', tmp_path)[0] == 0
    assert boneage('crop', tmp_path, '--size', 96)[0] == 0
    code = boneage('predict', tmp_path/'films.csv', '--model', work/'model', '--out', tmp_path/'p.csv')[0]
    assert code in (0, 3)
    masks = rows(tmp_path/'segmented.csv')
    readings = rows(tmp_path/'p.csv')
    found = masks.seg_status == 'ok'
    assert found.sum() >= 4
    assert masks.mask_area[found].between(.05, .65).all()
    assert readings.pred_months.notna().tolist() == found.tolist()
    assert readings.pred_error[~found].astype(str).str.contains('no hand').all()
