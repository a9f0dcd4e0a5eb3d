"A run that is killed, cut inside an epoch, finished, continued under other settings, or left with a bad checkpoint."
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.losses import L1LossFlat

from boneage.model.rows import with_split
from boneage.train_fastai import bone_age_learner, train_df
from boneage.training.data import bone_age_dls
from boneage.training.resume import Checkpoint, read_checkpoint
from commands import ENV, lines_in, stop, wait_for_lines
from small_models import crop_table

SMALL = dict(arch='tiny', weights=None, size=64, bs=8, seed=3)


@pytest.fixture(scope='module')
def films(tmp_path_factory):
    "Thirty-two crops of synthetic hands, in a folder whose name has a space and an accent"
    return crop_table(tmp_path_factory.mktemp('röntgen crops'))


def learner(films, path, *, arch='tiny', augment='light', cbs=None):
    dls = bone_age_dls(with_split(films, seed=3), 64, 8, augment=augment)
    return bone_age_learner(dls, arch, None, path=path, seed=3, cbs=cbs)


def curve(history):
    return history.drop(columns='seconds').to_numpy()


def assert_same_run(a, b):
    np.testing.assert_array_equal(curve(a.history), curve(b.history))
    for x, y in zip(a.model.state_dict().values(), b.model.state_dict().values()):
        assert torch.equal(x, y)


@pytest.fixture
def one_thread():
    "As the process that is killed: sums over several threads differ in their last digit"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class StopAfter(Callback):
    "End the fit after an epoch, when the checkpoint is written"
    order = 90
    def __init__(self, n):
        self.n = n

    def after_epoch(self):
        if self.epoch + 1 >= self.n:
            raise CancelFitException


SCRIPT = """
import sys
import pandas as pd
from boneage.train_fastai import train_df
from boneage.training.resume import Checkpoint
Checkpoint.every = 0 # after every batch, so that the kill lands inside an epoch
films = pd.read_csv(sys.argv[1], dtype={'id': str})
train_df(films, sys.argv[2], epochs=200, arch='tiny', weights=None, size=64, bs=8, seed=3, keep='last')
"""


def train_and_kill(films, run):
    "Two hundred epochs, killed after three"
    table = run.with_suffix('.csv')
    films.to_csv(table, index=False)
    words = [sys.executable, '-c', SCRIPT, str(table), str(run)]
    job = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV)
    try:
        wait_for_lines(job, 1 + 3, run/'history.csv') # a heading and three epochs
    finally:
        stop(job, signal.SIGKILL)


def test_kill_9_and_resume_gives_the_same_curve(films, tmp_path, one_thread):
    run = tmp_path/'killed'
    train_and_kill(films, run)
    done = read_checkpoint(run/'checkpoint.pth')['epoch']
    assert 2 <= done < 200 # the history may be one epoch ahead
    n = done + 2 # go on for two epochs of the 200, and compare with a run that nobody killed
    resumed, whole = (learner(films, path, cbs=StopAfter(n)) for path in (run, tmp_path/'whole'))
    for learn, resume in ((resumed, True), (whole, False)):
        learn.facts['augment'] = 'light'
        learn.fit_months(200, seed=3, keep='last', resume=resume)
    assert len(resumed.history) == n
    assert_same_run(resumed, whole)


class Watch(Callback):
    "Notes epoch, side and ages of every training batch"
    def __init__(self, seen):
        self.seen = seen

    def before_batch(self):
        if self.training:
            self.seen.append((self.epoch, self.xb[0].shape[-1], self.yb[0].tolist()))


class Cut(Callback):
    "A power cut after the second batch of the second epoch"
    order = 80
    def after_batch(self):
        if self.training and (self.epoch, self.iter) == (1, 1):
            raise KeyboardInterrupt


@pytest.mark.parametrize('arch, precision', [('tiny', 'bf16'), ('efficientnet_lite0', 'fp32')])
def test_a_cut_inside_an_epoch_loses_nothing(films, tmp_path, monkeypatch, arch, precision):
    "Half an epoch, a new process's worth of objects, and the other half: no batch twice, none left out, same weights"
    how = dict(seed=3, keep='last', precision=precision, start_size=32)
    whole_batches = []
    whole = learner(films, tmp_path/'whole', arch=arch, augment='strong', cbs=Watch(whole_batches))
    whole.fit_months(3, **how)
    batches = []
    monkeypatch.setattr(Checkpoint, 'every', 0)
    with pytest.raises(KeyboardInterrupt):
        cut = learner(films, tmp_path/'cut', arch=arch, augment='strong', cbs=[Watch(batches), Cut()])
        cut.fit_months(3, **how)
    resumed = learner(films, tmp_path/'cut', arch=arch, augment='strong', cbs=Watch(batches))
    resumed.fit_months(3, resume=True, **how)
    assert batches == whole_batches and {side for _, side, _ in batches} == {32, 64}
    assert_same_run(resumed, whole)


def test_finished_run_returns_at_once(films, tmp_path):
    first = train_df(films, tmp_path, epochs=2, **SMALL)
    written = (tmp_path/'checkpoint.pth').stat().st_mtime_ns
    again = train_df(films, tmp_path, epochs=2, **SMALL)
    assert (tmp_path/'checkpoint.pth').stat().st_mtime_ns == written
    np.testing.assert_array_equal(first.history, again.history)
    assert first.model.version == again.model.version


def test_other_settings_or_films_do_not_resume(films, tmp_path):
    train_df(films, tmp_path, epochs=1, **SMALL)
    older = films.assign(age_months=films.age_months + 1)
    with pytest.raises(ValueError, match='epochs: 1 then, 2 now'):
        train_df(films, tmp_path, epochs=2, **SMALL)
    with pytest.raises(ValueError, match='another run'):
        train_df(older, tmp_path, epochs=1, **SMALL)
    assert len(train_df(films, tmp_path, epochs=2, resume=False, **SMALL).history) == 2


def test_what_does_not_train_may_change_after_the_training(films, tmp_path):
    first = train_df(films, tmp_path, epochs=2, **SMALL)
    written = (tmp_path/'checkpoint.pth').stat().st_mtime_ns
    half = train_df(films, tmp_path, epochs=2, dtype='fp16', mirror=False, name='half', **SMALL)
    assert (tmp_path/'checkpoint.pth').stat().st_mtime_ns == written
    assert half.model.card['weights']['dtype'] == 'fp16' and not half.model.mirror
    assert first.release.exists() and first.release != half.release


def test_damaged_checkpoint_is_named(films, tmp_path):
    train_df(films, tmp_path, epochs=1, **SMALL)
    file = tmp_path/'checkpoint.pth'
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(ValueError, match='checkpoint.pth.*delete it'):
        train_df(films, tmp_path, epochs=1, **SMALL)


def test_a_checkpoint_is_written_while_another_program_reads_the_history(films, tmp_path):
    learn = learner(films, tmp_path)
    seen = []
    learn.fit_months(2, log=lambda line: seen.append((line, lines_in(tmp_path/'history.csv'))))
    assert [lines for _, lines in seen] == [2, 3] and seen[0][0].startswith('epoch 1/2')
    assert pd.read_csv(tmp_path/'history.csv').epoch.tolist() == [1, 2]


def test_a_second_fit_of_one_learner_begins_anew(films, tmp_path):
    learn = learner(films, tmp_path)
    learn.fit_months(2)
    learn.fit_months(1)
    assert len(learn.history) == 1 and learn.card is None and learn.facts['epochs'] == 1


def test_a_loss_of_fastai_can_be_stopped_and_resumed(films, tmp_path):
    for _ in range(2): # the second call reads what the first wrote
        learn = learner(films, tmp_path)
        learn.loss_func = L1LossFlat()
        learn.fit_months(2, resume=True, keep='last')
    assert len(learn.history) == 2 and read_checkpoint(tmp_path/'checkpoint.pth')['epoch'] == 2


def test_bf16_on_cpu(films, tmp_path):
    history = learner(films, tmp_path).fit_months(1, precision='bf16')
    assert np.isfinite(history.mae).all()
