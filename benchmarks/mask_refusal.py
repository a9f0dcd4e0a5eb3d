"""How often what is no hand is refused, and how often a real film is.

    python benchmarks/mask_refusal.py FOLDER --skip TRAINED.csv --out data/results/mask_refusal.csv

The kinds of `boneage.films.nonhands.NONHANDS` and `boneage.hand.sam_films.SHAPES` were in the training of
hand_vit_tiny, with other seeds. The shapes drawn here and the photographs (scikit-image's and scikit-learn's own,
random cut-outs) were not. FOLDER holds rsna-299/; its films are drawn with --seed from those that are neither
outlined nor, with --skip TABLE, in the training; without it no real film is read. --card writes the numbers of the
first name into the card of its weights.
"""
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from boneage.films.files import write_csv
from boneage.films.manifest import read_manifest
from boneage.films.nonhands import NONHANDS, make_nonhand
from boneage.films.radiograph import load_film
from boneage.films.rsna import rsna_manifest
from boneage.hand.sam_films import SHAPES, make_shape, print_shape
from boneage.segmentation import get_segmenter
from common import add_metrics, grey, parser
from drawn_masks import load_hand_masks

PHOTOS = (
    'astronaut', 'brick', 'camera', 'cat', 'coffee', 'coins', 'colorwheel', 'clock', 'grass', 'gravel', 'horse',
    'hubble_deep_field', 'immunohistochemistry', 'moon', 'page', 'rocket', 'text', 'cell', 'retina',
    'shepp_logan_phantom', 'checkerboard', 'china.jpg', 'flower.jpg')
LEARNED = 'kinds of the training, fresh seeds'
DRAWN = 'shapes not in training'
PHOTOGRAPHED = 'photographs, not in training'
REAL = 'real films'
FRESH = 900_000 # first seed; the training of hand_vit_tiny stayed far below
SIDE = 320 # px, of the pictures


def canvas(rng)->np.ndarray:
    "An empty film."
    height = int(rng.integers(300, 460))
    width = int(rng.integers(260, 400))
    return np.zeros((height, width), np.uint8)


def comb(rng)->np.ndarray:
    "A block with parallel teeth."
    mask = canvas(rng)
    h, w = mask.shape
    teeth = int(rng.integers(3, 9))
    bottom = int(rng.uniform(.7, 1)*h)
    mask[int(.5*h):bottom, int(.15*w):int(.85*w)] = 1
    width = int(.42*w/teeth)
    for k in range(teeth):
        x = int(.15*w + .7*w*(k + .2)/teeth)
        top = int(rng.uniform(.08, .25)*h)
        mask[top:int(.6*h), x:x + width] = 1
    return mask


def grow_branch(
    mask:np.ndarray, # uint8 HxW, drawn on
    rng:np.random.Generator,
    root:np.ndarray, # where the branch begins, x and y
    *,
    angle:float, # radians, from the right to the left
    length:float, # px
    width:float, # px
    forks:int, # how often it still parts
):
    "Draw a branch and those that grow from its end."
    way = np.array([np.cos(angle), -np.sin(angle)])
    end = root + length*way
    thick = max(2, int(width))
    cv2.line(mask, root.astype(int).tolist(), end.astype(int).tolist(), 1, thick)
    if not forks:
        return
    turns = rng.uniform(-.7, .7, int(rng.integers(2, 4)))
    for turn in turns:
        shorter = length*rng.uniform(.55, .85)
        grow_branch(mask, rng, end, angle=angle + turn, length=shorter, width=.65*width, forks=forks - 1)


def tree(rng)->np.ndarray:
    "A trunk that branches."
    mask = canvas(rng)
    h, w = mask.shape
    foot = np.array([w/2, h])
    grow_branch(mask, rng, foot, angle=np.pi/2, length=.3*h, width=.1*w, forks=3)
    return mask


def rib(mask, rng, y, side):
    "One rib of the pair at this height."
    width = mask.shape[1]
    axes = int(rng.uniform(.3, .45)*width), 30
    thick = int(rng.uniform(4, 10))
    middle = int(width/2), y + 10
    first, last = (90, 170) if side > 0 else (180, 260)
    cv2.ellipse(mask, middle, axes, 0, first, last, 1, thick)


def vertebrae(rng)->np.ndarray:
    "A column of blocks with ribs."
    mask = canvas(rng)
    h, w = mask.shape
    left = int(.42*w)
    right = int(.58*w)
    for y in range(0, h, 40):
        cv2.rectangle(mask, (left, y), (right, y + 30), 1, -1)
        for side in (-1, 1):
            rib(mask, rng, y, side)
    return mask


DRAWINGS = dict(comb=comb, tree=tree, vertebrae=vertebrae)


def photo(name:str)->np.ndarray:
    "One of scikit-image's or scikit-learn's photographs, grey."
    import skimage.data
    from sklearn.datasets import load_sample_image
    if name.endswith('.jpg'):
        img = load_sample_image(name)
    else:
        img = np.asarray(getattr(skimage.data, name)())
    img = img.astype(np.float32)
    if img.ndim == 3:
        img = img.mean(2)
    span = max(np.ptp(img), 1e-6)
    return grey(255*(img - img.min())/span)


def cut_out(img:np.ndarray, rng)->np.ndarray:
    "A random part of a picture, turned and perhaps mirrored."
    h, w = (int(n*rng.uniform(.5, 1)) for n in img.shape)
    y, x = (int(rng.integers(0, n - k + 1)) for n, k in zip(img.shape, (h, w)))
    part = np.rot90(img[y:y + h, x:x + w], int(rng.integers(4)))
    if rng.random() < .5:
        part = part[:, ::-1]
    return np.ascontiguousarray(part)


def drawing(kind:str, seed:list)->np.ndarray:
    "A drawn shape as a film would show it."
    rng = np.random.default_rng([*seed, len(kind)])
    shape = DRAWINGS[kind](rng) > 0
    return print_shape(shape, rng)


def plain_pictures(each:int, seed:int): # yields group, kind, number, uint8 HxW
    "Every picture, bright on dark."
    for kind in NONHANDS:
        for i in range(each):
            yield LEARNED, kind, i, make_nonhand(kind, FRESH + seed + i, size=SIDE)
    for kind in SHAPES:
        for i in range(each):
            yield LEARNED, kind, i, make_shape(kind, FRESH + seed + i, SIDE)
    for kind in DRAWINGS:
        for i in range(each):
            yield DRAWN, kind, i, drawing(kind, [seed, i])
    for kind in PHOTOS:
        for i in range(max(each//4, 1)):
            yield PHOTOGRAPHED, kind, i, cut_out(photo(kind), np.random.default_rng([seed, i]))


def pictures(each:int, seed:int=0): # yields group, kind, uint8 HxW
    "Pictures without a hand, every second one with black and white exchanged, as a loader might."
    for group, kind, i, pixels in plain_pictures(each, seed):
        yield group, kind, pixels if i % 2 else 255 - pixels


def fresh_films(folder, n:int, skip=(), seed:int=5)->pd.DataFrame:
    "Real films that are neither outlined nor learned from."
    df = rsna_manifest(Path(folder)/'rsna-299', verbose=False)
    known = set(load_hand_masks().id) | set(map(str, skip))
    fresh = df[~df.id.astype(str).isin(known)]
    return fresh.sample(n, random_state=seed)


def refusals(segmenters:dict, pixels)->dict:
    "Which segmenters refuse a picture."
    return {name: not segmenter.segment(pixels).ok for name, segmenter in segmenters.items()}


def measure(segmenters:dict, each:int, films=None)->pd.DataFrame:
    "One row a picture or film: what it is, and who refused it."
    rows = []
    for group, kind, pixels in pictures(each):
        rows.append(dict(group=group, kind=kind) | refusals(segmenters, pixels))
    if films is not None:
        for _, row in films.iterrows():
            film = dict(group=REAL, kind='not learned from', id=row.id)
            rows.append(film | refusals(segmenters, load_film(row).pixels))
    return pd.DataFrame(rows)


def counts(df, names:list, by:list)->pd.DataFrame:
    "Pictures, and those refused."
    groups = df.groupby(by)
    pictures = groups.size().rename('pictures')
    refused = groups[names].sum().add_suffix(' refused')
    return pd.concat([pictures, refused], axis=1)


def told(df, name:str)->dict:
    "What the card says of the first segmenter."
    refused = df.groupby('group')[name]
    return {group: f'{int(o.sum())} of {len(o)}' for group, o in refused}


def main():
    p = parser(__doc__, films=600, seed=5, out=None, card=None)
    p.add_argument('folder', nargs='?', help='holds rsna-299/')
    p.add_argument('--names', nargs='*', default=['hand_vit_tiny', 'classical'], help='segmenters')
    p.add_argument('--each', type=int, default=40, help='pictures of each kind; of each photograph a quarter')
    p.add_argument('--skip', help='table of the films that were learned from')
    o = p.parse_args()
    segmenters = {name: get_segmenter(name) for name in o.names}
    skip = read_manifest(o.skip).id if o.skip else ()
    films = fresh_films(o.folder, o.films, skip, o.seed) if o.folder else None
    df = measure(segmenters, o.each, films)
    groups = counts(df, o.names, ['group'])
    print(counts(df, o.names, ['group', 'kind']).to_string(), groups.to_string(), sep='\n\n')
    if o.folder:
        real = df[df.group == REAL]
        print('real films refused:', {name: real[real[name]].id.tolist() for name in o.names})
    if o.out:
        write_csv(groups.reset_index(), o.out)
    if o.card:
        add_metrics(o.card, dict(refused=told(df, o.names[0])))


if __name__ == '__main__':
    main()
