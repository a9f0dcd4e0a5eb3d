"""How fast and how lean the reviewer is. How early the queue shows faults: review_triage.py.

    python benchmarks/review_speed.py                          12,611 rows, 600 keys
    python benchmarks/review_speed.py --files 300 --side 2000  with films as large as a scanner's

From key to the next film is the time the kernel needs: write the decision to disk, move on, set both pictures. The
browser adds the way there and back and the drawing; tests/test_qc_browser.py prints the whole of it.
"""
import tempfile
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import psutil

from boneage.films.files import write_png
from boneage.films.phantom import make_phantom
from boneage.qc_widgets import QCReviewer
from boneage.review.decisions import Decisions
from common import parser, timed

KEYS = 'kkkru' # keep, keep, keep, reject, unsure, and again
DRAWN_SIDE = 256 # px; a phantom is drawn at this side and enlarged
CROP_SIDE = 512 # px
FLAG_EVERY = 9 # films, so that the filters have something to count
OTHER_WAIT = .5 # seconds between two decisions of the second reviewer
TIMES = 10 # each of the other actions is taken
SETTLE = 1.5 # seconds before an action, for the pictures that are drawn ahead
OTHER_ACTIONS = dict(undo='undo', grid='grid', page='keep', turn='next')


def draw_film(i:int, folder:Path, o)->dict: # o: the options
    "A phantom as film, mask and crop; its row of the table."
    phantom = make_phantom(o.seed + i, size=DRAWN_SIDE)
    f = o.side/phantom.pixels.shape[0]
    film = cv2.resize(phantom.pixels, None, fx=f, fy=f, interpolation=cv2.INTER_CUBIC)
    mask = cv2.resize(phantom.mask.astype(np.uint8), film.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    crop = cv2.resize(phantom.pixels*phantom.mask, (CROP_SIDE, CROP_SIDE))
    flags = '' if i % FLAG_EVERY else 'rotated'
    row = dict(sex=phantom.sex, age_months=phantom.age_months, seg_status='ok', qc_flags=flags)
    for name, img in dict(path=film, mask_path=mask, crop_path=crop).items():
        row[name] = str(folder/f'{name}-{i}.png')
        write_png(row[name], img)
    return row


def review_table(folder:Path, o)->pd.DataFrame:
    "Many rows on few files."
    files = [draw_film(i, folder, o) for i in range(o.files)]
    rows = [files[i % o.files] | dict(id=f'film-{i:05d}') for i in range(o.rows)]
    return pd.DataFrame(rows).assign(qc_rank=range(1, o.rows + 1))


@contextmanager
def second_reviewer(path:Path, rows:int, at_work:bool):
    "Somebody else who decides in the same file meanwhile, or nobody."
    stop = threading.Event()
    def decide():
        for i in range(rows):
            if stop.wait(OTHER_WAIT):
                return
            Decisions(path, 'ben').add(f'film-{i:05d}', 'keep')
    if at_work:
        threading.Thread(target=decide, daemon=True).start()
    yield
    stop.set()


def press_keys(reviewer, o)->tuple: # milliseconds and megabytes, one a key
    "Decide on films, one after the other."
    process = psutil.Process()
    spent = []
    memory = []
    for i in range(o.keys):
        time.sleep(o.wait)
        press = partial(reviewer.on_key, dict(key=KEYS[i % len(KEYS)]))
        spent.append(1000*timed(press)[1])
        memory.append(process.memory_info().rss/2**20)
    return spent, memory


def quantiles(milliseconds)->str:
    middle, late = np.percentile(milliseconds, [50, 95])
    return f'p50 {middle:.0f} ms, p95 {late:.0f} ms, max {max(milliseconds):.0f} ms'


def say_keys(spent, memory, o):
    "How long a key takes, and whether memory grows."
    print(f'key to next film, {o.keys} keys every {o.wait} s, {o.files} films of {o.side} px: {quantiles(spent)}')
    tenth = max(1, o.keys//10)
    early = np.mean(memory[tenth:2*tenth])
    late = np.mean(memory[-tenth:])
    print(f'memory: {early:.0f} MB after {tenth} films, {late:.0f} MB after {o.keys}')


def time_action(reviewer, action:str)->list: # milliseconds
    "One of the other actions, several times; the grid is switched on once."
    spent = []
    for _ in range(1 if action == 'grid' else TIMES):
        time.sleep(0 if action == 'undo' else SETTLE)
        spent.append(1000*timed(partial(reviewer.do, action))[1])
    return spent


def main():
    p = parser(__doc__, seed=1)
    p.add_argument('--rows', type=int, default=12_611, help='films in the table')
    p.add_argument('--files', type=int, default=200, help='different files they are spread over')
    p.add_argument('--side', type=int, default=800, help='height of a film, px')
    p.add_argument('--keys', type=int, default=600, help='decisions')
    p.add_argument('--wait', type=float, default=.4, help='seconds a reader looks at a film')
    p.add_argument('--second', action='store_true', help='a second reviewer writes into the same file meanwhile')
    o = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        decisions = Path(folder)/'d.csv'
        df = review_table(Path(folder), o)
        reviewer, seconds = timed(partial(QCReviewer, df, decisions, 'anna'))
        print(f'open {o.rows:,} rows: {seconds:.2f} s')
        with second_reviewer(decisions, o.rows, o.second):
            spent, memory = press_keys(reviewer, o)
        say_keys(spent, memory, o)
        for name, action in OTHER_ACTIONS.items():
            print(f'{name}: {quantiles(time_action(reviewer, action))}')
        print(reviewer.queue.progress())


if __name__ == '__main__':
    main()
