"The commands: the whole chain, exit codes, every family of bad input, full disks, Ctrl-C and kill -9 with nothing lost."
import errno, inspect, json, os, re, signal, subprocess, sys, time
from pathlib import Path
import cv2, numpy as np, pandas as pd, pytest
from PIL import Image
from boneage import cli, core
from boneage.phantom import NONHANDS, make_nonhand, make_phantom

ROOT = Path(__file__).resolve().parents[1]
ENV = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT), PYTHONWARNINGS='ignore')
TINY = '--arch tiny --weights none --size 64 --bs 8'.split()

@pytest.fixture
def boneage(capsys):
    "Run a command in this process: (exit code, stdout, stderr)"
    def run(*words):
        capsys.readouterr()
        code = cli.main([str(w) for w in words])
        return code, *capsys.readouterr()
    return run

def program(*words, **kw): # the same in a process of its own
    return subprocess.run([sys.executable, '-m', 'boneage.cli', *map(str, words)], capture_output=True, text=True, env=ENV, timeout=120, **kw)

def start(*words):
    return subprocess.Popen([sys.executable, '-m', 'boneage.cli', *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV)

@pytest.fixture(scope='session')
def work(phantoms, tmp_path_factory):
    "The chain run once by the commands, in folders with spaces and accents: films.csv -> masks -> crops -> flags -> model"
    w = tmp_path_factory.mktemp('José Müller')
    core.write_manifest(phantoms, w/'films.csv')
    codes = [cli.main([str(o) for o in words]) for words in (
        ['segment', w/'films.csv', '--out', w], ['crop', w, '--size', 96, '--margin', .05], ['qc', w, '--limit', 3],
        ['train', w, '--out', w/'model', '--epochs', 2, *TINY])]
    assert codes == [0]*4
    return w

def rows(path): return core.read_table(path)

# --- the chain ------------------------------------------------------------------------------------------------------

def test_chain_leaves_tables_and_files(work):
    df = core.read_manifest(work/'cropped.csv')
    assert len(df) == 12 and df.crop_path.map(os.path.exists).all() and df.mask_path.map(os.path.exists).all()
    assert not Path(rows(work/'cropped.csv').crop_path[0]).is_absolute(), 'a workspace can be moved'
    assert 'films 1 to 3 of 12' in (work/'qc.html').read_text('utf-8')
    assert {'id', 'age_months', 'pred_months', 'model'} <= set(rows(work/'model/predictions.csv'))

def test_the_card_knows_how_the_crops_were_made(work):
    card = json.loads((work/'model/tiny-64.json').read_text())
    assert card['preprocessing']['crop'] == dict(size=96, margin=.05) and card['preprocessing']['segmenter'] == ['hand_vit_tiny']

def test_crops_made_in_different_ways_are_not_mixed(work, boneage, tmp_path):
    df = core.read_manifest(work/'cropped.csv')
    assert boneage('crop', work/'segmented.csv', '--out', tmp_path, '--size', 96, '--keep-background', '--keep_contrast', '--keep-forearm')[0] == 0
    assert json.loads((tmp_path/'crop.json').read_text()) == dict(margin=.03, background=None, forearm=None, contrast=None)
    assert boneage('crop', work/'segmented.csv', '--out', tmp_path, '--size', 96, '--detail', 60, '--upright')[0] == 0
    assert json.loads((tmp_path/'crop.json').read_text()) == dict(margin=.03, detail=60, upright=True)
    assert pd.read_csv(tmp_path/'cropped.csv').crop_turn.notna().any()
    other = core.read_manifest(tmp_path/'cropped.csv')
    core.write_manifest(pd.concat([df.head(6), other.tail(6)]), tmp_path/'mixed.csv')
    code, _, err = boneage('train', tmp_path/'mixed.csv', '--out', tmp_path/'m', *TINY)
    assert code == 1 and 'made in different ways' in err

def test_evaluate_and_several_models(work, boneage, tmp_path):
    p = rows(work/'model/predictions.csv')
    both = pd.concat([p, p.assign(model='other', pred_months=p.pred_months + 5)])
    both.to_csv(tmp_path/'p.csv', index=False)
    code, _, err = boneage('evaluate', tmp_path/'p.csv')
    assert code == 1 and '--model' in err and 'other' in err
    code, out, _ = boneage('evaluate', tmp_path/'p.csv', '--model', 'other', '--train', work/'films.csv', '--out', tmp_path/'o.html')
    assert code == 0 and 'other' in (tmp_path/'o.html').read_text('utf-8') and str(tmp_path/'o.html') in out

def test_review_leaves_films_out(work, boneage, tmp_path):
    from boneage.qc_widgets import Decisions
    d = Decisions(tmp_path/'decisions.csv')
    d.add('phantom-0001', 'reject', 'rotated')
    code, out, _ = boneage('qc', work, '--out', tmp_path, '--decisions', tmp_path/'decisions.csv')
    assert code == 0 and '11 of 12 films stay' in out and 'phantom-0001' not in set(rows(tmp_path/'kept.csv').id)
    assert boneage('qc', work, '--out', tmp_path, '--decisions', tmp_path/'none.csv')[0] == 1

def test_rsna_reports_what_has_no_match(boneage, tmp_path):
    for i in (1377, 1378, 4360, 9999): core.write_png(tmp_path/f'in/{i}.png', np.arange(4096, dtype=np.uint8).reshape(64, 64))
    (tmp_path/'in/train.csv').write_text('id,boneage,male\n1377,180,False\n1378,94,True\n1379,90,True\n')
    (tmp_path/'in/test truth.csv').write_text('Case ID,Sex,Ground truth bone age (months)\n4360,F,100.5\n')
    code, out, _ = boneage('rsna', tmp_path/'in', '--out', tmp_path/'out/films.csv')
    assert code == 0 and '2 train' in out and '1 test' in out and '1379' in out and '9999' in out and 'test truth: part of a test set: 1 of 200' in out
    m = rows(tmp_path/'out/missing.csv')
    assert dict(zip(m.id, m.problem)) == {'1379': 'label without a film', '9999': 'film without a label'}
    assert len(core.read_manifest(tmp_path/'out/films.csv')) == 3
    code, _, err = boneage('rsna', tmp_path/'out', '--out', tmp_path/'x.csv')
    assert code == 1 and 'no RSNA labels' in err or 'not one film' in err

def test_rsna_again_beside_its_own_table(boneage, tmp_path):
    for i in (1377, 1386): core.write_png(tmp_path/f'{i}.png', np.arange(4096, dtype=np.uint8).reshape(64, 64))
    (tmp_path/'train.csv').write_text('id,boneage,male\n1377,180,False\n')
    (tmp_path/'valid.csv').write_text('Image ID,male,Bone Age (months)\n1386,TRUE,30\n')
    for _ in range(2): assert boneage('rsna', tmp_path, '--out', tmp_path/'films.csv')[0] == 0
    assert rows(tmp_path/'films.csv').split.tolist() == ['train', 'valid']

# --- predict --------------------------------------------------------------------------------------------------------

def test_predict_one_film_with_its_picture(work, phantoms, boneage, tmp_path):
    code, out, _ = boneage('predict', phantoms.path[0], '--sex', 'girl', '--model', work/'model', '--picture', tmp_path/'seen/a.png')
    assert code == 0 and re.search(r'bone age \d+ y \d+ m .*girl.*research use only', out)
    assert Image.open(tmp_path/'seen/a.png').size[0] > 300

def test_predict_asks_for_the_sex(work, phantoms, boneage):
    code, _, err = boneage('predict', phantoms.path[0], '--model', work/'model')
    assert code == 1 and 'sex is missing' in err and '--sex F' in err and phantoms.path[0] in err
    code, _, err = boneage('predict', phantoms.path[0], '--model', work/'model', '--sex', 'unknown')
    assert code == 1 and "'unknown'; expected F or M" in err

def test_predict_without_a_film_or_model(work, phantoms, boneage, tmp_path):
    assert boneage('predict')[0] == 1
    code, _, err = boneage('predict', tmp_path/'gone.png', '--sex', 'F', '--model', work/'model')
    assert code == 1 and 'gone.png: no such film' in err
    code, _, err = boneage('predict', phantoms.path[0], '--sex', 'F', '--model', tmp_path/'gone.json')
    assert code == 1 and 'gone.json' in err

def test_predict_keeps_films_of_the_same_name_apart(work, phantoms, boneage, tmp_path):
    for d in 'ab': core.write_png(tmp_path/d/'film.png', core.load_radiograph(phantoms.path['ab'.index(d)]).pixels)
    code, out, _ = boneage('predict', tmp_path/'a/film.png', tmp_path/'b/film.png', tmp_path/'a/film.png', '--sex', 'F', '--model', work/'model', '--out', tmp_path/'p.csv')
    df = rows(tmp_path/'p.csv')
    assert code == 0 and len(df) == 2 and df.id.is_unique and df.pred_months.notna().all() and 'Research use only' in out

def test_predict_table_goes_on_and_resumes(work, phantoms, boneage, tmp_path, monkeypatch):
    df = phantoms.head(3)[['id', 'path', 'sex']]
    bad = pd.DataFrame([dict(id='gone', path=str(tmp_path/'gone.png'), sex='F'), dict(id='no sex', path=phantoms.path[3], sex=None)])
    core.write_manifest(pd.concat([df, bad]), tmp_path/'films.csv')
    args = 'predict', tmp_path/'films.csv', '--model', work/'model', '--out', tmp_path/'p.csv'
    code, out, _ = boneage(*args)
    assert code == 3 and '3 of 5 films read' in out and 'gone.png: no such file' in out and 'no sex' in out and 'sex is missing' in out
    first = rows(tmp_path/'p.csv')
    core.write_png(tmp_path/'gone.png', core.load_radiograph(phantoms.path[4]).pixels)
    from boneage import predict
    read, seen = predict.BoneAgePredictor._read, []
    monkeypatch.setattr(predict.BoneAgePredictor, '_read', lambda self, row: (seen.append(row['path']), read(self, row))[1])
    code, out, _ = boneage(*args, '--sex', 'M')
    second = rows(tmp_path/'p.csv')
    assert code == 0 and '5 of 5' in out and len(seen) == 2, 'only the two that failed are read'
    assert second.sex.tolist() == [*df.sex, 'F', 'M'], '--sex fills gaps only'
    pd.testing.assert_series_equal(first.pred_months.head(3), second.pred_months.head(3))

def test_predict_shows_a_refusal(work, boneage, tmp_path):
    core.write_png(tmp_path/'letter.png', make_nonhand('text', 1))
    code, out, _ = boneage('predict', tmp_path/'letter.png', '--sex', 'F', '--model', work/'model')
    assert code == 3 and 'no reading (no hand found' in out

# --- bad films ------------------------------------------------------------------------------------------------------

def cut_short(f, img): core.write_png(f, img); f.write_bytes(f.read_bytes()[:2000])

def empty_dicom(f, img):
    from test_core import dicom
    dicom(f, None)

FILMS = {'zero bytes.png': (lambda f, img: f.write_bytes(b''), 'empty file (0 bytes); copy it again'),
         'truncated.png': (cut_short, 'damaged or cut off'),
         'text.png': (lambda f, img: f.write_text('Dear colleague,'), 'not a picture; expected PNG, JPEG, TIFF or DICOM'),
         'no pixels.dcm': (empty_dicom, 'without pixels'),
         'dot.png': (lambda f, img: Image.new('L', (1, 1)).save(f), '1 x 1 px; a film needs at least 32'),
         'grey.png': (lambda f, img: Image.new('L', (300, 300), 77).save(f), 'every pixel is 77')}

@pytest.mark.parametrize('name', FILMS)
def test_bad_film_is_named_the_others_are_done_and_the_next_run_heals(name, boneage, tmp_path):
    make, text = FILMS[name]
    folder, good = tmp_path/'films é ñ', make_phantom(1, 120, 'F').pixels
    core.write_png(folder/'good.png', good)
    make(folder/name, good)
    code, out, _ = boneage('segment', folder, '--out', tmp_path/'w')
    assert code == 3 and '1 ok, 0 refused, 1 error' in out and name in out and text in out
    assert boneage('crop', tmp_path/'w', '--size', 64)[0] == 0, 'the error was told by segment'
    assert len(list((tmp_path/'w/crops').iterdir())) == 1
    done = (tmp_path/'w/masks/good.png').stat().st_mtime_ns
    (folder/name).unlink()
    core.write_png((folder/name).with_suffix('.png'), good)
    code, out, _ = boneage('segment', folder, '--out', tmp_path/'w')
    assert code == 0 and '2 ok' in out and (tmp_path/'w/masks/good.png').stat().st_mtime_ns == done, 'what was done is not done again'

def test_every_film_fails(boneage, tmp_path):
    for i in range(3): (tmp_path/f'{i}.png').write_text('x')
    code, out, err = boneage('segment', tmp_path, '--out', tmp_path/'w')
    assert code == 1 and '3 error' in out and 'not one film could be read' in err
    code, out, err = boneage('crop', tmp_path/'w')
    assert code == 1 and 'not one film was cropped' in err
    code, out, err = boneage('qc', tmp_path/'w')
    assert code == 0 and set(rows(tmp_path/'w/qc.csv').qc_flags.str.split(';').str[0]) == {'unreadable'}

@pytest.mark.parametrize('kind', [k for k in NONHANDS if k not in ('chest', 'uniform')])
def test_no_hand_is_refused_not_failed(kind, boneage, tmp_path):
    core.write_png(tmp_path/'film.png', make_nonhand(kind, 2))
    code, out, _ = boneage('segment', tmp_path/'film.png', '--out', tmp_path/'w')
    assert (code, '1 refused' in out and 'no hand found' in out) == (0, True)

@pytest.mark.parametrize('seed', range(20, 24))
def test_two_hands_are_refused_or_flagged(seed, boneage, tmp_path):
    core.write_png(tmp_path/'film.png', make_phantom(seed, fault='second_hand').pixels)
    assert boneage('segment', tmp_path/'film.png', '--out', tmp_path/'w')[0] == 0
    boneage('crop', tmp_path/'w', '--size', 64)
    assert boneage('qc', tmp_path/'w')[0] == 0
    flags = rows(tmp_path/'w/qc.csv').qc_flags[0]
    assert 'no hand found' in flags or 'second hand' in flags

def test_a_12000_px_film(boneage, tmp_path):
    t0, img = time.time(), make_phantom(3, 120, 'F').pixels
    Image.fromarray(cv2.resize(img, (10500, 12000), interpolation=cv2.INTER_NEAREST)).save(tmp_path/'huge.png', compress_level=1)
    assert boneage('segment', tmp_path/'huge.png', '--out', tmp_path/'w')[0] == 0
    assert boneage('crop', tmp_path/'w', '--size', 64)[0] == 0
    assert time.time() - t0 < 60
    assert core.read_mask(tmp_path/'w/masks/huge.png').shape == (12000, 10500) and Image.open(tmp_path/'w/crops/huge.png').size == (64, 64)

def test_a_missing_extra_names_its_install_command(boneage, tmp_path, monkeypatch):
    empty_dicom(tmp_path/'film.dcm', None)
    monkeypatch.setitem(sys.modules, 'pydicom', None)
    code, _, err = boneage('segment', tmp_path, '--out', tmp_path/'w')
    assert code == 1 and "pip install 'boneage[dicom]'" in err

def test_a_missing_sam_names_its_install_command(boneage, phantoms, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'segment_anything', None)
    code, _, err = boneage('segment', phantoms.path[0], '--out', tmp_path, '--segmenter', 'vit_b', '--checkpoint', tmp_path/'x.pth')
    assert code == 1 and 'pip install segment-anything' in err

# --- bad tables -----------------------------------------------------------------------------------------------------

HEAD = 'id,path,sex,age_months,crop_path,pred_months\n'
TABLES = {'doubled column': ('id,path,path,age_months,pred_months\n1,a,a,1,1\n', 'column "path" stands there 2 times'),
          'doubled id': (HEAD + '1,a,F,10,c,1\n1,b,F,10,c,1\n', 'id 1: this id stands in more than one row'),
          'age below 0': (HEAD + '1,a,F,-3,c,1\n', 'row 2, id 1: age_months is -3; expected 0 to 300 months'),
          'age above 300': (HEAD + '7,a,F,301,c,1\n', 'row 2, id 7: age_months is 301'),
          'sex unknown': (HEAD + '7,a,unknown,30,c,1\n', "row 2, id 7: sex is 'unknown'; expected F or M"),
          'no rows': (HEAD, 'the table has no rows'), 'empty file': ('', 'empty file')}

@pytest.mark.parametrize('command', ['segment', 'crop', 'qc', 'train', 'evaluate', 'predict'])
@pytest.mark.parametrize('kind', TABLES)
def test_bad_table_is_named_with_its_row(kind, command, boneage, tmp_path):
    text, expected = TABLES[kind]
    f = tmp_path/'Müller films.csv'
    f.write_text(text, encoding='utf-8')
    code, _, err = boneage(command, f, '--out', tmp_path/'out')
    assert code == 1 and expected in err and 'Müller films.csv' in err
    assert not (tmp_path/'out').exists() or command == 'train'

COLUMNS = [('segment', 'id,sex\n1,F\n', 'column "path" is missing; found: id, sex'), ('crop', 'id,path\n1,a\n', 'Run `boneage segment` first'),
           ('qc', 'path\na\n', 'column "id" is missing'), ('train', 'id,sex,age_months\n1,F,10\n', 'Run `boneage crop` first'), ('train', 'id,path,crop_path\n1,a,b\n', 'column "sex" is missing'),
           ('evaluate', 'id,age_months\n1,10\n', 'Run `boneage predict` first'), ('predict', 'film\n1\n', 'column "id" is missing')]

@pytest.mark.parametrize('command,text,expected', COLUMNS)
def test_missing_column_names_the_step_that_makes_it(command, text, expected, boneage, tmp_path):
    (tmp_path/'t.csv').write_text(text)
    code, _, err = boneage(command, tmp_path/'t.csv', '--out', tmp_path/'out')
    assert code == 1 and expected in err and 't.csv' in err

@pytest.mark.parametrize('command', ['rsna', 'segment', 'crop', 'qc', 'train', 'evaluate', 'predict'])
def test_empty_folder_and_missing_input(command, boneage, tmp_path):
    (tmp_path/'empty').mkdir()
    code, _, err = boneage(command, tmp_path/'empty', '--out', tmp_path/'out.csv')
    assert code == 1 and str(tmp_path/'empty') in err and 'Traceback' not in err
    code, _, err = boneage(command, tmp_path/'gone.csv', '--out', tmp_path/'out.csv')
    assert code == 1 and 'gone.csv: no such' in err

# --- the command line -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize('words,expected', [
    (['segmant', 'x'], 'did you mean segment?'), (['crop', 'x', '--sise', '3'], 'did you mean --size?'), (['crop', 'x', 'y'], 'unknown: y'), (['crop'], 'required: table'),
    (['crop', 'x', '--size', 'big'], 'invalid int value'), (['crop', 'x', '--size', '0'], '--size is 0; expected 16 to 8192'), (['segment', 'x', '--jobs', '0'], 'expected 1 or more, or -1'),
    (['train', 'x', '--augment', 'wild'], '--augment is wild; expected light or strong or worn or none'), (['train', 'x', '--valid_pct', '2'], '--valid-pct is 2'), (['train', 'x', '--epochs', '-1'], '--epochs is -1')])
def test_wrong_words_end_with_2_and_a_remedy(words, expected, boneage):
    code, _, err = boneage(*words)
    assert code == 2 and expected in err

@pytest.mark.parametrize('command', cli.COMMANDS)
def test_help_describes_every_option(command, boneage):
    code, out, _ = boneage(command, '--help')
    assert code == 0 and all(f'--{k.replace("_", "-")}' in out for k, v in inspect.signature(cli.COMMANDS[command]).parameters.items() if v.default is not v.empty)

def test_defaults_and_choices_are_those_of_the_library():
    from boneage import cropping, train_fastai as t
    def defaults(fn): return {k: v.default for k, v in inspect.signature(fn).parameters.items() if v.default is not v.empty}
    theirs, ours = defaults(t.train_df), defaults(cli.train)
    shared = set(theirs) & set(ours)
    assert {'arch', 'weights', 'size', 'epochs', 'bs', 'lr', 'augment', 'valid_pct', 'keep', 'precision', 'seed', 'name', 'dtype'} <= shared
    assert {k: ours[k] for k in shared} == {k: theirs[k] for k in shared}
    assert set(cli.CHOICES['arch']) == set(t.ARCHS) and set(cli.CHOICES['augment']) == set(t.AUGMENTS)
    crop = defaults(cropping.crop_df)
    assert (crop['size'], crop['margin']) == (defaults(cli.crop)['size'], defaults(cli.crop)['margin'])

LIGHT = 'import sys, time; t = time.perf_counter(); from boneage.cli import main; code = main(sys.argv[1:]); s = time.perf_counter() - t; print("\\nheavy", [m for m in ("torch", "fastai", "cv2", "pandas") if m in sys.modules], s)'

@pytest.mark.parametrize('words', [['--help'], ['train', '--help'], ['--version'], ['crop', '--sise']])
def test_help_is_quick_and_imports_nothing_heavy(words):
    outs = [subprocess.run([sys.executable, '-c', LIGHT, *words], capture_output=True, text=True, env=ENV, cwd=ROOT).stdout.splitlines()[-1] for _ in range(2)]
    assert all(o.startswith('heavy []') for o in outs) and min(float(o.split()[-1]) for o in outs) < 1

def test_the_program_itself(tmp_path):
    p = program('segment', tmp_path/'gone.csv')
    assert p.returncode == 1 and 'gone.csv: no such' in p.stderr and 'Traceback' not in p.stderr and not p.stdout
    assert program('crop').returncode == 2 and program('--version').stdout.startswith('boneage ')

def test_a_reader_who_leaves_does_not_stop_the_work(work, tmp_path):
    out, inp = os.pipe()
    os.close(out)  # nobody reads
    p = subprocess.run([sys.executable, '-m', 'boneage.cli', 'qc', str(work), '--out', str(tmp_path)], stdout=inp, stderr=subprocess.PIPE, text=True, env=ENV, timeout=120)
    os.close(inp)
    assert (p.returncode, p.stderr) == (0, '') and (tmp_path/'qc.html').exists()

# --- disks ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('command', ['segment', 'crop', 'qc', 'train', 'evaluate', 'predict', 'rsna'])
@pytest.mark.parametrize('where', ['a file', 'proc'])
def test_a_place_that_can_not_be_written_is_named(command, where, work, boneage, tmp_path):
    (tmp_path/'file').write_text('')
    if where == 'proc' and not Path('/proc/self').exists(): pytest.skip('no /proc on this system')
    out = (tmp_path/'file' if where == 'a file' else Path('/proc/nobody'))/'out.csv'
    table = dict(segment='films.csv', evaluate='model/predictions.csv', predict='films.csv').get(command, 'cropped.csv')
    source = work/table
    if command == 'rsna':
        source = tmp_path/'rsna'
        core.write_png(source/'1377.png', np.arange(4096, dtype=np.uint8).reshape(64, 64))
        (source/'train.csv').write_text('id,boneage,male\n1377,180,False\n')
    code, _, err = boneage(command, source, '--out', out, *(['--model', work/'model'] if command == 'predict' else []), *(TINY if command == 'train' else []))
    assert code == 1 and str(out.parent) in err and re.search('choose (another|a) (place|folder)', err) and 'Traceback' not in err

def full(*a, **k): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

@pytest.mark.parametrize('command,out', [('segment', 'segmented.csv'), ('crop', 'cropped.csv'), ('qc', 'qc.csv'), ('train', 'predictions.csv'), ('predict', 'out.csv'), ('evaluate', 'out.html')])
def test_a_full_disk_names_the_table(command, out, work, boneage, tmp_path, monkeypatch):
    if command == 'evaluate': monkeypatch.setattr('boneage.evaluate.report_html', full)
    else: monkeypatch.setattr('boneage.core.write_manifest', full)
    source = work/dict(segment='films.csv', evaluate='model/predictions.csv', predict='films.csv').get(command, 'cropped.csv')
    to = tmp_path/out if command in ('predict', 'evaluate') else tmp_path
    code, _, err = boneage(command, source, '--out', to, *(['--model', work/'model'] if command == 'predict' else []), *([*TINY, '--epochs', 1] if command == 'train' else []))
    assert code == 1 and f'{tmp_path/out} can not be written (No space left on device): make room' in err

def test_a_disk_that_fills_up_loses_no_film(phantoms, boneage, tmp_path, monkeypatch):
    from boneage import segmentation
    write, n = segmentation.write_png, []
    def some(path, img): n.append(path); (full() if len(n) > 5 else write(path, img))
    monkeypatch.setattr(segmentation, 'write_png', some)
    core.write_manifest(phantoms, tmp_path/'films.csv')
    code, _, err = boneage('segment', tmp_path/'films.csv', '--out', tmp_path)
    assert code == 1 and 'No space left on device' in err and 'Stopped after 5 of 12 films; they are safe' in err
    monkeypatch.setattr(segmentation, 'write_png', lambda path, img: (n.append(path), write(path, img)))
    n.clear()
    assert boneage('segment', tmp_path/'films.csv', '--out', tmp_path)[0] == 0 and len(n) == 7

def test_a_full_disk_in_training_is_no_traceback(work, boneage, tmp_path, monkeypatch):
    import torch
    def broken(*a, **k): raise RuntimeError('[enforce fail at inline_container.cc:671] . unexpected pos 1729152 vs 1729040') # what torch.save says on a full disk
    monkeypatch.setattr(torch, 'save', broken)
    code, _, err = boneage('train', work, '--out', tmp_path/'m', '--epochs', 2, *TINY)
    assert code == 1 and 'checkpoint can not be written' in err and str(tmp_path/'m') in err

# --- interruptions --------------------------------------------------------------------------------------------------

def wait_for(p, lines, file):
    end = time.time() + 90
    while time.time() < end and p.poll() is None and not (file.exists() and len(file.read_bytes().splitlines()) >= lines): time.sleep(.02)
    assert p.poll() is None, f'the command ended before it could be stopped: {p.stderr.read()}'

@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGKILL])
def test_segment_goes_on_where_it_was_stopped(how, phantoms, boneage, tmp_path):
    many = pd.concat([phantoms.assign(id=phantoms.id + f'-{k}') for k in range(5)])
    core.write_manifest(many, tmp_path/'films.csv')
    p = start('segment', tmp_path/'films.csv', '--out', tmp_path)
    try: wait_for(p, 4, tmp_path/'segment.jsonl')
    finally: p.send_signal(how); _, err = p.communicate(timeout=60)
    assert p.returncode == (130 if how == signal.SIGINT else -9) and 'Traceback' not in err
    assert how == signal.SIGKILL or 'the same command goes on from here' in err
    journal = (tmp_path/'segment.jsonl').read_bytes()
    done = journal[:journal.rfind(b'\n') + 1].splitlines()
    assert 4 <= len(done) < 60 and not (tmp_path/'segmented.csv').exists()
    core.write_manifest(many.head(len(done) + 3), tmp_path/'films.csv')  # enough to see that it goes on
    assert boneage('segment', tmp_path/'films.csv', '--out', tmp_path)[0] == 0
    after = [json.loads(o)['id'] for o in (tmp_path/'segment.jsonl').read_bytes().splitlines() if o.endswith(b'}')]
    assert len(after) == len(set(after)) == len(done) + 3, 'no film was done twice'
    assert rows(tmp_path/'segmented.csv').seg_status.eq('ok').all()

@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGKILL])
def test_train_goes_on_where_it_was_stopped(how, work, boneage, tmp_path):
    args = 'train', work/'cropped.csv', '--out', tmp_path/'m', '--epochs', 16, *TINY
    p = start(*args)
    try: wait_for(p, 3, tmp_path/'m/history.csv')
    finally: p.send_signal(how); _, err = p.communicate(timeout=60)
    assert p.returncode == (130 if how == signal.SIGINT else -9) and 'Traceback' not in err
    kept = pd.read_csv(tmp_path/'m/history.csv')
    code, out, _ = boneage(*args)
    said = [int(o) for o in re.findall(r'epoch (\d+)/16', out)]
    assert code == 0 and said[-1] == 16 and said == list(range(said[0], 17)) and len(kept) <= said[0] <= len(kept) + 1
    after = pd.read_csv(tmp_path/'m/history.csv')
    pd.testing.assert_frame_equal(after.head(said[0] - 1), kept.head(said[0] - 1))
    code, _, err = boneage(*args, '--epochs', 2)
    assert code == 1 and '--restart' in err and 'epochs: 16 then, 2 now' in err

def test_no_progress_bar_where_nobody_watches(phantoms, tmp_path):
    core.write_manifest(phantoms.head(2), tmp_path/'films.csv')
    p = program('segment', tmp_path/'films.csv', '--out', tmp_path)
    assert p.returncode == 0 and p.stderr == ''

# --- the demo and real films ----------------------------------------------------------------------------------------

def test_demo_small(boneage, tmp_path):
    code, out, _ = boneage('demo', '--out', tmp_path/'démo', '--films', 24, '--epochs', 2, '--size', 64, '--jobs', 1)
    assert code == 0 and re.search(r'MAE [\d.]+ months on synthetic films', out)
    kept, all_films = rows(tmp_path/'démo'/'work'/'kept.csv'), rows(tmp_path/'démo'/'films.csv')
    assert kept.fault.notna().sum() < all_films.fault.notna().sum() and len(kept) > .8*len(all_films)
    assert (tmp_path/'démo/report.html').stat().st_size > 50_000 and (tmp_path/'démo/reading.png').exists()

def test_real_films_through_segment_crop_and_predict(real_data, work, boneage, tmp_path):
    films = sorted((real_data/'rsna-original/images').glob('*.png'))[::6][:6]
    labels = pd.read_csv(real_data/'rsna-original/train.csv', dtype={'id': str}).set_index('id')
    df = pd.DataFrame([dict(id=f.stem, path=str(f), sex='M' if labels.male[f.stem] else 'F') for f in films])
    core.write_manifest(df, tmp_path/'films.csv')
    assert boneage('segment', tmp_path/'films.csv', '--out', tmp_path)[0] == 0
    assert boneage('crop', tmp_path, '--size', 96)[0] == 0
    assert boneage('predict', tmp_path/'films.csv', '--model', work/'model', '--out', tmp_path/'p.csv')[0] in (0, 3)
    seg, p = rows(tmp_path/'segmented.csv'), rows(tmp_path/'p.csv')
    ok = seg.seg_status == 'ok'
    assert ok.sum() >= 4 and seg.mask_area[ok].between(.05, .65).all()
    assert p.pred_months.notna().tolist() == ok.tolist() and p.pred_error[~ok].astype(str).str.contains('no hand').all()
