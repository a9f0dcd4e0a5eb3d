"Everything that must hold before a change lands: `python tests/all.py`. Prints 'N passed, N failed' at the end."
import hashlib
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
WATCHED = '.py', '.ipynb', '.yml'
PAGES_AT_A_TIME = 2 # as many as the smallest machine has cores
CHECKED_CODE = 'boneage', 'nbs', 'tests', 'benchmarks', 'setup.py'


def notebooks():
    return sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)


def start(command):
    "Start a program of this environment, both its outputs in one pipe."
    program = BIN/command[0]
    words = [str(program if program.exists() else command[0]), *map(str, command[1:])]
    pipe = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace')
    return subprocess.Popen(words, cwd=ROOT, **pipe)


def run(*command, log=None):
    "Run a program and pass its output on as it comes; its exit code."
    print(f'\n== {" ".join(map(str, command))}', flush=True)
    job = start(command)
    for line in job.stdout:
        print(line, end='', flush=True)
        if log is not None:
            log.append(line)
    return job.wait()


def succeeds(*command):
    return run(*command) == 0


def hashes(folder):
    "What a step may not change: path -> hash."
    paths = [p for p in (ROOT/folder).rglob('*') if p.suffix in WATCHED and '.ipynb_checkpoints' not in p.parts]
    return {str(p.relative_to(ROOT)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def unchanged(command, folder):
    "Run a command that rewrites files in place; it must find nothing to rewrite."
    before = hashes(folder)
    code = run(command)
    after = hashes(folder)
    changed = sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
    if changed:
        print(f'{command} changed: {", ".join(changed)}; commit what it writes')
    return not changed and code == 0


def lesson(page):
    "Whether a page passes as nbdev runs it; what it says in one piece, since two pages run side by side."
    job = start(['nbdev-test', page, '--n-workers', '0'])
    said = job.communicate()[0]
    print(f'\n== lesson {page.relative_to(ROOT/"nbs")}\n{said}', end='', flush=True)
    return job.returncode == 0


def lessons():
    "Name of each lesson -> whether it holds."
    pages = notebooks()
    with ThreadPoolExecutor(PAGES_AT_A_TIME) as pool:
        held = list(pool.map(lesson, pages))
    return {f'lesson {page.relative_to(ROOT/"nbs")}': ok for page, ok in zip(pages, held)}


def steps():
    "Name -> a function that says whether it holds."
    return {
        'library in sync with the notebooks': lambda: unchanged('nbdev-export', 'boneage'),
        'notebooks clean': lambda: unchanged('nbdev-clean', 'nbs'),
        'one voice (ruff)': lambda: succeeds('ruff', 'check', *CHECKED_CODE),
        'floors (import-linter)': lambda: succeeds('lint-imports', '--no-cache'),
        'docs and links': lambda: succeeds(sys.executable, 'tests/site_build.py'),
    }


def pytest(*words):
    "Run tests; how many passed, failed and were skipped."
    log = []
    code = run(sys.executable, '-m', 'pytest', '-rs', *words, log=log)
    pairs = re.findall(r'(\d+) (passed|failed|error|skipped)', ''.join(log[-3:]))
    counts = {word: int(number) for number, word in pairs}
    broken = code not in (0, 1)
    failed = counts.get('failed', 0) + counts.get('error', 0) + broken
    return counts.get('passed', 0), failed, counts.get('skipped', 0)


def tests():
    "Run All of every page, two side by side, then the tests that want the machine for themselves."
    pages = 'tests/test_pages.py'
    runs = pytest(pages, '-n', PAGES_AT_A_TIME), pytest('tests', f'--ignore={pages}')
    return [sum(counts) for counts in zip(*runs)]


def main():
    os.environ.setdefault('MPLBACKEND', 'agg')
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE') # threads that spin slow each other down on a busy machine
    held = {name: holds() for name, holds in steps().items()} | lessons()
    failed = [name for name, ok in held.items() if not ok]
    passed, bad, skipped = tests()
    for name in failed:
        print(f'FAILED: {name}')
    print(f'{passed + len(held) - len(failed)} passed, {bad + len(failed)} failed, {skipped} skipped')
    return int(bool(bad or failed))


if __name__ == '__main__':
    sys.exit(main())
