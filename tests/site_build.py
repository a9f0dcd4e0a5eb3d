"Stage the docs as nbdev does, render them with smalldocs, and check every internal link. `nbdev-docs` (Quarto) renders the same files."
import os, re, shutil, subprocess, sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]

QUARTO_ONLY = 'format-links', 'commonmark', 'keep-md', 'html-math-method', 'output-file' # settings that smalldocs leaves to Quarto

def stage():
    "Notebooks with their doc cells filled in, in `_proc`, the folder that Quarto would render; returns it"
    from nbdev.quarto import refresh_quarto_yml
    from nbdev.serve import proc_nbs
    from nbdev.config import get_config
    os.chdir(ROOT)
    refresh_quarto_yml()
    proc = Path(proc_nbs(get_config().nbs_path, force=True))
    shutil.copyfile(ROOT/'_quarto.yml', proc/'_quarto.yml')
    return proc

def render(proc):
    "Render with smalldocs; returns the folder of the site"
    res = subprocess.run([sys.executable, '-m', 'smalldocs', 'render', str(proc)], capture_output=True, text=True)
    if res.returncode: res = subprocess.run([str(Path(sys.executable).parent/'smalldocs'), 'render', str(proc)], capture_output=True, text=True)
    lines = (res.stdout + res.stderr).splitlines()
    odd = [o for o in lines if 'warning' in o.lower() and not any(k in o for k in QUARTO_ONLY)]
    print('\n'.join(odd or lines[:1]))
    if res.returncode or odd: raise SystemExit('smalldocs could not render the site without a complaint')
    return next(p for p in (proc/'_docs', ROOT/'_docs') if (p/'index.html').exists())

def readme():
    "README.md from nbs/index.ipynb, as `nbdev-readme` makes it with Quarto: text, pictures, no hidden cells; (text, pictures)"
    import base64, json
    text, pics = [], {}
    for i, c in enumerate(json.loads((ROOT/'nbs/index.ipynb').read_text('utf-8'))['cells']):
        src = ''.join(c['source'])
        if c['cell_type'] == 'markdown': text.append(re.sub(r'\(([\w/]+)\.ipynb\)', r'(nbs/\1.ipynb)', src))
        for o in c.get('outputs', []):
            if 'image/png' not in o.get('data', {}): continue
            name = f'index_files/figure-commonmark/cell-{i+1}-output-1.png'
            pics[name] = base64.b64decode(''.join(o['data']['image/png']))
            text.append(f'![]({name})')
    return '\n\n'.join(text) + '\n', pics

def write_readme():
    text, pics = readme()
    (ROOT/'README.md').write_text(text, 'utf-8')
    for name, data in pics.items():
        (ROOT/name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT/name).write_bytes(data)

class _Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.links, self.ids = [], set()
    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self.ids |= {a[k] for k in ('id', 'name') if a.get(k)}
        self.links += [a[k] for k in ('href', 'src') if a.get(k)]

def broken_links(site):
    "Links inside the site that lead nowhere: (page, link)"
    pages = {p.resolve(): _Links() for p in Path(site).rglob('*.html')}
    for p, parser in pages.items(): parser.feed(p.read_text('utf-8'))
    bad = []
    for p, parser in pages.items():
        for link in parser.links:
            u = urlsplit(link)
            if u.scheme or u.netloc or link.startswith('data:'): continue
            target = (p.parent/unquote(u.path)).resolve() if u.path else p
            if target.is_dir(): target = target/'index.html'
            if not target.exists(): bad.append((p.name, link))
            elif u.fragment and target in pages and unquote(u.fragment) not in pages[target].ids: bad.append((p.name, link))
    return pages, bad

if __name__ == '__main__':
    if '--readme' in sys.argv: sys.exit(write_readme())
    site = render(stage())
    pages, bad = broken_links(site)
    for page, link in bad: print(f'broken link on {page}: {link}')
    print(f'{len(pages)} pages in {site}, {len(bad)} broken links')
    sys.exit(bool(bad) or len(pages) < 8)
