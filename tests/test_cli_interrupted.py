"Full disks, Ctrl-C and kill -9 under the commands: nothing is lost, and the message names the place."
import errno
import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from boneage import segmentation
from boneage.films.files import write_png
from boneage.films.manifest import write_manifest
from commands import TINY, rows, start, stop, wait_for_lines

SOURCES = dict(segment='films.csv', evaluate='model/predictions.csv', predict='films.csv')


def source_of(command, work):
    return work/SOURCES.get(command, 'cropped.csv')


def further(command, work):
    "Options that a command needs to get far enough."
    if command == 'predict':
        return ['--model', work/'model']
    return [*TINY, '--epochs', 1] if command == 'train' else []


def small_rsna(folder):
    write_png(folder/'1377.png', np.arange(4096, dtype=np.uint8).reshape(64, 64))
    (folder/'train.csv').write_text('id,boneage,male\n1377,180,False\n')
    return folder


@pytest.mark.parametrize('command', ['segment', 'crop', 'qc', 'train', 'evaluate', 'predict', 'rsna'])
@pytest.mark.parametrize('where', ['a file', 'proc'])
def test_a_place_that_cannot_be_written_is_named(command, where, work, boneage, tmp_path):
    if where == 'proc' and not Path('/proc/self').exists():
        pytest.skip('no /proc on this system')
    (tmp_path/'file').write_text('')
    out = (tmp_path/'file' if where == 'a file' else Path('/proc/nobody'))/'out.csv'
    source = small_rsna(tmp_path/'rsna') if command == 'rsna' else source_of(command, work)
    code, _, err = boneage(command, source, '--out', out, *further(command, work))
    assert code == 1
    assert str(out.parent) in err and 'Traceback' not in err
    assert re.search('choose (another|a) (place|folder)', err)


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


WRITTEN = dict(
    segment='segmented.csv', crop='cropped.csv', qc='qc.csv', train='predictions.csv', predict='out.csv',
    evaluate='out.html')


@pytest.mark.parametrize('command', WRITTEN)
def test_a_full_disk_names_the_table(command, work, boneage, tmp_path, monkeypatch):
    writer = 'boneage.evidence.report.report_html' if command == 'evaluate' else 'boneage.films.manifest.write_manifest'
    monkeypatch.setattr(writer, full)
    written = tmp_path/WRITTEN[command]
    out = written if command in ('predict', 'evaluate') else tmp_path
    code, _, err = boneage(command, source_of(command, work), '--out', out, *further(command, work))
    assert code == 1
    assert f'{written} cannot be written (No space left on device): make room' in err


def test_a_disk_that_fills_up_loses_no_film(phantoms, boneage, tmp_path, monkeypatch):
    written = []

    def room_for_five(path, pixels):
        written.append(path)
        if len(written) > 5:
            full()
        write_png(path, pixels)

    def counted(path, pixels):
        written.append(path)
        write_png(path, pixels)
    monkeypatch.setattr(segmentation, 'write_png', room_for_five)
    write_manifest(phantoms, tmp_path/'films.csv')
    code, _, err = boneage('segment', tmp_path/'films.csv', '--out', tmp_path)
    assert code == 1
    assert 'No space left on device' in err
    assert 'Stopped after 5 of 12 films; they are safe' in err
    written.clear()
    monkeypatch.setattr(segmentation, 'write_png', counted)
    assert boneage('segment', tmp_path/'films.csv', '--out', tmp_path)[0] == 0
    assert len(written) == 7


def test_a_full_disk_in_training_is_no_traceback(work, boneage, tmp_path, monkeypatch):
    import torch

    def broken(*args, **kwargs): # what torch.save says on a full disk
        raise RuntimeError('[enforce fail at inline_container.cc:671] . unexpected pos 1729152 vs 1729040')
    monkeypatch.setattr(torch, 'save', broken)
    code, _, err = boneage('train', work, '--out', tmp_path/'m', '--epochs', 2, *TINY)
    assert code == 1
    assert 'checkpoint cannot be written' in err
    assert str(tmp_path/'m') in err


def ended_as_asked(job, how, err):
    assert job.returncode == (130 if how == signal.SIGINT else -9)
    assert 'Traceback' not in err


@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGKILL])
def test_segment_goes_on_where_it_was_stopped(how, phantoms, boneage, tmp_path):
    many = pd.concat([phantoms.assign(id=phantoms['id'] + f'-{k}') for k in range(5)])
    films = tmp_path/'films.csv'
    journal = tmp_path/'segment.jsonl'
    write_manifest(many, films)
    job = start('segment', films, '--out', tmp_path)
    wait_for_lines(job, 4, journal)
    err = stop(job, how)
    ended_as_asked(job, how, err)
    assert how == signal.SIGKILL or 'the same command goes on from here' in err
    whole = journal.read_bytes()
    done = len(whole[:whole.rfind(b'\n') + 1].splitlines())
    assert 4 <= done < 60
    assert not (tmp_path/'segmented.csv').exists()
    write_manifest(many.head(done + 3), films) # enough to see that it goes on
    assert boneage('segment', films, '--out', tmp_path)[0] == 0
    after = [json.loads(o)['id'] for o in journal.read_bytes().splitlines() if o.endswith(b'}')]
    assert len(after) == len(set(after)) == done + 3, 'no film was done twice'
    assert rows(tmp_path/'segmented.csv').seg_status.eq('ok').all()


@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGKILL])
def test_train_goes_on_where_it_was_stopped(how, work, boneage, tmp_path):
    words = 'train', work/'cropped.csv', '--out', tmp_path/'m', '--epochs', 16, *TINY
    history = tmp_path/'m/history.csv'
    job = start(*words)
    wait_for_lines(job, 3, history)
    err = stop(job, how)
    ended_as_asked(job, how, err)
    kept = pd.read_csv(history)
    code, out, _ = boneage(*words)
    said = [int(o) for o in re.findall(r'epoch (\d+)/16', out)]
    assert code == 0
    assert said == list(range(said[0], 17))
    assert len(kept) <= said[0] <= len(kept) + 1
    before = said[0] - 1
    pd.testing.assert_frame_equal(pd.read_csv(history).head(before), kept.head(before))
    code, _, err = boneage(*words, '--epochs', 2)
    assert code == 1
    assert '--restart' in err and 'epochs: 16 then, 2 now' in err
