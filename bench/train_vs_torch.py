#!/usr/bin/python3
"""Seconds per training epoch of a net: `nimbus train` against PyTorch, interleaved.

    bench/train_vs_torch.py build/nimbus [--net mlp|resnet8] [--rounds 5] [--epochs 2] [--threads 2]

Both sides train the same net with AdamW on equally many rows: 784-512-512-10 at batch 256 on MNIST,
or ResNet-8 at batch 128 on the first 30,000 rows of CIFAR-10, if $NIMBUS_DATA (or --data) has it,
else on random pixels of that shape. Neither side's time contains reading the data. PyTorch keeps
normalised floats in one tensor and gathers shuffled batches by index. It runs twice a round, with
threads that spin while they wait (its default, best on an idle machine) and with threads that sleep
(best on a busy one), and the faster median counts. Every measurement is a process of its own, all
take turns, and the medians and their ratio are printed as JSON.
"""
import argparse
import gzip
import json
import lzma
import os
import random
import statistics
import struct
import subprocess
import sys
import tempfile
import time

RATE, DECAY = 1e-3, 0.01
MNIST = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
CIFAR = tuple(f"data_batch_{i}.bin" for i in range(1, 6)) + ("test_batch.bin",)
SUFFIXES = ("", ".xz")
NETS = {"mlp": {"spec": "mlp:512,512", "title": "784-512-512-10", "batch": 256, "rows": 60000},
        "resnet8": {"spec": "resnet8", "title": "ResNet-8", "batch": 128, "rows": 30000}}


def read_bytes(path):
    opens = {".gz": gzip.open, ".xz": lzma.open}.get(os.path.splitext(path)[1], open)
    with opens(path, "rb") as f:
        return f.read()


def mnist_files(data_dir, made_in):
    """What --data of the tool is given, and what it is: images and labels in IDX format."""
    for suffix in ("", ".gz"):
        paths = [os.path.join(data_dir, "mnist", name + suffix) for name in MNIST]
        if all(os.path.exists(p) for p in paths):
            return ",".join(paths), "mnist"
    n = 60000
    paths = [os.path.join(made_in, name) for name in MNIST]
    rng = random.Random(1)
    with open(paths[0], "wb") as f:
        f.write(struct.pack(">IIII", 0x803, n, 28, 28) + rng.randbytes(n * 784))
    with open(paths[1], "wb") as f:
        f.write(struct.pack(">II", 0x801, n) + bytes(rng.randrange(10) for _ in range(n)))
    return ",".join(paths), "random pixels"


def cifar_files(data_dir, made_in):
    """The same for a folder of CIFAR-10's binary batches, some of which may be missing."""
    folder = os.path.join(data_dir, "cifar-10")
    if any(os.path.exists(os.path.join(folder, CIFAR[0] + suffix)) for suffix in SUFFIXES):
        return folder, "cifar-10"
    rng = random.Random(1)
    for name in CIFAR:
        with open(os.path.join(made_in, name), "wb") as f:
            for _ in range(10000):
                f.write(bytes([rng.randrange(10)]) + rng.randbytes(3072))
    return made_in, "random pixels"


def torch_data(net, data, rows):
    """Normalised floats and labels."""
    import torch

    if net == "mlp":
        images, labels = (read_bytes(p) for p in data.split(","))
        x = torch.frombuffer(bytearray(images[16:]), dtype=torch.uint8).view(-1, 784)
        y = torch.frombuffer(bytearray(labels[8:]), dtype=torch.uint8)
    else:
        paths = [os.path.join(data, name + suffix) for name in CIFAR[:5] for suffix in SUFFIXES]
        records = b"".join(read_bytes(path) for path in paths if os.path.exists(path))
        both = torch.frombuffer(bytearray(records), dtype=torch.uint8).view(-1, 3073)
        x, y = both[:, 1:].reshape(-1, 3, 32, 32), both[:, 0]
    x = x[:rows].float()
    return (x - x.mean()) / x.std(), y[:rows].long()


def torch_mlp():
    import torch

    return torch.nn.Sequential(
        torch.nn.Linear(784, 512), torch.nn.ReLU(),
        torch.nn.Linear(512, 512), torch.nn.ReLU(), torch.nn.Linear(512, 10))


def torch_resnet8():
    """The net of src/net/build_resnet.c; bias=False, as batch norm follows."""
    import torch
    from torch import nn

    def conv(n, m, kernel, stride):
        return [nn.Conv2d(n, m, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(m)]

    class Block(nn.Module):
        def __init__(self, n, m, stride):
            super().__init__()
            self.body = nn.Sequential(*conv(n, m, 3, stride), nn.ReLU(), *conv(m, m, 3, 1))
            self.shortcut = nn.Sequential(*(conv(n, m, 1, stride) if stride > 1 else []))

        def forward(self, x):
            return torch.relu(self.shortcut(x) + self.body(x))

    return nn.Sequential(
        *conv(3, 16, 3, 1), nn.ReLU(), Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def torch_epoch_seconds(net, data, batch_rows, rows, epochs, threads):
    """Runs in a process of its own; prints seconds per epoch and the mean loss after training."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(1)
    x, y = torch_data(net, data, rows)
    model = torch_mlp() if net == "mlp" else torch_resnet8()
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    loss_of = torch.nn.CrossEntropyLoss()
    model(x[:batch_rows]).sum().backward()  # warm-up
    start = time.perf_counter()
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for i in range(0, len(x), batch_rows):
            batch = order[i:i + batch_rows]
            optimiser.zero_grad(set_to_none=True)
            loss = loss_of(model(x[batch]), y[batch])
            loss.backward()
            optimiser.step()
            loss.item()
    seconds = (time.perf_counter() - start) / epochs
    model.eval()
    with torch.no_grad():
        losses = [loss_of(model(x[i:i + 1000]), y[i:i + 1000]).item() * len(x[i:i + 1000])
                  for i in range(0, len(x), 1000)]
    print(json.dumps({"seconds": seconds, "loss": sum(losses) / len(x),
                      "torch": torch.__version__}))


def run_json(command, waiting=None):
    """Runs a command that prints JSON last; `waiting`: OMP_WAIT_POLICY, None: the program's own."""
    env = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if waiting:
        env["OMP_WAIT_POLICY"] = waiting
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=env)
    return json.loads(done.stdout.decode().strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("nimbus", help="the command-line tool")
    parser.add_argument("--net", choices=sorted(NETS), default="mlp")
    parser.add_argument("--python", default=sys.executable, help="a Python with torch")
    parser.add_argument("--data", default=os.environ.get("NIMBUS_DATA", "data"))
    parser.add_argument("--batch", type=int, help="rows per step")
    parser.add_argument("--rows", type=int, help="of the data, at most")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    net = NETS[args.net]
    batch = args.batch or net["batch"]
    times = {"nimbus": [], "torch": [], "torch, passive": []}
    losses = {}
    with tempfile.TemporaryDirectory() as folder:
        data, source = (mnist_files if args.net == "mlp" else cifar_files)(args.data, folder)
        nimbus = [args.nimbus, "train", "--json", "--data", data, "-o",
                  os.path.join(folder, "trained.net"), "--net", net["spec"], "--epochs",
                  str(args.epochs), "--batch", str(batch), "--threads", str(args.threads),
                  "--rate", str(RATE), "--weight-decay", str(DECAY), "--schedule", "constant",
                  "--smoothing", "0", "--shift", "0", "--valid", "0", "--rows",
                  str(args.rows or net["rows"])]
        for _ in range(args.rounds):
            report = run_json(nimbus)
            times["nimbus"].append(report["seconds"] / args.epochs)
            rows = report["train"]["rows"]
            losses["nimbus"] = report["train"]["loss"]
            for side, waiting in (("torch", None), ("torch, passive", "passive")):
                report = run_json([args.python, os.path.abspath(__file__), "--torch", args.net,
                                   data, str(batch), str(rows), str(args.epochs),
                                   str(args.threads)], waiting)
                times[side].append(report["seconds"])
                losses[side] = report["loss"]
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(json.dumps({
        "net": net["title"], "batch": batch, "threads": args.threads, "data": source, "rows": rows,
        "torch_version": report["torch"], "rounds": args.rounds,
        "seconds_per_epoch": medians, "all": times, "loss_after": losses,
        "times_as_fast": min(medians["torch"], medians["torch, passive"]) / medians["nimbus"]}))


if __name__ == "__main__":
    if len(sys.argv) == 8 and sys.argv[1] == "--torch":
        torch_epoch_seconds(sys.argv[2], sys.argv[3], *map(int, sys.argv[4:]))
    else:
        main()
