"How the tests call the program: in a process of its own, with small networks."
import os
import subprocess
import sys
import time
from pathlib import Path

from boneage.films.manifest import read_table

ROOT = Path(__file__).resolve().parents[1]
ENV = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT), PYTHONWARNINGS='ignore')
TINY = '--arch tiny --weights none --size 64 --bs 8'.split()
PATIENCE = 600 # seconds: only so that a program that hangs does not stop the others


def words_of(words):
    return [sys.executable, '-m', 'boneage.cli', *map(str, words)]


def program(*words, **options):
    "Run a command to its end."
    options = dict(capture_output=True) | options
    return subprocess.run(words_of(words), text=True, env=ENV, timeout=PATIENCE, **options)


def start(*words):
    "Start a command."
    return subprocess.Popen(words_of(words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV)


def lines_in(file):
    return len(file.read_bytes().splitlines()) if file.exists() else 0


def wait_for_lines(job, lines, file):
    "Wait until a running command has written that many lines."
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and job.poll() is None and lines_in(file) < lines:
        time.sleep(.02)
    assert job.poll() is None, f'the command ended before it could be stopped: {job.stderr.read()}'


def stop(job, how):
    "Send a signal; what the command said."
    job.send_signal(how)
    return job.communicate(timeout=PATIENCE)[1]


def rows(path):
    return read_table(path)
