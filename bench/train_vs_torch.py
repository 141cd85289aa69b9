#!/usr/bin/python3
"""Seconds per training epoch of an MLP: `nimbus train` against PyTorch, interleaved.

    bench/train_vs_torch.py build/nimbus [--rounds 5] [--epochs 2] [--threads 2]

Both sides train 784-512-512-10 with AdamW at batch 256 on equally many rows: of MNIST if
$NIMBUS_DATA (or --data) has it, else of random pixels of that shape. Neither side's time contains
reading the data. PyTorch keeps normalised floats in one tensor and gathers shuffled batches by
index. It runs twice a round, with threads that spin while they wait (its default, best on an idle
machine) and with threads that sleep (best on a busy one), and the faster median counts. Every
measurement is a process of its own, all take turns, and the medians and their ratio are printed as
JSON.
"""
import argparse
import gzip
import json
import os
import random
import statistics
import struct
import subprocess
import sys
import tempfile
import time

BATCH, RATE, DECAY = 256, 1e-3, 0.01
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")


def read_bytes(path):
    with (gzip.open if path.endswith(".gz") else open)(path, "rb") as f:
        return f.read()


def data_files(data_dir, made_in):
    """Paths of images and labels in IDX format, and what they are."""
    for suffix in ("", ".gz"):
        paths = [os.path.join(data_dir, "mnist", name + suffix) for name in FILES]
        if all(os.path.exists(p) for p in paths):
            return paths, "mnist"
    n = 60000
    paths = [os.path.join(made_in, name) for name in FILES]
    rng = random.Random(1)
    with open(paths[0], "wb") as f:
        f.write(struct.pack(">IIII", 0x803, n, 28, 28) + rng.randbytes(n * 784))
    with open(paths[1], "wb") as f:
        f.write(struct.pack(">II", 0x801, n) + bytes(rng.randrange(10) for _ in range(n)))
    return paths, "random pixels"


def torch_epoch_seconds(images, labels, rows, epochs, threads):
    """Runs in a process of its own; prints seconds per epoch and the mean loss after training."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(1)
    x = torch.frombuffer(bytearray(read_bytes(images)[16:]), dtype=torch.uint8)
    x = x.view(-1, 784)[:rows].float()
    x = (x - x.mean()) / x.std()
    y = torch.frombuffer(bytearray(read_bytes(labels)[8:]), dtype=torch.uint8)
    y = y[:rows].long()
    model = torch.nn.Sequential(
        torch.nn.Linear(784, 512), torch.nn.ReLU(),
        torch.nn.Linear(512, 512), torch.nn.ReLU(), torch.nn.Linear(512, 10))
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    loss_of = torch.nn.CrossEntropyLoss()
    model(x[:BATCH]).sum().backward()  # warm-up
    start = time.perf_counter()
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for i in range(0, len(x), BATCH):
            batch = order[i:i + BATCH]
            optimiser.zero_grad(set_to_none=True)
            loss = loss_of(model(x[batch]), y[batch])
            loss.backward()
            optimiser.step()
            loss.item()
    seconds = (time.perf_counter() - start) / epochs
    with torch.no_grad():
        loss = loss_of(model(x), y).item()
    print(json.dumps({"seconds": seconds, "loss": loss, "torch": torch.__version__}))


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
    parser.add_argument("--python", default=sys.executable, help="a Python with torch")
    parser.add_argument("--data", default=os.environ.get("NIMBUS_DATA", "data"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    times = {"nimbus": [], "torch": [], "torch, passive": []}
    losses = {}
    with tempfile.TemporaryDirectory() as folder:
        paths, source = data_files(args.data, folder)
        nimbus = [args.nimbus, "train", "--json", "--data", ",".join(paths), "-o",
                  os.path.join(folder, "mlp.net"), "--net", "mlp:512,512", "--epochs",
                  str(args.epochs), "--batch", str(BATCH), "--threads", str(args.threads),
                  "--rate", str(RATE), "--weight-decay", str(DECAY), "--schedule", "constant",
                  "--smoothing", "0", "--shift", "0", "--valid", "0"]
        for _ in range(args.rounds):
            report = run_json(nimbus)
            times["nimbus"].append(report["seconds"] / args.epochs)
            rows = report["train"]["rows"]
            losses["nimbus"] = report["train"]["loss"]
            for side, waiting in (("torch", None), ("torch, passive", "passive")):
                report = run_json([args.python, os.path.abspath(__file__), "--torch", *paths,
                                   str(rows), str(args.epochs), str(args.threads)], waiting)
                times[side].append(report["seconds"])
                losses[side] = report["loss"]
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(json.dumps({
        "net": "784-512-512-10", "batch": BATCH, "threads": args.threads, "data": source, "rows": rows,
        "torch_version": report["torch"], "rounds": args.rounds,
        "seconds_per_epoch": medians, "all": times, "loss_after": losses,
        "times_as_fast": min(medians["torch"], medians["torch, passive"]) / medians["nimbus"]}))


if __name__ == "__main__":
    if len(sys.argv) == 7 and sys.argv[1] == "--torch":
        torch_epoch_seconds(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]),
                            int(sys.argv[6]))
    else:
        main()
