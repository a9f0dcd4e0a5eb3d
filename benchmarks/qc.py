"""How fast and how lean the reviewer is. How early the queue shows faults: qc_triage.py.

    python benchmarks/qc.py                        # speed: 12,611 rows, 600 keys
    python benchmarks/qc.py --files 300 --side 2000    # with films as large as a scanner's

From key to the next film is the time the kernel needs: write the decision to disk, move on, set both pictures.
The browser adds the way there and back and the drawing; tests/test_qc_browser.py prints the whole of it.
"""
import argparse, os, tempfile, threading, time
from pathlib import Path

os.environ.setdefault('TQDM_DISABLE', '1')
import cv2, numpy as np, pandas as pd, psutil

from boneage.core import write_png
from boneage.phantom import make_phantom
from boneage.qc_widgets import Decisions, QCReviewer

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument('--rows', type=int, default=12_611, help='films in the table')
ap.add_argument('--files', type=int, default=200, help='different files they are spread over')
ap.add_argument('--side', type=int, default=800, help='height of a film, px')
ap.add_argument('--keys', type=int, default=600, help='decisions')
ap.add_argument('--wait', type=float, default=.4, help='seconds a reader looks at a film')
ap.add_argument('--second', action='store_true', help='a second reviewer writes into the same file meanwhile')
ap.add_argument('--seed', type=int, default=1)

def table(folder, a):
    rows = []
    for i in range(a.files):
        ph = make_phantom(a.seed+i, size=256)
        big = cv2.resize(ph.pixels, None, fx=a.side/ph.pixels.shape[0], fy=a.side/ph.pixels.shape[0], interpolation=cv2.INTER_CUBIC)
        mask = cv2.resize(ph.mask.astype(np.uint8), big.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
        rows.append(dict(sex=ph.sex, age_months=ph.age_months, seg_status='ok', qc_flags='rotated' if i % 9 == 0 else ''))
        for k, img in dict(path=big, mask_path=mask, crop_path=cv2.resize(ph.pixels*ph.mask, (512, 512))).items():
            rows[-1][k] = str(folder/f'{k}-{i}.png')
            write_png(rows[-1][k], img)
    return pd.DataFrame([rows[i % a.files] | dict(id=f'film-{i:05d}') for i in range(a.rows)]).assign(qc_rank=range(1, a.rows+1))

def quantiles(ms): return f'p50 {np.median(ms):.0f} ms, p95 {np.percentile(ms, 95):.0f} ms, max {max(ms):.0f} ms'

def speed(a, folder):
    df, me = table(folder, a), psutil.Process()
    start = time.perf_counter()
    rev = QCReviewer(df, folder/'d.csv', 'anna')
    print(f'open {a.rows:,} rows: {time.perf_counter()-start:.2f} s')
    stop = threading.Event()
    if a.second: threading.Thread(target=lambda: [Decisions(folder/'d.csv', 'ben').add(f'film-{i:05d}', 'keep') for i in range(a.rows) if not stop.wait(.5)], daemon=True).start()
    ms, mb = [], []
    for i in range(a.keys):
        time.sleep(a.wait)
        start = time.perf_counter()
        rev.on_key(dict(key='kkkru'[i % 5]))
        ms.append(1000*(time.perf_counter()-start))
        mb.append(me.memory_info().rss/2**20)
    stop.set()
    print(f'key to next film, {a.keys} keys every {a.wait} s, {a.files} films of {a.side} px: {quantiles(ms)}')
    tenth = max(1, a.keys//10)
    print(f'memory: {np.mean(mb[tenth:2*tenth]):.0f} MB after {tenth} films, {np.mean(mb[-tenth:]):.0f} MB after {a.keys}')
    for name, act in dict(undo='undo', grid='grid', page='keep', turn='next').items():
        times = []
        for _ in range(1 if act == 'grid' else 10):
            time.sleep(0 if act == 'undo' else 1.5)
            start = time.perf_counter()
            rev.do(act)
            times.append(1000*(time.perf_counter()-start))
        print(f'{name}: {quantiles(times)}')
    print(rev.queue.progress())

if __name__ == '__main__':
    a = ap.parse_args()
    with tempfile.TemporaryDirectory() as folder: speed(a, Path(folder))
