"Stage the docs as nbdev does, render them with smalldocs, check every link. `nbdev-docs` (Quarto) renders the same."
import base64
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
QUARTO_ONLY = 'format-links', 'commonmark', 'keep-md', 'html-math-method', 'output-file' # settings not for smalldocs


def stage():
    "Notebooks with their doc cells filled in, in `_proc`, the folder that Quarto would render; returns it."
    from nbdev.config import get_config
    from nbdev.quarto import refresh_quarto_yml
    from nbdev.serve import proc_nbs
    os.chdir(ROOT)
    refresh_quarto_yml()
    proc = Path(proc_nbs(get_config().nbs_path, force=True))
    shutil.copyfile(ROOT/'_quarto.yml', proc/'_quarto.yml')
    return proc


def smalldocs(proc):
    "Run smalldocs as a module, else as a program: its versions differ in which they offer."
    for command in ([sys.executable, '-m', 'smalldocs'], [str(BIN/'smalldocs')]):
        done = subprocess.run([*command, 'render', str(proc)], capture_output=True, text=True)
        if done.returncode == 0:
            break
    return done


def render(proc):
    "Render with smalldocs; returns the folder of the site."
    done = smalldocs(proc)
    lines = (done.stdout + done.stderr).splitlines()
    odd = [o for o in lines if 'warning' in o.lower() and not any(k in o for k in QUARTO_ONLY)]
    print('\n'.join(odd or lines[:1]))
    if done.returncode or odd:
        raise SystemExit('smalldocs could not render the site without a complaint')
    return next(p for p in (proc/'_docs', ROOT/'_docs') if (p/'index.html').exists())


def readme():
    "README.md from nbs/index.ipynb, as `nbdev-readme` makes it with Quarto: its text and its pictures."
    text = []
    pictures = {}
    for i, cell in enumerate(json.loads((ROOT/'nbs/index.ipynb').read_text('utf-8'))['cells']):
        if cell['cell_type'] == 'markdown':
            text.append(re.sub(r'\(([\w/]+)\.ipynb\)', r'(nbs/\1.ipynb)', ''.join(cell['source'])))
        for output in cell.get('outputs', []):
            if 'image/png' not in output.get('data', {}):
                continue
            name = f'index_files/figure-commonmark/cell-{i+1}-output-1.png'
            pictures[name] = base64.b64decode(''.join(output['data']['image/png']))
            text.append(f'![]({name})')
    return '\n\n'.join(text) + '\n', pictures


def write_readme():
    text, pictures = readme()
    (ROOT/'README.md').write_text(text, 'utf-8')
    for name, data in pictures.items():
        (ROOT/name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT/name).write_bytes(data)


class Links(HTMLParser):
    "Where a page links to, and what can be linked to on it."
    def __init__(self):
        super().__init__()
        self.links = []
        self.ids = set()

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids |= {given[k] for k in ('id', 'name') if given.get(k)}
        self.links += [given[k] for k in ('href', 'src') if given.get(k)]


def read_links(page):
    parser = Links()
    parser.feed(page.read_text('utf-8'))
    return parser


def leads_nowhere(page, link, pages):
    "Whether a link inside the site has no target."
    url = urlsplit(link)
    if url.scheme or url.netloc or link.startswith('data:'):
        return False
    target = (page.parent/unquote(url.path)).resolve() if url.path else page
    if target.is_dir():
        target = target/'index.html'
    if not target.exists():
        return True
    return bool(url.fragment) and target in pages and unquote(url.fragment) not in pages[target].ids


def broken_links(site):
    "All pages, and links inside the site that lead nowhere: (page, link)."
    pages = {p.resolve(): read_links(p) for p in Path(site).rglob('*.html')}
    links = [(page, link) for page, seen in pages.items() for link in seen.links]
    return pages, [(page.name, link) for page, link in links if leads_nowhere(page, link, pages)]


def main():
    site = render(stage())
    pages, broken = broken_links(site)
    for page, link in broken:
        print(f'broken link on {page}: {link}')
    print(f'{len(pages)} pages in {site}, {len(broken)} broken links')
    return int(bool(broken) or len(pages) < 8)


if __name__ == '__main__':
    sys.exit(write_readme() if '--readme' in sys.argv else main())
