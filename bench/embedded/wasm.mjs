// wasm.mjs - runs an exported program, built for wasm32, on rows.bin; writes scores.bin
// usage: node wasm.mjs PROGRAM.wasm PREFIX ELEMENT_BYTES N_INPUTS N_OUTPUTS
import fs from "node:fs";

const [file, prefix, size, nInputs, nOutputs] = process.argv.slice(2);
const { instance } = await WebAssembly.instantiate(fs.readFileSync(file), {});
const { memory, [`${prefix}_run`]: run, __heap_base: heap } = instance.exports;
const rowBytes = size * nInputs, at = (heap.value + 15) & ~15, out = (at + rowBytes + 15) & ~15;
memory.grow(1 + Math.ceil((rowBytes + 4 * nOutputs) / 65536));
const rows = fs.readFileSync("rows.bin"), scores = [];
for (let r = 0; r + rowBytes <= rows.length; r += rowBytes) {
    new Uint8Array(memory.buffer).set(rows.subarray(r, r + rowBytes), at);
    run(at, out);
    scores.push(Buffer.from(memory.buffer.slice(out, out + 4 * nOutputs)));
}
fs.writeFileSync("scores.bin", Buffer.concat(scores));
