"""Seconds a film, peak memory and the floor under both, for every way to segment, on one machine.

    python benchmarks/mask_speed.py --out data/results/mask_speed.csv

Synthetic films from 299 to 2,500 px lie as PNG files; reading them is included. Each way runs in a process of its
own, first on one film to warm up. `vit_b` has random weights: its time is that of the official ones, except that
automatic mode throws nearly all records away and so saves the last steps. floor_s: multiplications of the encoder
over the rate at which this machine multiplies large matrices. x_floor: seconds over floor. cpu_s: processor
seconds, which other programs on the machine hardly lengthen. peak_MB: of the whole process, Python and libraries
included.
"""
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from boneage.films.files import write_csv, write_png
from boneage.films.phantom import make_phantom
from boneage.films.radiograph import load_film
from boneage.hand.candidates import mask_record
from boneage.hand.shapes import clean_mask
from boneage.segmentation import SamSegmenter, Segmenter, get_segmenter
from common import parser, timed

SIDES = 299, 640, 1100, 1700, 2500 # px, longer side of the films
MIDDLE = SIDES[2:3] # for what is too slow for more than one
FIRST_SEED = 40 # of the hands on them
DRAWN_SIDE = 640 # px; a phantom is drawn at this side and enlarged
PRODUCT_SIDE = 1536 # of square matrices: large enough to be multiplied at the full rate
PRODUCTS = 20 # the fastest counts


class Way(NamedTuple):
    "One way to segment, and how many of the films it is timed on."
    films:int
    segmenter:str
    mode:str = 'prompt'
    grid:int = None # points a side for automatic mode; None: the segmenter's own

    @property
    def sides(self):
        return SIDES[-self.films:] if self.films > 1 else MIDDLE


WAYS = {
    'threshold (Otsu)': Way(5, 'otsu'),
    'classical': Way(5, 'classical'),
    'hand_vit_tiny prompted': Way(5, 'hand_vit_tiny'),
    'hand_vit_tiny automatic 8 x 8': Way(3, 'hand_vit_tiny', 'auto'),
    'hand_vit_tiny automatic 32 x 32': Way(1, 'hand_vit_tiny', 'auto', 32),
    'vit_b prompted': Way(2, 'vit_b'),
    'vit_b automatic 32 x 32': Way(1, 'vit_b', 'auto', 32)}
FAST, SLOW = 'hand_vit_tiny prompted', 'vit_b automatic 32 x 32' # the two that are compared in words


def draw_films(folder:Path):
    "Hands as PNG files."
    for i, side in enumerate(SIDES):
        pixels = make_phantom(FIRST_SEED + i, size=DRAWN_SIDE).pixels
        f = side/max(pixels.shape)
        write_png(folder/f'{side}.png', cv2.resize(pixels, None, fx=f, fy=f, interpolation=cv2.INTER_CUBIC))


class Otsu(Segmenter):
    "One threshold, the largest piece: the least one can do."
    name = 'otsu'
    settings = 'otsu'

    def records(self, img, field=None):
        _, bright = cv2.threshold(img, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
        return [mask_record(clean_mask(bright > 0), 1, 1)]


def random_vit_b(**options)->SamSegmenter:
    "The official small network without its weights, which are 375 MB and change no time."
    import torch
    from segment_anything import sam_model_registry
    torch.manual_seed(0)
    return SamSegmenter('vit_b', sam=sam_model_registry['vit_b']().eval(), **options)


def make(way:Way)->Segmenter:
    "The segmenter of one way."
    if way.segmenter == 'otsu':
        return Otsu()
    if way.segmenter == 'classical':
        return get_segmenter('classical')
    options = dict(mode=way.mode, generator=dict(points_per_side=way.grid) if way.grid else None)
    return random_vit_b(**options) if way.segmenter == 'vit_b' else get_segmenter(way.segmenter, **options)


def encoder_flop(encoder)->float:
    "Floating-point operations of one pass of the encoder."
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        encoder(torch.zeros(1, 3, encoder.img_size, encoder.img_size))
    return counter.get_total_flops()


def product_rate()->float:
    "Floating-point operations a second of this machine's matrix product."
    import torch
    a = torch.rand(PRODUCT_SIDE, PRODUCT_SIDE)
    best = min(timed(lambda: a @ a)[1] for _ in range(PRODUCTS))
    return 2*PRODUCT_SIDE**3/best


def floor(encoder, seconds:float)->dict:
    "What the encoder must cost at the least, and how far from it a film is."
    work = encoder_flop(encoder)
    rate = product_rate()
    least = work/rate
    return dict(
        encoder_GFLOP=round(work/1e9, 1), GFLOP_s=round(rate/1e9), floor_s=round(least, 4),
        x_floor=round(seconds/least, 1))


def clocked(segment, side:int)->tuple: # seconds, processor seconds, whether a hand was found
    "One film by both clocks."
    processor = time.process_time()
    found, seconds = timed(lambda: segment(side))
    return seconds, time.process_time() - processor, found.ok


def measure(name:str, folder:Path)->dict:
    "One way, in this process."
    way = WAYS[name]
    segmenter = make(way)
    def segment(side):
        return segmenter.segment(load_film(dict(path=str(folder/f'{side}.png'))).pixels)
    if way.films > 1:
        segment(SIDES[0])
    seconds, processor, found = zip(*[clocked(segment, side) for side in way.sides])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e3
    row = dict(
        way=name, films=len(seconds), found=sum(found), seconds=round(float(np.median(seconds)), 3),
        slowest=round(max(seconds), 3), cpu_s=round(float(np.median(processor)), 3), peak_MB=round(peak))
    return row | floor(segmenter.sam.image_encoder, row['seconds']) if hasattr(segmenter, 'sam') else row


def measure_apart(name:str, folder:str, threads:int)->dict:
    "One way, in a process of its own."
    settings = os.environ | dict(OMP_NUM_THREADS=str(threads), OMP_WAIT_POLICY='PASSIVE')
    command = [sys.executable, __file__, '--one', name, folder]
    done = subprocess.run(command, env=settings, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(names, threads:int, out:Path=None)->pd.DataFrame:
    "All ways; the file holds those that are measured, so that an interrupted run is not lost."
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        draw_films(Path(folder))
        for name in names:
            rows.append(measure_apart(name, folder, threads))
            if out:
                write_csv(pd.DataFrame(rows).assign(threads=threads), out)
    return pd.DataFrame(rows).set_index('way')


def main():
    p = parser(__doc__, out=None)
    p.add_argument('--threads', type=int, default=os.cpu_count())
    p.add_argument('--only', nargs='*', choices=list(WAYS), default=list(WAYS), metavar='WAY', help='some of the ways')
    p.add_argument('--one', nargs=2, metavar=('WAY', 'FOLDER'), help='one way, in this process; prints JSON')
    o = p.parse_args()
    if o.one:
        name, folder = o.one
        print(json.dumps(measure(name, Path(folder))))
        return
    df = table(o.only, o.threads, o.out)
    print(df.to_string())
    if {FAST, SLOW} <= set(df.index):
        print(f'{FAST} is {df.seconds[SLOW]/df.seconds[FAST]:.0f} times as fast as {SLOW}')


if __name__ == '__main__':
    main()
