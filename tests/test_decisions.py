"The log of decisions under bad conditions: edited and foreign files, full disks, kills, several writers."
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from reviewing import HEAD, LINE

from boneage.review.decisions import Decisions, agreement, apply_qc, join_qc

def words(decisions):
    "What one reviewer decided, film by film."
    return {film: row['qc'] for film, row in decisions.mine.items()}

# ---- what stands on disk

def test_undo_to_any_depth_survives_a_restart(tmp_path):
    p = tmp_path/'d.csv'
    d = Decisions(p, 'anna')
    for i, qc in enumerate(['keep', 'reject', 'unsure']):
        d.add(f'f{i}', qc)
    d.add('f0', 'reject')
    d = Decisions(p, 'anna')
    assert [d.undo() for _ in range(2)] == ['f0', 'f2']
    assert d.mine['f0']['qc'] == 'keep'
    d = Decisions(p, 'anna')
    assert [d.undo() for _ in range(3)] == ['f1', 'f0', None]
    assert not d.mine
    assert len(p.read_text().splitlines()) == 1+4+4

def test_one_line_per_decision_whatever_the_note_holds(tmp_path):
    p = tmp_path/'d.csv'
    Decisions(p, 'anna').add('a,b "c"', 'keep', 'x;y', note='two\nlines, "quoted"; é \u2028 ü')
    assert p.read_text('utf-8').count('\n') == 2
    row = Decisions(p, 'anna').mine['a,b "c"']
    assert row['qc_note'] == 'two lines, "quoted"; é ü'
    assert row['qc_reason'] == 'x;y'

F1 = {'f1': 'reject'}

@pytest.mark.parametrize('name,content,mine,said', [
    ('cut in half', HEAD + LINE + 'f2,kee', F1, 'cut off'),
    ('cut inside quotes', HEAD + LINE + 'f2,keep,"half a rea', F1, 'cut off'),
    ('wrong word', HEAD + LINE + LINE.replace('f1', 'f2').replace('reject', 'maybe'), F1, "says 'maybe'"),
    ('zero block', HEAD + LINE + '\0'*64, F1, ''),
    ('empty id', HEAD + LINE + LINE[2:], F1, 'has no id'),
    ('semicolons', (HEAD + LINE).replace(',', ';'), F1, ''),
    ('moved columns', 'qc,reviewer,id\nReject,anna,f1\n', F1, ''),
    ('windows', '\ufeff' + (HEAD + LINE).replace('\n', '\r\n'), F1, ''),
    ('header only', HEAD, {}, ''),
    ('empty', '', {}, '')])
def test_files_edited_by_hand_are_read_and_continued(tmp_path, name, content, mine, said):
    p = tmp_path/'d.csv'
    p.write_bytes(content.encode())
    d = Decisions(p, 'anna')
    assert words(d) == mine
    assert not d.error
    assert said in ' '.join(d.problems)
    d.add('f9', 'keep', note='größer')
    assert p.read_bytes().startswith(content.encode()), 'what stood there must stay'
    again = Decisions(p, 'anna')
    assert words(again) == mine | {'f9': 'keep'}
    assert len(again.problems) == len(d.problems)

def test_a_spreadsheets_encoding_is_kept(tmp_path):
    p = tmp_path/'d.csv'
    p.write_bytes((HEAD + LINE.replace(',,', ',größer,')).encode('cp1252'))
    Decisions(p, 'anna').add('f2', 'keep', note='Öl')
    mine = Decisions(p, 'anna').mine
    assert [mine[i]['qc_note'] for i in ('f1', 'f2')] == ['größer', 'Öl']

# ---- files and disks that refuse

@pytest.mark.parametrize('content', [
    b'id,boneage,male\n1,2,True\n',
    b'\x89PNG\r\n\x1a\n\0\0',
    'id,qc\n'.encode('utf-16')])
def test_a_file_that_is_not_ours_is_never_written_to(tmp_path, content):
    p, other = tmp_path/'d.csv', tmp_path/'other.csv'
    p.write_bytes(content)
    d = Decisions(p, 'anna')
    d.add('f1', 'keep')
    assert p.read_bytes() == content
    assert 'd.csv' in d.error
    assert len(d.pending) == 1
    assert words(d) == {'f1': 'keep'}
    assert d.save_to(other)
    assert words(Decisions(other, 'anna')) == {'f1': 'keep'}

def test_moving_to_a_file_that_exists_changes_nothing(tmp_path):
    taken = tmp_path/'taken.csv'
    taken.write_text(HEAD)
    d = Decisions(tmp_path/'d.csv', 'anna')
    d.add('f1', 'keep')
    with pytest.raises(FileExistsError, match='taken.csv'):
        d.save_to(taken)
    d.add('f2', 'keep')
    assert taken.read_text() == HEAD
    assert list(words(Decisions(tmp_path/'d.csv', 'anna'))) == ['f1', 'f2']

def test_a_full_disk_keeps_decisions_until_there_is_room(tmp_path):
    if not Path('/dev/full').exists():
        pytest.skip('needs /dev/full')
    link = tmp_path/'d.csv'
    link.symlink_to('/dev/full')
    d = Decisions(link, 'anna')
    d.add('f1', 'keep')
    d.add('f2', 'reject')
    assert len(d.pending) == 2
    assert 'space' in d.error.lower()
    link.unlink()
    d.add('f3', 'keep')
    assert not d.pending
    assert not d.error
    assert list(Decisions(link, 'anna').mine) == ['f1', 'f2', 'f3']

def test_a_missing_or_read_only_folder_is_said_and_healed(tmp_path):
    p = tmp_path/'gone'/'d.csv'
    d = Decisions(p, 'anna')
    d.add('f1', 'keep')
    assert d.pending
    assert d.error
    p.parent.mkdir()
    assert d.flush()
    assert p.exists()

@pytest.mark.parametrize('how', ['deleted', 'cut'])
def test_a_file_lost_while_it_is_open_is_written_again(tmp_path, how):
    p = tmp_path/'d.csv'
    d = Decisions(p, 'anna')
    for i in range(5):
        d.add(f'f{i}', 'keep')
    if how == 'deleted':
        p.unlink()
    else:
        p.write_bytes(p.read_bytes()[:150])
    d.add('f5', 'reject')
    assert sorted(Decisions(p, 'anna').mine) == [f'f{i}' for i in range(6)]
    assert d.problems

# ---- kills and several writers

WRITER = '''
import sys
from boneage.review.decisions import Decisions
d = Decisions(sys.argv[1], sys.argv[2])
for i in range(int(sys.argv[3])):
    d.add(f'f{i}', 'keep', note='n'*50)
    print(i, flush=True)
'''

def writer(path, name, n):
    "Another process that decides n films and prints each one that was confirmed."
    command = [sys.executable, '-c', WRITER, str(path), name, str(n)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

def test_kill_loses_nothing_that_was_confirmed(tmp_path):
    p = tmp_path/'d.csv'
    w = writer(p, 'anna', 100_000)
    seen = [w.stdout.readline() for _ in range(50)]
    w.kill()
    seen += w.stdout.read().splitlines(keepends=True)
    w.wait()
    confirmed = {f'f{int(o)}' for o in seen if o.endswith('\n')}
    d = Decisions(p, 'anna')
    assert confirmed <= set(d.mine)
    assert len(d.mine) <= len(confirmed)+2

def test_two_reviewers_on_one_file_do_not_overwrite_each_other(tmp_path):
    p = tmp_path/'d.csv'
    for w in [writer(p, name, 150) for name in ('anna', 'ben')]:
        w.communicate()
    d = Decisions(p, 'anna')
    assert not d.problems
    assert len(d.mine) == 150
    assert len(d.current()) == 300
    assert p.read_text().count('reviewed_at') == 1

# ---- what decisions are worth

@pytest.fixture
def two_reviewers(tmp_path):
    p = tmp_path/'d.csv'
    anna, ben = Decisions(p, 'anna'), Decisions(p, 'ben')
    anna.add('f0', 'reject')
    anna.add('f1', 'unsure')
    anna.add('f2', 'keep')
    ben.add('f2', 'reject')
    ben.add('f3', 'keep')
    return p

TWENTY = pd.DataFrame(dict(id=[f'f{i}' for i in range(20)]))

@pytest.mark.parametrize('policy,left_out', [
    (dict(), 2),
    (dict(unsure='drop'), 3),
    (dict(disagree='lenient'), 1),
    (dict(disagree='majority', unsure='drop'), 3),
    (dict(undecided='drop'), 18)])
def test_apply_qc_policies(two_reviewers, policy, left_out):
    assert len(apply_qc(TWENTY, two_reviewers, **policy)) == 20-left_out

def test_decisions_are_joined_or_refused_in_words(two_reviewers, tmp_path):
    assert join_qc(TWENTY, two_reviewers).set_index('id').reviewer['f2'] == 'anna;ben'
    with pytest.raises(ValueError, match='keep or drop'):
        apply_qc(TWENTY, two_reviewers, unsure='maybe')
    with pytest.raises(FileNotFoundError):
        apply_qc(TWENTY, tmp_path/'none.csv')

def test_kappa_by_hand(tmp_path):
    # 20 + 15 of 50 agree: p_o .7, p_e .5, kappa .4 (the textbook example)
    p = tmp_path/'d.csv'
    anna, ben = Decisions(p, 'anna'), Decisions(p, 'ben')
    both_keep, ben_rejects, anna_rejects, both_reject = 20, 5, 10, 15
    anna.add_all(range(25), 'keep')
    anna.add_all(range(25, 50), 'reject')
    ben.add_all(range(both_keep), 'keep')
    ben.add_all(range(20, 20+ben_rejects), 'reject')
    ben.add_all(range(25, 25+anna_rejects), 'keep')
    ben.add_all(range(35, 35+both_reject), 'reject')
    k = agreement(p)
    assert k.films == 50
    assert k.equal == .7
    assert abs(k.kappa-.4) < 1e-9
    assert k.kappa_low < .4 < k.kappa_high
