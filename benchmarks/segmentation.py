"""Seconds a film, peak memory and the floor under both, for every way to segment, on one machine.

    python benchmarks/segmentation.py [--threads N] [--out FILE.csv] [--only NAME ...]

Synthetic films from 299 to 2,500 px lie as PNG files; reading them is included. Each way runs in a process of its own, first on one film to warm up.
`vit_b` has random weights: its time is that of the official ones, except that automatic mode throws nearly all records away and so saves the last steps.
floor_s: multiplications of the encoder over the rate at which this machine multiplies large matrices. x_floor: seconds over floor. cpu_s: processor seconds, which other programs on the machine hardly lengthen.
peak_MB: of the whole process, Python and libraries included.
"""
import argparse, json, os, resource, subprocess, sys, tempfile, time
from pathlib import Path

SIDES = 299, 640, 1100, 1700, 2500
WAYS = {'threshold (Otsu)': len(SIDES), 'classical': len(SIDES), 'hand_vit_tiny prompted': len(SIDES), 'hand_vit_tiny automatic 8 x 8': 3, 'hand_vit_tiny automatic 32 x 32': 1,
        'vit_b prompted': 2, 'vit_b automatic 32 x 32': 1}  # films each is timed on

def draw_films(folder):
    "Hands as PNG files"
    import cv2
    from boneage.core import write_png
    from boneage.phantom import make_phantom
    for i, side in enumerate(SIDES):
        px = make_phantom(40+i, size=640).pixels
        k = side/max(px.shape)
        write_png(Path(folder)/f'{side}.png', cv2.resize(px, None, fx=k, fy=k, interpolation=cv2.INTER_CUBIC))

def otsu():
    "One threshold, the most central piece: the least one can do"
    import cv2
    from boneage.segmentation import Segmenter, clean_mask, mask_record
    class Otsu(Segmenter):
        name = settings = 'otsu'
        def records(self, img, field=None):
            m = clean_mask(cv2.threshold(img, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1] > 0)
            return [mask_record(m, 1, 1)]
    return Otsu()

def make(way):
    "The segmenter, and its encoder where it has one"
    from boneage.segmentation import SamSegmenter, get_segmenter
    if way.startswith('threshold'): return otsu(), None
    if way == 'classical': return get_segmenter('classical'), None
    mode = 'auto' if 'automatic' in way else 'prompt'
    grid = dict(points_per_side=32) if '32' in way else None
    if way.startswith('vit_b'):
        import torch
        from segment_anything import sam_model_registry
        torch.manual_seed(0)
        s = SamSegmenter('vit_b', sam=sam_model_registry['vit_b']().eval(), mode=mode, generator=grid)
    else: s = get_segmenter('hand_vit_tiny', mode=mode, generator=grid)
    return s, s.sam.image_encoder

def floor(enc):
    "GFLOP of one encoder pass, and the seconds it takes at the rate of a matrix product"
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    with torch.no_grad(), FlopCounterMode(display=False) as c: enc(torch.zeros(1, 3, enc.img_size, enc.img_size))
    a = torch.rand(1536, 1536)
    best = 1e9
    for _ in range(20): t = time.perf_counter(); a @ a; best = min(best, time.perf_counter() - t)
    return c.get_total_flops()/1e9, c.get_total_flops()/(2*1536**3/best), 2*1536**3/best/1e9

def one(way, folder):
    "Measure one way in this process"
    import numpy as np
    from boneage.core import load_film
    seg, enc = make(way)
    run = lambda side: seg.segment(load_film(dict(path=str(Path(folder)/f'{side}.png'))).pixels)
    run(SIDES[0]) if WAYS[way] > 1 else None
    secs, cpu, ok = [], [], 0
    for side in SIDES[-WAYS[way]:] if WAYS[way] > 1 else SIDES[2:3]:
        t, c = time.perf_counter(), time.process_time(); o = run(side); secs.append(time.perf_counter() - t); cpu.append(time.process_time() - c); ok += o.ok
    row = dict(way=way, films=len(secs), found=ok, seconds=round(float(np.median(secs)), 3), slowest=round(max(secs), 3), cpu_s=round(float(np.median(cpu)), 3), peak_MB=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e3))
    if enc is not None:
        g, s, rate = floor(enc)
        row |= dict(encoder_GFLOP=round(g, 1), GFLOP_s=round(rate), floor_s=round(s, 4), x_floor=round(row['seconds']/s, 1))
    print(json.dumps(row))

def main():
    p = argparse.ArgumentParser(); p.add_argument('--threads', type=int, default=os.cpu_count()); p.add_argument('--out'); p.add_argument('--only', nargs='*'); p.add_argument('--one', nargs=2)
    a = p.parse_args()
    if a.one: return one(*a.one)
    import pandas as pd
    env = os.environ | dict(OMP_NUM_THREADS=str(a.threads), OMP_WAIT_POLICY='PASSIVE')
    rows = []
    with tempfile.TemporaryDirectory() as d:
        draw_films(d)
        for w in a.only or WAYS:
            done = subprocess.run([sys.executable, __file__, '--one', w, d], env=env, check=True, capture_output=True, text=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            df = pd.DataFrame(rows).set_index('way')
            if a.out: df.assign(threads=a.threads).to_csv(a.out)   # as far as it got
    print(df.to_string())
    t = df.seconds
    if 'vit_b automatic 32 x 32' in t and 'hand_vit_tiny prompted' in t: print(f"hand_vit_tiny prompted is {t['vit_b automatic 32 x 32']/t['hand_vit_tiny prompted']:.0f} times as fast as vit_b automatic")

if __name__ == '__main__': main()
