"Workspaces that move, copies that do not cross, columns that change, two runs on one folder, what dead runs leave."
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path

import pandas as pd
import pytest
from boneage.core import CodedError
from boneage.cropping import crop_df
from boneage.films import files as f
from boneage.films.files import atomic_path, folder_lock, remove_leftovers, write_png
from boneage.films.journal import read_journal, run_rows
from boneage.films.manifest import read_manifest, write_manifest
from boneage.films.phantom import phantom_df
from boneage.films.radiograph import load_film
from commands import ENV, PATIENCE, TINY

CHAIN = ['segment', 'films.csv', '--segmenter', 'classical'], ['crop', 'segmented.csv', '--size', 64]


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    "A workspace with films, masks and crops, and the two tables."
    from boneage import cli
    folder = tmp_path_factory.mktemp('workspaces')/'the original'
    write_manifest(phantom_df(3, folder/'films', size=160, fault_rate=0), folder/'films.csv')
    for command, table, *options in CHAIN:
        assert cli.main([command, str(folder/table), '--out', str(folder), *map(str, options)]) == 0
    return folder


@pytest.fixture
def workspace(finished, tmp_path):
    "A copy of it for a test to spoil, with its time stamps."
    return shutil.copytree(finished, tmp_path/'the original')


def go_on(boneage, folder, out=None):
    for command, table, *options in CHAIN:
        assert boneage(command, folder/table, '--out', out or folder, *options)[0] == 0


def as_of_old(folder, was):
    "The journals as earlier versions wrote them: full names, and nothing about upstream columns."
    for journal in folder.glob('*.jsonl'):
        lines = [json.loads(o) for o in journal.read_text().splitlines()]
        for line in lines:
            for col in line.pop('files', ['mask_path', 'crop_path']):
                if line['row'].get(col):
                    line['row'][col] = str(was/line['row'][col])
            line.pop('upstream', None)
        journal.write_text(''.join(json.dumps(o) + '\n' for o in lines))


def pictures(folder):
    return {str(o.relative_to(folder)): o.stat().st_mtime_ns for o in folder.glob('[mc][ar]*s/*.png')}


def lines_of(folder):
    return {o.name: len(o.read_text().splitlines()) for o in folder.glob('*.jsonl')}


def names_in(folder):
    "Every file that the tables name, as they name it."
    tables = [pd.read_csv(folder/o) for o in ('segmented.csv', 'cropped.csv')]
    return [name for table in tables for col in table if col.endswith('_path') for name in table[col]]


@pytest.mark.parametrize('age', ['new', 'old'])
@pytest.mark.parametrize('how', ['moved', 'copied', 'copied, the original gone'])
def test_a_workspace_moves_and_a_copy_does_not_cross(workspace, tmp_path, boneage, how, age):
    if age == 'old':
        as_of_old(workspace, workspace)
    there = tmp_path/'ein anderer Ort'
    if how == 'moved':
        workspace.rename(there)
    else:
        shutil.copytree(workspace, there)
    if 'gone' in how:
        shutil.rmtree(workspace)
    before = pictures(there), lines_of(there)
    go_on(boneage, there)
    assert (pictures(there), lines_of(there)) == before, 'no film is done again'
    assert len(before[0]) == 6
    assert not any(os.path.isabs(name) for name in names_in(there))
    assert all((there/name).is_file() for name in names_in(there))


def test_a_copy_writes_nothing_into_the_original(workspace, tmp_path, boneage):
    as_of_old(workspace, workspace)
    there = shutil.copytree(workspace, tmp_path/'copy')
    shutil.rmtree(there/'masks')
    before = pictures(workspace), lines_of(workspace)
    go_on(boneage, there)
    assert (pictures(workspace), lines_of(workspace)) == before
    assert len(pictures(there)) == 6
    assert not any(os.path.isabs(name) for name in names_in(there))


def test_journals_know_files_from_where_they_lie(workspace, boneage, monkeypatch):
    lines = [json.loads(o) for o in (workspace/'segment.jsonl').read_text().splitlines()]
    assert [o['row']['mask_path'] for o in lines] == [f"masks/{o['id']}.png" for o in lines]
    known = read_journal(workspace/'segment.jsonl')
    assert all(Path(o['row']['mask_path']).is_file() for o in known.values())
    monkeypatch.chdir(workspace.parent)
    before = pictures(workspace), lines_of(workspace)
    go_on(boneage, Path(workspace.name)) # the same place under a relative name
    assert (pictures(workspace), lines_of(workspace)) == before


def test_a_file_kept_elsewhere_keeps_its_name(tmp_path, phantoms):
    elsewhere = tmp_path/'elsewhere'
    def keep(row):
        write_png(elsewhere/f'{row.id}.png', load_film(row).pixels)
        return dict(copy_path=str(elsewhere/f'{row.id}.png'))
    journal = tmp_path/'work/j.jsonl'
    first = run_rows(phantoms.head(2), keep, journal, outputs=('copy_path',))
    again = run_rows(phantoms.head(2), None, journal, outputs=('copy_path',))
    pd.testing.assert_frame_equal(first, again)
    assert again.copy_path[0] == str(elsewhere/f'{phantoms.id[0]}.png')


def refused(df):
    df.loc[1, ['seg_status', 'seg_error']] = 'refused', 'a foot'
    return {df.id[1]: 'not cropped: the segmentation says refused (a foot)'}


def other_file(df):
    mask = Path(df.mask_path[1])
    write_png(mask.with_name('by hand.png'), f.read_mask(mask))
    df.loc[1, 'mask_path'] = str(mask.with_name('by hand.png'))
    return {df.id[1]: None}


def other_content(df):
    mask = f.read_mask(df.mask_path[1])
    mask[:, :mask.shape[1]//2] = False
    write_png(df.mask_path[1], mask)
    return {df.id[1]: None}


def no_mask(df):
    df.loc[1, 'mask_path'] = None
    return {df.id[1]: 'no mask_path: run the segmentation for this film first'}


@pytest.mark.parametrize('age', ['new', 'old'])
@pytest.mark.parametrize('change', [refused, other_file, other_content, no_mask])
def test_what_changed_upstream_is_cropped_again_and_nothing_else(workspace, change, age):
    if age == 'old':
        as_of_old(workspace, workspace)
    df = read_manifest(workspace/'segmented.csv')
    before = pictures(workspace/'crops'/'..')
    expected = change(df)
    done = crop_df(df, workspace, 64).set_index('id')
    assert {i: done.crop_error[i] for i in expected} == expected
    again = [json.loads(o)['id'] for o in (workspace/'crops.jsonl').read_text().splitlines()[3:]]
    assert again == list(expected)
    others = [i for i in done.index if i not in expected]
    same = [f'crops/{i}.png' for i in others]
    after = pictures(workspace/'crops'/'..')
    assert [after[o] for o in same] == [before[o] for o in same]
    assert done.crop_path[others].notna().all()


def test_a_row_that_counts_again_is_done_again(workspace):
    df = read_manifest(workspace/'segmented.csv')
    refused(df)
    assert crop_df(df, workspace, 64).crop_path.isna().tolist() == [False, True, False]
    df = read_manifest(workspace/'segmented.csv')
    assert crop_df(df, workspace, 64).crop_path.isna().tolist() == [False]*3


def test_other_settings_make_every_crop_again(workspace):
    df = read_manifest(workspace/'segmented.csv')
    done = crop_df(df, workspace, 64, margin=.2)
    assert len((workspace/'crops.jsonl').read_text().splitlines()) == 6
    assert done.crop_how.str.contains('"margin":0.2').all()


@pytest.mark.parametrize('old, new, again', [
    ('ok', 'refused', True), ('refused', 'ok', True), ('refused', 'refused', False),
    ('ok', None, False), (None, 'ok', False), ('', float('nan'), False), ('a', 'b', True)])
def test_a_column_that_counts(tmp_path, old, new, again):
    seen = []
    def note(row):
        seen.append(row.id)
        return {}
    df = pd.DataFrame(dict(id=['a', 'b'], path='x', seg_status=['ok', old]))
    for value in (old, new):
        run_rows(df.assign(seg_status=['ok', value]), note, tmp_path/'j.jsonl', depends=('seg_status',))
    assert seen == ['a', 'b'] + ['b']*again


@pytest.mark.parametrize('line', [
    '[]', '7', 'null', '{"id": [], "key": "", "row": {}}', '{"id": "a", "key": 3, "row": {}}',
    '{"id": "a", "key": "", "row": []}', '{"id": "a", "key": "", "row": {}, "files": 7}'])
def test_a_line_that_is_none_is_skipped(tmp_path, line):
    (tmp_path/'j.jsonl').write_text(line + '\n')
    df = pd.DataFrame(dict(id=['a'], path='x'))
    assert run_rows(df, lambda row: dict(a=1), tmp_path/'j.jsonl').a.tolist() == [1]


HOLD = '''
import sys, time
import pandas as pd
from boneage.films.files import folder_lock
with folder_lock(sys.argv[1]):
    print('held', flush=True)
    time.sleep(600)
'''


@pytest.fixture
def holder():
    "Start a process that holds a lock; ended with the test."
    jobs = []

    def hold(path):
        job = subprocess.Popen([sys.executable, '-c', HOLD, path], stdout=subprocess.PIPE, text=True, env=ENV)
        jobs.append(job)
        assert job.stdout.readline() == 'held\n'
        return job
    yield hold
    for job in jobs:
        job.kill()
        job.wait()


def no_locks(*args):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


@pytest.fixture(params=['fcntl', 'a drive without locks', 'a system without locks'])
def system(request, monkeypatch):
    "With the locks of the system, and without any."
    if 'system' in request.param:
        monkeypatch.setattr(f, 'fcntl', None)
    elif 'drive' in request.param:
        monkeypatch.setattr(f.fcntl, 'lockf', no_locks)


@pytest.mark.parametrize('kind', ['folder', 'journal'])
def test_a_second_run_is_told_who_is_there(tmp_path, holder, kind):
    place = tmp_path if kind == 'folder' else tmp_path/'j.jsonl'
    job = holder(place)
    with pytest.raises(CodedError) as e:
        with folder_lock(place):
            pass
    who = f'process {job.pid} on {socket.gethostname()}, since 20'
    assert str(e.value).startswith(f'{tmp_path}: another run is at work here ({who}')
    assert (e.value.code, e.value.value) == ('folder.busy', job.pid)
    assert 'wait until it has ended, stop it, or choose another folder' in e.value.hint
    job.send_signal(signal.SIGKILL)
    job.wait()
    with folder_lock(place): # a lock ends with its process, however that ends
        pass
    assert os.listdir(tmp_path) == []


def test_one_lock_for_the_threads_of_a_process(tmp_path, system):
    errors = []

    def second():
        try:
            with folder_lock(tmp_path):
                errors.append('entered')
        except CodedError as e:
            errors.append(e.code)
    with folder_lock(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    second()
    assert errors == ['folder.busy', 'entered']
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('left, taken', [
    (dict(pid=2**22 + 1), True), (dict(pid=os.getppid()), False), (dict(pid='x'), False),
    (dict(pid=2**22 + 1, host='elsewhere'), False), ({}, False)])
def test_without_locks_only_a_dead_process_loses_its_folder(tmp_path, monkeypatch, left, taken):
    monkeypatch.setattr(f, 'fcntl', None)
    (tmp_path/'.boneage.lock').write_text(json.dumps(dict(host=socket.gethostname()) | left if left else {}))
    if taken:
        with folder_lock(tmp_path):
            pass
        return
    with pytest.raises(CodedError, match=r'if no such process runs, delete .*\.boneage\.lock'):
        with folder_lock(tmp_path):
            pass
    (tmp_path/'.boneage.lock').unlink()
    with folder_lock(tmp_path):
        pass


def test_the_lock_is_given_back_after_an_error(tmp_path, system):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), folder_lock(tmp_path):
            raise ZeroDivisionError


def test_two_runs_on_one_workspace(workspace, holder, boneage):
    before = (workspace/'segment.jsonl').read_bytes()
    job = holder(workspace/'segment.jsonl')
    code, _, err = boneage('segment', workspace/'films.csv', '--out', workspace, '--segmenter', 'classical', '--redo')
    assert code == 1
    assert f'another run is at work here (process {job.pid} on ' in err and 'Traceback' not in err
    assert (workspace/'segment.jsonl').read_bytes() == before
    job.kill()
    job.wait()
    go_on(boneage, workspace)


def test_a_second_training_is_refused(work, holder, boneage, tmp_path):
    words = 'train', work/'cropped.csv', '--out', tmp_path, '--epochs', 1, *TINY
    job = holder(tmp_path)
    code, _, err = boneage(*words, '--seed', 2)
    assert code == 1
    assert f'{tmp_path}: another run is at work here (process {job.pid} on ' in err
    assert [o for o in os.listdir(tmp_path) if o.endswith(('.safetensors', '.pth', '.csv'))] == []
    job.kill()
    job.wait()
    assert boneage(*words, '--seed', 1)[0] == 0
    code, _, err = boneage(*words, '--seed', 2)
    assert code == 1 and 'seed: 1 then, 2 now' in err


HALF = '''
import sys, os, signal
from boneage.films.files import atomic_path
with atomic_path(sys.argv[1]) as half:
    half.write_text('half')
    os.kill(os.getpid(), signal.SIGKILL)
'''


def test_what_a_killed_run_left_is_removed_and_nothing_else(tmp_path, phantoms):
    made = [tmp_path/o for o in ('t.csv', 'masks/a.png', 'crops/b.png')]
    for file in made:
        subprocess.run([sys.executable, '-c', HALF, file], env=ENV)
    left = [o for o in tmp_path.rglob('.*') if o.is_file()]
    assert len(left) == 3
    foreign = [tmp_path/'film.csv.part', tmp_path/'masks/.hidden.part.png', tmp_path/'masks/.abcdefgh.part.png']
    for file in foreign: # a download, a stranger's, and one that may belong to a run of an earlier version
        file.touch()
    with atomic_path(tmp_path/'masks/mine.png') as mine: # written at this moment
        run_rows(phantoms.head(1), lambda row: {}, tmp_path/'j.jsonl', outputs=('mask_path',))
        assert mine.exists()
    assert not any(o.exists() for o in left)
    assert all(o.exists() for o in foreign)
    day_before = time.time() - 25*3600
    os.utime(foreign[2], (day_before, day_before))
    assert remove_leftovers(tmp_path/'masks') == 1
    assert [o.exists() for o in foreign] == [True, True, False]


PARENT = '''
import sys, time, os
from itertools import count
from pathlib import Path
import pandas as pd
from boneage.films.journal import run_rows

def slow(row):
    (Path(sys.argv[1])/f'{os.getpid()}.pid').touch()
    time.sleep(.2)
    return {}

if __name__ == '__main__':
    df = pd.DataFrame(dict(id=[str(i) for i in range(5000)], path='x'))
    run_rows(df, slow, Path(sys.argv[1])/'j.jsonl', n_jobs=2)
'''


def alive(pid):
    stat = Path(f'/proc/{pid}/stat')
    try:
        return stat.read_text().rpartition(')')[2].split()[0] not in 'ZX'
    except OSError:
        return False


def wait_until(true, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end and not true():
        time.sleep(.05)
    assert true()


@pytest.mark.skipif(not Path('/proc/self').exists(), reason='no /proc on this system')
def test_workers_end_with_their_parent(tmp_path):
    (tmp_path/'run.py').write_text(PARENT)
    job = subprocess.Popen([sys.executable, tmp_path/'run.py', tmp_path], env=ENV, stderr=subprocess.DEVNULL)
    wait_until(lambda: len(list(tmp_path.glob('*.pid'))) == 2, PATIENCE)
    workers = [int(o.stem) for o in tmp_path.glob('*.pid')]
    assert job.pid not in workers and all(map(alive, workers))
    job.kill()
    job.wait()
    wait_until(lambda: not any(map(alive, workers)), 10)


SMALL_DISK = '''
import sys, json, resource, signal
import pandas as pd
from boneage.films.journal import run_rows
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
df = pd.DataFrame(dict(id=[str(i) for i in range(40)], path='x'))
if sys.argv[2] != '0':
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), -1))
run_rows(df, lambda row: dict(a=1), sys.argv[1])
'''


@pytest.mark.parametrize('room', [100, 500, 1003, 2000])
def test_half_a_line_is_taken_back(tmp_path, room):
    journal = tmp_path/'j.jsonl'
    words = [sys.executable, '-c', SMALL_DISK, journal]
    run = subprocess.run([*words, str(room)], env=ENV, capture_output=True, text=True)
    lines = journal.read_text().splitlines(True)
    assert all(o.endswith('\n') and json.loads(o) for o in lines)
    assert len(lines) < 40
    assert f'Stopped after {len(lines)} of 40 films; they are safe' in run.stderr
    run = subprocess.run([*words, '0'], env=ENV, capture_output=True, text=True)
    assert run.returncode == 0
    again = [json.loads(o)['id'] for o in journal.read_text().splitlines()]
    assert again == [str(i) for i in range(40)], 'no film twice, none torn'


@pytest.mark.parametrize('step', [-3600, 3600])
def test_a_clock_that_is_set_disturbs_no_training(tmp_path, monkeypatch, step):
    from boneage.train_fastai import train_df
    from boneage.training.resume import Checkpoint
    from small_models import crop_table
    table = crop_table(tmp_path)
    inside = []
    wall = count(2_000_000_000, step)
    monkeypatch.setattr(time, 'time', lambda: next(wall))
    monkeypatch.setattr(Checkpoint, '_inside', lambda self: inside.append(self.done))
    run = train_df(table, tmp_path/'run', epochs=2, arch='tiny', weights=None, size=64, bs=8)
    assert inside == [], 'two minutes have not gone by'
    assert run.history.seconds.between(0, 600).all()
