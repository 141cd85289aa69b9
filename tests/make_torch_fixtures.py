#!/usr/bin/env python3
"""Writes fixtures/*.safetensors: small nets with outputs, losses and gradients by PyTorch.

    python3 tests/make_torch_fixtures.py        (PyTorch 1.13; needs no other package)

Tensors: "mean", "inverse_std" of the input, "x" raw rows, "target", "<layer>.<param>" and, with
"grad." in front, its gradient; "y" outputs, "loss"; "running.<layer>.<param>" statistics after one
training step; "distill.loss" and "distill.grad" for a teacher's logits "teacher".
"""
import json
import os
import struct

import torch
import torch.nn.functional as F

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures")


NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)


def save(name, tensors):
    header, data = {}, b""
    for key, value in tensors.items():
        values = value.detach().to(torch.float32).flatten().tolist()
        raw = struct.pack("<%df" % len(values), *values)
        header[key] = {"dtype": "F32", "shape": list(value.shape),
                       "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(FOLDER, name + ".safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def run(name, modules, n, d, m, loss_of, target, shape=None):
    """modules: (our layer name, torch module) in order; all arithmetic in double. shape: of a row,
    if it is an image."""
    net = torch.nn.Sequential(*[module for _, module in modules]).double().train()
    mean, inverse_std = torch.randn(d).float().double(), (0.5 + torch.rand(d)).float().double()
    x = (3 * torch.randn(n, d)).float().double()
    out = {"mean": mean, "inverse_std": inverse_std, "x": x, "target": target}
    parameters = []
    for layer, module in modules:
        if isinstance(module, NORMS):
            names = {"weight": "scale", "bias": "shift"}
        else:
            names = {"weight": "weight", "bias": "bias"}
        for key, value in module.named_parameters():
            with torch.no_grad():
                value.copy_((torch.randn_like(value) * 0.5).float().double() +
                            (1 if names[key] == "scale" else 0))
            out["%s.%s" % (layer, names[key])] = value.detach().clone()
            parameters.append(("%s.%s" % (layer, names[key]), value))
    y = net(((x - mean) * inverse_std).view(n, *(shape or (d,))))
    loss = loss_of(y, target)
    loss.backward()
    out["y"], out["loss"] = y, loss.reshape(1)
    for key, value in parameters:
        out["grad." + key] = value.grad
    for layer, module in modules:
        if isinstance(module, NORMS):
            out["running.%s.mean" % layer] = module.running_mean
            out["running.%s.variance" % layer] = module.running_var
    logits = y.detach().clone().requires_grad_(True)
    teacher = torch.randn(n, m).float().double() * 2
    t, w = 2.0, 0.3
    distilled = (1 - w) * loss_of(logits, target) + w * t * t * F.kl_div(
        F.log_softmax(logits / t, 1), F.softmax(teacher / t, 1), reduction="batchmean")
    distilled.backward()
    out["teacher"], out["distill.loss"] = teacher, distilled.reshape(1)
    out["distill.grad"] = logits.grad
    save(name, out)


def main():
    torch.manual_seed(20)
    n, d, m = 9, 12, 5
    classes = F.one_hot(torch.arange(n) % m, m).double()
    run("torch_classifier",
        [("linear1", torch.nn.Linear(d, 17)), ("batch_norm1", torch.nn.BatchNorm1d(17)),
         ("relu1", torch.nn.ReLU()), ("linear2", torch.nn.Linear(17, 11)),
         ("batch_norm2", torch.nn.BatchNorm1d(11)), ("relu2", torch.nn.ReLU()),
         ("linear3", torch.nn.Linear(11, m))],
        n, d, m, lambda y, t: F.cross_entropy(y, t, label_smoothing=0.1), classes)
    n, d, m = 7, 10, 3
    run("torch_regressor",
        [("linear1", torch.nn.Linear(d, 16)), ("gelu1", torch.nn.GELU()),
         ("linear2", torch.nn.Linear(16, 13)), ("tanh1", torch.nn.Tanh()),
         ("linear3", torch.nn.Linear(13, 8)), ("sigmoid1", torch.nn.Sigmoid()),
         ("linear4", torch.nn.Linear(8, m))],
        n, d, m, F.mse_loss, torch.randn(n, m).float().double())
    n, m, shape = 6, 4, (3, 11, 10)
    run("torch_image",
        [("conv2d1", torch.nn.Conv2d(3, 8, 3, stride=(2, 1), padding=(1, 2))),
         ("batch_norm1", torch.nn.BatchNorm2d(8)), ("hard_swish1", torch.nn.Hardswish()),
         ("conv2d2", torch.nn.Conv2d(8, 12, (3, 2), groups=4, dilation=(1, 2), padding=(1, 0))),
         ("clip1", torch.nn.ReLU6()), ("max_pool1", torch.nn.MaxPool2d(3, 2, 1)),
         ("conv2d3", torch.nn.Conv2d(12, 12, 3, groups=12, padding=1)),
         ("hard_sigmoid1", torch.nn.Hardsigmoid()),
         ("average_pool1", torch.nn.AvgPool2d(2, (1, 2), (1, 0))),
         ("conv2d4", torch.nn.Conv2d(12, 6, 1)), ("softmax1", torch.nn.Softmax(1)),
         ("average_pool2", torch.nn.AvgPool2d(2, 2, 1, count_include_pad=False)),
         ("flatten1", torch.nn.Flatten()), ("linear1", torch.nn.Linear(36, m))],
        n, 330, m, lambda y, t: F.cross_entropy(y, t, label_smoothing=0.1),
        F.one_hot(torch.arange(n) % m, m).double(), shape)


if __name__ == "__main__":
    main()
