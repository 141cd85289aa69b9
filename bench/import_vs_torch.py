#!/usr/bin/python3
"""Random nets, exported by PyTorch as ONNX and imported: are the outputs PyTorch's?

    bench/import_vs_torch.py build/nimbus [--nets 500] [--seed 1] [--keep FOLDER] [--export FOLDER]

Every net is made by a seed of its own: convolutions (grouped, depthwise, dilated, with padding of
all kinds), pooling (rounded up too, adaptive), batch norm, linear layers, residual sums, concats,
activations, views through chains of shapes, permuted dimensions and dropout, with an opset of 9 to
16 and constant folding or not. It is exported with a dynamic number of rows, or now and then with
a fixed one, imported, and run on other rows. Prints a line of JSON: how many nets agree within 1e-5
of the largest output, how many are refused and by what message, and how many are wrong. Exits with
1 if any is. PyTorch 1.13 (Debian: python3-torch).
"""
import argparse
import collections
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

TOLERANCE = 1e-5
ROWS = 5


class Function(nn.Module):
    """A module of a plain function of x."""

    def __init__(self, function, name):
        super().__init__()
        self.function, self.name = function, name

    def forward(self, x):
        return self.function(x)

    def extra_repr(self):
        return self.name


class Residual(nn.Module):
    """x + f(x), or the other way round, or a difference."""

    def __init__(self, body, how):
        super().__init__()
        self.body, self.how = body, how

    def forward(self, x):
        y = self.body(x)
        if self.how == "sub":
            return y - x
        return x + y if self.how == "add" else y + x


class Branches(nn.Module):
    """Several functions of x, side by side along the channels."""

    def __init__(self, bodies):
        super().__init__()
        self.bodies = nn.ModuleList(bodies)

    def forward(self, x):
        return torch.cat([body(x) for body in self.bodies], 1)


class ChannelsLast(nn.Module):
    """What works on every element alone, in another order."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Affine(nn.Module):
    """Scales and shifts that are parameters or plain numbers."""

    def __init__(self, shape, how):
        super().__init__()
        self.how = how
        self.a = nn.Parameter(0.5 + torch.rand(shape))
        self.b = nn.Parameter(torch.randn(shape))

    def forward(self, x):
        if self.how == "array":
            return x * self.a + self.b
        if self.how == "divide":
            return (x - self.b) / self.a
        if self.how == "reverse":
            return self.b - x
        return (x - 0.25) * 1.75


class Maker:
    """Grows a net at random; shape is that of a row: [channels, height, width] or [width]."""

    def __init__(self, seed):
        self.r = random.Random(seed)
        torch.manual_seed(seed)

    def chance(self, p):
        return self.r.random() < p

    def activation(self):
        makers = [
            nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.GELU,
            lambda: nn.Hardtanh(-1.5, 2.0),
            lambda: Function(lambda x: x.clamp(min=-0.5), "clamp(min=-0.5)"),
            lambda: Function(lambda x: x.clamp(max=1.0), "clamp(max=1)"),
            lambda: Function(lambda x: x * F.relu6(x + 3) / 6, "x * relu6(x + 3) / 6"),
            lambda: Function(lambda x: 0.5 * x * (1 + torch.erf(x / 2 ** 0.5)), "gelu by erf"),
        ]
        return self.r.choice(makers)()

    def batch_norm(self, n, image):
        affine = self.chance(0.7)
        bn = (nn.BatchNorm2d if image else nn.BatchNorm1d)(
            n, affine=affine, eps=self.r.choice([1e-5, 1e-3]))
        bn.running_mean.normal_()
        bn.running_var.uniform_(0.3, 2)
        if affine:
            nn.init.uniform_(bn.weight, 0.5, 1.5)
            nn.init.normal_(bn.bias)
        return bn

    def conv(self, shape, keep=False):
        c, h, w = shape
        kind = self.r.choice(["plain", "plain", "grouped", "depthwise"])
        groups = c if kind == "depthwise" else 1
        if kind == "grouped":
            groups = self.r.choice([g for g in (1, 2, 3, 4) if c % g == 0])
        out = groups * self.r.choice([1, 2, 3]) if kind != "plain" else self.r.choice([3, 4, 6, 8])
        if keep:
            out = c
        kernel = [self.r.choice([1, 3, 3, 5]) for _ in range(2)]
        dilation = [self.r.choice([1, 1, 2]) for _ in range(2)]
        stride = [1, 1] if keep else [self.r.choice([1, 1, 2]) for _ in range(2)]
        padding = [(k - 1) * d // 2 if keep else self.r.choice([0, (k - 1) * d // 2, k // 2])
                   for k, d in zip(kernel, dilation)]
        for side, k, d, p in zip((h, w), kernel, dilation, padding):
            if (k - 1) * d + 1 > side + 2 * p:
                return self.conv(shape, keep)
        mode = self.r.choice(["zeros"] * 4 + ["reflect", "replicate"])
        if mode == "reflect" and any(p >= s for p, s in zip(padding, (h, w))):
            mode = "zeros"
        return nn.Conv2d(c, out, kernel, stride, padding, dilation, groups,
                         bias=self.chance(0.7), padding_mode=mode)

    def pad(self, shape):
        mode = self.r.choice(["constant", "constant", "reflect", "replicate"])
        most = min(shape[1], shape[2]) - 1 if mode == "reflect" else 2
        pads = [self.r.randint(0, min(2, most)) for _ in range(4)]
        value = self.r.choice([0.0, 0.0, 1.5]) if mode == "constant" else 0.0
        return Function(lambda x: F.pad(x, pads, mode, value), f"pad {pads} {mode} {value}")

    def pool(self, shape):
        _, h, w = shape
        kernel = [self.r.choice([2, 3]) for _ in range(2)]
        if kernel[0] > h or kernel[1] > w:
            return nn.Identity()
        stride = [self.r.choice([1, 2, 3]) for _ in range(2)]
        padding = [self.r.choice([0, 1]) for _ in range(2)]
        ceil = self.chance(0.5)
        if self.chance(0.5):
            dilation = self.r.choice([1, 1, 2])
            if any((k - 1) * dilation + 1 > s for k, s in zip(kernel, (h, w))):
                dilation = 1
            return nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil)
        # PyTorch exports padding that counts as a Pad in front; rounding up then differs from its own
        count = (not ceil or not any(padding)) and self.chance(0.5)
        return nn.AvgPool2d(kernel, stride, padding, ceil_mode=ceil, count_include_pad=count)

    def adaptive(self, shape):
        _, h, w = shape
        size = self.r.choice([1, 1, 2, 3])
        if h % size or w % size:
            size = 1
        kind = nn.AdaptiveAvgPool2d if self.chance(0.6) else nn.AdaptiveMaxPool2d
        return kind(size)

    def image_step(self, shape, depth=0):
        c = shape[0]
        kinds = ["conv", "conv", "bn", "act", "pool", "pad", "affine", "dropout"]
        if depth == 0:
            kinds += ["residual", "residual", "concat", "permute", "adaptive", "shuffle"]
        kind = self.r.choice(kinds)
        if kind == "conv":
            return self.conv(shape)
        if kind == "bn":
            return self.batch_norm(c, True)
        if kind == "act":
            return self.activation()
        if kind == "pool":
            return self.pool(shape)
        if kind == "pad":
            return self.pad(shape)
        if kind == "affine":
            size = self.r.choice([[1, c, 1, 1], [c, 1, 1], [1], [1] + list(shape), [shape[2]]])
            return Affine(size, self.r.choice(["array", "divide", "number", "reverse"]))
        if kind == "dropout":
            return self.r.choice([nn.Dropout(0.3), nn.Dropout2d(0.3), Function(
                lambda x: F.dropout(x, 0.4, False), "functional dropout")])
        if kind == "residual":
            body = nn.Sequential(self.conv(shape, True), self.batch_norm(c, True),
                                 self.activation(), self.conv(shape, True))
            return Residual(body, self.r.choice(["add", "add", "reverse", "sub"]))
        if kind == "concat":
            n = self.r.choice([2, 3, 9])
            return Branches([nn.Sequential(self.conv(shape, True), self.activation())
                             for _ in range(n)])
        if kind == "permute":
            return ChannelsLast(nn.Sequential(self.activation(), Affine([c], "array")))
        if kind == "shuffle" and c % 2 == 0:
            return Function(lambda x: x.view(x.size(0), 2, c // 2, x.size(2), x.size(3)).transpose(
                1, 2).reshape(x.size(0), c, x.size(2), x.size(3)), "channel shuffle")
        return self.adaptive(shape)

    def vector(self):
        """From an image to a vector."""
        return self.r.choice([
            nn.Flatten(), Function(lambda x: x.view(x.size(0), -1), "view"),
            Function(lambda x: x.reshape(-1, x.shape[1] * x.shape[2] * x.shape[3]), "reshape"),
            Function(lambda x: torch.flatten(x, 1), "flatten"),
            Function(lambda x: x.permute(0, 2, 3, 1).reshape(x.shape[0], -1), "nhwc flatten"),
            Function(lambda x: x.mean((2, 3)), "mean"),
            Function(lambda x: x.mean([2, 3], keepdim=True).squeeze(3).squeeze(2), "mean, squeeze"),
            Function(lambda x: x.amax((2, 3)), "amax"),
            Function(lambda x: x.flatten(2).mean(2), "flatten, mean"),
            Function(lambda x: x.flatten(2).transpose(1, 2).mean(1), "tokens, mean"),
            Function(lambda x: F.adaptive_avg_pool2d(x, 1).view(x.shape[0], x.shape[1]), "gap view"),
            Function(lambda x: F.adaptive_max_pool2d(x, 1).flatten(1), "max, flatten"),
        ])

    def vector_step(self, width):
        kind = self.r.choice(["linear", "linear", "bn", "act", "residual", "affine", "concat",
                              "unsqueeze", "dropout"])
        if kind == "linear":
            return nn.Linear(width, self.r.choice([3, 7, 12]), bias=self.chance(0.7))
        if kind == "bn":
            return self.batch_norm(width, False)
        if kind == "act":
            return self.activation()
        if kind == "residual":
            return Residual(nn.Sequential(nn.Linear(width, width), self.activation()), "add")
        if kind == "affine":
            return Affine(self.r.choice([[width], [1, width], [1]]),
                          self.r.choice(["array", "divide", "number"]))
        if kind == "concat":
            return Branches([nn.Linear(width, 4), self.activation()])
        if kind == "unsqueeze":
            side = self.r.choice([s for s in (1, 2, 3, 4) if width % s == 0])
            return nn.Sequential(
                Function(lambda x: x.unsqueeze(2).view(-1, side, width // side, 1), "to image"),
                self.activation(), Function(lambda x: x.view(x.size(0), width), "back"))
        return nn.Dropout(0.2)

    def net(self):
        net, vector = [], self.chance(0.15)
        shape = [self.r.choice([5, 16])] if vector else [
            self.r.choice([1, 3, 4, 6]), self.r.choice([7, 8, 12]), self.r.choice([7, 8, 12])]
        x = torch.randn(ROWS, *shape) * 2

        def grow(step):
            nonlocal y
            step.eval()
            with torch.no_grad():
                z = step(y)
            if z.numel() == 0 or z.numel() > 60000 * ROWS:
                return
            net.append(step)
            y = z

        y = x
        if not vector:
            for _ in range(self.r.randint(1, 7)):
                grow(self.image_step(list(y.shape[1:])))
            grow(self.vector())
        for _ in range(self.r.randint(0, 4)):
            grow(self.vector_step(y.shape[1]))
        end = self.r.choice(["linear", "linear", "softmax", "log_softmax", "sigmoid", "none"])
        if end != "none":
            grow(nn.Linear(y.shape[1], 10))
        if end == "softmax":
            grow(nn.Softmax(1))
        if end == "log_softmax":
            grow(nn.LogSoftmax(-1))
        if end == "sigmoid":
            grow(nn.Sigmoid())
        return nn.Sequential(*net).eval(), x, end


def export(net, x, maker, path):
    """Exports for other rows than x; returns what was chosen."""
    opset = maker.r.randint(9, 16)
    folding = maker.chance(0.5)
    dynamic = maker.chance(0.9)
    preserve = maker.chance(0.5)
    mode = torch.onnx.TrainingMode.PRESERVE if preserve else torch.onnx.TrainingMode.EVAL
    sample = torch.randn(maker.r.choice([1, 2, 3]), *x.shape[1:])
    axes = {"x": {0: "n"}, "y": {0: "n"}} if dynamic else None
    torch.onnx.export(net, sample, path, opset_version=opset, do_constant_folding=folding,
                      training=mode, input_names=["x"], output_names=["y"], dynamic_axes=axes)
    return f"opset {opset}, folding {folding}, preserve {preserve}, dynamic {dynamic}"


def check(tool, seed, folder):
    """One net: what came of it ("equal", "refused", "wrong", "not exported") and a text."""
    maker = Maker(seed)
    net, x, end = maker.net()
    model = os.path.join(folder, "model.onnx")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            how = export(net, x, maker, model)
    except Exception as e:  # PyTorch cannot export everything at every opset
        return "not exported", str(e).split("\n")[0][:200]
    with torch.no_grad():
        y = net(x)
    command = [tool, "import", model, "-o", os.path.join(folder, "model.net"), "--json", "--quiet",
               "--data", os.path.join(folder, "x.npy"), "--split", "all", "--expect",
               os.path.join(folder, "y.npy")]
    if end == "log_softmax":  # left out at the end: outputs differ by a number per row
        with torch.no_grad():
            y = net[:-1](x)
    elif maker.chance(0.5):
        command.append("--keep-softmax")
    elif end == "softmax":
        with torch.no_grad():
            y = net[:-1](x)
    np.save(os.path.join(folder, "x.npy"), x.reshape(ROWS, -1).numpy())
    np.save(os.path.join(folder, "y.npy"), y.reshape(ROWS, -1).numpy())
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode == 1:
        return "refused", run.stderr.strip().split(": ", 2)[-1]
    if run.returncode != 0:
        return "wrong", f"exit code {run.returncode} {run.stderr}"
    result = json.loads(run.stdout)
    if result["difference"] <= TOLERANCE * max(result["scale"], 1e-30):
        return "equal", ""
    return "wrong", f"{how}: {result['difference']:.3g} of {result['scale']:.3g}\n{net}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tool")
    parser.add_argument("--nets", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", help="where models that come out wrong go")
    parser.add_argument("--export", help="where all models go, for import_vs_ort.js")
    args = parser.parse_args()
    torch.set_num_threads(1)
    counts, refusals = collections.Counter(), collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        seed = args.seed - 1
        while sum(counts.values()) - counts["not exported"] < args.nets:
            seed += 1
            outcome, text = check(args.tool, seed, folder)
            counts[outcome] += 1
            if args.export and outcome != "not exported":
                os.makedirs(args.export, exist_ok=True)
                shutil.copy(os.path.join(folder, "model.onnx"),
                            os.path.join(args.export, f"{seed}.onnx"))
            if outcome == "wrong":
                print(f"seed {seed}: {text}", file=sys.stderr)
                if args.keep:
                    os.makedirs(args.keep, exist_ok=True)
                    for name in ("model.onnx", "x.npy", "y.npy"):
                        shutil.copy(os.path.join(folder, name),
                                    os.path.join(args.keep, f"{seed}-{name}"))
            elif outcome != "equal":
                # "node X (Operator): why" without the node's name, numbers and places
                text = re.sub(r"^node \S+ ", "", text.split("  [Caused by")[0])
                refusals[f"{outcome}: " + re.sub(r"\d+", "N", text)] += 1
    print(json.dumps({"nets": args.nets, "seeds": [args.seed, seed], **counts,
                      "why": dict(refusals.most_common())}))
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
