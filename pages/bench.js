/* bench.js - the page of `nimbus bench --html`, inside of base.html; R is the report */
const NAMES = ["nimbus program", "oneDNN int8", "oneDNN f32", "OpenBLAS f32", "ONNX Runtime int8", "ONNX Runtime f32"];
const colour = name => `var(--c${Math.max(0, NAMES.indexOf(name))})`;
const batches = R.batches || [];
const ran = (R.results || []).filter(r => !r.skipped);
const ours = ran.find(r => r.name === NAMES[0]);
const peers = ran.filter(r => r !== ours);
const at = (r, batch) => r["ns_per_row_" + batch];

/* groups: [{title, rows: [{name, value, tip}]}] as horizontal bars of "times as fast" */
function bars(groups, label) {
  return w => {
    const left = 8, right = 58, head = 26, rows = groups.flatMap(g => g.rows).length;
    const row = Math.round(Math.min(27, Math.max(19, (560 - 32 * groups.length) / rows)));
    const top = Math.max(...groups.flatMap(g => g.rows.map(r => r.value)));
    const x = v => left + v / top * (w - left - right);
    let y = 0, body = top < 1 ? "" : line(x(1), 0, x(1), "HEIGHT", "axis");
    for (const v of ticks(top, Math.max(3, Math.round(w / 120))))
      body += line(x(v), 0, x(v), "HEIGHT", "grid") + text(x(v), "FOOT", v + "×", "middle");
    for (const g of groups) {
      body += text(left, y + 17, g.title, "start", "strong");
      y += head;
      for (const r of g.rows) {
        body += `<rect x="${left}" y="${y}" width="${Math.max(1, x(r.value) - left)}" height="${row - 5}" rx="3" fill="${colour(r.name)}"><title>${esc(r.tip)}</title></rect>` +
          text(x(r.value) + 6, y + row / 2 + 2, times(r.value), "start", "value");
        y += row;
      }
      y += 6;
    }
    return svg(w, y + 22, label, body.replaceAll('"HEIGHT"', `"${y}"`).replaceAll('"FOOT"', `"${y + 16}"`));
  };
}

function histogram(series, label, limits) {
  return w => {
    const h = 210, top = Math.max(...series.flatMap(s => s.bins.map(b => b[1] / s.samples)));
    const marks = ticks(top, 4);
    const f = frame(w, h, {x0: limits[0], x1: limits[1], y0: 0, y1: top * 1.05, xticks: decades(...limits), xname: tick,
      yticks: marks, yname: v => Math.round(100 * v) + " %", xtitle: label, gap: 44});
    let body = f.body;
    for (const s of series) {
      const step = 2 ** (1 / s.bins_per_octave);
      let path = `M${f.x(s.bins[0][0])},${f.floor}`;
      for (const [start, n] of s.bins) path += `V${f.y(n / s.samples)}H${f.x(start * step)}`;
      body += `<path d="${path}V${f.floor}Z" fill="${colour(s.name)}" fill-opacity=".28" stroke="${colour(s.name)}" stroke-width="1.5"><title>${esc(s.name)}, ${s.caches} caches: p50 ${ns(s.p50)}</title></path>`;
      body += line(f.x(s.p50), 8, f.x(s.p50), f.floor, "grid") +
        `<text x="${f.x(s.p50) + 5}" y="17" class="value">${esc(ns(s.p50))}</text>`;
    }
    return svg(w, h, label, body);
  };
}

function scatter(points, label) {
  return w => {
    const h = 270, xs = points.map(p => p.x), ys = points.map(p => p.y);
    const lo = Math.min(...ys), hi = Math.max(...ys), pad = Math.max((hi - lo) * .2, .002);
    const y0 = lo - pad, y1 = Math.min(hi + pad, 1.0005);
    const step = [.0005, .001, .002, .005, .01, .02, .05, .1, .2].find(s => (y1 - y0) / s <= 6) || .5;
    const marks = [];
    for (let v = Math.ceil(y0 / step) * step; v <= y1; v += step) marks.push(v);
    const f = frame(w, h, {x0: Math.min(...xs) / 1.6, x1: Math.max(...xs) * 1.6, y0, y1, xticks: decades(Math.min(...xs) / 1.6, Math.max(...xs) * 1.6),
      xname: tick, yticks: marks, yname: v => (100 * v).toFixed(step < .01 ? 1 : 0) + " %", xtitle: "time per row", left: 54, gap: 44});
    let body = f.body;
    for (const p of points)
      body += `<circle cx="${f.x(p.x)}" cy="${f.y(p.y)}" r="${p.batched ? 6.5 : 5.5}" fill="${p.batched ? colour(p.name) : "var(--card)"}" stroke="${colour(p.name)}" stroke-width="2.2"><title>${esc(p.tip)}</title></circle>`;
    return svg(w, h, label, body);
  };
}

function sweep(points, label) {
  return w => {
    const h = 270, top = Math.max(...points.map(p => p.ns.median)) * 1.08;
    const f = frame(w, h, {x0: 1, x1: points.at(-1).batch, y0: 0, y1: top, xticks: Array.from({length: 17}, (_, i) => 2 ** i), xname: String,
      yticks: ticks(top, 5), yname: String, xtitle: "rows a call"});
    const upper = points.map(p => `${f.x(p.batch)},${f.y(Math.min(top, p.ns.p90))}`), lower = points.map(p => `${f.x(p.batch)},${f.y(p.ns.p10)}`).reverse();
    let body = f.body + `<polygon points="${upper.concat(lower).join(" ")}" fill="var(--c0)" fill-opacity=".18"/>`;
    body += `<polyline points="${points.map(p => `${f.x(p.batch)},${f.y(p.ns.median)}`).join(" ")}" fill="none" stroke="var(--c0)" stroke-width="2" stroke-linejoin="round"/>`;
    for (const p of points)
      body += `<circle cx="${f.x(p.batch)}" cy="${f.y(p.ns.median)}" r="2.2" fill="var(--c0)"><title>${p.batch} rows: ${ns(p.ns.median)} a row</title></circle>`;
    return svg(w, h, label, body);
  };
}

const spread = t => `${ns(t.median)} <small>±${(50 * (t.p90 - t.p10) / t.median).toFixed(0)} %</small>`;
function tiles() {
  const out = [], batched = batches.includes(256) ? 256 : batches.at(-1);
  const best = R.best_int8_peer || {};
  for (const b of [...new Set([batched, batches[0]])])
    if (ours && best[b]) out.push([times(best[b].speed_up), `as fast as ${esc(best[b].name)}, ${b === 1 ? "one row" : b + " rows"} a call`]);
  if (ours) for (const b of [...new Set([batched, batches[0]])]) out.push([ns(at(ours, b).median), `a row, ${b === 1 ? "one row" : b + " rows"} a call`]);
  if (ours && ours.accuracy != null) {
    const f32 = ran.find(r => r.name.endsWith("f32"));
    out.push([percent(ours.accuracy), "accuracy" + (f32 ? `; the float net ${percent(f32.accuracy)}` : "")]);
  }
  if (R.peak) out.push([R.peak.lookups_per_cycle_i32.toFixed(1), "table entries added a cycle, exactly"]);
  return out.length ? `<div class="tiles">${out.map(([b, s]) => `<div class="tile"><b>${b}</b><span>${s}</span></div>`).join("")}</div>` : "";
}

function netCards() {
  let html = "";
  if (peers.length)
    html += card("Times as fast as each peer, end to end", "The whole net, one thread, by rows a call.", peers.map(p => p.name),
      [bars(batches.map(b => ({title: b === 1 ? "1 row" : b + " rows", rows: peers.map(p => ({name: p.name, value: p.speed_up_of_program[b],
        tip: `${p.name}: ${ns(at(p, b).median)}, program: ${ns(at(ours, b).median)} a row`}))})), "speed-up per batch size")]);
  const points = ran.filter(r => r.accuracy != null).flatMap(r => [...new Set([batches[0], batches.includes(256) ? 256 : batches.at(-1)])].map(b => ({name: r.name,
    x: at(r, b).median, y: r.accuracy, batched: b !== batches[0], tip: `${r.name}, ${b} rows a call: ${ns(at(r, b).median)}, ${percent(r.accuracy)}`})));
  let right = "";
  if (points.length)
    right += card("Accuracy against time", `Filled: ${batches.includes(256) ? 256 : batches.at(-1)} rows a call, ring: ${batches[0]}. Left and high is better.`,
      ran.map(r => r.name), [scatter(points, "accuracy against time per row")]);
  if (R.sweep)
    right += card("Every batch size", `Time per row in ns, band from the 10th to the 90th percentile. ` + (R.sweep.largest_rise > 0 ?
      `Largest rise over a smaller batch: ${(100 * R.sweep.largest_rise).toFixed(1)} % (${R.sweep.rise_from} to ${R.sweep.rise_to} rows).` : "It never rises."),
      [], [sweep(R.sweep.points, "time per row by batch size")]);
  html += right && R.sweep && points.length ? `<div class="stack">${right}</div>` : right;
  return html;
}

function layerCard() {
  if (!R.layers) return "";
  const keys = [["oneDNN int8", "onednn_int8", "speed_up_int8"], ["oneDNN f32", "onednn_f32", "speed_up_onednn_f32"], ["OpenBLAS f32", "openblas_f32", "speed_up_openblas_f32"]];
  const title = s => `${s.n} row${s.n > 1 ? "s" : ""}, ${s.d} → ${s.m}, V=${s.v}, ${s.bits} bits`;
  return card("Single layers", "Random trees and tables of 16 leaves, every output computed, encoding included; peers: a product of the same size. Rates are of encoding and of lookup alone.",
    keys.map(k => k[0]), [bars(R.layers.map(l => ({title: title(l.shape), rows: keys.map(([name, t, up]) => ({name, value: l[up],
      tip: `${name}: ${ns(l[t].median)}, trees and tables: ${ns(l.ns_per_row.median)} a row`}))})), "speed-up per layer"),
    table(["N, D, M, V", "a row", "oneDNN int8", "lookups/cycle", "codes/cycle"],
      R.layers.map(l => tr([`${l.shape.n}, ${l.shape.d}, ${l.shape.m}, ${l.shape.v}, ${l.shape.bits}`, spread(l.ns_per_row), spread(l.onednn_int8),
        (l.lookups_per_cycle || 0).toFixed(1), (l.codes_per_cycle || 0).toFixed(2)])))]);
}

function stepsCard() {
  if (!R.steps) return "";
  const shown = [...new Set([batches[0], batches.reduce((a, b) => Math.abs(Math.log2(b / 64)) < Math.abs(Math.log2(a / 64)) ? b : a)])];
  const pair = (a, b) => [ns(a), ns(b), times(b == null ? null : b / a)];
  const cells = (of) => shown.flatMap(of), sums = R.steps.lookups;
  const rows = R.steps.list.map(s => tr([esc(s.name), esc(s.kind) + (s.with ? `, counts with ${esc(s.with)}` : ""),
    ...cells(b => pair(at(s, b).median, (s["onednn_int8_ns_per_row_" + b] || {}).median))]));
  if (shown.every(b => sums[b])) rows.push(tr(["all lookup steps", "", ...cells(b => pair(sums[b].ns, sums[b].onednn_int8_ns))], "ours"));
  return card("Step by step", "Time a row of each step and of the same layer in oneDNN int8, and how many times as fast the step is. A sum that oneDNN adds up within a product counts with that product.", [],
    [table(["", "", ...cells(b => [b === 1 ? "1 row" : b + " rows", "oneDNN int8", ""])], rows)], true);
}

function latencyCards() {
  if (!R.latency) return "";
  const series = R.latency.series, names = [...new Set(series.map(s => s.name))];
  const limits = [Math.min(...series.map(s => s.bins[0][0])) / 1.15, Math.max(...series.map(s => s.p999)) * 2];
  const inside = s => ({...s, bins: s.bins.filter(b => b[0] < limits[1])});
  const draws = ["warm", "cold"].map(c => histogram(series.filter(s => s.caches === c).map(inside), `${c} caches: time of a call`, limits));
  return card("Latency of a single row", `Share of calls by how long they took, and the median. Wall time; the timer's own ${R.latency.timer_ns.toFixed(0)} ns are taken off. Cold: ` +
    `${R.latency.cold_bytes >> 20} MiB are swept through the caches before every call.`, names, [...draws,
      table(["", "caches", "p50", "p99", "p99.9", "calls"], series.map(s => tr([esc(s.name), s.caches, ns(s.p50), ns(s.p99), ns(s.p999), count(s.samples)], s.name === NAMES[0] ? "ours" : "")))]);
}

function figuresCard() {
  if (!ran.length) return "";
  return card("In figures", "CPU time per row by rows a call: median over rounds, ± half of what lies between the 10th and 90th percentile.", [],
    [table(["", ...batches, "accuracy"], ran.map(r => tr([esc(r.name), ...batches.map(b => spread(at(r, b))), percent(r.accuracy)], r === ours ? "ours" : "")))], true);
}

function notes() {
  const out = [];
  out.push(`${R.rounds} rounds; in each, all contenders take turns in one process, one thread pinned to one core.`);
  if (R.isa_limit) out.push(`Program and oneDNN were limited to ${esc(R.isa_limit)}; OpenBLAS was not.`);
  if (ours) out.push(R.rows ? `${count(R.rows)} test rows, all for the accuracy; timed calls walk through ${count(R.rows_walked)}.` : "Rows are made up: the times hold, accuracies are unknown.");
  for (const r of R.results || []) {
    if (r.skipped) out.push(`${esc(r.name)} was skipped: ${esc(r.skipped)}`);
    else if (r.how) out.push(`${esc(r.name)} ran as ${esc(r.how)}.`);
  }
  if (R.onnx_runtime) out.push(`ONNX Runtime ${esc(R.onnx_runtime.version)} runs in a process of its own on the same core, called from JavaScript; the time of an empty call is taken off, which is its best case.`);
  if (R.layers) out.push("Layers: ours reads and writes column-major i8, as between the layers of a program; the peers read and write rows.");
  return `<section class="card wide"><h2>How it was measured</h2><ul>${out.map(t => `<li>${t}</li>`).join("")}</ul></section>`;
}

document.title = (R.program || "layers") + " · nimbus bench";
document.getElementById("page").innerHTML =
  `<header><h1>${esc(R.program || "Single layers")}</h1><p>${esc(R.cpu)}${R.clock_ghz ? ` at ${R.clock_ghz.toFixed(2)} GHz` : ""}, ${esc(R.isa)} kernels · nimbus ${esc(R.version)} · ${esc(R.date)}${R.commit ? `, commit ${esc(R.commit)}` : ""}</p></header>` +
  tiles() + `<div class="cards">${netCards()}${stepsCard()}${layerCard()}${latencyCards()}${figuresCard()}${notes()}</div>`;
