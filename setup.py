"Build metadata: everything that is not in pyproject.toml comes from settings.ini, the version from boneage/__init__.py."
import re
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup

ROOT = Path(__file__).parent
ini = ConfigParser(delimiters=['='], interpolation=None)
ini.read(ROOT/'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']

def lines(text): return [o.strip() for o in text.splitlines() if o.strip()]
def section(name): return {k: v for k, v in ini[name].items() if k not in ini.defaults()}

setup(
    version=re.search(r"__version__ = '([^']+)'|__version__ = \"([^\"]+)\"", (ROOT/'boneage/__init__.py').read_text('utf-8'))[0].split('=')[1].strip(" '\""),
    author=cfg['author'],
    license=cfg['license'],
    keywords=cfg['keywords'],
    classifiers=['Development Status :: 3 - Alpha', 'Intended Audience :: Healthcare Industry', 'Intended Audience :: Science/Research',
                 'Programming Language :: Python :: 3', 'Topic :: Scientific/Engineering :: Medical Science Apps.'],
    long_description=(ROOT/'README.md').read_text('utf-8') if (ROOT/'README.md').exists() else '',
    long_description_content_type='text/markdown',
    packages=['boneage'],
    include_package_data=False, # only what the next line names
    package_data={'boneage': ['weights/*']},
    install_requires=lines(cfg['requirements']),
    extras_require={k: lines(v) for k, v in section('extras').items()},
    entry_points={'console_scripts': [f'{k} = {v}' for k, v in section('scripts').items()],
                  'nbdev': ['boneage = boneage._modidx:d']},
)
