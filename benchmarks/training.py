"""How fast the Learner trains, beside a bare PyTorch loop over the same network, batches and optimizer.

    python benchmarks/training.py [--arch efficientnet_lite0] [--size 160] [--bs 32] [--batches 20] [--rounds 3] [--precision fp32]

Random films in memory. A round is one epoch of the Learner (augmentation, loss, clipping, one-cycle, recorder, eight validation films) and one of the
bare loop (augmentation, loss, clipping, step), in turn, so that a busy machine slows both alike. Printed: films a second, the median of the rounds, and
the ratio. Where other programs share the processor, films a CPU second tell more than films a second."""
import argparse, tempfile, time
from contextlib import nullcontext
import cv2, numpy as np, pandas as pd, torch
from boneage import train_fastai as t

def films(n, folder, size):
    "A table of n random crops"
    rng, rows = np.random.default_rng(0), []
    for i in range(n):
        path = f'{folder}/{i}.png'
        cv2.imwrite(path, rng.integers(0, 255, (size, size), np.uint8))
        rows.append(dict(id=str(i), crop_path=path, sex='FM'[i % 2], age_months=rng.uniform(10, 220), split='valid' if i < 8 else 'train'))
    return pd.DataFrame(rows)

def clocks(fn, n):
    "Films a second and films a CPU second of one call"
    wall, cpu = time.perf_counter(), time.process_time()
    fn()
    return n/(time.perf_counter() - wall), n/(time.process_time() - cpu)

def bare_epoch(net, opt, loss, x, sex, y, *, aug, bs, amp):
    "The loop one would write by hand"
    net.train()
    for idx in torch.randperm(len(x)).split(bs):
        batch = aug.encodes(t.TensorImageBW(x[idx].float().div_(255))).as_subclass(torch.Tensor)
        with amp(): l = loss(net(batch, sex[idx]).float(), y[idx])
        l.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.)
        opt.step()
        opt.zero_grad()
        l.item()

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--arch', default='efficientnet_lite0', choices=list(t.ARCHS))
    for k, v in dict(size=160, bs=32, batches=20, rounds=3).items(): p.add_argument(f'--{k}', type=int, default=v)
    p.add_argument('--precision', default='fp32', choices=('fp32', 'bf16'))
    o = p.parse_args()
    n = o.bs*o.batches
    with tempfile.TemporaryDirectory() as folder:
        dls = t.bone_age_dls(films(n + 8, folder, o.size), o.size, o.bs, device='cpu')
        learn = t.bone_age_learner(dls, o.arch, None, path=folder)
        learn.add_cbs(t.precision_cbs('cpu', o.precision)[1])
        net, ds = t.BoneAgeNet(o.arch), dls.train_ds.items
        opt, loss, reader = torch.optim.AdamW(net.parameters(), 1e-3), t.MonthsLoss(41.), t.film_reader(dls)
        x = torch.from_numpy(np.stack([reader.pixels(q) for q in ds.crop_path]))[:, None]
        sex, y = torch.tensor([t.SEX2NUM[s] for s in ds.sex]), torch.tensor(ds.age_months.to_numpy(np.float32))
        amp = (lambda: torch.autocast('cpu', torch.bfloat16)) if o.precision == 'bf16' else nullcontext
        def by_hand(): bare_epoch(net, opt, loss, x, sex, y, aug=t.FilmAugment(), bs=o.bs, amp=amp)
        def by_learner(): learn.fit_one_cycle(1, 1e-3)
        with learn.no_bar(), learn.no_logging():
            by_learner(); by_hand() # warm up
            got = [(clocks(by_learner, n), clocks(by_hand, n)) for _ in range(o.rounds)]
    fast, bare = np.median(np.array(got), 0)
    print(f'{o.arch}, {o.size} px, batch {o.bs}, {o.precision}, {torch.get_num_threads()} threads, {o.rounds} rounds of {o.batches} batches')
    print(pd.DataFrame([fast, bare, fast/bare], ['Learner', 'bare loop', 'ratio'], ['films a second', 'films a CPU second']).round(2).to_string())

if __name__ == '__main__': main()
