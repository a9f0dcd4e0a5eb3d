"Build metadata: what is not in pyproject.toml comes from settings.ini, the version from boneage/__init__.py."
import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
ini = ConfigParser(delimiters=['='], interpolation=None)
ini.read(ROOT/'settings.ini', encoding='utf-8')
facts = ini['DEFAULT']


def lines(text):
    return [line.strip() for line in text.splitlines() if line.strip()]


def section(name):
    return {k: v for k, v in ini[name].items() if k not in ini.defaults()}


def version():
    source = (ROOT/'boneage/__init__.py').read_text('utf-8')
    return re.search(r'''__version__ = ['"]([^'"]+)''', source)[1]


def readme():
    file = ROOT/'README.md'
    return file.read_text('utf-8') if file.exists() else ''


setup(
    version=version(),
    author=facts['author'],
    license=facts['license'],
    keywords=facts['keywords'],
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Healthcare Industry',
        'Intended Audience :: Science/Research',
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Medical Science Apps.',
    ],
    long_description=readme(),
    long_description_content_type='text/markdown',
    packages=find_packages(include=['boneage', 'boneage.*']),
    include_package_data=False, # only what the next line names
    package_data={'boneage': ['weights/*', 'moved.txt'], 'boneage.evidence': ['*.css'], 'boneage.review': ['*.css']},
    install_requires=lines(facts['requirements']),
    extras_require={name: lines(text) for name, text in section('extras').items()},
    entry_points={
        'console_scripts': [f'{name} = {target}' for name, target in section('scripts').items()],
        'nbdev': ['boneage = boneage._modidx:d'],
    },
)
