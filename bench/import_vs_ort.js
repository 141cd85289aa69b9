// import_vs_ort.js - are the outputs of an imported net those of ONNX Runtime?
//
// usage: node bench/import_vs_ort.js TOOL MODEL.onnx|FOLDER... ("npm ci --prefix bench/ort" first)
// Every model computes random rows with ONNX Runtime, unoptimised; `TOOL import --expect` computes
// them with the net. Prints a line of JSON per model, the difference as a share of the largest
// output, and one that sums up: how many agree within 1e-5, are refused (and by what message), or
// are wrong. Exits with 1 if any is wrong.
"use strict";
const childProcess = require("child_process");
const fs = require("fs");
const os = require("os");
const path = require("path");

const TOLERANCE = 1e-5;
const ROWS = 5;
const PLANAR = "rows are read as channels x height x width";

function ortModule() {
    return require(path.join(__dirname, "ort", "node_modules", "onnxruntime-node"));
}

// Rows of `width` floats as an npy file.
function writeNpy(file, rows, values) {
    const header = `{'descr': '<f4', 'fortran_order': False, 'shape': (${rows}, ${values.length / rows}), }`;
    const padded = header + " ".repeat(63 - (10 + header.length) % 64) + "\n";
    const start = Buffer.alloc(10);
    start.write("\x93NUMPY\x01\x00", "latin1");
    start.writeUInt16LE(padded.length, 8);
    fs.writeFileSync(file, Buffer.concat([start, Buffer.from(padded, "latin1"),
        Buffer.from(values.buffer, values.byteOffset, values.byteLength)]));
}

// Numbers around 0 that depend on the seed only (xorshift).
function randomRows(n, seed) {
    let state = seed * 2654435761 >>> 0 || 1;
    return Float32Array.from({ length: n }, () => {
        state ^= state << 13, state >>>= 0;
        state ^= state >>> 17;
        state ^= state << 5, state >>>= 0;
        return 4 * (state / 2 ** 32) - 2;
    });
}

// Rows of [h][w][c] as [c][h][w].
function planar(values, [rows, h, w, c]) {
    const out = new Float32Array(values.length);
    for (let r = 0; r < rows; r++)
        for (let i = 0; i < h * w; i++)
            for (let k = 0; k < c; k++)
                out[(r * c + k) * h * w + i] = values[(r * h * w + i) * c + k];
    return out;
}

function runTool(tool, args) {
    const run = childProcess.spawnSync(tool, ["import", ...args, "--keep-softmax", "--json",
        "--quiet"], { encoding: "utf8" });
    if (run.status === 1)
        return { refused: run.stderr.trim() };
    if (run.status !== 0)
        throw new Error(`exit code ${run.status} of ${tool}: ${run.stderr}`);
    return JSON.parse(run.stdout);
}

// Outputs of ONNX Runtime: [values, dims of the input with the number of rows in front, outputs].
async function ortOutputs(ort, model, seed) {
    const session = await ort.InferenceSession.create(model, { graphOptimizationLevel: "disabled" });
    const dims = session.inputMetadata[0].shape.map((d) => typeof d === "number" ? d : -1);
    const fixed = dims[0] > 0 ? dims[0] : ROWS; // rows at a time
    dims[0] = ROWS;
    const width = dims.slice(1).reduce((a, b) => a * b, 1);
    const rows = fixed * Math.ceil(ROWS / fixed);
    const x = randomRows(rows * width, seed);
    const parts = [];
    for (let at = 0; at < rows; at += fixed) {
        const part = x.subarray(at * width, (at + fixed) * width);
        const feeds = {
            [session.inputNames[0]]: new ort.Tensor("float32", part, [fixed, ...dims.slice(1)]),
        };
        const result = await session.run(feeds);
        parts.push(...result[session.outputNames[0]].data);
    }
    const y = Float32Array.from(parts);
    return { x: x.subarray(0, ROWS * width), dims, y: y.subarray(0, ROWS * (y.length / rows)) };
}

async function compare(ort, tool, model, seed, folder) {
    const net = path.join(folder, "net.net");
    const first = runTool(tool, [model, "-o", net]);
    if (first.refused)
        return first;
    const { x, dims, y } = await ortOutputs(ort, model, seed);
    const turned = first.notes.some((line) => line.startsWith(PLANAR));
    const files = [path.join(folder, "x.npy"), path.join(folder, "y.npy")];
    writeNpy(files[0], ROWS, turned ? planar(x, dims) : x);
    writeNpy(files[1], ROWS, y);
    return runTool(tool, [model, "-o", net, "--data", files[0], "--split", "all", "--expect",
        files[1]]);
}

async function main() {
    const [tool, ...paths] = process.argv.slice(2);
    const models = paths.flatMap((p) => fs.statSync(p).isDirectory()
        ? fs.readdirSync(p).filter((f) => f.endsWith(".onnx")).sort().map((f) => path.join(p, f))
        : [p]);
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "import-vs-ort-"));
    const counts = { models: models.length, equal: 0, refused: 0, wrong: 0 };
    const ort = ortModule();
    for (const [i, model] of models.entries()) {
        let line;
        try {
            const result = await compare(ort, tool, model, i + 1, folder);
            const share = result.difference / Math.max(result.scale, 1e-30);
            line = result.refused ? { refused: result.refused }
                : { difference: share, wrong: !(share <= TOLERANCE) };
        } catch (error) {
            line = { wrong: true, error: error.message };
        }
        counts[line.refused ? "refused" : line.wrong ? "wrong" : "equal"]++;
        console.log(JSON.stringify({ model: path.basename(model), ...line }));
    }
    fs.rmSync(folder, { recursive: true });
    console.log(JSON.stringify(counts));
    process.exit(counts.wrong ? 1 : 0);
}

main();
