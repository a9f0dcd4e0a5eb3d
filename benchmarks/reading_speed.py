"""How long one reading takes: the command from nothing, and a film by a predictor that is loaded.

    python benchmarks/reading_speed.py [--models boneage_lite0 boneage_blend] [--rounds 5]

The film is a phantom of 512 px. Each round starts the command in a fresh process, and beside it one that only imports
torch: the ratio of the two says more than seconds do where other programs share the machine. Seconds are medians over
the rounds, wall and processor.
"""
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from boneage.films.files import write_png
from boneage.films.phantom import make_phantom
from common import parser

SIZE = 512 # px, height of the film


def seconds(command):
    "Wall and processor seconds of a process."
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def cold(film, model, rounds):
    "The command and the bare import of torch, in turn; medians."
    command = [sys.executable, '-m', 'boneage.cli', 'predict', str(film), '--sex', 'F', '--model', model]
    torch = [sys.executable, '-c', 'import torch']
    seconds(command) # files into the disk cache
    pairs = [(seconds(command), seconds(torch)) for _ in range(rounds)]
    (wall, cpu), (torch_wall, _) = np.median(np.array(pairs), 0)
    return dict(cold_s=wall, cold_cpu_s=cpu, import_torch_s=torch_wall, ratio=wall/torch_wall)


def warm(film, model, rounds):
    "Median of one reading, with explanation, by a predictor that is loaded."
    from boneage.predict import BoneAgePredictor
    predictor = BoneAgePredictor(model)
    took = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        predictor.predict(film, sex='F')
        took.append(time.perf_counter() - start)
    return dict(warm_s=float(np.median(took[1:])))


def main():
    words = parser(__doc__)
    words.add_argument('--models', nargs='+', default=['boneage_lite0', 'boneage_blend', 'boneage_resnet50'])
    words.add_argument('--rounds', type=int, default=5)
    options = words.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder)/'film.png'
        write_png(film, make_phantom(3, 120, 'F', size=SIZE).pixels)
        rows = [dict(model=m) | cold(film, m, options.rounds) | warm(film, m, options.rounds) for m in options.models]
    print(pd.DataFrame(rows).round(2).to_string(index=False))


if __name__ == '__main__':
    main()
