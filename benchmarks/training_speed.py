"""How fast the Learner trains, beside a bare PyTorch loop over the same network, batches and optimizer.

    python benchmarks/training_speed.py --arch efficientnet_lite0 --size 160 --bs 32 --batches 20 --rounds 3

Random films in memory. A round is one epoch of the Learner (augmentation, loss, clipping, one-cycle, recorder,
eight validation films) and one of the bare loop (augmentation, loss, clipping, step), in turn, so that a busy
machine slows both alike. Printed: films a second, the median of the rounds, and the ratio. Where other programs
share the processor, films a CPU second tell more than films a second.
"""
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from fastai.torch_core import TensorImageBW

from boneage.films.files import write_png
from boneage.model.network import ARCHS, BoneAgeNet, SEX2NUM
from boneage.train_fastai import MonthsLoss, bone_age_learner
from boneage.training.data import FilmAugment, bone_age_dls, film_reader
from boneage.training.resume import precision_cbs
from common import parser, timed

VALID = 8 # films, the fewest that make a batch of validation
SD = 41. # months, of the ages in the RSNA training films: the loss is in these
LR = 1e-3
MAX_NORM = 1. # of the gradient, as in the Learner


def random_films(n:int, folder:str, size:int)->pd.DataFrame:
    "A table of n random crops."
    rng = np.random.default_rng(0)
    rows = []
    for i in range(n):
        path = f'{folder}/{i}.png'
        write_png(path, rng.integers(0, 255, (size, size), np.uint8))
        split = 'valid' if i < VALID else 'train'
        rows.append(dict(id=str(i), crop_path=path, sex='FM'[i % 2], age_months=rng.uniform(10, 220), split=split))
    return pd.DataFrame(rows)


def rates(epoch, n:int)->tuple: # films a second, films a CPU second
    "How fast one epoch of n films goes."
    cpu = time.process_time()
    _, seconds = timed(epoch)
    return n/seconds, n/(time.process_time() - cpu)


@dataclass
class BareLoop:
    "The loop one would write by hand."
    net:BoneAgeNet
    films:torch.Tensor # uint8 N x 1 x S x S
    sexes:torch.Tensor # N
    months:torch.Tensor # N
    batch:int # films
    amp:object = nullcontext # called for each batch

    def __post_init__(self):
        self.optimizer = torch.optim.AdamW(self.net.parameters(), LR)
        self.loss = MonthsLoss(SD)
        self.augment = FilmAugment()

    def epoch(self):
        self.net.train()
        for i in torch.randperm(len(self.films)).split(self.batch):
            films = TensorImageBW(self.films[i].float().div_(255))
            films = self.augment.encodes(films).as_subclass(torch.Tensor)
            with self.amp():
                loss = self.loss(self.net(films, self.sexes[i]).float(), self.months[i])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), MAX_NORM)
            self.optimizer.step()
            self.optimizer.zero_grad()
            loss.item()


def bare_loop(dls, o)->BareLoop: # o: the options
    "The loop by hand over the training films of the loaders."
    rows = dls.train_ds.items
    reader = film_reader(dls)
    films = torch.from_numpy(np.stack([reader.pixels(path) for path in rows.crop_path]))[:, None]
    sexes = torch.tensor([SEX2NUM[sex] for sex in rows.sex])
    months = torch.tensor(rows.age_months.to_numpy(np.float32))
    amp = partial(torch.autocast, 'cpu', torch.bfloat16) if o.precision == 'bf16' else nullcontext
    return BareLoop(BoneAgeNet(o.arch), films, sexes, months, o.bs, amp)


def compare(folder:str, o)->np.ndarray: # rounds x (Learner, bare loop) x (films a second, a CPU second)
    "Both in turn, after an epoch of each to warm up."
    n = o.bs*o.batches
    dls = bone_age_dls(random_films(n + VALID, folder, o.size), o.size, o.bs, device='cpu')
    learn = bone_age_learner(dls, o.arch, None, path=folder)
    learn.add_cbs(precision_cbs('cpu', o.precision)[1])
    loop = bare_loop(dls, o)
    def by_learner():
        learn.fit_one_cycle(1, LR)
    with learn.no_bar(), learn.no_logging():
        by_learner()
        loop.epoch()
        return np.array([(rates(by_learner, n), rates(loop.epoch, n)) for _ in range(o.rounds)])


def main():
    p = parser(__doc__, size=160)
    p.add_argument('--arch', default='efficientnet_lite0', choices=list(ARCHS))
    p.add_argument('--bs', type=int, default=32, help='films a batch')
    p.add_argument('--batches', type=int, default=20, help='batches an epoch')
    p.add_argument('--rounds', type=int, default=3, help='epochs of each')
    p.add_argument('--precision', default='fp32', choices=('fp32', 'bf16'))
    o = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        learner, bare = np.median(compare(folder, o), 0)
    print(f'{o.arch}, {o.size} px, batch {o.bs}, {o.precision}, {torch.get_num_threads()} threads, '
          f'{o.rounds} rounds of {o.batches} batches')
    names = ['Learner', 'bare loop', 'ratio']
    table = pd.DataFrame([learner, bare, learner/bare], names, ['films a second', 'films a CPU second'])
    print(table.round(2).to_string())


if __name__ == '__main__':
    main()
