"""Runs killed at random moments: nothing is lost, and tables and pictures are those of a run that nobody killed.

    python tests/test_kills.py 200          two hundred kills, with a line for every finished round
    BONEAGE_KILLS=50 pytest tests/test_kills.py
"""
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import pytest

KILLS = int(os.environ.get('BONEAGE_KILLS', 12))
SEED = 20
JOBS_EVERY = 3 # every third round, the second first, works with two processes
MOST = 8 # kills of one workspace: on a busy machine two processes may never get beyond their start
FILMS = 6
SIDE = 200 # px
TABLES = 'segmented.csv', 'cropped.csv'


def run(films, out, jobs):
    "What the user types, in this process; the exit code."
    from boneage import cli
    common = ['--out', str(out), '--jobs', str(jobs)]
    code = cli.main(['segment', str(films), '--segmenter', 'classical', *common])
    return code or cli.main(['crop', str(out/'segmented.csv'), '--size', '64', *common])


def child(log, task, *args):
    "Do a task in a process of its own that has imported everything; its number."
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        os.setpgid(0, 0)
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(said, 1)
        os.dup2(said, 2)
        code = task(*args)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code or 0)


def exit_code(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def draw(folder):
    from boneage.films.manifest import write_manifest
    from boneage.films.phantom import phantom_df
    write_manifest(phantom_df(FILMS, folder, size=SIDE, fault_rate=0), folder/'films.csv')


def content(out):
    "Every file of a workspace as bytes; of the journals what they say of each film."
    found = {}
    for file in sorted(out.rglob('*')):
        name = file.relative_to(out).as_posix()
        if file.suffix == '.jsonl':
            lines = [json.loads(o) for o in file.read_text().splitlines() if o]
            found[name] = sorted((o['id'], json.dumps(o['row']), o['error']) for o in lines)
        elif file.is_file():
            found[name] = file.read_bytes()
    return found


def kill_one(world, jobs, moment):
    "Start a run and kill it after some seconds; whether it was still at work."
    pid = child(world/'log', run, world/'films/films.csv', world/'killed', jobs)
    time.sleep(moment)
    os.kill(pid, signal.SIGKILL)
    code = exit_code(pid)
    assert code in (0, -signal.SIGKILL), f'a run ended with {code}: {last_words(world)}'
    return code != 0


def last_words(world):
    return (world/'log').read_text()[-2000:]


def whole_run(world, out, jobs):
    "A run to its end; seconds."
    began = time.monotonic()
    code = exit_code(child(world/'log', run, world/'films/films.csv', out, jobs))
    assert code == 0, f'a run ended with {code}: {last_words(world)}'
    return time.monotonic() - began


def round_of_kills(world, jobs, rng, usual, most):
    "One workspace, killed again and again until it is finished; how many kills it took."
    shutil.rmtree(world/'killed', ignore_errors=True)
    kills = 0
    while kills < most and kill_one(world, jobs, rng.uniform(0, usual)):
        kills += 1
    if jobs > 1: # a worker may finish its film before it sees that its parent is gone
        time.sleep(1.5)
    whole_run(world, world/'killed', jobs)
    return kills


def with_journal_lines_once(found):
    "A film that was done and killed before its line was written is done again: its last line counts."
    return {name: sorted(set(lines)) if isinstance(lines, list) else lines for name, lines in found.items()}


def harness(world, kills, seed=SEED, say=print):
    "Kill so many runs; raise where a workspace differs from the undisturbed one."
    rng = random.Random(seed)
    draw(world/'films')
    run(world/'films/films.csv', world/'warm', 1) # what is imported here need not be in every run
    usual = {jobs: whole_run(world, world/f'undisturbed {jobs}', jobs) for jobs in (1, 2)}
    truth = content(world/'undisturbed 1')
    assert content(world/'undisturbed 2') == truth
    assert sum(name.endswith('.png') for name in truth) == 2*FILMS and set(TABLES) < set(truth)
    done = rounds = 0
    while done < kills:
        jobs = 2 if rounds % JOBS_EVERY == 1 else 1
        done += round_of_kills(world, jobs, rng, usual[jobs], min(MOST, kills - done))
        rounds += 1
        found = with_journal_lines_once(content(world/'killed'))
        differ = sorted(k for k in truth | found if truth.get(k) != found.get(k))
        assert not differ, f'seed {seed}, round {rounds}, {done} kills: {differ}'
        say(f'{done} kills in {rounds} rounds, every file as undisturbed ({jobs} process(es))', flush=True)
    return rounds


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='no fork on this system')
def test_killed_at_random_moments(tmp_path):
    from commands import ENV
    words = [sys.executable, __file__, str(KILLS), str(tmp_path/'röntgen films')]
    harness_run = subprocess.run(words, env=ENV, capture_output=True, text=True, timeout=1800)
    assert harness_run.returncode == 0, harness_run.stderr[-3000:]
    assert f'{KILLS} kills in' in harness_run.stdout


if __name__ == '__main__':
    import cv2
    cv2.setNumThreads(0) # a process with threads is not to be forked
    with tempfile.TemporaryDirectory() as tmp:
        harness(Path(sys.argv[2] if len(sys.argv) > 2 else tmp), int(sys.argv[1]))
