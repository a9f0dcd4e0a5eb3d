"The small hand SAM: official classes, prompts, scores, refusals, damaged weights, training, the pipeline, real films."
import hashlib
import inspect
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip('torch')
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from boneage.films.files import read_mask
from boneage.films.nonhands import NONHANDS, make_nonhand
from boneage.films.phantom import make_phantom
from boneage.hand.checkpoints import SAM_MODELS, find_checkpoint
from boneage.hand.prompts import to_sam_input
from boneage.hand.sam import hand_vit_tiny, load_sam
from boneage.hand.sam_films import HAND, synthetic_film, training_films
from boneage.hand.sam_training import LAYOUTS, draw_prompt, fit_hand_sam, main, save_hand_sam
from boneage.hand.sam_views import add_frame, at_film_size, turn_film, vary_film
from boneage.hand.shapes import dice, middle_points
from boneage.segmentation import HandSam, SamSegmenter, get_segmenter, segment_df

WEIGHTS = find_checkpoint(SAM_MODELS['hand_vit_tiny'])
BENCHMARKS = Path(__file__).resolve().parents[1]/'benchmarks'


@pytest.fixture(scope='module')
def sam():
    return load_sam()


@pytest.fixture(scope='module')
def seg():
    return HandSam()


@pytest.fixture(scope='module')
def asked(sam):
    "The released weights on one phantom, and its truth"
    ph = make_phantom(901, 132, 'F', size=256, fault='marker_on_hand')
    predictor = SamPredictor(sam)
    predictor.set_image(to_sam_input(ph.pixels))
    return ph, predictor


def one_point(x, y):
    return dict(point_coords=np.array([[x, y]]), point_labels=np.ones(1))


def test_official_classes(sam):
    parts = {
        sam: Sam,
        sam.image_encoder: ImageEncoderViT,
        sam.prompt_encoder: PromptEncoder,
        sam.mask_decoder: MaskDecoder,
        sam.mask_decoder.transformer: TwoWayTransformer}
    for part, cls in parts.items():
        assert type(part) is cls


def test_weights_are_small_and_match_their_card():
    card = json.loads(WEIGHTS.with_suffix('.json').read_text())
    assert WEIGHTS.stat().st_size == card['bytes'] < 20e6
    assert {'name', 'data', 'made_by', 'licence', 'metrics', 'sha256', 'image_size'} <= set(card)
    assert '/work' not in json.dumps(card)


def prompts_for(mask):
    "Each kind of prompt, for the hand of one film"
    h, w = mask.shape
    ys, xs = np.nonzero(mask)
    central = np.argmin((ys - ys.mean())**2 + (xs - xs.mean())**2)
    return dict(
        film=dict(box=np.array([0, 0, w, h])),
        box=dict(box=np.array([xs.min(), ys.min(), xs.max()+1, ys.max()+1])),
        point=one_point(xs[central], ys[central]),
        middle=dict(point_coords=middle_points((h, w)), point_labels=np.ones(3)))


@pytest.mark.parametrize('kind', ['film', 'point', 'box', 'middle'])
def test_each_kind_of_prompt_finds_the_hand(asked, kind):
    ph, predictor = asked
    prompt = prompts_for(ph.mask)[kind]
    masks, scores, low = predictor.predict(**prompt)
    assert masks.shape == (3, *ph.mask.shape)
    assert low.shape[1] == predictor.model.image_encoder.img_size//2
    assert dice(masks[scores.argmax()], ph.mask) > .93
    single, _, _ = predictor.predict(**prompt, multimask_output=False)
    assert dice(single[0], ph.mask) > .93


def test_score_follows_the_overlap(sam):
    predictor = SamPredictor(sam)

    def top(px):
        predictor.set_image(to_sam_input(px))
        return predictor.predict(box=np.array([0, 0, *px.shape[::-1]]))[1].max()

    hands = [top(make_phantom(920+i, size=256).pixels) for i in range(6)]
    others = [top(make_nonhand(k, 77, size=256)) for k in NONHANDS]
    assert np.median(hands) > .85
    assert np.median(others) < .3


def test_a_point_on_nothing_scores_less_than_one_on_the_hand(asked):
    ph, predictor = asked

    def score(mask):
        ys, xs = np.nonzero(mask)
        i = len(ys)//2
        return predictor.predict(**one_point(xs[i], ys[i]))[1].max()

    nothing = ~(ph.mask | np.logical_or.reduce(list(ph.objects.values())))
    assert score(ph.mask) > score(nothing)


def test_automatic_records_have_sams_keys(sam):
    generator = SamAutomaticMaskGenerator(sam, points_per_side=4, pred_iou_thresh=0, stability_score_thresh=0)
    records = generator.generate(to_sam_input(make_phantom(5, size=128).pixels))
    keys = {'segmentation', 'area', 'bbox', 'predicted_iou', 'point_coords', 'stability_score', 'crop_box'}
    assert records
    assert set(records[0]) == keys


@pytest.mark.parametrize('shape', [(299, 240), (240, 299), (900, 700), (40, 300)])
def test_any_shape_gives_a_mask_of_that_shape_or_a_reason(seg, shape):
    aspect = shape[1]/shape[0]
    px = make_phantom(7, size=max(shape), aspect=aspect if .5 < aspect < 1.6 else None).pixels
    px = np.ascontiguousarray(np.resize(px, shape) if px.shape != shape else px)
    o = seg.segment(px)
    assert o.mask.shape == shape
    assert o.ok or (o.reason and o.code)


def test_phantoms_are_found_and_pictures_without_a_hand_refused(seg):
    ps = [make_phantom(940+i, size=256) for i in range(12)]
    found = [seg.segment(p.pixels) for p in ps]
    assert sum(o.ok for o in found) >= 11
    assert np.median([dice(o.mask, p.mask) for o, p in zip(found, ps) if o.ok]) > .96
    others = [seg.segment(make_nonhand(k, s, size=256)) for k in NONHANDS for s in (51, 52)]
    assert not any(o.ok for o in others)
    assert all(o.reason and o.code for o in others)


def test_a_low_score_is_a_reason(seg):
    strict = HandSam(rules=dict(predicted_iou=(1.5, 2)))
    o = strict.segment(make_phantom(3, size=256).pixels)
    assert not o.ok
    assert 'predicted_iou' in o.reason
    assert o.code == 'hand.predicted_iou'
    assert .5 < o.value < 1.5
    assert strict.settings != seg.settings


def test_same_film_same_mask(seg):
    px = make_phantom(11, size=256).pixels
    assert (seg.segment(px).mask == seg.segment(px).mask).all()


def test_a_folder_on_two_processes(seg, phantoms, tmp_path):
    assert pickle.loads(pickle.dumps(seg)).settings == seg.settings
    df = segment_df(phantoms.head(4), tmp_path, seg, n_jobs=2)
    assert (df.segmenter == 'hand_vit_tiny').all()
    assert (df.seg_status == 'ok').sum() >= 3
    for r in df[df.seg_status == 'ok'].itertuples():
        assert dice(read_mask(r.mask_path), read_mask(r.true_mask_path)) > .9


# ---------------------------------------------------------------- one word, one network a process

def default_of(function, name):
    return inspect.signature(function).parameters[name].default


def test_it_is_the_default_and_other_words_work(seg):
    from boneage import cli
    assert get_segmenter().name == 'hand_vit_tiny'
    assert default_of(segment_df, 'segmenter') == default_of(cli.segment, 'segmenter') == 'hand_vit_tiny'
    by_path = get_segmenter(str(WEIGHTS))
    assert type(by_path) is HandSam
    assert by_path.settings == seg.settings
    assert get_segmenter('classical').name == 'classical'


def test_the_classical_segmenter_needs_no_torch():
    code = 'import sys; from boneage.segmentation import get_segmenter; get_segmenter("classical"); print(*sys.modules)'
    loaded = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split()
    assert 'torch' not in loaded


def test_both_modes_find_the_hand():
    ph = make_phantom(3, 132, 'F', size=256)
    for mode in ('prompt', 'auto'):
        found = get_segmenter('hand_vit_tiny', mode=mode).segment(ph.pixels)
        assert dice(found.mask, ph.mask) > .96, mode


WORDS = {
    'default': [],
    'auto': ['--mode', 'auto'],
    'classical': ['--segmenter', 'classical'],
    'checkpoint': ['--checkpoint', WEIGHTS],
    'path': ['--segmenter', WEIGHTS]}


@pytest.mark.parametrize('name', WORDS)
def test_the_command_line_switches_with_a_word(name, phantoms, tmp_path, boneage):
    assert boneage('segment', phantoms.path[0], '--out', tmp_path, *WORDS[name])[0] == 0
    o = pd.read_csv(tmp_path/'segmented.csv')
    assert o.seg_status[0] == 'ok'
    assert o.segmenter[0] == ('classical' if name == 'classical' else 'hand_vit_tiny')
    assert o.predicted_iou.between(0, 1).all()


def test_two_checkpoints_are_one_too_many():
    with pytest.raises(ValueError, match='two checkpoints'):
        get_segmenter(str(WEIGHTS), checkpoint='other.pth')


@pytest.mark.parametrize('mode', ['prompt', 'auto'])
def test_vit_b_runs_through_the_same_object(mode):
    "Random weights: nothing is found, and that is said. `benchmarks/mask_speed.py` asks the whole grid."
    from segment_anything import sam_model_registry
    torch.manual_seed(0)
    grid = dict(points_per_side=2, pred_iou_thresh=-9, stability_score_thresh=-1)
    s = SamSegmenter('vit_b', sam=sam_model_registry['vit_b']().eval(), mode=mode, generator=grid)
    assert s.side == 1024
    o = s.segment(make_phantom(3, size=256).pixels)
    assert not o.ok
    assert o.reason.startswith('no hand found')


def test_it_travels_without_its_network(seg):
    sent = pickle.dumps(seg)
    assert len(sent) < 2000
    again = pickle.loads(sent)
    assert again.sam is seg.sam     # loaded once in a process
    assert again.settings == seg.settings


def test_new_weights_in_an_old_place_are_seen(tmp_path):
    path = tmp_path/'mine.safetensors'

    def settings(seed):
        save_hand_sam(hand_vit_tiny(64, seed=seed).state_dict(), path, {})
        return get_segmenter(str(path)).settings

    assert settings(0) != settings(1)


def _workload(_):
    "Threads of a worker that has segmented a film"
    get_segmenter().segment(make_phantom(5, size=128).pixels)
    return torch.get_num_threads()


def test_workers_share_the_cores():
    from joblib import Parallel, cpu_count, delayed
    for n in Parallel(n_jobs=2)(delayed(_workload)(i) for i in range(4)):
        assert n <= max(1, cpu_count()//2)


# ---------------------------------------------------------------- damaged weights

def copy(tmp_path):
    for end in ('.safetensors', '.json'):
        shutil.copy(WEIGHTS.with_suffix(end), tmp_path)
    return tmp_path/WEIGHTS.name


def cut(p):
    p.write_bytes(p.read_bytes()[:-7])


def flip(p):
    data = bytearray(p.read_bytes())
    data[-1] ^= 1
    p.write_bytes(data)


def a_key_lost(p):
    weights = load_sam().state_dict()
    save_hand_sam({k: v for k, v in weights.items() if 'iou_token' not in k}, p, {})


def pickled(p):
    data = pickle.dumps(dict(a=print))
    p.write_bytes(data)
    card = dict(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    p.with_suffix('.json').write_text(json.dumps(card))


DAMAGE = {
    'cut': (cut, ValueError, 'bytes, expected .* cut off'),
    'flip': (flip, ValueError, 'SHA-256 is .*, expected'),
    'empty': (lambda p: p.write_bytes(b''), ValueError, '0 bytes, expected'),
    'gone': (lambda p: p.unlink(), FileNotFoundError, 'no such checkpoint'),
    'card': (lambda p: p.with_suffix('.json').unlink(), FileNotFoundError, 'no such card'),
    'torn': (lambda p: p.with_suffix('.json').write_text('{"bytes": 5'), ValueError, 'no card of weights'),
    'other': (lambda p: save_hand_sam({'image_encoder.pos_embed': torch.zeros(1, 4, 4, 768)}, p, {}),
              ValueError, 'holds the weights of vit_b'),
    'key': (a_key_lost, ValueError, 'does not fit hand_vit_tiny.*iou_token'),
    'pickled': (pickled, ValueError, 'not readable as weights')}


@pytest.mark.parametrize('name', DAMAGE)
def test_damaged_weights_are_named_before_any_film_is_read(tmp_path, name):
    harm, error, words = DAMAGE[name]
    p = copy(tmp_path)
    harm(p)
    films = pd.DataFrame(dict(id=['a'], path=['never/read.png']))
    with pytest.raises(error, match=words) as e:
        segment_df(films, tmp_path/'out', HandSam(p))
    assert str(p.with_suffix('')) in str(e.value)
    assert not (tmp_path/'out').exists()


def test_the_command_names_damaged_weights(tmp_path):
    p = copy(tmp_path)
    cut(p)
    words = [sys.executable, '-m', 'boneage.cli', 'segment', 'never.png', '--out', tmp_path/'out', '--checkpoint', p]
    r = subprocess.run(words, capture_output=True, text=True)
    assert r.returncode == 1
    assert 'Traceback' not in r.stderr


# ---------------------------------------------------------------- training

def test_labels_follow_the_film():
    "A film whose hand is bright and all else dark: unless something is drawn on it, label and brightness agree"
    img = np.zeros((384, 300), np.uint8)
    img[90:290, 80:220] = 200
    for s in range(20):
        f, labels = turn_film(img, (img > 0).astype(np.uint8), np.random.default_rng(s), 128)
        assert max(f.shape) == 128
        assert labels.shape == (2*f.shape[0], 2*f.shape[1])
        assert dice(at_film_size(labels) > .5, f > 100) > .96


def test_a_frame_hides_the_hand_it_covers():
    labels = np.full((256, 256), HAND, np.uint8)
    f = np.full((128, 128), 100., np.float32)
    g, out = add_frame(f, labels, np.random.default_rng(1))
    changed = np.abs(g - f) > 60
    assert changed.any()
    assert not (at_film_size(out & HAND)[changed] > .5).any()


def test_prompts_stand_on_what_they_ask_for():
    img, labels = synthetic_film(2)
    rng = np.random.default_rng(0)
    f, labels = vary_film(img, labels, rng, 192)
    h, w = f.shape
    for layout in LAYOUTS*8:
        points, box, bit = draw_prompt(labels, rng, layout)
        if layout.startswith('points') and bit:
            assert all(labels[int(2*y), int(2*x)] & bit for x, y in points)
        if box is not None:
            assert (box >= 0).all()
            assert box[2] <= w + 1
            assert box[3] <= h + 1


def train_by_command(out):
    words = [sys.executable, '-m', 'boneage.hand.sam_training', 'none', out, '--scale', '.002']
    r = subprocess.run(words, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    return (out/'hand_vit_tiny.safetensors').read_bytes()


def test_the_command_trains_goes_on_and_leaves_weights_that_load(tmp_path):
    first = train_by_command(tmp_path)
    assert train_by_command(tmp_path) == first     # nothing left to do
    load_sam('hand_vit_tiny', tmp_path/'hand_vit_tiny.safetensors')


def test_a_run_that_is_cut_off_ends_as_if_it_was_not(tmp_path):
    films = [synthetic_film(i, 96) for i in (1, 2, 7)]
    source = [(1., 3, films.__getitem__, True)]

    def fit(path, log=None):
        sam = hand_vit_tiny(64, seed=0)
        return fit_hand_sam(sam, source, 6, path=path, batch=2, every=2, decay=3, log=log)

    def stop(step, *_):
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path/'cut.pt', stop)
    seen = []
    a = fit(tmp_path/'cut.pt', lambda step, *_: seen.append(step))
    b = fit(tmp_path/'whole.pt')
    assert seen == [6]
    assert all(torch.equal(a[k], b[k]) for k in b)


def test_training_starts_from_checked_weights(tmp_path):
    p = copy(tmp_path)
    cut(p)
    with pytest.raises(ValueError, match='cut off'):
        main(['none', str(tmp_path/'out'), '--init', str(p), '--scale', '.001'])


def test_outlined_films_are_never_learned_from(tmp_path, phantoms):
    df = phantoms.assign(mask_path=phantoms.true_mask_path, predicted_iou=.99, stability_score=.99, seg_status='ok')
    table = tmp_path/'segmented.csv'
    df.to_csv(table, index=False)
    held = df.id[:4]
    assert set(training_films(table, leave_out=held).id) == set(df.id[4:])
    both = training_films(table, table, held, 5)
    assert len(both) == 5
    assert not set(both.id) & set(held)
    assert (both.why == 'agree').all()


# ---------------------------------------------------------------- no hands

def test_other_kinds_of_pictures_are_mostly_refused(seg, monkeypatch):
    "Half of the kinds were not in the training."
    pytest.importorskip('sklearn')
    monkeypatch.syspath_prepend(BENCHMARKS)
    import mask_refusal
    rows = [(group, seg.segment(px).ok) for group, _, px in mask_refusal.pictures(4, seed=11)]
    passed = pd.DataFrame(rows, columns=['group', 'passed']).groupby('group').passed.mean()
    assert passed['kinds of the training, fresh seeds'] <= .05
    assert passed['photographs, not in training'] <= .05


# ---------------------------------------------------------------- real films

def test_outlined_films(real_data, seg, monkeypatch):
    "A dozen development films against their outlines"
    monkeypatch.syspath_prepend(BENCHMARKS)
    import mask_accuracy
    m, rows = mask_accuracy.films(real_data, 'dev')
    keep = list(range(0, 71, 6))
    df = mask_accuracy.measure(seg, m.iloc[keep], [rows[i] for i in keep])
    assert df.ok.mean() > .9
    assert df.dice[df.ok].mean() > .97
