"Everything that must hold before a change lands: `python tests/all.py`. Prints 'N passed, N failed' at the end."
import hashlib, os, re, subprocess, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent

def files(*folders): # what a step may not change: path -> hash
    paths = [p for f in folders for p in (ROOT/f).rglob('*') if p.suffix in ('.py', '.ipynb', '.yml') and '.ipynb_checkpoints' not in p.parts]
    return {str(p.relative_to(ROOT)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}

def unchanged(command, *folders):
    "Run a command that rewrites files in place; it must find nothing to rewrite"
    before = files(*folders)
    code = run(command)
    after = files(*folders)
    changed = sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
    if changed: print(f'{command} changed: {", ".join(changed)}; commit what it writes')
    return not changed and code == 0

def run(*command, log=None):
    print(f'\n== {" ".join(map(str, command))}', flush=True)
    exe = BIN/command[0]
    p = subprocess.Popen([str(exe if exe.exists() else command[0]), *map(str, command[1:])], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace')
    for line in p.stdout:
        print(line, end='', flush=True)
        if log is not None: log.append(line)
    return p.wait()

def pytest():
    log = []
    code = run(sys.executable, '-m', 'pytest', 'tests', '-rs', log=log)
    n = {k: int(v) for v, k in re.findall(r'(\d+) (passed|failed|error|errors|skipped)', ''.join(log[-3:]))}
    return n.get('passed', 0), n.get('failed', 0) + n.get('error', 0) + n.get('errors', 0) + (code not in (0, 1)), n.get('skipped', 0)

def main():
    os.environ.setdefault('MPLBACKEND', 'agg')
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE') # threads that wait by spinning slow each other down on a busy machine
    notebooks = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
    steps = {'library in sync with the notebooks': lambda: unchanged('nbdev-export', 'boneage'),
             'notebooks clean': lambda: unchanged('nbdev-clean', 'nbs')}
    steps |= {f'lessons of {p.stem}': lambda p=p: run('nbdev-test', p, '--n-workers', '0') == 0 for p in notebooks}
    steps['docs and links'] = lambda: run(sys.executable, 'tests/site_build.py') == 0
    failed = [name for name, step in steps.items() if not step()]
    passed, bad, skipped = pytest()
    for name in failed: print(f'FAILED: {name}')
    print(f'{passed + len(steps) - len(failed)} passed, {bad + len(failed)} failed, {skipped} skipped')
    return int(bool(bad or failed))

if __name__ == '__main__': sys.exit(main())
