// run.js - times ONNX models with ONNX Runtime when told to, for `nimbus bench --ort`
//
// usage: node run.js SHAPE ROWS WALK INT8 F32 EMPTY RAW FLOATS OUT, in a process pinned to one core.
// The last six are open file descriptors: three models, ROWS rows of a SHAPE such as 784 or 3,32,32
// as the int8 and the empty model read them, the same as floats, and where outputs go. Timed calls
// walk through the first WALK rows. Reads commands, a line each, and answers each with a line of
// JSON:
//   time MODEL BATCH MS   calls with BATCH rows for about MS ms: {"ns": per call}
//   classify MODEL        outputs of all rows to OUT, f32 [ROWS][outputs]: {"rows": ROWS}
// The first line it prints is {"version": ...} or, as the answer to anything that fails,
// {"error": ...}. Calls go straight to the package's native binding, without a promise per call; the
// tensors are made beforehand. A sample is wall or CPU time, whichever is less: the binding's own
// threads and the garbage collector are not held against ONNX Runtime.
"use strict";
const fs = require("fs");
const readline = require("readline");

const CLASSIFY_ROWS = 256;
const shape = process.argv[2].split(",").map(Number);
const width = shape.reduce((a, b) => a * b);
const [rows, walk, ...files] = process.argv.slice(3).map(Number);
const MODELS = {
    int8: { model: files[0], rows: files[3] }, f32: { model: files[1], rows: files[4] },
    empty: { model: files[2], rows: files[3] },
};
const OUT = files[5];
const answer = (value) => process.stdout.write(JSON.stringify(value) + "\n");

let ort, binding;
const models = new Map(); // by name: { session, data, type, size }

function bytesOf(file) {
    const bytes = new Uint8Array(fs.fstatSync(file).size);
    for (let at = 0; at < bytes.length;) {
        at += fs.readSync(file, bytes, at, bytes.length - at, at);
    }
    return bytes;
}

function open(name) {
    if (models.has(name)) return models.get(name);
    const session = new binding.InferenceSession();
    const file = bytesOf(MODELS[name].model);
    session.loadModel(file.buffer, 0, file.length, {
        executionProviders: ["cpu"], graphOptimizationLevel: "all", intraOpNumThreads: 1,
        interOpNumThreads: 1, executionMode: "sequential", enableCpuMemArena: true,
        enableMemPattern: true,
    });
    const bytes = bytesOf(MODELS[name].rows);
    const f32 = bytes.length === rows * width * 4;
    const data = f32 ? new Float32Array(bytes.buffer) : bytes;
    const model = { session, data, type: f32 ? "float32" : "uint8", feeds: new Map() };
    models.set(name, model);
    return model;
}

function feed(model, first, n) {
    const part = model.data.subarray(first * width, (first + n) * width);
    return { x: new ort.Tensor(model.type, part, [n, ...shape]) };
}

// Calls walk through the rows, as the other contenders' do.
function feedsOf(model, batch) {
    if (!model.feeds.has(batch)) {
        const list = [];
        for (let at = 0; at + batch <= walk; at += batch) {
            list.push(feed(model, at, batch));
        }
        model.feeds.set(batch, list);
    }
    return model.feeds.get(batch);
}

const fetches = { y: null };
const runOptions = {};

function calls(model, list, n) {
    for (let i = 0; i < n; i++) model.session.run(list[i % list.length], fetches, runOptions);
}

function time(name, batch, ms) {
    const model = open(name);
    const list = feedsOf(model, batch);
    calls(model, list, 3);
    let start = process.hrtime.bigint();
    let n = 0;
    do {
        calls(model, list, 1);
        n++;
    } while (Number(process.hrtime.bigint() - start) < ms * 2e5);
    n = Math.max(1, 4 * n);
    const cpu = process.cpuUsage();
    start = process.hrtime.bigint();
    calls(model, list, n);
    const wall = Number(process.hrtime.bigint() - start);
    const used = process.cpuUsage(cpu);
    answer({ ns: Math.min(wall, (used.user + used.system) * 1e3 || wall) / n });
}

function classify(name) {
    const model = open(name);
    let written = 0;
    for (let at = 0; at < rows; at += CLASSIFY_ROWS) {
        const n = Math.min(CLASSIFY_ROWS, rows - at);
        const y = model.session.run(feed(model, at, n), fetches, runOptions).y;
        const part = new Uint8Array(y.data.buffer, y.data.byteOffset, y.data.byteLength);
        written += fs.writeSync(OUT, part, 0, part.length, written);
    }
    answer({ rows });
}

function obey(line) {
    const [command, name, batch, ms] = line.split(" ");
    try {
        if (command === "time") time(name, Number(batch), Number(ms));
        else if (command === "classify") classify(name);
        else answer({ error: `unknown command ${command}` });
    } catch (e) {
        answer({ error: String(e.message || e) });
    }
}

try {
    ort = require("onnxruntime-node");
    const native = require("onnxruntime-node/dist/binding");
    native.initOrt();
    binding = native.binding;
    answer({ version: require("onnxruntime-node/package.json").version });
    readline.createInterface({ input: process.stdin }).on("line", obey);
} catch (e) {
    answer({ error: e.code === "MODULE_NOT_FOUND" ? "missing" : String(e.message || e) });
}
