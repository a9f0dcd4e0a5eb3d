"What the benchmarks share: a command line, a clock, a bootstrap interval, and what is done to greys."
import argparse
import json
import time
from pathlib import Path

import numpy as np

from boneage.cropping import Turn

SHARED = dict( # option -> how every script takes it
    seed=dict(type=int, help='of all that is drawn'),
    films=dict(type=int, help='how many films are taken'),
    size=dict(type=int, help='side of the films, px'),
    epochs=dict(type=int, help='passes over the training films'),
    jobs=dict(type=int, help='processes'),
    out=dict(type=Path, help='where the results go'),
    card=dict(type=Path, help='card of weights that the numbers are written into'))
RESAMPLES = 2000 # of a bootstrap: the ends of a 95% interval then rest on 50 of them each
EDGE_ROWS = 5 # px: upper rows of a film whose median stands for what lies beyond it


def parser(
    doc:str, # a script's docstring, shown as its help
    **defaults, # options of `SHARED` that the script has, with their defaults
)->argparse.ArgumentParser:
    "The command line of a benchmark."
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in defaults.items():
        made.add_argument(f'--{name}', default=default, **SHARED[name])
    return made


def bootstrap_interval(
    values:np.ndarray, # (n,), one a film
    statistic, # function from such an array to a number
    n:int=RESAMPLES, # resamples
    seed:int=0,
)->np.ndarray: # low and high
    "The 95% bootstrap interval of a statistic over films."
    rng = np.random.default_rng(seed)
    draws = [statistic(values[rng.integers(0, len(values), len(values))]) for _ in range(n)]
    return np.percentile(draws, (2.5, 97.5))


def timed(
    function, # called without arguments
)->tuple: # what it gives, seconds
    "Call a function and look at the clock."
    start = time.perf_counter()
    found = function()
    return found, time.perf_counter() - start


def add_metrics(
    card:Path, # JSON file beside weights
    metrics:dict, # entries of its `metrics`
):
    "Write measured numbers into the card of the weights they were measured on."
    told = json.loads(card.read_text())
    told.setdefault('metrics', {}).update(metrics)
    card.write_text(json.dumps(told, indent=1))


def grey(
    values:np.ndarray, # numbers HxW
)->np.ndarray: # uint8 HxW
    "Numbers as the greys of a film; what is beyond black or white is cut off."
    return np.clip(values, 0, 255).astype(np.uint8)


def turned(
    pixels:np.ndarray, # uint8 HxW
    degrees:float, # to the left
)->np.ndarray: # uint8, as large as the turned film
    "A film turned about its middle; what comes into view is as bright as its upper edge."
    return Turn(pixels.shape, -degrees)(pixels, int(np.median(pixels[:EDGE_ROWS])))
