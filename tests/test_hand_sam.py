"The small hand SAM: official classes and keys, prompts, scores, refusals, damaged weights, training that goes on, the whole pipeline, real films."
import hashlib, json, pickle, shutil, subprocess, sys
from pathlib import Path
import numpy as np, pandas as pd, pytest
torch = pytest.importorskip('torch')
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from boneage import hand_sam as H
from boneage.core import read_mask
from boneage.phantom import NONHANDS, make_nonhand, make_phantom
from boneage.segmentation import SAM_MODELS, SamSegmenter, dice, find_checkpoint, get_segmenter, load_sam, segment_df, to_sam_input

WEIGHTS = find_checkpoint(SAM_MODELS['hand_vit_tiny'])

@pytest.fixture(scope='module')
def sam(): return load_sam()

@pytest.fixture(scope='module')
def seg(): return H.HandSam()

@pytest.fixture(scope='module')
def asked(sam):
    "The released weights on one phantom, and its truth"
    ph, p = make_phantom(901, 132, 'F', size=256, fault='marker_on_hand'), SamPredictor(sam)
    p.set_image(to_sam_input(ph.pixels))
    return ph, p

def test_official_classes(sam):
    for o, cls in ((sam, Sam), (sam.image_encoder, ImageEncoderViT), (sam.prompt_encoder, PromptEncoder), (sam.mask_decoder, MaskDecoder), (sam.mask_decoder.transformer, TwoWayTransformer)):
        assert type(o) is cls

def test_weights_are_small_and_match_their_card():
    card = json.loads(WEIGHTS.with_suffix('.json').read_text())
    assert WEIGHTS.stat().st_size == card['bytes'] < 20e6
    assert {'name', 'data', 'made_by', 'licence', 'metrics', 'sha256', 'image_size'} <= set(card)
    assert '/work' not in json.dumps(card)

@pytest.mark.parametrize('kind', ['film', 'point', 'box', 'middle'])
def test_each_kind_of_prompt_finds_the_hand(asked, kind):
    ph, p = asked
    h, w = ph.mask.shape; ys, xs = np.nonzero(ph.mask)
    d = np.argmin((ys - ys.mean())**2 + (xs - xs.mean())**2)
    prompt = dict(film=dict(box=np.array([0, 0, w, h])), box=dict(box=np.array([xs.min(), ys.min(), xs.max()+1, ys.max()+1])),
                  point=dict(point_coords=np.array([[xs[d], ys[d]]]), point_labels=np.ones(1)), middle=dict(point_coords=H.middle_points((h, w)), point_labels=np.ones(3)))[kind]
    masks, scores, low = p.predict(**prompt)
    assert masks.shape == (3, h, w) and low.shape[1] == p.model.image_encoder.img_size//2
    assert dice(masks[scores.argmax()], ph.mask) > .93
    single, _, _ = p.predict(**prompt, multimask_output=False)
    assert dice(single[0], ph.mask) > .93

def test_score_follows_the_overlap(sam):
    p, hands, others = SamPredictor(sam), [], []
    def top(px):
        p.set_image(to_sam_input(px))
        return p.predict(box=np.array([0, 0, *px.shape[::-1]]))[1].max()
    hands = [top(make_phantom(920+i, size=256).pixels) for i in range(6)]
    others = [top(make_nonhand(k, 77, size=256)) for k in NONHANDS]
    assert np.median(hands) > .85 and np.median(others) < .3

def test_a_point_on_nothing_scores_less_than_one_on_the_hand(asked):
    ph, p = asked
    at = lambda y, x: p.predict(point_coords=np.array([[x, y]]), point_labels=np.ones(1))[1].max()
    ys, xs = np.nonzero(ph.mask); free = np.nonzero(~(ph.mask | np.logical_or.reduce(list(ph.objects.values()))))
    i, j = len(ys)//2, len(free[0])//2
    assert at(ys[i], xs[i]) > at(free[0][j], free[1][j])

def test_automatic_records_have_sams_keys(sam):
    recs = SamAutomaticMaskGenerator(sam, points_per_side=4, pred_iou_thresh=0, stability_score_thresh=0).generate(to_sam_input(make_phantom(5, size=128).pixels))
    assert recs and set(recs[0]) == {'segmentation', 'area', 'bbox', 'predicted_iou', 'point_coords', 'stability_score', 'crop_box'}

@pytest.mark.parametrize('shape', [(299, 240), (240, 299), (900, 700), (40, 300)])
def test_any_shape_gives_a_mask_of_that_shape_or_a_reason(seg, shape):
    px = make_phantom(7, size=max(shape), aspect=shape[1]/shape[0] if .5 < shape[1]/shape[0] < 1.6 else None).pixels
    px = np.ascontiguousarray(np.resize(px, shape) if px.shape != shape else px)
    o = seg.segment(px)
    assert o.mask.shape == shape and (o.ok or o.reason)

def test_phantoms_are_found_and_pictures_without_a_hand_refused(seg):
    ps = [make_phantom(940+i, size=256) for i in range(12)]
    os_ = [seg.segment(p.pixels) for p in ps]
    assert sum(o.ok for o in os_) >= 11
    assert np.median([dice(o.mask, p.mask) for o, p in zip(os_, ps) if o.ok]) > .96
    no = [seg.segment(make_nonhand(k, s, size=256)) for k in NONHANDS for s in (51, 52)]
    assert not any(o.ok for o in no) and all(o.reason for o in no)

def test_a_low_score_is_a_reason(seg):
    strict = H.HandSam(rules=dict(predicted_iou=(1.5, 2)))
    o = strict.segment(make_phantom(3, size=256).pixels)
    assert not o.ok and 'predicted_iou' in o.reason and strict.settings != seg.settings

def test_same_film_same_mask(seg):
    px = make_phantom(11, size=256).pixels
    assert (seg.segment(px).mask == seg.segment(px).mask).all()

def test_a_folder_on_two_processes(seg, phantoms, tmp_path):
    assert pickle.loads(pickle.dumps(seg)).settings == seg.settings
    df = segment_df(phantoms.head(4), tmp_path, seg, n_jobs=2)
    assert (df.segmenter == 'hand_vit_tiny').all() and (df.seg_status == 'ok').sum() >= 3
    for r in df[df.seg_status == 'ok'].itertuples(): assert dice(read_mask(r.mask_path), read_mask(r.true_mask_path)) > .9

# ---------------------------------------------------------------- one word, one network a process

def test_it_is_the_default_and_other_words_work(seg):
    import inspect
    from boneage import cli, segmentation
    assert get_segmenter().name == inspect.signature(segment_df).parameters['segmenter'].default == inspect.signature(cli.segment).parameters['segmenter'].default == 'hand_vit_tiny'
    assert type(get_segmenter(str(WEIGHTS))) is H.HandSam and get_segmenter(str(WEIGHTS)).settings == seg.settings
    assert get_segmenter('classical').name == 'classical'
    assert 'torch' not in subprocess.run([sys.executable, '-c', 'import sys, boneage.segmentation; boneage.segmentation.get_segmenter("classical"); print(*sys.modules)'], capture_output=True, text=True, check=True).stdout.split()

def test_both_modes_find_the_hand():
    ph = make_phantom(3, 132, 'F', size=256)
    for mode in ('prompt', 'auto'): assert dice(get_segmenter('hand_vit_tiny', mode=mode).segment(ph.pixels).mask, ph.mask) > .96, mode

@pytest.mark.parametrize('words', [[], ['--mode', 'auto'], ['--segmenter', 'classical'], ['--checkpoint', WEIGHTS], ['--segmenter', WEIGHTS]], ids=['default', 'auto', 'classical', 'checkpoint', 'path'])
def test_the_command_line_switches_with_a_word(words, phantoms, tmp_path, capfd):
    from boneage import cli
    assert cli.main(['segment', str(phantoms.path[0]), '--out', str(tmp_path), *map(str, words)]) == 0
    o = pd.read_csv(tmp_path/'segmented.csv')
    assert o.seg_status[0] == 'ok' and o.segmenter[0] == ('classical' if 'classical' in words else 'hand_vit_tiny') and o.predicted_iou.between(0, 1).all()

def test_two_checkpoints_are_one_too_many():
    with pytest.raises(ValueError, match='two checkpoints'): get_segmenter(str(WEIGHTS), checkpoint='other.pth')

@pytest.mark.parametrize('mode', ['prompt', 'auto'])
def test_vit_b_runs_through_the_same_object(mode):
    "Random weights: nothing is found, and that is said. `benchmarks/segmentation.py` asks the whole grid."
    from segment_anything import sam_model_registry
    torch.manual_seed(0)
    s = SamSegmenter('vit_b', sam=sam_model_registry['vit_b']().eval(), mode=mode, generator=dict(points_per_side=2, pred_iou_thresh=-9, stability_score_thresh=-1))
    assert s.side == 1024
    o = s.segment(make_phantom(3, size=256).pixels)
    assert not o.ok and o.reason.startswith('no hand found')

def test_it_travels_without_its_network(seg):
    assert len(pickle.dumps(seg)) < 2000
    again = pickle.loads(pickle.dumps(seg))
    assert again.sam is seg.sam and again.settings == seg.settings     # loaded once in a process

def test_new_weights_in_an_old_place_are_seen(tmp_path):
    a, b = ({k: v for k, v in H.hand_vit_tiny(64, seed=s).state_dict().items()} for s in (0, 1))
    say = [get_segmenter(str(H.save_hand_sam(w, tmp_path/'mine.safetensors', {}))).settings for w in (a, b)]
    assert say[0] != say[1]

def _workload(_):
    "Threads of a worker that has segmented a film"
    import torch, os
    get_segmenter().segment(make_phantom(5, size=128).pixels)
    return os.getpid(), torch.get_num_threads()

def test_workers_share_the_cores():
    from joblib import Parallel, cpu_count, delayed
    for _, n in Parallel(n_jobs=2)(delayed(_workload)(i) for i in range(4)): assert n <= max(1, cpu_count()//2)

# ---------------------------------------------------------------- damaged weights

def copy(tmp_path):
    for end in ('.safetensors', '.json'): shutil.copy(WEIGHTS.with_suffix(end), tmp_path)
    return tmp_path/WEIGHTS.name

def _cut(p): p.write_bytes(p.read_bytes()[:-7])
def _flip(p): b = bytearray(p.read_bytes()); b[-1] ^= 1; p.write_bytes(bytes(b))
def _card(p): p.with_suffix('.json').unlink()
def _torn(p): p.with_suffix('.json').write_text('{"bytes": 5')
def _empty(p): p.write_bytes(b'')
def _gone(p): p.unlink()
def _other(p): H.save_hand_sam({'image_encoder.pos_embed': torch.zeros(1, 4, 4, 768)}, p, {})
def _key(p): H.save_hand_sam({k: v for k, v in load_sam().state_dict().items() if 'iou_token' not in k}, p, {})
def _pickled(p): p.write_bytes(pickle.dumps(dict(a=print))); p.with_suffix('.json').write_text(json.dumps(dict(bytes=p.stat().st_size, sha256=hashlib.sha256(p.read_bytes()).hexdigest())))

@pytest.mark.parametrize('harm,error,words', [(_cut, ValueError, 'bytes, expected .* cut off'), (_flip, ValueError, 'SHA-256 is .*, expected'), (_empty, ValueError, '0 bytes, expected'),
    (_gone, FileNotFoundError, 'no such checkpoint'), (_card, FileNotFoundError, 'no such card'), (_torn, ValueError, 'no card of weights'), (_other, ValueError, 'holds the weights of vit_b'),
    (_key, ValueError, 'does not fit hand_vit_tiny.*iou_token'), (_pickled, ValueError, 'not readable as weights')], ids=lambda o: o.__name__.strip('_') if callable(o) and not isinstance(o, type) else '')
def test_damaged_weights_are_named_before_any_film_is_read(tmp_path, harm, error, words):
    p = copy(tmp_path); harm(p)
    with pytest.raises(error, match=words) as e: segment_df(pd.DataFrame(dict(id=['a'], path=['never/read.png'])), tmp_path/'out', H.HandSam(p))
    assert str(p.with_suffix('')) in str(e.value) and not (tmp_path/'out').exists()

def test_the_command_names_damaged_weights(tmp_path):
    p = copy(tmp_path); _cut(p)
    r = subprocess.run([sys.executable, '-m', 'boneage.cli', 'segment', 'never.png', '--out', tmp_path/'out', '--checkpoint', p], capture_output=True, text=True, timeout=120)
    assert r.returncode == 1 and 'Traceback' not in r.stderr

# ---------------------------------------------------------------- training

def test_labels_follow_the_film():
    "A film whose hand is bright and all else dark: whatever is done to it without drawing on it, label and brightness agree"
    img = np.zeros((384, 300), np.uint8); img[90:290, 80:220] = 200
    for s in range(20):
        f, lab = H.turn_film(img, (img > 0).astype(np.uint8), np.random.default_rng(s), 128)
        assert max(f.shape) == 128 and lab.shape == (2*f.shape[0], 2*f.shape[1])
        on = H._shrink(lab) > .5
        assert dice(on, f > 100) > .96

def test_a_frame_hides_the_hand_it_covers():
    lab = np.full((256, 256), H.HAND, np.uint8); f = np.full((128, 128), 100., np.float32)
    g, out = H.add_frame(f, lab, np.random.default_rng(1))
    changed = np.abs(g - f) > 60
    assert changed.any() and not (H._shrink(out & H.HAND)[changed] > .5).any()

def test_prompts_stand_on_what_they_ask_for():
    img, lab = H.synthetic_film(2)
    rng = np.random.default_rng(0)
    f, lab = H.vary_film(img, lab, rng, 192)
    for layout in H.LAYOUTS*8:
        pts, box, bit = H.draw_prompt(lab, rng, layout)
        if layout.startswith('points') and bit: assert all(lab[int(2*y), int(2*x)] & bit for x, y in pts)
        if box is not None: assert (box >= 0).all() and box[2] <= f.shape[1] + 1 and box[3] <= f.shape[0] + 1

def test_the_command_trains_goes_on_and_leaves_weights_that_load(tmp_path):
    run = lambda: subprocess.run([sys.executable, '-m', 'boneage.hand_sam', 'none', str(tmp_path), '--scale', '.002'], capture_output=True, text=True, timeout=300)
    r = run(); assert r.returncode == 0, r.stderr
    a = (tmp_path/'hand_vit_tiny.safetensors').read_bytes()
    r = run(); assert r.returncode == 0, r.stderr
    assert (tmp_path/'hand_vit_tiny.safetensors').read_bytes() == a     # nothing left to do
    load_sam('hand_vit_tiny', tmp_path/'hand_vit_tiny.safetensors')

def test_a_run_that_is_cut_off_ends_as_if_it_was_not(tmp_path):
    films = [H.synthetic_film(i, 96) for i in (1, 2, 7)]
    source = [(1., 3, films.__getitem__, True)]
    def fit(path, log=None): return H.fit_hand_sam(H.hand_vit_tiny(64, seed=0), source, 6, path=path, batch=2, every=2, decay=3, log=log)
    def stop(step, *_):
        if step == 4: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): fit(tmp_path/'cut.pt', stop)
    seen = []
    a, b = fit(tmp_path/'cut.pt', lambda step, *_: seen.append(step)), fit(tmp_path/'whole.pt')
    assert seen == [6] and all(torch.equal(a[k], b[k]) for k in b)

def test_training_starts_from_checked_weights(tmp_path):
    p = copy(tmp_path); _cut(p)
    with pytest.raises(ValueError, match='cut off'): H.main(['none', str(tmp_path/'out'), '--init', str(p), '--scale', '.001'])

def test_outlined_films_are_never_learned_from(tmp_path, phantoms):
    df = phantoms.assign(mask_path=phantoms.true_mask_path, predicted_iou=.99, stability_score=.99, seg_status='ok')
    df.to_csv(tmp_path/'segmented.csv', index=False)
    assert set(H.training_films(tmp_path/'segmented.csv', leave_out=df.id[:4]).id) == set(df.id[4:])
    both = H.training_films(tmp_path/'segmented.csv', tmp_path/'segmented.csv', df.id[:4], 5)
    assert len(both) == 5 and not set(both.id) & set(df.id[:4]) and (both.why == 'agree').all()

# ---------------------------------------------------------------- no hands

def test_other_kinds_of_pictures_are_mostly_refused(seg):
    "Half of the kinds were not in the training."
    pytest.importorskip('sklearn')
    sys.path.insert(0, str(Path(__file__).parents[1]/'benchmarks'))
    import refusal
    df = pd.DataFrame([(g, seg.segment(px).ok) for g, _, px in refusal.pictures(4, seed=11)], columns=['group', 'passed'])
    passed = df.groupby('group').passed.mean()
    assert passed['kinds of the training, fresh seeds'] <= .05 and passed['photographs, not in training'] <= .05

# ---------------------------------------------------------------- real films

def test_outlined_films(real_data, seg):
    "A dozen development films against their outlines"
    sys.path.insert(0, str(Path(__file__).parents[1]/'benchmarks'))
    import hand_sam as B
    m, rows = B.films(real_data, 'dev')
    keep = list(range(0, 71, 6))
    df = B.measure(seg, m.iloc[keep], [rows[i] for i in keep])
    assert df.ok.mean() > .9 and df.dice[df.ok].mean() > .97
