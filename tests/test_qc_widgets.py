"Review under bad conditions: damaged files, vanished films, full disks, kills, several writers, many films."
import json, os, shutil, subprocess, sys, threading
from pathlib import Path

import cv2, numpy as np, pandas as pd, pytest

from boneage import cli
from boneage.core import ManifestError, write_png
from boneage.cropping import crop_df
from boneage.phantom import make_nonhand, make_phantom
from boneage.qc_widgets import (DECISION_COLS, TWIN_BITS, Decisions, QCReviewer, ReviewQueue, agreement, all_decisions, apply_qc, crop_match,
                                brighten, contact_sheet_html, dhash, film_pair, join_qc, morph, nearest_hash, palm, qc_flags, qc_summary, write_app)

HEAD = ','.join(DECISION_COLS) + '\n'
LINE = 'f1,reject,blurred,,anna,2026-01-01T10:00:00+00:00,0.1\n'

def film(folder, name, fault=None, seed=0):
    ph = make_phantom(seed, 120, 'F', size=256, fault=fault)
    row = dict(id=name, sex='F', age_months=120., seg_status='ok', fault=fault or '')
    for kind, img in (('path', ph.pixels), ('mask_path', ph.mask), ('crop_path', ph.pixels*ph.mask)):
        row[kind] = str(folder/f'{name} {kind} é.png')
        write_png(row[kind], img)
    return row

@pytest.fixture(scope='module')
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp('films')
    faults = ['inverted', 'rotated', 'dark', 'blurred', 'second_hand', 'marker_on_hand', 'cropped', 'overexposed']
    return pd.DataFrame([film(folder, f'f{i}', f, i) for i, f in enumerate([None]*12 + faults)])

# ---- flags

@pytest.mark.parametrize('fault,word,least', [('inverted', 'turned: check polarity', 3), ('rotated', 'rotated', 3), ('dark', 'too dark', 3), ('blurred', 'blurred', 2),
    ('second_hand', 'second hand or object', 3), ('marker_on_hand', 'marker or metal on the hand', 3), ('cropped', 'cut off at the edge', 3), ('overexposed', 'over-exposed', 3)])
def test_planted_fault_gets_its_word(tmp_path, fault, word, least):
    df = qc_flags(pd.DataFrame([film(tmp_path, f'{fault}-{i}', fault, 50+i) for i in range(4)]))
    assert df.qc_flags.str.split(';').apply(lambda w: word in w).sum() >= least, df.qc_flags.tolist()

def test_faulty_films_come_first_and_clean_ones_are_left_alone(films):
    df = qc_flags(films)
    assert df.qc_rank.tolist() == list(range(1, 21)) and df.qc_score.is_monotonic_decreasing
    assert (df.fault.iloc[:8] != '').sum() >= 7
    assert (df.qc_flags[df.fault == ''] == '').sum() >= 10

def test_flags_resume_without_reading_films_again(films, tmp_path):
    first = qc_flags(films, tmp_path)
    n = (tmp_path/'qc.jsonl').stat().st_size
    assert qc_flags(films, tmp_path).equals(first) and (tmp_path/'qc.jsonl').stat().st_size == n

def test_a_bad_film_is_flagged_and_the_batch_goes_on(films, tmp_path):
    bad = films.head(6).copy()
    text, cut = tmp_path/'text.png', tmp_path/'cut.png'
    text.write_text('no picture')
    cut.write_bytes(Path(bad.path[2]).read_bytes()[:300])
    small = tmp_path/'small.png'
    write_png(small, np.zeros((9, 9), bool))
    bad.loc[0, 'path'], bad.loc[1, 'path'], bad.loc[2, 'path'], bad.loc[3, 'mask_path'] = str(tmp_path/'gone.png'), str(text), str(cut), str(small)
    bad.loc[4, ['mask_path', 'seg_status', 'seg_error']] = ['', 'refused', 'no hand found: nothing bright']
    df = qc_flags(bad).set_index('id')
    assert all('unreadable' in df.qc_flags[f'f{i}'] for i in range(4)), df.qc_flags
    assert 'gone.png' in df.qc_error['f0'] and df.qc_flags['f4'].startswith('no hand found')
    assert df.qc_flags['f5'] == '' and df.qc_rank['f5'] == 6

@pytest.mark.parametrize('kind', ['noise', 'text', 'foot', 'chest'])
def test_films_without_a_hand_are_measured_without_a_mask(tmp_path, kind):
    write_png(tmp_path/'a.png', make_nonhand(kind, size=128))
    df = qc_flags(pd.DataFrame([dict(id=1, path=str(tmp_path/'a.png'), mask_path=np.nan, seg_status='refused')]))
    assert 'no hand found' in df.qc_flags.iloc[0]

@pytest.mark.parametrize('mask', ['empty', 'full', 'one pixel', 'line'])
def test_odd_masks_never_stop_a_batch(tmp_path, mask):
    m = np.zeros((160, 120), bool)
    if mask == 'full': m[:] = True
    if mask == 'one pixel': m[80, 60] = True
    if mask == 'line': m[:, 60:62] = True
    write_png(tmp_path/'p.png', np.add.outer(np.arange(160), np.zeros(120)).astype(np.uint8)); write_png(tmp_path/'m.png', m)
    df = qc_flags(pd.DataFrame([dict(id='x', path=str(tmp_path/'p.png'), mask_path=str(tmp_path/'m.png'))]))
    assert not df.qc_error.iloc[0] and df.qc_flags.iloc[0] != ''

SPOILS = dict(drawn=lambda o: cv2.rectangle(o.copy(), (o.shape[1]//3, len(o)//3), (o.shape[1]//2, len(o)//2), 255, -1),
    noise=lambda o: np.random.default_rng(0).normal(o, 60).clip(0, 255).astype(np.uint8), blocks=lambda o: np.kron(o[::10, ::10], np.ones((10, 10), np.uint8)),
    grey=lambda o: np.uint8(o//20+100), veil=lambda o: np.uint8(190+o//5), saturated=lambda o: np.uint8(np.clip(3.*o+60, 0, 255)), blur=lambda o: cv2.GaussianBlur(o, (0, 0), 5),
    side=lambda o: np.rot90(o), mirror=lambda o: o[:, ::-1])

@pytest.mark.parametrize('name', SPOILS)
def test_films_spoiled_by_plain_transforms_are_flagged(tmp_path, name):
    rows = []
    for i in range(3):
        ph = make_phantom(70+i, 100+30*i, 'FM'[i % 2], size=300)
        img, msk = (SPOILS[name](o) for o in (ph.pixels, ph.mask*np.uint8(255))) if name in ('side', 'mirror') else (SPOILS[name](ph.pixels), ph.mask*np.uint8(255))
        h, w = min(len(img), len(msk)), min(img.shape[1], msk.shape[1])
        rows.append(dict(id=i, path=str(tmp_path/f'{i}.png'), mask_path=str(tmp_path/f'm{i}.png')))
        write_png(rows[-1]['path'], np.ascontiguousarray(img[:h, :w])); write_png(rows[-1]['mask_path'], np.ascontiguousarray(msk[:h, :w] > 127))
    assert (qc_flags(pd.DataFrame(rows)).qc_flags != '').all()

OUTLINES = dict(half=lambda m: m & (np.arange(m.shape[1]) < m.shape[1]//2), hole=lambda m: m & ~cv2.circle(np.zeros(m.shape, np.uint8), palm(m)[0][::-1], int(palm(m)[1]/2), 1, -1).astype(bool),
    box=lambda m: np.pad(np.ones((len(m)-40, m.shape[1]-40), bool), 20), all=lambda m: m | True, shifted=lambda m: np.roll(m, 40, 1), fat=lambda m: morph(m, cv2.MORPH_DILATE, 12),
    thin=lambda m: morph(m, cv2.MORPH_ERODE, 7), no_fingers=lambda m: m & (np.arange(len(m))[:, None] > palm(m)[0][0]-palm(m)[1]), two=lambda m: m | np.pad(np.ones((30, 30), bool), ((0, len(m)-30), (0, m.shape[1]-30))),
    upside=lambda m: m[::-1], none=lambda m: m & False)

@pytest.mark.parametrize('name', OUTLINES)
def test_wrong_outlines_are_flagged(tmp_path, name):
    rows = []
    for i in range(3):
        ph = make_phantom(80+i, 100+30*i, 'FM'[i % 2], size=300)
        rows.append(dict(id=i, path=str(tmp_path/f'{i}.png'), mask_path=str(tmp_path/f'm{i}.png')))
        write_png(rows[-1]['path'], ph.pixels); write_png(rows[-1]['mask_path'], np.ascontiguousarray(OUTLINES[name](ph.mask)))
    assert (qc_flags(pd.DataFrame(rows)).qc_flags != '').all()

@pytest.mark.parametrize('how', ['other', 'black', 'part', 'gone', 'damaged'])
def test_a_crop_of_something_else_is_flagged(tmp_path, how):
    df = pd.DataFrame([film(tmp_path, f'f{i}', None, 90+i) for i in range(2)])
    df = crop_df(df, tmp_path, 128)
    assert (qc_flags(df).qc_flags == '').all()
    a, b = df.crop_path
    crop = cv2.imread(a, 0)
    if how == 'gone': Path(a).unlink()
    elif how == 'damaged': Path(a).write_bytes(Path(a).read_bytes()[:100])
    else: write_png(a, dict(other=cv2.imread(b, 0), black=crop*0, part=np.where(np.arange(128) < 64, crop, 0).astype(np.uint8))[how])
    assert 'crop does not match' in qc_flags(df).set_index('id').qc_flags['f0'] and not qc_flags(df).set_index('id').qc_flags['f1']

def test_duplicates_are_found_through_exposure_and_rescaling():
    a, b = make_phantom(1, size=256).pixels, make_phantom(2, size=256).pixels
    copy = np.clip(a[::2, ::2]*.8, 0, 255).astype(np.uint8)
    dist, who = nearest_hash([dhash(a), dhash(b), '', dhash(copy)])
    assert who[0] == 3 and who[3] == 0 and dist[0] <= TWIN_BITS < dist[1] and dist[2] == 999

# ---- decisions

def test_undo_to_any_depth_survives_a_restart(tmp_path):
    p = tmp_path/'d.csv'
    d = Decisions(p, 'anna')
    for i, qc in enumerate(['keep', 'reject', 'unsure']): d.add(f'f{i}', qc)
    d.add('f0', 'reject')
    d = Decisions(p, 'anna')
    assert [d.undo() for _ in range(2)] == ['f0', 'f2'] and d.mine['f0']['qc'] == 'keep'
    d = Decisions(p, 'anna')
    assert [d.undo() for _ in range(3)] == ['f1', 'f0', None] and not d.mine
    assert len(p.read_text().splitlines()) == 1+4+4

def test_one_line_per_decision_whatever_the_note_holds(tmp_path):
    p, note = tmp_path/'d.csv', 'two\nlines, "quoted"; é \u2028 ü'
    Decisions(p, 'anna').add('a,b "c"', 'keep', 'x;y', note=note)
    assert p.read_text('utf-8').count('\n') == 2
    r = Decisions(p, 'anna').mine['a,b "c"']
    assert r['qc_note'] == 'two lines, "quoted"; é ü' and r['qc_reason'] == 'x;y'

@pytest.mark.parametrize('name,content,mine,said', [
    ('cut in half', HEAD + LINE + 'f2,kee', {'f1': 'reject'}, 'cut off'),
    ('cut inside quotes', HEAD + LINE + 'f2,keep,"half a rea', {'f1': 'reject'}, 'cut off'),
    ('wrong word', HEAD + LINE + LINE.replace('f1', 'f2').replace('reject', 'maybe'), {'f1': 'reject'}, "says 'maybe'"),
    ('zero block', HEAD + LINE + '\0'*64, {'f1': 'reject'}, ''),
    ('empty id', HEAD + LINE + LINE[2:], {'f1': 'reject'}, 'has no id'),
    ('semicolons', (HEAD + LINE).replace(',', ';'), {'f1': 'reject'}, ''),
    ('moved columns', 'qc,reviewer,id\nReject,anna,f1\n', {'f1': 'reject'}, ''),
    ('windows', '\ufeff' + (HEAD + LINE).replace('\n', '\r\n'), {'f1': 'reject'}, ''),
    ('header only', HEAD, {}, ''), ('empty', '', {}, '')])
def test_files_edited_by_hand_are_read_and_continued(tmp_path, name, content, mine, said):
    p = tmp_path/'d.csv'
    p.write_bytes(content.encode())
    d = Decisions(p, 'anna')
    assert {k: v['qc'] for k, v in d.mine.items()} == mine and not d.error
    assert said in ' '.join(d.problems)
    d.add('f9', 'keep', note='größer')
    assert p.read_bytes().startswith(content.encode()), 'what stood there must stay'
    again = Decisions(p, 'anna')
    assert {k: v['qc'] for k, v in again.mine.items()} == mine | {'f9': 'keep'} and len(again.problems) == len(d.problems)

def test_a_spreadsheets_encoding_is_kept(tmp_path):
    p = tmp_path/'d.csv'
    p.write_bytes((HEAD + LINE.replace(',,', ',größer,')).encode('cp1252'))
    d = Decisions(p, 'anna')
    d.add('f2', 'keep', note='Öl')
    assert [Decisions(p, 'anna').mine[i]['qc_note'] for i in ('f1', 'f2')] == ['größer', 'Öl']

@pytest.mark.parametrize('content', [b'id,boneage,male\n1,2,True\n', b'\x89PNG\r\n\x1a\n\0\0', 'id,qc\n'.encode('utf-16')])
def test_a_file_that_is_not_ours_is_never_written_to(tmp_path, content):
    p = tmp_path/'d.csv'
    p.write_bytes(content)
    d = Decisions(p, 'anna')
    d.add('f1', 'keep')
    assert p.read_bytes() == content and 'd.csv' in d.error and len(d.pending) == 1 and d.mine['f1']['qc'] == 'keep'
    assert d.save_to(tmp_path/'other.csv') and Decisions(tmp_path/'other.csv', 'anna').mine['f1']['qc'] == 'keep'

def test_a_full_disk_keeps_decisions_until_there_is_room(tmp_path):
    if not Path('/dev/full').exists(): pytest.skip('needs /dev/full')
    link = tmp_path/'d.csv'
    link.symlink_to('/dev/full')
    d = Decisions(link, 'anna')
    d.add('f1', 'keep'); d.add('f2', 'reject')
    assert len(d.pending) == 2 and 'space' in d.error.lower()
    link.unlink()
    d.add('f3', 'keep')
    assert not d.pending and not d.error and list(Decisions(link, 'anna').mine) == ['f1', 'f2', 'f3']

def test_a_missing_or_read_only_folder_is_said_and_healed(tmp_path):
    d = Decisions(tmp_path/'gone'/'d.csv', 'anna')
    d.add('f1', 'keep')
    assert d.pending and d.error
    (tmp_path/'gone').mkdir()
    assert d.flush() and (tmp_path/'gone'/'d.csv').exists()

@pytest.mark.parametrize('how', ['deleted', 'cut'])
def test_a_file_lost_while_it_is_open_is_written_again(tmp_path, how):
    p = tmp_path/'d.csv'
    d = Decisions(p, 'anna')
    for i in range(5): d.add(f'f{i}', 'keep')
    p.unlink() if how == 'deleted' else p.write_bytes(p.read_bytes()[:150])
    d.add('f5', 'reject')
    assert sorted(Decisions(p, 'anna').mine) == [f'f{i}' for i in range(6)] and d.problems

WRITER = '''
import sys
from boneage.qc_widgets import Decisions
d = Decisions(sys.argv[1], sys.argv[2])
for i in range(int(sys.argv[3])):
    d.add(f'f{i}', 'keep', note='n'*50)
    print(i, flush=True)
'''
def writer(path, name, n): return subprocess.Popen([sys.executable, '-c', WRITER, str(path), name, str(n)], stdout=subprocess.PIPE, text=True)

def test_kill_loses_nothing_that_was_confirmed(tmp_path):
    p = tmp_path/'d.csv'
    w = writer(p, 'anna', 100_000)
    seen = [w.stdout.readline() for _ in range(50)]
    w.kill()
    seen += w.stdout.read().splitlines(keepends=True)
    w.wait()
    done = [int(o) for o in seen if o.endswith('\n')]
    d = Decisions(p, 'anna')
    assert {f'f{i}' for i in done} <= set(d.mine) and len(d.mine) <= len(done)+2

def test_two_reviewers_on_one_file_do_not_overwrite_each_other(tmp_path):
    p = tmp_path/'d.csv'
    ws = [writer(p, r, 150) for r in ('anna', 'ben')]
    for w in ws: w.communicate()
    d = Decisions(p, 'anna')
    assert not d.problems and len(d.mine) == 150 and len(d.current()) == 300
    assert p.read_text().count('reviewed_at') == 1

# ---- the reviewer

def test_open_12611_films_draws_only_what_is_shown(films, tmp_path):
    pytest.importorskip('ipywidgets')
    many = pd.DataFrame([films.iloc[i % 20].to_dict() | dict(id=i) for i in range(12_611)]).assign(qc_flags='', qc_rank=range(1, 12_612))
    r = QCReviewer(many, tmp_path/'d.csv', 'anna', side=64)
    for _ in range(60): r.do('keep')
    assert r.queue.id == '60' and len(r.store) <= r.store.keep and '60 of 12,611' in r.bar.value
    assert len(Decisions(tmp_path/'d.csv', 'anna').mine) == 60
    assert QCReviewer(many, tmp_path/'d.csv', 'anna', side=64).queue.id == '60'

def test_review_goes_on_over_vanished_and_damaged_films(films, tmp_path):
    pytest.importorskip('ipywidgets')
    df = films.head(5).copy()
    for i, c in enumerate(('path', 'mask_path', 'crop_path')): df.loc[i, c] = str(tmp_path/f'gone-{c}.png')
    (tmp_path/'zero.png').write_bytes(b'')
    df.loc[3, 'path'] = str(tmp_path/'zero.png')
    r = QCReviewer(df, tmp_path/'d.csv', 'anna', side=64)
    for i, said in enumerate(('gone-path.png', 'gone-mask_path.png', 'gone-crop_path.png', 'zero.png', '')):
        assert said in r.message.value and r.queue.id == f'f{i}'
        r.buttons['reject'].click()
    assert len(r.decisions.mine) == 5

def test_problems_of_the_file_are_said_in_the_widget(films, tmp_path):
    pytest.importorskip('ipywidgets')
    p = tmp_path/'d.csv'
    p.write_text(HEAD + LINE + LINE.replace('f1', 'stranger') + 'f2,ke')
    r = QCReviewer(films, p, 'anna', side=64)
    assert 'line 4' in r.message.value and 'stranger' in r.message.value
    r = QCReviewer(films, tmp_path/'nowhere'/'d.csv', 'anna', side=64)
    r.buttons['keep'].click()
    assert '1 decision is not on disk' in r.message.value and 'download' in r.message.value and r.queue.id == 'f1'

def test_html_in_names_is_shown_not_run(films, tmp_path):
    pytest.importorskip('ipywidgets')
    df = films.head(1).assign(id='<img src=x onerror=alert(1)>', qc_flags='<b>bold</b>')
    r = QCReviewer(df, tmp_path/'d.csv', 'anna', side=64)
    page = contact_sheet_html(df, tmp_path/'s.html', side=64).read_text('utf-8')
    assert all('<img src=x' not in o and '<b>bold' not in o for o in (r.info.value, page))

def test_the_widget_refuses_a_table_it_cannot_use(tmp_path):
    for df, said in ((pd.DataFrame(dict(id=[])), 'no films'), (pd.DataFrame(dict(x=[1])), 'no column'), (pd.DataFrame(dict(id=[1, 1])), 'more than one row')):
        with pytest.raises(ManifestError, match=said): ReviewQueue(df, Decisions(tmp_path/'d.csv', 'anna'))

def test_without_ipywidgets_the_install_command_is_named(films, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'ipywidgets', None)
    with pytest.raises(ImportError, match=r'boneage\[qc\]'): QCReviewer(films, tmp_path/'d.csv')

def test_without_ipyevents_the_widget_says_so(films, tmp_path, monkeypatch):
    pytest.importorskip('ipywidgets')
    monkeypatch.setitem(sys.modules, 'ipyevents', None)
    r = QCReviewer(films, tmp_path/'d.csv', 'anna', side=64)
    assert 'Keyboard: not available' in r.hint.value
    r.buttons['keep'].click()
    assert r.queue.id == 'f1'

def test_brighten_shows_a_dark_film_and_changes_no_file(tmp_path):
    row = pd.Series(film(tmp_path, 'dark', 'dark'))
    before = Path(row.path).read_bytes()
    (plain, *_), (bright, crop, _) = film_pair(row, 200), film_pair(row, 200, bright=True)
    assert plain.max(initial=0, where=plain[..., :1] == plain[..., 2:]) < bright[..., 0].max() and crop.max() == 255 and Path(row.path).read_bytes() == before
    assert brighten(np.zeros((9, 9), np.uint8)).max() == 0

def test_brighten_is_one_click(films, tmp_path):
    pytest.importorskip('ipywidgets')
    r = QCReviewer(films[films.fault == 'dark'], tmp_path/'d.csv', 'anna', side=64)
    level = lambda: cv2.imdecode(np.frombuffer(r.crop.value, np.uint8), 0).max()
    dark = level()
    r.on_key(dict(key='b'))
    assert level() > 200 > dark and r.buttons['bright'].button_style == 'info'
    r.buttons['bright'].click()
    assert level() == dark and not r.decisions.mine

def test_review_command_says_what_is_missing(tmp_path, capsys, monkeypatch):
    assert cli.main(['review', str(tmp_path)]) == 1 and 'boneage qc' in capsys.readouterr().err
    (tmp_path/'qc.csv').write_text('id,age\n1,2\n')
    assert cli.main(['review', str(tmp_path)]) == 1 and 'path' in capsys.readouterr().err
    (tmp_path/'qc.csv').write_text('id,path\n1,a.png\n')
    monkeypatch.setattr('boneage.qc_widgets.find_spec', lambda name: None)
    assert cli.main(['review', str(tmp_path)]) == 1 and "boneage[qc]" in capsys.readouterr().err

def test_the_app_takes_any_path_and_name(tmp_path):
    odd = tmp_path/"it's a \"folder\" é"
    odd.mkdir()
    code = json.loads(write_app(odd/'a.ipynb', odd/'qc.csv', odd/'d.csv', "O'Neil").read_text('utf-8'))['cells'][0]['source']
    got = []
    exec(code.replace('from boneage.qc_widgets import review_app', ''), dict(review_app=lambda *a, **k: got.append(a)))
    assert got == [(str(odd/'qc.csv'), str(odd/'d.csv'), "O'Neil")]

# ---- what decisions are worth

def test_apply_qc_policies(films, tmp_path):
    p = tmp_path/'d.csv'
    a, b = Decisions(p, 'anna'), Decisions(p, 'ben')
    a.add('f0', 'reject'); a.add('f1', 'unsure'); a.add('f2', 'keep'); b.add('f2', 'reject'); b.add('f3', 'keep')
    left = lambda **k: 20-len(apply_qc(films, p, **k))
    assert left() == 2 and left(unsure='drop') == 3 and left(disagree='lenient') == 1 and left(disagree='majority', unsure='drop') == 3
    assert len(apply_qc(films, p, undecided='drop')) == 2
    assert join_qc(films, p).set_index('id').reviewer['f2'] == 'anna;ben'
    with pytest.raises(ValueError, match='keep or drop'): apply_qc(films, p, unsure='maybe')
    with pytest.raises(FileNotFoundError): apply_qc(films, tmp_path/'none.csv')

def test_kappa_by_hand(tmp_path):
    # 20 + 15 of 50 agree: p_o .7, p_e .5, kappa .4 (the textbook example)
    p = tmp_path/'d.csv'
    a, b = Decisions(p, 'anna'), Decisions(p, 'ben')
    pairs = [('keep', 'keep')]*20 + [('keep', 'reject')]*5 + [('reject', 'keep')]*10 + [('reject', 'reject')]*15
    for i, (x, y) in enumerate(pairs): a.add(i, x); b.add(i, y)
    k = agreement(p)
    assert k.films == 50 and k.equal == .7 and abs(k.kappa-.4) < 1e-9 and k.kappa_low < .4 < k.kappa_high

def test_module_imports_without_torch_and_widgets():
    code = "import sys; sys.modules['ipywidgets']=None; import boneage.qc_widgets; assert 'torch' not in sys.modules and 'fastai' not in sys.modules"
    subprocess.run([sys.executable, '-c', code], check=True)

def test_a_crop_that_was_turned_still_matches_its_film(tmp_path):
    ph = make_phantom(4, 120, 'F', size=300)
    for name, img in dict(path=ph.pixels, mask_path=ph.mask).items(): write_png(tmp_path/f'{name}.png', np.ascontiguousarray(np.rot90(img)))
    df = pd.DataFrame([dict(id='1', path=str(tmp_path/'path.png'), mask_path=str(tmp_path/'mask_path.png'), seg_status='ok')])
    row = crop_df(df, tmp_path, 128, upright=True).iloc[0]
    pixels, mask = np.rot90(ph.pixels).copy(), np.rot90(ph.mask).copy()
    assert abs(row.crop_turn) > 60 and crop_match(row, pixels, mask) > .95
    assert crop_match(row.drop('crop_turn'), pixels, mask) < .9
