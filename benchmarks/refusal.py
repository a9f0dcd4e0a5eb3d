"""How often what is no hand is refused, and how often a real film is.

    python benchmarks/refusal.py [FOLDER] [--names hand_vit_tiny classical] [--each 40] [--films 600] [--out FILE.csv] [--card FILE]

The kinds of `boneage.phantom.NONHANDS` and `boneage.hand_sam.SHAPES` were in the training of hand_vit_tiny, with other seeds. The shapes drawn here and the photographs
(scikit-image's and scikit-learn's own, random cut-outs) were not. FOLDER holds rsna-299/; its films are drawn with `--seed` from those
that are neither outlined nor, with --skip TABLE, in the training. --card writes the numbers of the first name into the card of its weights.
"""
import argparse, json
from pathlib import Path

import cv2, numpy as np, pandas as pd
from boneage.core import load_film, read_manifest
from boneage.hand_sam import SHAPES, make_shape, print_shape
from boneage.phantom import NONHANDS, make_nonhand
from boneage.rsna import rsna_manifest
from boneage.segmentation import get_segmenter
from hand_masks import load_hand_masks

PHOTOS = ('astronaut', 'brick', 'camera', 'cat', 'coffee', 'coins', 'colorwheel', 'clock', 'grass', 'gravel', 'horse', 'hubble_deep_field', 'immunohistochemistry', 'moon', 'page', 'rocket',
          'text', 'cell', 'retina', 'shepp_logan_phantom', 'checkerboard')

def _canvas(rng): return np.zeros((int(rng.integers(300, 460)), int(rng.integers(260, 400))), np.uint8)

def comb(rng): # a block with parallel teeth
    m = _canvas(rng); (h, w), n = m.shape, int(rng.integers(3, 9))
    m[int(.5*h):int(rng.uniform(.7, 1)*h), int(.15*w):int(.85*w)] = 1
    for k in range(n): x = int(.15*w + .7*w*(k+.2)/n); m[int(rng.uniform(.08, .25)*h):int(.6*h), x:x+int(.42*w/n)] = 1
    return m

def tree(rng): # a trunk that branches
    m = _canvas(rng); h, w = m.shape
    def grow(x, y, a, l, t, left):
        u, v = x + l*np.cos(a), y - l*np.sin(a)
        cv2.line(m, (int(x), int(y)), (int(u), int(v)), 1, max(2, int(t)))
        if left:
            for d in rng.uniform(-.7, .7, int(rng.integers(2, 4))): grow(u, v, a + d, l*rng.uniform(.55, .85), t*.65, left - 1)
    grow(w/2, h, np.pi/2, .3*h, .1*w, 3)
    return m

def vertebrae(rng): # a column of blocks with ribs
    m = _canvas(rng); h, w = m.shape
    for y in range(0, h, 40):
        cv2.rectangle(m, (int(.42*w), y), (int(.58*w), y+30), 1, -1)
        for s in (-1, 1): cv2.ellipse(m, (int(w/2), y+10), (int(rng.uniform(.3, .45)*w), 30), 0, 90 if s > 0 else 180, 170 if s > 0 else 260, 1, int(rng.uniform(4, 10)))
    return m

DRAWN = dict(comb=comb, tree=tree, vertebrae=vertebrae)

def photo(name, rng):
    "A random cut-out in grey"
    import skimage.data
    from sklearn.datasets import load_sample_image
    a = load_sample_image(name) if name.endswith('.jpg') else np.asarray(getattr(skimage.data, name)())
    a = a.astype(np.float32).mean(2) if a.ndim == 3 else a.astype(np.float32)
    a = np.clip(255*(a - a.min())/max(np.ptp(a), 1e-6), 0, 255).astype(np.uint8)
    h, w = (int(n*rng.uniform(.5, 1)) for n in a.shape)
    y, x = (int(rng.integers(0, n - k + 1)) for n, k in zip(a.shape, (h, w)))
    a = np.rot90(a[y:y+h, x:x+w], int(rng.integers(4)))
    return np.ascontiguousarray(a[:, ::-1] if rng.random() < .5 else a)

def pictures(each, seed=0):
    "(group, kind, uint8 HxW), every second one with black and white exchanged"
    turned = lambda i, px: px if i % 2 else 255 - px
    for k in NONHANDS:
        for i in range(each): yield 'kinds of the training, fresh seeds', k, turned(i, make_nonhand(k, 900_000 + seed + i, size=320))
    for k in SHAPES:
        for i in range(each): yield 'kinds of the training, fresh seeds', k, turned(i, make_shape(k, 900_000 + seed + i, 320))
    for k, draw in DRAWN.items():
        for i in range(each): rng = np.random.default_rng([seed, i, len(k)]); yield 'shapes not in training', k, turned(i, print_shape(draw(rng) > 0, rng))
    for k in (*PHOTOS, 'china.jpg', 'flower.jpg'):
        for i in range(max(each//4, 1)): yield 'photographs, not in training', k, turned(i, photo(k, np.random.default_rng([seed, i])))

def fresh_films(folder, n, skip=(), seed=5):
    "Real films that are neither outlined nor learned from"
    df = rsna_manifest(Path(folder)/'rsna-299', verbose=False)
    out = set(load_hand_masks().id) | set(map(str, skip))
    return df[~df.id.astype(str).isin(out)].sample(n, random_state=seed)

def main():
    p = argparse.ArgumentParser(); p.add_argument('folder', nargs='?'); p.add_argument('--names', nargs='*', default=['hand_vit_tiny', 'classical']); p.add_argument('--each', type=int, default=40)
    p.add_argument('--films', type=int, default=600); p.add_argument('--seed', type=int, default=5); p.add_argument('--skip'); p.add_argument('--out'); p.add_argument('--card')
    a = p.parse_args()
    segs = {n: get_segmenter(n) for n in a.names}
    rows = [dict(group=g, kind=k, **{n: not s.segment(px).ok for n, s in segs.items()}) for g, k, px in pictures(a.each)]
    if a.folder:
        skip = read_manifest(a.skip).id if a.skip else ()
        for _, r in fresh_films(a.folder, a.films, skip, a.seed).iterrows():
            px = load_film(r).pixels; rows.append(dict(group='real films', kind='not learned from', id=r.id, **{n: not s.segment(px).ok for n, s in segs.items()}))
    df = pd.DataFrame(rows)
    tell = lambda by: pd.concat([df.groupby(by).size().rename('pictures'), df.groupby(by)[a.names].sum().add_suffix(' refused')], axis=1)
    print(tell(['group', 'kind']).to_string(), tell(['group']).to_string(), sep='\n\n')
    if a.folder: print('real films refused:', {n: df[(df.group == 'real films') & df[n]].id.tolist() for n in a.names})
    if a.out: tell(['group']).to_csv(a.out)
    if a.card:
        o, n = json.loads(Path(a.card).read_text()), a.names[0]
        o.setdefault('metrics', {})['refused'] = {g: f'{int(d[n].sum())} of {len(d)}' for g, d in df.groupby('group')}
        Path(a.card).write_text(json.dumps(o, indent=1))

if __name__ == '__main__': main()
