"A batch: it goes on, resumes, is killed, meets a full disk, and says for each film what went wrong."
import errno
import signal
import subprocess
import sys
import time
import pandas as pd
import pytest
from boneage.core import FilmError, Refusal
from boneage.films.journal import read_journal, run_rows
from boneage.films.radiograph import load_film

def _width(row):
    return dict(width=load_film(row).shape[1])

def test_batch_goes_on_and_resumes(tmp_path, phantoms):
    bad = pd.DataFrame(dict(id=['bad'], path=[str(tmp_path/'none.png')]))
    df = run_rows(pd.concat([phantoms, bad], ignore_index=True), _width, tmp_path/'j.jsonl', n_jobs=2)
    assert df.width.notna().sum() == 12
    assert 'no such file' in df.error.iloc[-1]
    with open(tmp_path/'j.jsonl', 'a') as f:
        f.write('{"id": "torn')   # the power went here
    seen = []
    def note(row):
        seen.append(row.id)
        return {}
    run_rows(df, note, tmp_path/'j.jsonl')
    assert seen == ['bad']
    run_rows(df, note, tmp_path/'j.jsonl', settings='other')
    assert len(seen) == 14, 'other settings: every row again'

def test_a_corrected_shape_is_read_again(tmp_path, phantoms):
    df = phantoms.head(2).assign(aspect=[.8, .8])
    first = run_rows(df, _width, tmp_path/'j.jsonl')
    second = run_rows(df.assign(aspect=[.8, 1.4]), _width, tmp_path/'j.jsonl')
    assert second.width[0] == first.width[0]
    assert second.width[1] > first.width[1]

def test_a_row_that_fails_loses_its_old_file(tmp_path, phantoms):
    old = phantoms.head(2).assign(path=str(tmp_path/'gone.png'), mask_path='masks/old.png')
    def read(row):
        return dict(mask_path=str(load_film(row)))
    df = run_rows(old, read, tmp_path/'j.jsonl', outputs=('mask_path',))
    assert df.mask_path.isna().all()
    assert df.error.str.contains('gone.png').all()

FAULTS = dict(
    coded=FilmError('the mask is empty', code='mask.empty'),
    refused=Refusal('no hand found', code='hand.none', value=.3),
    bare=FilmError('something odd'),
    foreign=KeyError('width'),
)

def _fault(row):
    if row.id in FAULTS:
        raise FAULTS[row.id]
    return dict(seg_error='touches the frame', seg_code='hand.frame') if row.id == 'said' else {}

@pytest.mark.parametrize('n_jobs', [1, 2])
def test_every_error_has_a_code_beside_it(tmp_path, n_jobs):
    df = pd.DataFrame(dict(id=[*FAULTS, 'said', 'well'], path='x'))
    df = run_rows(df, _fault, tmp_path/'j.jsonl', error_col='seg_error', n_jobs=n_jobs).set_index('id')
    assert df.seg_code.dropna().to_dict() == dict(
        coded='mask.empty', refused='hand.none', bare='error.FilmError', foreign='error.KeyError', said='hand.frame')
    assert df.seg_error['coded'] == 'the mask is empty'
    assert df.seg_error['foreign'] == "KeyError: 'width'"
    assert pd.isna(df.seg_error['well'])
    again = run_rows(df.reset_index(), _fault, tmp_path/'j.jsonl', error_col='seg_error').set_index('id')
    pd.testing.assert_frame_equal(again, df)

def test_batch_stops_on_a_full_disk(tmp_path, phantoms):
    def full(row):
        if row.id == phantoms.id[3]:
            raise OSError(errno.ENOSPC, 'No space left on device')
        return dict(a=1)
    with pytest.raises(OSError, match='run the same command again'):
        run_rows(phantoms, full, tmp_path/'j.jsonl')
    assert len(read_journal(tmp_path/'j.jsonl')) == 3

def test_journal_that_cannot_be_written(tmp_path, phantoms):
    (tmp_path/'file').write_text('')
    with pytest.raises(OSError, match='journal'):
        run_rows(phantoms, _width, tmp_path/'file'/'j.jsonl')

KILLED = '''
import sys, time
import pandas as pd
from boneage.films.journal import run_rows

def slow(row):
    time.sleep(.05)
    return dict(a=1)

run_rows(pd.read_csv(sys.argv[1], dtype=dict(id=str)), slow, sys.argv[2])
'''

@pytest.mark.parametrize('sig', [signal.SIGINT, signal.SIGKILL])
def test_killed_batch_loses_nothing(tmp_path, sig):
    table, journal = tmp_path/'t.csv', tmp_path/'j.jsonl'
    pd.DataFrame(dict(id=[str(i) for i in range(60)], path='x')).to_csv(table, index=False)
    p = subprocess.Popen([sys.executable, '-c', KILLED, table, journal], stderr=subprocess.DEVNULL)
    while p.poll() is None and len(read_journal(journal)) < 10:
        time.sleep(.02)
    p.send_signal(sig)
    p.wait()
    done = set(read_journal(journal))
    assert 10 <= len(done) < 60
    again = []
    def note(row):
        again.append(row.id)
        return dict(a=1)
    df = run_rows(pd.read_csv(table, dtype=dict(id=str)), note, journal)
    assert not done & set(again)
    assert len(df.a.dropna()) == 60
