"Masks and refusals: films without a hand, faults in a batch, resume, checkpoints, SAM through its official classes, and real films."
import http.server, json, os, signal, subprocess, sys, threading, time
from functools import partial
from pathlib import Path
import cv2, numpy as np, pandas as pd, pytest
from boneage import segmentation as S
from boneage.core import Refusal, load_radiograph, read_journal, read_mask, write_png
from boneage.phantom import NONHANDS, make_nonhand, make_phantom
from boneage.segmentation import ClassicalSegmenter, SamSegmenter, clean_mask, dice, get_segmenter, segment_df

CLASSICAL = ClassicalSegmenter()

@pytest.fixture(scope='module')
def hand(): return make_phantom(3, 132, 'F', size=256)

def write_film(path, pixels):
    "A film as a file; what OpenCV can't name, numpy can"
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imencode('.png', pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tofile(path)
    return path

def table(**films): return pd.DataFrame(dict(id=list(films), path=[str(p) for p in films.values()]))

# ---------------------------------------------------------------- hands are found

@pytest.mark.parametrize('size', [128, 256, 512])
def test_clean_films_are_found(size):
    ps = [make_phantom(s, size=size) for s in range(300, 304)]
    ds = [dice(CLASSICAL.segment(p.pixels).mask, p.mask) for p in ps]
    assert min(ds) > .9 and np.median(ds) > .97

def test_a_cropped_hand_is_found_or_said_to_touch_the_border():
    for p in (make_phantom(s, size=192, fault='cropped') for s in range(4)):
        o = CLASSICAL.segment(p.pixels)
        assert dice(o.mask, p.mask) > .9 if o.ok else 'share of the border touched' in o.reason

@pytest.mark.parametrize('fault', ['rotated', 'dark', 'overexposed', 'blurred'])
def test_faulty_films_keep_their_hand(fault):
    ps = [make_phantom(s, size=192, fault=fault) for s in range(4)]
    assert np.median([dice(CLASSICAL.segment(p.pixels).mask, p.mask) for p in ps]) > .93

@pytest.mark.parametrize('turn', [np.fliplr, np.flipud, np.rot90], ids=['mirrored', 'upside down', 'a quarter turn'])
def test_the_hand_may_lie_as_it_likes(hand, turn):
    o = CLASSICAL.segment(np.ascontiguousarray(turn(hand.pixels)))
    assert o.ok and dice(o.mask, turn(hand.mask)) > .95

@pytest.mark.parametrize('grey', [lambda x: x//2 + 60, lambda x: x//4, lambda x: np.uint8(255*(x/255)**.6), lambda x: np.uint8(255*(x/255)**1.6)], ids=['flat', 'dark', 'gamma .6', 'gamma 1.6'])
def test_the_grey_scale_hardly_matters(hand, grey):
    o = CLASSICAL.segment(grey(hand.pixels))
    assert o.ok and dice(o.mask, hand.mask) > .93

def test_two_hands_give_one_of_them():
    for s in range(3):
        p = make_phantom(s, size=256, fault='second_hand')
        o = CLASSICAL.segment(p.pixels)
        assert max(dice(o.mask, p.mask), dice(o.mask, p.objects['second_hand'])) > .9

def test_the_mask_is_in_the_films_frame_and_its_numbers_are_its_own(hand):
    big = cv2.resize(hand.pixels, None, fx=3.1, fy=2.9, interpolation=cv2.INTER_CUBIC)
    o = CLASSICAL.segment(big)
    assert o.ok and o.mask.shape == big.shape and o.mask.dtype == bool
    assert abs(o.mask_area - o.mask.mean()) < .01 and 0 < o.mask_weight <= 1 and .8 <= o.predicted_iou <= 1 and 0 < o.stability_score <= 1
    assert o._repr_png_()[:4] == b'\x89PNG' and o.or_raise() is o

def test_the_same_film_gives_the_same_mask(hand):
    assert (CLASSICAL.segment(hand.pixels).mask == ClassicalSegmenter().segment(hand.pixels.copy()).mask).all()

# ---------------------------------------------------------------- what is no hand is refused

@pytest.mark.parametrize('size', [160, 360])
@pytest.mark.parametrize('kind', NONHANDS)
def test_films_without_a_hand_are_refused_with_a_reason(kind, size):
    for seed in (0, 1):
        img = make_nonhand(kind, seed, size=size)
        for px in (img, 255 - img):      # a loader may have turned it
            o = CLASSICAL.segment(px)
            assert not o.ok and o.reason.startswith('no hand found: ') and not o.mask.any() and o.mask.shape == px.shape and o.mask_area == 0, f'seed {seed}'

@pytest.mark.parametrize('img,words', [(np.zeros((1, 1), np.uint8), '1 x 1 px'), (np.zeros((500, 20), np.uint8), '20 x 500 px'), (np.full((300, 200), 90, np.uint8), 'the whole film is grey level 90'),
                                       (np.pad(np.uint8([[255]]), ((150, 149), (100, 99))), 'no hand found'), (np.tile(np.uint8([0, 255]), (128, 64)), 'no hand found')],
                         ids=['1x1', 'a strip', 'one grey', 'one bright pixel', 'stripes'])
def test_degenerate_films_are_refused_without_a_warning(img, words, recwarn):
    o = CLASSICAL.segment(img)
    assert not o.ok and words in o.reason and not recwarn.list
    with pytest.raises(Refusal, match='no hand found'): o.or_raise()

@pytest.mark.parametrize('mask', ['everything', 'background', 'half'])
def test_the_rule_refuses_what_is_only_part_or_too_much(hand, mask):
    y = np.arange(hand.mask.shape[0])[:, None]
    m = dict(everything=np.ones_like(hand.mask), background=~hand.mask, half=np.ones_like(hand.mask) & (y < 128))
    with pytest.raises(Refusal, match='a hand has at'): S.pick_hand([S.mask_record(m[mask], .99, .99)], hand.pixels)

@pytest.mark.parametrize('bad', [lambda x: x/255, lambda x: x[..., None], lambda x: x.astype(np.uint16)], ids=['float', 'colour', '16 bit'])
def test_pixels_of_another_kind_are_a_type_error(hand, bad):
    with pytest.raises(TypeError, match='expected uint8'): CLASSICAL.segment(bad(hand.pixels))

def test_cleaning_is_idempotent_and_scale_free(hand):
    torn = hand.mask.copy(); torn[::30] = False; torn[3:6, 3:6] = True
    once = clean_mask(torn)
    assert (clean_mask(once) == once).all() and dice(once, hand.mask) > .98 and cv2.connectedComponents(np.uint8(once), connectivity=4)[0] == 2

# ---------------------------------------------------------------- a batch with every kind of bad file

def no_pixels(path, hand):
    pytest.importorskip('pydicom', reason="pydicom is an extra: pip install 'boneage[dicom]'")
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid
    ds = Dataset(); ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID, ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ExplicitVRLittleEndian, '1.2.840.10008.5.1.4.1.1.1.1', generate_uid()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID, 'DX'
    ds.save_as(path, enforce_file_format=True)

def cut(path, hand): write_film(path, hand.pixels); path.write_bytes(path.read_bytes()[:3000])

BAD = {'zero.png': (lambda p, h: p.write_bytes(b''), 'empty file'), 'cut.png': (cut, 'cut off'), 'text.png': (lambda p, h: p.write_text('not a picture'), 'not a picture'),
       'lost.png': (lambda p, h: None, 'no such file'), 'folder.png': (lambda p, h: p.mkdir(), 'no such file'), 'dot.png': (lambda p, h: write_film(p, np.zeros((1, 1), np.uint8)), '1 x 1 px'),
       'grey.png': (lambda p, h: write_film(p, np.full((200, 150), 7, np.uint8)), 'every pixel is 7'), 'nothing.dcm': (no_pixels, 'without pixels'), 'words.dcm': (lambda p, h: p.write_text('x'*400), 'not readable as DICOM')}

@pytest.mark.parametrize('name', BAD)
def test_a_bad_file_is_an_error_that_names_it_and_the_batch_goes_on(tmp_path, hand, name):
    make, words = BAD[name]
    make(tmp_path/name, hand)
    df = table(bad=tmp_path/name, good=write_film(tmp_path/'good.png', hand.pixels))
    o = segment_df(df, tmp_path/'out').set_index('id')
    assert list(o.seg_status) == ['error', 'ok'] and words in o.seg_error['bad'] and name in o.seg_error['bad']
    assert o.mask_path['bad'] is None or pd.isna(o.mask_path['bad'])
    assert os.listdir(tmp_path/'out'/'masks') == ['good.png']

def test_every_outcome_in_one_table(tmp_path, hand):
    files = dict(hand=hand.pixels, foot=make_nonhand('foot', 2), chest=make_nonhand('chest', 2), text=make_nonhand('text', 2))
    df = table(**{k: write_film(tmp_path/f'{k}.png', v) for k, v in files.items()}, lost=tmp_path/'lost.png')
    o = segment_df(df.assign(sex='F', extra=range(5)), tmp_path/'out', 'classical').set_index('id')
    assert list(o.seg_status) == ['ok', 'refused', 'refused', 'refused', 'error'] and list(o.extra) == list(range(5))
    assert o.mask_path.notna().tolist() == [True] + 4*[False] and o.seg_error.notna().tolist() == [False] + 4*[True]
    assert set(o.columns) >= {'mask_path', 'segmenter', 'predicted_iou', 'stability_score', 'mask_area', 'mask_weight', 'seg_status', 'seg_error'}
    assert (read_mask(o.mask_path['hand'], hand.mask.shape) == CLASSICAL.segment(load_radiograph(tmp_path/'hand.png').pixels).mask).all()

@pytest.mark.parametrize('folder', ['with space', 'Röntgen-Ärzte', '手の写真', "o'brien & co"])
def test_paths_with_spaces_and_accents(tmp_path, hand, folder):
    o = segment_df(table(**{'Kind Ä/1 b': write_film(tmp_path/folder/'film é 1.png', hand.pixels)}), tmp_path/folder/'aus gabe', 'classical')
    assert list(o.seg_status) == ['ok'] and read_mask(o.mask_path[0]).shape == hand.mask.shape

def test_squashed_films_are_segmented_at_their_true_aspect(tmp_path, hand):
    p = write_film(tmp_path/'a.png', cv2.resize(hand.pixels, (200, 200), interpolation=cv2.INTER_AREA))
    h, w = hand.mask.shape
    o = segment_df(table(a=p).assign(aspect=w/h), tmp_path/'out', 'classical')
    m = read_mask(o.mask_path[0])
    assert abs(m.shape[1]/m.shape[0] - w/h) < .01 and dice(S.to_frame(m, (h, w)), hand.mask) > .95

def test_a_12000_px_film_costs_bounded_time_and_memory(tmp_path, hand):
    "The film alone is 110 MB; the mask as much. Measured in a process of its own."
    write_film(tmp_path/'huge.png', cv2.resize(hand.pixels, (9200, 12000), interpolation=cv2.INTER_LINEAR))
    code = f'''
import resource, time, pandas as pd
from boneage.segmentation import segment_df
before, t = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.time()
o = segment_df(pd.DataFrame(dict(id=["huge"], path=[{str(tmp_path/"huge.png")!r}])), {str(tmp_path/"out")!r})
print(o.seg_status[0], time.time()-t, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss-before)/1e6)'''
    status, seconds, gb = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split()
    assert status == 'ok' and float(seconds) < 20 and float(gb) < 2
    m = read_mask(tmp_path/'out'/'masks'/'huge.png', (12000, 9200))
    assert dice(cv2.resize(np.uint8(m), hand.mask.shape[::-1], interpolation=cv2.INTER_AREA) > 0, hand.mask) > .95

def test_an_empty_table_says_so_or_gives_no_rows(tmp_path):
    o = segment_df(pd.DataFrame(dict(id=pd.Series(dtype=str), path=pd.Series(dtype=str))), tmp_path/'out')
    assert len(o) == 0

@pytest.mark.parametrize('where', ['a file in the way', 'a folder of the system'])
def test_a_folder_that_cannot_be_written_stops_the_run_with_a_clear_message(tmp_path, hand, where):
    df = table(a=write_film(tmp_path/'a.png', hand.pixels))
    (tmp_path/'occupied').write_text('a file')
    out = tmp_path/'occupied'/'out' if where.startswith('a file') else Path('/proc/boneage')
    with pytest.raises(OSError, match='choose a folder you may write to') as e: segment_df(df, out, 'classical')
    assert str(out) in str(e.value)

# ---------------------------------------------------------------- resume

class Counting(ClassicalSegmenter):
    "Counts the films it is given; name and settings are the baseline's"
    def __init__(self): super().__init__(); self.n = 0
    def segment(self, pixels): self.n += 1; return super().segment(pixels)

def count(df, out, **kw):
    c = Counting()
    return segment_df(df, out, c, **kw), c.n

def test_killed_in_the_middle_nothing_finished_is_done_again(tmp_path, phantoms):
    (tmp_path/'films.csv').write_text(phantoms[['id', 'path']].to_csv(index=False))
    code = f'import pandas as pd; from boneage.segmentation import segment_df; segment_df(pd.read_csv({str(tmp_path/"films.csv")!r}), {str(tmp_path/"out")!r}, "classical")'
    job, t, journal = subprocess.Popen([sys.executable, '-c', code]), time.time(), tmp_path/'out'/'segment.jsonl'
    while len(read_journal(journal)) < 3:
        assert job.poll() is None and time.time()-t < 60
        time.sleep(.005)
    job.send_signal(signal.SIGKILL); job.wait()
    done = read_journal(journal)
    assert 3 <= len(done) < len(phantoms)
    stamps = {i: os.stat(o['row']['mask_path']).st_mtime_ns for i, o in done.items()}
    o, n = count(phantoms, tmp_path/'out')
    assert n == len(phantoms) - len(done) and (o.seg_status == 'ok').all()
    assert all(os.stat(done[i]['row']['mask_path']).st_mtime_ns == m for i, m in stamps.items())
    assert not [p for p in (tmp_path/'out').rglob('*') if '.part' in p.name] or n   # a torn temporary file may lie there, no torn mask
    whole = segment_df(phantoms, tmp_path/'whole', 'classical')
    assert all(Path(a).read_bytes() == Path(b).read_bytes() for a, b in zip(o.mask_path, whole.mask_path))
    assert o.drop(columns='mask_path').equals(whole.drop(columns='mask_path'))

@pytest.fixture
def three(tmp_path, phantoms):
    df = phantoms[['id', 'path']].iloc[:3].reset_index(drop=True)
    o, n = count(df, tmp_path/'out'); assert n == 3
    return df, tmp_path/'out', o

@pytest.mark.parametrize('harm', [lambda p: p.write_bytes(p.read_bytes()[:-20]), lambda p: p.write_bytes(b''), lambda p: p.write_text('not a mask'), lambda p: p.unlink()],
                         ids=['cut off', 'empty', 'text', 'lost'])
def test_a_damaged_mask_is_made_again(three, harm):
    df, out, o = three
    p = Path(o.mask_path[1]); good = p.read_bytes(); harm(p)
    again, n = count(df, out)
    assert n == 1 and p.read_bytes() == good and again.equals(o)

def test_a_second_run_does_nothing_and_redo_does_all(three):
    df, out, o = three
    again, n = count(df, out); assert n == 0 and again.equals(o)
    assert count(df, out, redo=True)[1] == 3

def test_a_changed_film_or_other_settings_are_done_again(three, tmp_path, hand):
    df, out, o = three
    df = df.copy(); df.loc[0, 'path'] = str(write_film(tmp_path/'new.png', hand.pixels))
    assert count(df, out)[1] == 1
    other = Counting(); other.settings += ', other'
    segment_df(df, out, other); assert other.n == 3

def test_a_file_that_failed_is_tried_again_and_a_refusal_is_not(tmp_path, hand):
    df = table(late=tmp_path/'late.png', foot=write_film(tmp_path/'foot.png', make_nonhand('foot', 2)))
    assert list(segment_df(df, tmp_path/'out', 'classical').seg_status) == ['error', 'refused']
    write_film(tmp_path/'late.png', hand.pixels)
    o, n = count(df, tmp_path/'out')
    assert n == 1 and list(o.seg_status) == ['ok', 'refused'] and pd.isna(o.seg_error[0])

def test_more_films_later_and_a_torn_journal(three, phantoms):
    df, out, o = three
    with open(out/'segment.jsonl', 'ab') as f: f.write(b'{"id": "phantom-00')
    more, n = count(phantoms[['id', 'path']].iloc[:5], out)
    assert n == 2 and (more.seg_status == 'ok').all() and all(json.loads(l) for l in (out/'segment.jsonl').read_text().splitlines() if l.endswith('}'))

def test_two_workers_give_the_same_table(three):
    df, out, o = three
    assert segment_df(df, out.with_name('two'), 'classical', n_jobs=2).drop(columns='mask_path').equals(o.drop(columns='mask_path'))

# ---------------------------------------------------------------- names and checkpoints

@pytest.mark.parametrize('name,error,words', [('otsu', ValueError, 'known are hand_vit_tiny, classical, vit_b, vit_l, vit_h'), ('my/sam.pth', FileNotFoundError, 'no such checkpoint'),
                                              ('sam.safetensors', FileNotFoundError, 'no such checkpoint')])
def test_an_unknown_segmenter(name, error, words):
    with pytest.raises(error, match=words): get_segmenter(name)

def untrained(seed):
    from boneage.hand_sam import hand_vit_tiny
    return hand_vit_tiny(128, seed if isinstance(seed, int) else None)

@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    "An untrained SAM that is fetched like an official one, with its checkpoint"
    import torch
    path = tmp_path_factory.mktemp('weights')/'tiny.pth'
    torch.save(untrained(0).state_dict(), path)
    return S.SamModel('tiny', untrained, 96, 'tiny.pth', 'http://127.0.0.1:9/tiny.pth', path.stat().st_size, S.sha256(path)), path

@pytest.fixture
def known(tiny, monkeypatch):
    monkeypatch.setitem(S.SAM_MODELS, 'tiny', tiny[0])
    monkeypatch.setitem(S.SEGMENTERS, 'tiny', partial(SamSegmenter, 'tiny'))
    return tiny

def test_official_checkpoints_are_known_by_name_size_and_hash():
    for m in (S.SAM_MODELS[n] for n in ('vit_b', 'vit_l', 'vit_h')):
        assert m.url == f'https://dl.fbaipublicfiles.com/segment_anything/{m.file}' and len(m.sha256) == 64 and m.size > 3e8 and m.name.replace('_', '') in m.file.replace('_', '')
    assert len({m.sha256 for m in S.SAM_MODELS.values()}) == len({m.embed_dim for m in S.SAM_MODELS.values()}) == len(S.SAM_MODELS)

def test_a_checkpoint_comes_back_equal(known):
    m, path = known
    import torch
    a, b = untrained(0).state_dict(), S.load_sam('tiny', path, 'cpu').state_dict()
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    assert S.which_sam(S.read_weights(path)) == 'tiny' and get_segmenter(str(path), device='cpu').name == 'tiny'

def flip(path): b = bytearray(path.read_bytes()); b[len(b)//2] ^= 1; path.write_bytes(b)
def halve(path): path.write_bytes(path.read_bytes()[:path.stat().st_size//2])

@pytest.mark.parametrize('harm,words', [(flip, 'SHA-256 is .* expected .* altered'), (halve, 'bytes, expected .* cut off'), (lambda p: p.write_bytes(b''), '0 bytes, expected'), (lambda p: p.unlink(), 'no such checkpoint')],
                         ids=['one bit', 'half', 'empty', 'missing'])
def test_a_checkpoint_under_its_own_name_must_be_exact(known, tmp_path, harm, words):
    p = tmp_path/'tiny.pth'; p.write_bytes(known[1].read_bytes()); harm(p)
    with pytest.raises((ValueError, FileNotFoundError), match=words) as e: SamSegmenter('tiny', p, device='cpu')
    assert str(p) in str(e.value) and 'download' in str(e.value)

def _pickled(path):
    import pickle
    path.write_bytes(pickle.dumps(dict(a=print)))

def _other(path):
    import torch
    torch.save({'conv1.weight': torch.zeros(3)}, path)

def _vit_b(path):
    import torch
    torch.save({'image_encoder.pos_embed': torch.zeros(1, 2, 2, 768)}, path)

def _changed(path):
    import torch
    sd = untrained(0).state_dict()
    sd.pop(list(sd)[-1]); torch.save(sd, path)

@pytest.mark.parametrize('make,words', [(_pickled, 'not readable as weights'), (lambda p: p.write_bytes(b'nonsense'*99), 'not readable as weights'), (_other, "keys such as \\['conv1.weight'\\]"),
                                        (_vit_b, 'holds the weights of vit_b, but tiny was asked for'), (_changed, 'does not fit tiny')], ids=['pickle', 'nonsense', 'another network', 'another SAM', 'a key lost'])
def test_somebody_elses_file_under_another_name(known, tmp_path, make, words):
    p = tmp_path/'mine.pth'; make(p)
    with pytest.raises(ValueError, match=words) as e: SamSegmenter('tiny', p, device='cpu')
    assert str(p) in str(e.value)

def test_unknown_sam_and_unknown_mode(known):
    with pytest.raises(ValueError, match="no SAM is called 'vit_x'; known are hand_vit_tiny, vit_b"): SamSegmenter('vit_x')
    with pytest.raises(ValueError, match="expected 'prompt' or 'auto'"): SamSegmenter('tiny', known[1], 'everything')

# ---------------------------------------------------------------- downloads, from a server on this machine

class Server(http.server.BaseHTTPRequestHandler):
    "Serves `data` with ranges; `limit` cuts the first answers short; `asked` keeps the Range headers"
    data, limit, asked, status = b'', None, [], 206
    def do_GET(self):
        r = self.headers.get('Range'); type(self).asked.append(r)
        start = int(r.split('=')[1].rstrip('-')) if r and self.status == 206 else 0
        if start >= len(self.data): self.send_response(416); self.end_headers(); return
        body = self.data[start:]
        self.send_response(206 if r and self.status == 206 else 200); self.send_header('Content-Length', str(len(body))); self.end_headers()
        self.wfile.write(body[:self.limit])
    def log_message(self, *a): pass

@pytest.fixture
def server(tiny, monkeypatch):
    "A fresh server, and the tiny model with its address"
    from dataclasses import replace
    monkeypatch.setenv('NO_PROXY', '127.0.0.1'); monkeypatch.setenv('no_proxy', '127.0.0.1')
    handler = type('H', (Server,), dict(data=tiny[1].read_bytes(), asked=[]))
    s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=s.serve_forever, daemon=True).start()
    yield handler, replace(tiny[0], url=f'http://127.0.0.1:{s.server_port}/tiny.pth')
    s.shutdown(); s.server_close()

def test_a_download_arrives_whole_and_only_once(server, tmp_path):
    h, m = server
    assert S.fetch_checkpoint(m, tmp_path/'new folder').read_bytes() == h.data
    S.fetch_checkpoint(m, tmp_path/'new folder')
    assert h.asked == [None] and os.listdir(tmp_path/'new folder') == ['tiny.pth']

def test_a_half_download_goes_on_where_it_stopped(server, tmp_path):
    h, m = server
    h.limit = len(h.data)//3
    with pytest.raises(OSError, match='Run the same command again to go on') as e: S.fetch_checkpoint(m, tmp_path)
    assert m.url in str(e.value) and not (tmp_path/'tiny.pth').exists() and 0 <= h.limit - (tmp_path/'tiny.pth.part').stat().st_size < 1 << 16   # the last piece may be lost
    kept, h.limit = (tmp_path/'tiny.pth.part').stat().st_size, None
    assert S.fetch_checkpoint(m, tmp_path).read_bytes() == h.data and h.asked[-1] == f'bytes={kept}-' and os.listdir(tmp_path) == ['tiny.pth']

def test_a_server_that_knows_no_ranges_starts_over(server, tmp_path):
    h, m = server
    h.status = 200; (tmp_path/'tiny.pth.part').write_bytes(b'rubbish')
    assert S.fetch_checkpoint(m, tmp_path).read_bytes() == h.data

def test_a_complete_part_is_taken_without_loading_again(server, tmp_path):
    h, m = server
    (tmp_path/'tiny.pth.part').write_bytes(h.data)
    assert S.fetch_checkpoint(m, tmp_path).read_bytes() == h.data and h.asked == [f'bytes={len(h.data)}-']

def test_what_came_wrong_is_deleted(server, tmp_path):
    h, m = server
    h.data = h.data[:-1] + bytes([h.data[-1] ^ 1])
    with pytest.raises(ValueError, match='SHA-256 .* it was deleted'): S.fetch_checkpoint(m, tmp_path)
    assert os.listdir(tmp_path) == []

def test_no_network_says_where_to_put_the_file(known, tmp_path, monkeypatch):
    monkeypatch.setenv('NO_PROXY', '127.0.0.1'); monkeypatch.setenv('no_proxy', '127.0.0.1'); monkeypatch.setenv('BONEAGE_WEIGHTS', str(tmp_path/'cache'))
    with pytest.raises(OSError, match='could not be fetched') as e: get_segmenter('tiny', device='cpu')
    assert known[0].url in str(e.value) and str(tmp_path/'cache'/'tiny.pth') in str(e.value)

def test_a_cached_checkpoint_is_found(known, tmp_path, monkeypatch):
    monkeypatch.setenv('BONEAGE_WEIGHTS', str(tmp_path)); (tmp_path/'tiny.pth').write_bytes(known[1].read_bytes())
    assert get_segmenter('tiny', device='cpu').name == 'tiny'

# ---------------------------------------------------------------- SAM through segment-anything

EVERY = dict(pred_iou_thresh=-9., stability_score_thresh=-1., points_per_side=3)

@pytest.mark.parametrize('mode', ['prompt', 'auto'])
def test_an_untrained_sam_runs_and_refuses(known, hand, mode):
    s = SamSegmenter('tiny', known[1], mode, device='cpu', generator=EVERY)
    records = s.records(S.work_size(hand.pixels, s.side))
    assert records and all({'segmentation', 'area', 'bbox', 'predicted_iou', 'stability_score'} <= r.keys() for r in records)
    assert all(r['segmentation'].shape == S.work_size(hand.pixels, s.side).shape and r['area'] == r['segmentation'].sum() for r in records)
    o = s.segment(hand.pixels)
    assert not o.ok and o.reason.startswith('no hand found') and o.mask.shape == hand.mask.shape

def test_prompts_go_to_sam_in_its_own_frame(hand):
    "Box XYXY and points (x, y): the box holds the hand, the deepest point lies in the palm."
    p = S.hand_prompts(hand.pixels)[1]
    (x0, y0, x1, y1), (x, y) = p['box'], p['point_coords'][0]
    ys, xs = np.nonzero(hand.mask)
    assert x0 <= xs.min()+2 and y0 <= ys.min()+2 and x1 >= xs.max()-2 and y1 >= ys.max()-2 and hand.mask[int(y), int(x)] and list(p['point_labels']) == [1]

class Knows:
    "Stands for a trained SamPredictor: whatever it is asked, it answers marker, hand, everything; the marker with the best score"
    seen = []
    def __init__(self, sam): pass
    def set_image(self, image): assert image.dtype == np.uint8 and image.shape[2] == 3; self.shape = image.shape[:2]; self.seen.append('image')
    def predict(self, multimask_output, return_logits, **prompt):
        self.seen.append(tuple(sorted(prompt)))
        dot = np.zeros(self.shape, bool); dot[4:24, 4:24] = True
        return np.stack([np.where(m, 9., -9.) for m in (dot, S.to_frame(self.truth, self.shape), np.ones(self.shape, bool))]), np.array([.99, .95, .98]), None

def test_a_sam_that_knows_the_hand_is_believed(known, hand, monkeypatch):
    import segment_anything
    monkeypatch.setattr(segment_anything, 'SamPredictor', type('K', (Knows,), dict(truth=hand.mask, seen=[])))
    o = SamSegmenter('tiny', known[1], device='cpu').segment(hand.pixels)
    assert o.ok and dice(o.mask, hand.mask) > .97 and o.predicted_iou == .95
    assert segment_anything.SamPredictor.seen.count('image') == 1    # one embedding, several prompts

def test_automatic_records_are_judged_by_the_same_rule(known, hand, monkeypatch):
    import segment_anything
    class Generator:
        def __init__(self, sam, **kw): assert kw == EVERY
        def generate(self, image): return [S.mask_record(np.ones(image.shape[:2], bool), 1., 1.), S.mask_record(S.to_frame(hand.mask, image.shape[:2]), .9, .9)]
    monkeypatch.setattr(segment_anything, 'SamAutomaticMaskGenerator', Generator)
    o = SamSegmenter('tiny', known[1], 'auto', device='cpu', generator=EVERY).segment(hand.pixels)
    assert o.ok and dice(o.mask, hand.mask) > .97

def test_sam_over_a_folder_and_other_weights_redo_it(known, tmp_path, hand):
    import torch
    df = table(a=write_film(tmp_path/'a.png', hand.pixels), lost=tmp_path/'lost.png')
    o = segment_df(df, tmp_path/'out', str(known[1]))
    assert list(o.seg_status) == ['refused', 'error'] and (o.segmenter.dropna() == 'tiny').all()
    torch.save(untrained(1).state_dict(), tmp_path/'mine.pth')
    a, b = (get_segmenter(str(p), device='cpu').settings for p in (known[1], tmp_path/'mine.pth'))
    assert a != b and SamSegmenter('tiny', known[1], 'auto', device='cpu').settings != a

# ---------------------------------------------------------------- real films

def _real(root, ids):
    from boneage.rsna import rsna_manifest
    m = rsna_manifest(root/'rsna-299').set_index('id')
    return [load_radiograph(m.path[i], m.aspect[i]).pixels for i in ids]

def test_real_films_against_their_outlines(real_data):
    "Twelve films of the development half of data/hand_masks."
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]/'benchmarks'))
    from hand_masks import hand_mask, load_hand_masks
    df = load_hand_masks()
    df = df[(df.split == 'dev') & (df.source == 'rsna-299') & (df.why == 'stratum')].iloc[:12]
    ds = [dice(CLASSICAL.segment(px).mask, hand_mask(r, px.shape)) for px, (_, r) in zip(_real(real_data, df.index), df.iterrows())]
    assert np.median(ds) > .975 and sum(d < .8 for d in ds) <= 1

def test_real_films_are_not_refused_and_inverted_ones_are(real_data):
    from boneage.rsna import rsna_manifest
    ids = rsna_manifest(real_data/'rsna-299').id.sample(24, random_state=3)
    films = _real(real_data, ids)
    assert sum(not CLASSICAL.segment(px).ok for px in films) <= 1
    assert sum(CLASSICAL.segment(255-px).ok for px in films) <= 2

@pytest.mark.parametrize('i', ['2133', '7185', '7822', '15501'])
def test_another_persons_hand_on_a_real_film_gives_a_mask_or_a_reason(real_data, i):
    o = CLASSICAL.segment(_real(real_data, [i])[0])
    assert (o.ok and .03 < o.mask_area < .6) or o.reason.startswith('no hand found')
